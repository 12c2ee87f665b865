//! The node agent: keeps this node in the API, and makes its Pods run as the API says.
//!
//! One task per Pod ([`worker`]) observes what the runtime has of it, asks [`plan`] what to do next, does it, and tells
//! the API what [`status`] makes of it; it is woken by changes in the API, by the runtime, and by its own times. What
//! runs goes on when the agent ends or the API server is away. Pods that are no more in the API are stopped, but not
//! before it has given its first complete list.
//!
//! Not built: static Pods and their mirrors, ephemeral containers, resize in place, device plugins, eviction under
//! pressure, gRPC probes (they fail and say so), volumes of other kinds than those of [`volumes`].

mod backoff;
mod claims;
mod dns;
mod env;
mod events;
mod fields;
mod hooks;
mod http;
mod lease;
mod memory;
mod node;
mod objects;
mod plan;
mod pods;
mod probes;
mod publish;
mod quantity;
mod services;
mod spec;
mod start;
mod status;
mod stop;
mod volumes;
mod wake;
mod watching;
mod worker;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Taint;
use kube::Client;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;

pub use crate::directory::Directory;
use crate::runtime::{Limits, Runtime};

/// So many sandboxes are made at the same time; the others wait in order, so that the first are soon done.
const SANDBOXES: usize = 12;
/// A request to the API server that takes longer has failed.
const REQUEST: Duration = Duration::from_secs(15);

/// What an agent is given.
#[derive(Clone, Debug)]
pub struct Config {
    /// `metadata.name` of the Node.
    pub node_name: String,
    /// Its addresses, the primary one first.
    pub node_ips: Vec<IpAddr>,
    /// For volumes of Pods: `DATA/pods/UID`.
    pub data: PathBuf,
    /// For persistent volume claims: `CLAIMS/NAMESPACE/NAME`. Nodes that share it see the same data.
    pub claims: PathBuf,
    /// Further labels of the Node.
    pub labels: BTreeMap<String, String>,
    /// Taints it is registered with.
    pub taints: Vec<Taint>,
    /// The cluster's DNS servers; may be empty.
    pub cluster_dns: Vec<IpAddr>,
    /// `cluster.local`
    pub cluster_domain: String,
    /// The node's own resolv.conf.
    pub resolv_conf: PathBuf,
    /// Where the server of logs, exec, attach and port-forward listens.
    pub port: u16,
    /// After this time without renewal the node counts as lost.
    pub lease_duration: Duration,
    /// How often the Lease is renewed.
    pub renew_interval: Duration,
    /// How often the Node's status is told although nothing has changed.
    pub status_interval: Duration,
    /// So many Pods fit.
    pub max_pods: u32,
    /// What Pods do not get: bytes of memory, thousandths of a CPU.
    pub reserved: Limits,
    /// Shared with the server.
    pub directory: Directory,
}

impl Config {
    /// A node with the times of a kubelet and no DNS.
    pub fn new(
        node_name: impl Into<String>,
        node_ips: Vec<IpAddr>,
        data: impl Into<PathBuf>,
    ) -> Self {
        let data = data.into();
        Self {
            node_name: node_name.into(),
            node_ips,
            claims: data.join("claims"),
            data,
            labels: BTreeMap::new(),
            taints: Vec::new(),
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".to_owned(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            port: 10250,
            lease_duration: Duration::from_secs(40),
            renew_interval: Duration::from_secs(10),
            status_interval: Duration::from_secs(300),
            max_pods: 110,
            reserved: Limits::default(),
            directory: Directory::default(),
        }
    }
}

/// What all workers share.
struct Context {
    config: Config,
    runtime: Arc<dyn Runtime>,
    client: Client,
    recorder: events::Recorder,
    objects: objects::Objects,
    services: services::Known,
    claims: claims::Claims,
    sandboxes: Semaphore,
    /// Of the node, for those who ask what they may use.
    machine: node::Machine,
    /// The agent ends.
    closing: watch::Receiver<bool>,
}

/// A request to the API server, with a limit.
async fn within<T>(request: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
    match tokio::time::timeout(REQUEST, request).await {
        Ok(answer) => answer,
        Err(_) => Err(kube::Error::Service(
            format!("no answer within {} s", REQUEST.as_secs()).into(),
        )),
    }
}

/// What went wrong with a request.
fn cause(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => watching::chain(other),
    }
}

/// Runs an agent until `end`. Its Pods go on.
///
/// # Errors
/// Its folders cannot be made.
pub async fn run(
    config: Config,
    runtime: Arc<dyn Runtime>,
    client: Client,
    end: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let pods = config.data.join("pods");
    std::fs::create_dir_all(&pods).with_context(|| format!("make {}", pods.display()))?;
    std::fs::set_permissions(&pods, std::fs::Permissions::from_mode(0o700))
        .with_context(|| format!("close {} to others", pods.display()))?;
    std::fs::create_dir_all(&config.claims)
        .with_context(|| format!("make {}", config.claims.display()))?;

    let (outage, outages) = watch::channel(0);
    let (close, closing) = watch::channel(false);
    let (recorder, send_events) =
        events::Recorder::new(client.clone(), config.node_name.as_str().into());
    let machine = node::observe(&config.data);
    let context = Arc::new(Context {
        objects: objects::Objects::new(client.clone(), outages.clone()),
        services: services::Known::default(),
        claims: claims::Claims::new(config.claims.clone()),
        sandboxes: Semaphore::new(SANDBOXES),
        machine: machine.clone(),
        closing,
        recorder,
        config,
        runtime,
        client,
    });
    let network = Arc::new(Notify::new());
    let (uid, own) = watch::channel(None);
    let mut tasks = JoinSet::new();
    tasks.spawn(send_events);
    tasks.spawn(node::keep(
        context.clone(),
        machine,
        network.clone(),
        outages.clone(),
        uid,
    ));
    tasks.spawn(lease::keep(context.clone(), own, outage));
    {
        let (context, outages) = (context.clone(), outages.clone());
        tasks.spawn(async move {
            context
                .services
                .follow(context.client.clone(), outages)
                .await
        });
    }
    {
        let (context, outages) = (context.clone(), outages.clone());
        tasks.spawn(async move { context.claims.follow(context.client.clone(), outages).await });
    }
    let name = &context.config.node_name;
    context
        .recorder
        .node(name, events::Kind::Normal, "Starting", "Starting kubelet.");
    if context.config.cluster_dns.is_empty() {
        let message = "kubelet does not have ClusterDNS IP configured and cannot create Pod using \"ClusterFirst\" policy. Falling back to \"Default\" policy.";
        let kind = events::Kind::Warning;
        context
            .recorder
            .node(name, kind, "MissingClusterDNS", message);
    }
    let mut pods = pods::Pods::new(context.clone(), network, outages);
    tokio::select! {
        () = end => {}
        () = pods.run() => {}
    }
    close.send_replace(true);
    pods.close().await;
    Ok(())
}
