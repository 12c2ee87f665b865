//! The standard CNI plugins, called by name: one binary that acts as the plugin whose name it bears.

mod bridge;
pub mod cni;
mod flannel;
mod host_local;
mod interface;
mod loopback;
mod masquerade;
mod netfilter;
mod portmap;
mod program;
mod ptp;
pub mod registry;
mod static_ipam;

pub use program::main;
