//! The cluster DNS: answers for Services and Pods from memory, by the Kubernetes DNS specification 1.1.0
//! (<https://github.com/kubernetes/dns/blob/master/docs/specification.md>); everything else is forwarded.

pub mod model;
pub mod objects;
pub mod snapshot;
pub mod zone;
