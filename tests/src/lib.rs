//! The test bed: nodes, Pods, etcd, flanneld-rs and weft-proxy in network namespaces of one machine.
//!
//! A [`Run`] owns everything that a test makes; when it is dropped, or when the test process dies
//! in any way, all of it goes. Nothing is made in the machine's own network namespace: links live
//! in namespaces of the run, so their names may be plain (`eth0`, `cni0`). An [`ApiServer`] alone needs neither a run
//! nor root: it listens on loopback.
//!
//! The test bed looks at the kernel through `ip`, `bridge`, `nft` and `iptables`, not through the
//! crates under test: an observer of its own.

pub mod apiserver;
pub mod capture;
pub mod census;
pub mod cluster;
pub mod conflist;
pub mod container;
pub mod curl;
pub mod etcd;
pub mod flanneld;
pub mod flat_network;
pub mod http;
pub mod namespace;
pub mod pod;
pub mod process;
pub mod proxy;
pub mod requirement;
pub mod run;
pub mod snapshot;
pub mod subject;
pub mod sweep;
pub mod topology;
pub mod traffic;
pub mod transcript;
pub mod up;
pub mod wait;

pub use apiserver::ApiServer;
pub use cluster::{Cluster, Options};
pub use namespace::Namespace;
pub use pod::Pod;
pub use run::Run;
pub use wait::eventually;
