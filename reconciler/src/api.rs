//! The Kubernetes API: what comes over the wire, and what it does to the store.

pub mod accept;
pub mod body;
pub mod changes;
pub mod conform;
pub mod discovery;
pub mod document;
pub mod fields;
pub mod kinds;
pub mod object;
pub mod openapi;
pub mod request;
pub mod patch;
pub mod schema;
pub mod select;
pub mod services;
pub mod auth;
pub mod kinds;
pub mod object;
pub mod pki;
pub mod defaults;
pub mod kinds;
pub mod object;
pub mod quantity;
pub mod status;
pub mod tables;
pub mod view;
