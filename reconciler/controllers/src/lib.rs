//! The controllers and the scheduler: each a pure function from observed objects to changes, over the Kubernetes API
//! alone, so that each also runs against another API server.
//!
//! Every controller has one shape. It reads from [`kept`] objects that one watch per kind keeps for all, plans without
//! clock and I/O, writes, and waits until its writes have come back. [`controller`] runs it: one object is worked on
//! by one task at a time, and after a failure again.

pub mod claim;
pub mod cluster;
pub mod cluster_dns;
pub mod controller;
pub mod daemon_set;
mod deployment;
pub mod endpoint_slice;
pub mod endpoints;
pub mod garbage;
pub mod job;
pub mod kept;
pub mod namespaces;
pub mod nodes;
pub mod owned;
pub mod placement;
pub mod pod;
pub mod pod_cidrs;
pub mod pod_garbage;
pub mod pod_writes;
mod presence;
pub mod recorder;
mod replicas;
pub mod resources;
pub mod revisions;
pub mod scheduler;
pub mod stateful_set;
pub mod status_write;
pub mod trouble;

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use kube::Client;
use tokio::task::JoinSet;

use cluster::Cluster;

/// What the controllers need to know that is no object.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long a node may be silent before it is NotReady.
    pub node_monitor_grace: Duration,
    /// How long a node may be gone before its Pods are removed without waiting for it.
    pub node_gone_grace: Duration,
    /// The networks that nodes get their Pods' addresses from, at most one of each family.
    pub pod_network: Vec<IpNet>,
    /// The length of a node's part of the IPv4 Pod network. Of an IPv6 one, a node gets a /64.
    pub node_prefix_length: u8,
    /// Where the cluster DNS is reached: an address of the Service network, or one of each family. None: no such Service.
    pub cluster_dns: Vec<IpAddr>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            node_monitor_grace: Duration::from_secs(40),
            node_gone_grace: Duration::from_secs(40),
            pod_network: Vec::new(),
            node_prefix_length: 24,
            cluster_dns: Vec::new(),
        }
    }
}

/// Runs all controllers and the scheduler until `end`. An API server that is away is waited for.
///
/// # Errors
/// A part ended by a panic. The rest is stopped then, so that whoever runs this starts all anew.
pub async fn run(
    client: Client,
    settings: Settings,
    end: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    let cluster = Cluster::start(client, &mut tasks);
    start(&cluster, &settings, &mut tasks);
    tokio::select! {
        () = end => Ok(()),
        Some(ended) = tasks.join_next() => match ended {
            Ok(()) => anyhow::bail!("run the controllers: one ended by itself"),
            Err(error) => Err(anyhow::Error::new(error).context("run the controllers")),
        },
    }
}

/// Each controller is a task of its own.
fn start(cluster: &Cluster, settings: &Settings, tasks: &mut JoinSet<()>) {
    tasks.spawn(scheduler::run(cluster.clone()));
    tasks.spawn(garbage::run(cluster.clone()));
    tasks.spawn(namespaces::run(cluster.clone()));
    tasks.spawn(pod_garbage::run(cluster.clone(), settings.node_gone_grace));
    tasks.spawn(nodes::run(cluster.clone(), settings.node_monitor_grace));
    let pool = pod_cidrs::Pool::new(&settings.pod_network, settings.node_prefix_length);
    tasks.spawn(pod_cidrs::run(cluster.clone(), pool));
    tasks.spawn(cluster_dns::run(
        cluster.clone(),
        settings.cluster_dns.clone(),
    ));
    tasks.spawn(endpoint_slice::run(cluster.clone()));
    tasks.spawn(endpoints::run(cluster.clone()));
    tasks.spawn(daemon_set::run(cluster.clone()));
    tasks.spawn(claim::run(cluster.clone()));
    tasks.spawn(stateful_set::run(cluster.clone()));
    tasks.spawn(job::run(cluster.clone()));
    tasks.spawn(presence::run(cluster.clone()));
    tasks.spawn(deployment::run(cluster.clone()));
    tasks.spawn(replicas::replica_sets(cluster.clone()));
    tasks.spawn(replicas::replication_controllers(cluster.clone()));
}
