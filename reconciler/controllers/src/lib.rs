//! The controllers and the scheduler: each a pure function from observed objects to changes, over the Kubernetes API
//! alone, so that each also runs against another API server.
//!
//! Every controller has one shape. It reads from [`kept`] objects that one watch per kind keeps for all, plans without
//! clock and I/O, writes, and waits until its writes have come back. [`controller`] runs it: one object is worked on
//! by one task at a time, and after a failure again.

pub mod cluster;
pub mod controller;
mod deployments;
pub mod kept;
pub mod owned;
pub mod pod;
pub mod recorder;
mod replicas;
pub mod trouble;

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
    /// The networks that nodes get their Pods' addresses from, at most one of each family.
    pub pod_network: Vec<IpNet>,
    /// The length of a node's part of the IPv4 Pod network. Of an IPv6 one, a node gets a /64.
    pub node_prefix_length: u8,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            node_monitor_grace: Duration::from_secs(40),
            pod_network: Vec::new(),
            node_prefix_length: 24,
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
#[allow(
    unused_variables,
    reason = "the controllers that read settings come with the next commits"
)]
fn start(cluster: &Cluster, settings: &Settings, tasks: &mut JoinSet<()>) {
    tasks.spawn(deployments::deployments(cluster.clone()));
    tasks.spawn(replicas::replica_sets(cluster.clone()));
    tasks.spawn(replicas::replication_controllers(cluster.clone()));
}
