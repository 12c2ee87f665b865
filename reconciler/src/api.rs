//! The Kubernetes API: what comes over the wire, and what it does to the store.

pub mod auth;
pub mod kinds;
pub mod object;
pub mod pki;
pub mod status;
pub mod tables;
