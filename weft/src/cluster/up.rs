//! `weft up`

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node as ApiNode;
use kernel::Netns;
use kube::api::ListParams;
use kube::config::Kubeconfig;
use kube::{Api, Client};

use super::process::{self, Process};
use super::turn::Turn;
use super::{Cluster, Node, Shape, Which, etcd, folder, need_root, owner, topology};
use crate::server::{TOKEN, client};

/// How long the API server, and then all nodes, may take.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(20);
/// The first choice for the API server on the host.
const PORT: u16 = 6443;

/// What `weft up` understands.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    shape: Shape,
    /// Only the kubeconfig's path on standard output, for scripts.
    #[arg(short, long)]
    quiet: bool,
}

/// Brings a cluster up, or what is missing of it; returns when all nodes are ready.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    need_root("up")?;
    let began = Instant::now();
    let say = |text: String| {
        if !arguments.quiet {
            println!("{:>6.2} s  {text}", began.elapsed().as_secs_f32());
        }
    };
    let name = &arguments.which.name;
    let _turn = begin_turn(name)?;
    let mut cluster = match Cluster::load(name)? {
        Some(there) if there.shape == arguments.shape || asked_nothing(&arguments.shape) => {
            say(format!(
                "cluster {name} is there: starting what does not run"
            ));
            there
        }
        Some(_) => bail!(
            "cluster {name} is there with other options: weft down --name {name} takes it away, and --name makes another"
        ),
        None => begin(name, &arguments.shape)?,
    };
    cluster.take_up_strays();
    let done = raise(&mut cluster, &say);
    if let Err(error) = done.and_then(|()| owner::hand_over(&cluster)) {
        bail!(
            "{error:#}\n(what there is of the cluster stays for a look: weft down --name {name} takes it away)"
        );
    }
    let kubeconfig = cluster.kubeconfig();
    if arguments.quiet {
        println!("{}", kubeconfig.display());
    } else {
        say(format!("all {} nodes are ready", cluster.nodes.len()));
        println!("\nexport KUBECONFIG={}", kubeconfig.display());
    }
    Ok(())
}

/// Whether the options are all as they are by default: then those of the cluster that is there are meant.
fn asked_nothing(shape: &Shape) -> bool {
    use clap::Parser;
    #[derive(Parser)]
    struct Default {
        #[command(flatten)]
        shape: Shape,
    }
    Default::try_parse_from(["weft"]).is_ok_and(|default| default.shape == *shape)
}

/// Waits until no other command is at work on this cluster.
fn begin_turn(name: &str) -> anyhow::Result<Turn> {
    loop {
        make_folder(&folder(name))?;
        if let Some(turn) = Turn::take(name)? {
            return Ok(turn);
        }
    }
}

/// Writes a new cluster down.
fn begin(name: &str, shape: &Shape) -> anyhow::Result<Cluster> {
    let left = topology::namespaces(name);
    if let Some(left) = left.first() {
        // Made for the lock alone; if there is more in it, it stays.
        let _ = fs::remove_dir(folder(name));
        bail!(
            "there is a namespace {left} of an earlier cluster: weft down --name {name} takes it away"
        );
    }
    let all = Path::new(super::FOLDER);
    make_folder(all)?;
    // Until the port is written down: others may begin at the same time.
    let turn = fs::File::open(all).with_context(|| format!("open {}", all.display()))?;
    turn.lock()
        .with_context(|| format!("lock {}", all.display()))?;
    let cluster = Cluster {
        name: name.to_owned(),
        shape: shape.clone(),
        port: free_port(&ports(all)?)?,
        etcd: None,
        server: None,
        nodes: (1..=shape.nodes)
            .map(|number| Node {
                number,
                process: None,
            })
            .collect(),
    };
    cluster.save()?;
    Ok(cluster)
}

/// The ports that clusters have been given; their servers may not listen yet.
fn ports(all: &Path) -> anyhow::Result<BTreeSet<u16>> {
    let mut ports = BTreeSet::new();
    for entry in fs::read_dir(all).with_context(|| format!("list {}", all.display()))? {
        let name = entry
            .with_context(|| format!("list {}", all.display()))?
            .file_name();
        // What cannot be read is told by the commands for that cluster.
        if let Some(Ok(Some(other))) = name.to_str().map(Cluster::load) {
            ports.insert(other.port);
        }
    }
    Ok(ports)
}

