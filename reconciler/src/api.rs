//! The Kubernetes API: what comes over the wire, and what it does to the store.

pub mod accept;
pub mod body;
pub mod conform;
pub mod discovery;
pub mod document;
pub mod kinds;
pub mod object;
pub mod openapi;
pub mod schema;
pub mod status;
