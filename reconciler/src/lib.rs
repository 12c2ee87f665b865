//! The thin Pod layer. This half is the API server: real `kubectl` and real client libraries over a small store; and
//! a small [`client`] for machines without `kubectl`.
//!
//! A request comes down one generic path, whatever its kind: [`api`] reads it, changes a JSON value by tables (what
//! fields there are, what is defaulted, which columns are printed), and writes it with compare-and-swap to a
//! [`store`]. Adding a kind is a row of [`api::kinds`] and lines
//! of those tables.

pub mod api;
pub mod client;
pub mod store;