/// A port on the host's loopback.
fn free_port(taken: &BTreeSet<u16>) -> anyhow::Result<u16> {
    let any = std::iter::repeat_n(0, taken.len() + 1);
    for wanted in std::iter::once(PORT).chain(any) {
        let listener = match TcpListener::bind(("127.0.0.1", wanted)) {
            Err(_) if wanted == PORT => continue,
            other => other.context("find a free port on loopback")?,
        };
        let port = listener
            .local_addr()
            .context("find a free port on loopback")?
            .port();
        if !taken.contains(&port) {
            return Ok(port);
        }
    }
    bail!("find a free port on loopback: all that were offered belong to other clusters")
}

pub(super) fn make_folder(path: &Path) -> anyhow::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("make {}", path.display()))
}

fn raise(cluster: &mut Cluster, say: &dyn Fn(String)) -> anyhow::Result<()> {
    let underlay = topology::ensure_underlay(&cluster.name)?;
    let mut namespaces = Vec::new();
    for node in &cluster.nodes {
        namespaces.push(topology::ensure_node(
            &cluster.name,
            &underlay,
            node.number,
        )?);
    }
    say(format!("{} nodes on 192.168.66.0/24", namespaces.len()));
    make_folder(&cluster.server_folder())?;
    for node in &cluster.nodes {
        make_folder(&cluster.node_folder(&node.name()))?;
    }
    if let Some(etcd) = etcd::start(cluster, &underlay)? {
        cluster.etcd = Some(etcd.clone());
        cluster.save()?;
        etcd::wait(cluster, &etcd, &underlay, PATIENCE)?;
        say("etcd answers".to_owned());
    }
    if !cluster.server.as_ref().is_some_and(Process::alive) {
        cluster.server = Some(start_server(cluster)?);
        cluster.save()?;
    }
    // What the API says of a node before it speaks again is of the time before.
    let since = Timestamp::now();
    // Nodes wait for the server by themselves.
    let mut started = BTreeSet::new();
    for (index, namespace) in namespaces.iter().enumerate() {
        let Some(node) = cluster.nodes.get(index) else {
            continue;
        };
        if node.process.as_ref().is_some_and(Process::alive) {
            continue;
        }
        let process = start_node(cluster, node, namespace)?;
        if let Some(node) = cluster.nodes.get_mut(index) {
            node.process = Some(process);
        }
        started.extend(cluster.nodes.get(index).map(Node::name));
        cluster.save()?;
    }
    say(format!("API server and {} nodes started", started.len()));
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?
        .block_on(wait(cluster, &started, since, say))
}

fn program() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("find this program's file")
}

fn start_server(cluster: &Cluster) -> anyhow::Result<Process> {
    let folder = cluster.server_folder();
    let shape = &cluster.shape;
    let store = match shape.store.as_str() {
        "etcd" => "etcd://127.0.0.1:2379",
        other => other,
    };
    let arguments = [
        "server".to_owned(),
        "--detached".to_owned(),
        format!("--data={}", folder.display()),
        format!("--store={store}"),
        format!("--listen=127.0.0.1:{}", cluster.port),
        format!("--listen={}:{PORT}", cluster.server_address()),
        format!("--netns=/run/netns/{}", cluster.namespace(None)),
        format!("--cluster-cidr={}", shape.cluster_cidr),
        format!("--service-cidr={}", shape.service_cidr),
        format!("--backend={}", shape.backend),
        format!(
            "--node-monitor-grace-period={}",
            shape.node_monitor_grace_period
        ),
    ];
    Process::start(&program()?, &arguments, None, &folder.join("server.log"))
}

fn start_node(cluster: &Cluster, node: &Node, namespace: &Netns) -> anyhow::Result<Process> {
    let name = node.name();
    let folder = cluster.node_folder(&name);
    let arguments = [
        "node".to_owned(),
        "--detached".to_owned(),
        format!("--name={name}"),
        format!("--node-ip={}", node.ip()),
        format!("--data={}", folder.display()),
        format!("--server=https://{}:{PORT}", cluster.server_address()),
        format!("--token={}", cluster.server_folder().join(TOKEN).display()),
        format!("--cni-conf-dir={}", folder.join("cni/net.d").display()),
        format!("--cni-bin-dir={}", folder.join("cni/bin").display()),
        format!("--images={}", cluster.shape.images.display()),
        format!("--proxy-mode={}", cluster.shape.proxy_mode),
        format!("--cluster-cidr={}", cluster.shape.cluster_cidr),
        format!("--service-cidr={}", cluster.shape.service_cidr),
        format!(
            "--renew-interval={}",
            (cluster.shape.node_monitor_grace_period / 4).clamp(1, 10)
        ),
        // The keys of this and of every other cluster.
        "--mask=/var/lib/weft".to_owned(),
    ];
    Process::start(
        &program()?,
        &arguments,
        Some(namespace),
        &folder.join("node.log"),
    )
}

