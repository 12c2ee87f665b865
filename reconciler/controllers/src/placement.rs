//! Whether a Pod may be on a node: rules about one of each, shared by the scheduler, DaemonSets and evictions.

pub mod affinity;
pub mod amount;
pub mod taints;
