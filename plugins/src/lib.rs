//! The standard CNI plugins, called by name: one binary that acts as the plugin whose name it bears.

pub mod cni;
mod flannel;
mod host_local;
mod loopback;
mod program;
pub mod registry;
mod static_ipam;

pub use program::main;
