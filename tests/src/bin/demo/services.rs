//! What the demo proves about a Service: a cluster IP and a node port before the Pods of all nodes.

use crate::report::Placed;
use crate::screen::Screen;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};
use tests::cluster::{Cluster, NETWORK};
use tests::pod::Family;
use tests::proxy::{Conditions, Daemon, Endpoints, Manifests, Port, Proxy, Service};
use tests::topology::OUTSIDE;
use tests::traffic::{Answer, Outcome, TcpServer, Transport, knock};
use tests::{Namespace, eventually};

const CLUSTER_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
const PORT: u16 = 80;
const NODE_PORT: u16 = 30080;
const POD_PORT: u16 = 8080;
/// Connections of each client.
const KNOCKS: u32 = 60;
const PATIENCE: Duration = Duration::from_secs(2);

/// The proxies and the Pods' servers, running.
pub struct Services {
    proxies: Vec<(Proxy, Daemon)>,
    /// Listening as long as the value lives.
    _servers: Vec<TcpServer>,
    manifests: Manifests,
}

impl Services {
    /// Writes the manifests, starts a server in each Pod and a proxy on each node.
    pub fn start(screen: &Screen, cluster: &Cluster, pods: &[Placed]) -> Result<Self> {
        let manifests = Manifests::new(cluster.run.subfolder("manifests")?);
        let service =
            Service::new("web", &[CLUSTER_IP.into()]).node_port(Port::tcp("http", PORT), NODE_PORT);
        let mut endpoints = Endpoints::of("web").port(Port::tcp("http", POD_PORT));
        let mut servers = Vec::new();
        for placed in pods {
            let ip = placed.pod.ip(Family::V4)?;
            servers.push(TcpServer::start(&placed.pod.namespace, ip, POD_PORT)?);
            let node = format!("n{}", placed.node + 1);
            endpoints = endpoints.at_address(&[ip], &node, Conditions::READY);
        }
        manifests.service(&service)?;
        manifests.endpoints(&endpoints)?;
        for node in &cluster.nodes {
            let name = format!("n{}", node.number);
            manifests.node(&name, &[node.ip(Family::V4)])?;
        }
        screen.line(&format!(
            "Service default/web: cluster IP {CLUSTER_IP}:{PORT}, node port {NODE_PORT}, {} endpoints; \
             each node reads {}",
            pods.len(),
            manifests.folder().display()
        ));
        let mut proxies = Vec::new();
        for node in &cluster.nodes {
            let since = Instant::now();
            let name = format!("n{}", node.number);
            let log = cluster.run.folder().join(format!("{name}.weft-proxy.log"));
            let proxy = Proxy::new(&node.namespace, &name, manifests.folder(), log)
                .flag(format!("--cluster-cidr={NETWORK}"));
            let daemon = proxy
                .start()
                .with_context(|| format!("weft-proxy on {name}"))?;
            screen.done(&format!("weft-proxy on {name} has synced"), since);
            proxies.push((proxy, daemon));
        }
        Ok(Self {
            proxies,
            _servers: servers,
            manifests,
        })
    }

    /// Calls the Service from everywhere. Returns how many checks do not hold.
    pub fn prove(&self, screen: &Screen, cluster: &Cluster, pods: &[Placed]) -> Result<usize> {
        if let Some((first, _)) = self.proxies.first() {
            let shown = first.run(&["show", "default/web"])?;
            screen.command("n1", "weft-proxy show default/web", &shown);
        }
        let failures = distribution(screen, cluster, pods)?;
        Ok(failures + node_ports(screen, cluster, pods)?)
    }

    /// Lines for a person who stays.
    pub fn invitation(&self) -> [String; 2] {
        let folder = self.manifests.folder().display();
        [
            format!(
                "curl has no place here; from any Pod or node: nc {CLUSTER_IP} {PORT}, then type n"
            ),
            format!("edit {folder}/endpoints-web.json and see the nodes follow"),
        ]
    }
}

/// Who answers each client, and how often.
fn distribution(screen: &Screen, cluster: &Cluster, pods: &[Placed]) -> Result<usize> {
    let at = SocketAddr::new(CLUSTER_IP.into(), PORT);
    let mut head = vec![format!("from \\ answers of {KNOCKS}")];
    head.extend(pods.iter().map(|placed| placed.pod.name.clone()));
    let mut rows = vec![head];
    let nodes = cluster.nodes.iter();
    let nodes = nodes.map(|node| (format!("n{}", node.number), &node.namespace));
    let clients = pods
        .iter()
        .map(|placed| (placed.pod.name.clone(), &placed.pod.namespace));
    let mut failed = Vec::new();
    let mut clients_seen = 0;
    for (name, from) in nodes.chain(clients) {
        clients_seen += 1;
        let mut counts: BTreeMap<IpAddr, u32> = BTreeMap::new();
        // The proxies have synced, but not necessarily all that was written last.
        let limit = Duration::from_secs(5);
        let first = eventually("the Service answers", limit, || answer(from, at));
        if let Err(error) = first {
            failed.push(format!("{name} at {at}: {error:#}"));
            continue;
        }
        for _ in 0..KNOCKS {
            match answer(from, at) {
                Ok(answer) => *counts.entry(answer.by.ip()).or_default() += 1,
                Err(error) => {
                    failed.push(format!("{name} at {at}: {error:#}"));
                    break;
                }
            }
        }
        let mut row = vec![name];
        for placed in pods {
            let count = counts.get(&placed.pod.ip(Family::V4)?).copied();
            row.push(count.map_or("·".to_owned(), |count| count.to_string()));
        }
        rows.push(row);
    }
    screen.table(&rows);
    if failed.is_empty() {
        screen.holds(&format!(
            "the cluster IP {at} answers all {clients_seen} nodes and Pods"
        ));
    }
    for failure in &failed {
        screen.fails(failure);
    }
    Ok(failed.len())
}

/// The outside calls each node's port.
fn node_ports(screen: &Screen, cluster: &Cluster, pods: &[Placed]) -> Result<usize> {
    let mut failures = 0;
    for node in &cluster.nodes {
        let at = SocketAddr::new(node.ip(Family::V4), NODE_PORT);
        match answer(&cluster.underlay.outside, at) {
            Ok(Answer { by, seen }) => {
                let server = pods
                    .iter()
                    .find(|placed| placed.pod.ip(Family::V4).is_ok_and(|ip| ip == by.ip()));
                let name = server.map_or("someone else", |placed| &placed.pod.name);
                screen.holds(&format!(
                    "node port: the outside ({OUTSIDE}) asks {at}, {name} ({by}) answers and sees {}",
                    seen.ip()
                ));
            }
            Err(error) => {
                failures += 1;
                screen.fails(&format!("node port {at} does not answer: {error:#}"));
            }
        }
    }
    Ok(failures)
}

/// One connection.
fn answer(from: &Namespace, at: SocketAddr) -> Result<Answer> {
    match knock(from, at, Transport::Tcp, PATIENCE)? {
        Outcome::Answered(answer) => Ok(answer),
        other => anyhow::bail!("{other}"),
    }
}
