//! The Kubernetes API: what comes over the wire, and what it does to the store.

pub mod fields;
pub mod kinds;
pub mod object;
pub mod patch;
pub mod schema;
pub mod status;
