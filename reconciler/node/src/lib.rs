//! The node agent: Pods of this node as processes in namespaces, their network by CNI, their state to the API.

pub mod agent;
pub mod cni;
pub mod directory;
pub mod identity;
mod inotify;
pub mod runtime;
pub mod serve;
