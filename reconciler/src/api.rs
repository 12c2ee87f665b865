//! The Kubernetes API: what comes over the wire, and what it does to the store.

pub mod defaults;
pub mod kinds;
pub mod object;
pub mod quantity;
pub mod status;
pub mod validate;
