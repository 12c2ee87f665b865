//! The cluster DNS: answers for Services and Pods from memory, by the Kubernetes DNS specification 1.1.0
//! (<https://github.com/kubernetes/dns/blob/master/docs/specification.md>); everything else is forwarded.

pub mod config;
pub mod daemon;
pub mod forward;
pub mod handler;
pub mod limits;
pub mod listen;
pub mod local;
pub mod logging;
pub mod metrics;
pub mod model;
pub mod objects;
pub mod pages;
pub mod resolv_conf;
pub mod search;
pub mod snapshot;
pub mod source;
pub mod zone;
