//! The Service proxy under test: nodes with plain Pods and static routes between them, a folder of
//! manifests that all nodes read, and `weft-proxy` on each node.
//!
//! No overlay and no CNI: a Pod is a namespace with one veth to its node, routed and not bridged, so
//! that nothing here depends on br_netfilter and a test takes a second or two.

mod daemon;
mod expect;
mod manifest;
mod mode;
mod site;

pub use daemon::{Daemon, Proxy};
pub use manifest::{Conditions, Endpoints, Manifests, Port, Service};
pub use mode::Mode;
pub use site::{Backend, Node, Options, Pod, Site, cluster_ip, external_ip};
