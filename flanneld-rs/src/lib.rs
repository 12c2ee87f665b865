//! flanneld-rs: the overlay daemon, as a library so that tests and the all-in-one can use its parts.

pub mod backend;
pub mod blackhole;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod firewall;
pub mod health;
pub mod kubernetes;
pub mod lease;
pub mod logging;
pub mod metrics;
pub mod notify;
pub mod peers;
pub mod record;
pub mod subnet_env;
pub mod uplink;