/// Returns when all nodes are ready, those in `started` by a word that is newer than `since`.
async fn wait(
    cluster: &Cluster,
    started: &BTreeSet<String>,
    since: Timestamp,
    say: &dyn Fn(String),
) -> anyhow::Result<()> {
    let end = Instant::now() + PATIENCE;
    let client = loop {
        if let Ok(config) = Kubeconfig::read_from(cluster.server_kubeconfig())
            && let Ok(client) = client(config).await
            && client.apiserver_version().await.is_ok()
        {
            break client;
        }
        check_alive(cluster)?;
        if Instant::now() > end {
            bail!(
                "the API server does not answer; the end of its log:\n{}",
                server_log(cluster)
            );
        }
        tokio::time::sleep(LOOK).await;
    };
    say(format!(
        "API server answers at https://127.0.0.1:{}",
        cluster.port
    ));
    let mut told = Vec::new();
    loop {
        let mut ready = ready_nodes(&client).await?;
        if ready
            .iter()
            .any(|name| started.contains(name) && !told.contains(name))
        {
            let spoken = renewed_since(&client, since).await?;
            ready.retain(|name| !started.contains(name) || spoken.contains(name));
        }
        for node in &cluster.nodes {
            let name = node.name();
            if ready.contains(&name) && !told.contains(&name) {
                say(format!("node {name} ({}) is ready", node.ip()));
                told.push(name);
            }
        }
        if told.len() == cluster.nodes.len() {
            return Ok(());
        }
        check_alive(cluster)?;
        if Instant::now() > end {
            let missing = cluster
                .nodes
                .iter()
                .map(Node::name)
                .find(|name| !told.contains(name))
                .unwrap_or_default();
            let log = cluster.node_folder(&missing).join("node.log");
            bail!(
                "node {missing} does not become ready; the end of its log:\n{}",
                process::tail(&log, 12)
            );
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn ready_nodes(client: &Client) -> anyhow::Result<Vec<String>> {
    let nodes = Api::<ApiNode>::all(client.clone())
        .list(&ListParams::default())
        .await
        .context("list nodes")?;
    let ready = |node: &ApiNode| {
        let status = node.status.as_ref();
        let mut conditions = status
            .and_then(|status| status.conditions.as_ref())
            .into_iter()
            .flatten();
        conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
    };
    Ok(nodes
        .items
        .into_iter()
        .filter(ready)
        .filter_map(|node| node.metadata.name)
        .collect())
}

/// The nodes that have renewed their Lease.
async fn renewed_since(client: &Client, since: Timestamp) -> anyhow::Result<BTreeSet<String>> {
    let leases = Api::<Lease>::namespaced(client.clone(), "kube-node-lease");
    let leases = leases
        .list(&ListParams::default())
        .await
        .context("list leases of nodes")?;
    let renewed = |lease: &Lease| {
        let time = lease
            .spec
            .as_ref()
            .and_then(|spec| spec.renew_time.as_ref());
        time.is_some_and(|time| time.0 >= since)
    };
    Ok(leases
        .items
        .into_iter()
        .filter(renewed)
        .filter_map(|lease| lease.metadata.name)
        .collect())
}

/// What was started must live.
fn check_alive(cluster: &Cluster) -> anyhow::Result<()> {
    if !cluster.server.as_ref().is_some_and(Process::alive) {
        bail!(
            "the API server has ended; the end of its log:\n{}",
            server_log(cluster)
        );
    }
    for node in &cluster.nodes {
        if !node.process.as_ref().is_some_and(Process::alive) {
            let log = cluster.node_folder(&node.name()).join("node.log");
            bail!(
                "node {} has ended; the end of its log:\n{}",
                node.name(),
                process::tail(&log, 12)
            );
        }
    }
    Ok(())
}

fn server_log(cluster: &Cluster) -> String {
    process::tail(&cluster.server_folder().join("server.log"), 12)
}
