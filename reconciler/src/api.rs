//! The Kubernetes API: what comes over the wire, and what it does to the store.

pub mod changes;
pub mod kinds;
pub mod object;
pub mod request;
pub mod schema;
pub mod select;
pub mod services;
pub mod status;
pub mod tables;
