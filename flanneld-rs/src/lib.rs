//! flanneld-rs: the overlay daemon, as a library so that tests and the all-in-one can use its parts.

pub mod backend;
pub mod cli;
pub mod config;
pub mod firewall;
pub mod lease;
pub mod metrics;
pub mod peers;
pub mod subnet_env;
pub mod uplink;
