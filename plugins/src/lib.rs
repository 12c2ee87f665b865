//! The standard CNI plugins, called by name: one binary that acts as the plugin whose name it bears.

mod bridge;
pub mod cni;
mod host_local;
mod interface;
mod masquerade;
mod netfilter;
mod portmap;
mod program;
mod ptp;
pub mod registry;

pub use program::main;
