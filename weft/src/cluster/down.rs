//! `weft down`

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use kernel::Netns;
use nix::sys::signal::Signal;

use super::turn::Turn;
use super::{Cluster, Which, folder, need_root, process, topology};
use crate::node::destroy;

/// For a process to end by itself.
const GRACE: Duration = Duration::from_secs(5);

/// What `weft down` understands.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    which: Which,
    /// Only these nodes, and at once, as if their power had failed: `weft up` brings them back.
    #[arg(value_name = "NODE")]
    nodes: Vec<String>,
}

/// Takes a cluster away, or a few of its nodes.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    need_root("down")?;
    let name = &arguments.which.name;
    let _turn = Turn::take(name)?;
    if !arguments.nodes.is_empty() {
        return fail_nodes(name, &arguments.nodes);
    }
    let cluster = match Cluster::load(name) {
        Ok(cluster) => cluster,
        Err(error) => {
            eprintln!("weft: {error:#}");
            None
        }
    };
    let namespaces = topology::namespaces(name);
    if cluster.is_none() && namespaces.is_empty() && !folder(name).exists() {
        println!("there is no cluster {name}");
        return Ok(());
    }
    let mut errors = Vec::new();
    let mut note =
        |done: anyhow::Result<()>| errors.extend(done.err().map(|error| format!("{error:#}")));
    if let Some(cluster) = &cluster {
        // Nodes first, all at once: each gives back what it can while the server still answers.
        let processes: Vec<_> = cluster
            .nodes
            .iter()
            .filter_map(|node| node.process.as_ref())
            .collect();
        for process in &processes {
            note(process.signal(Signal::SIGTERM));
        }
        for process in processes
            .into_iter()
            .chain(&cluster.server)
            .chain(&cluster.etcd)
        {
            note(process.stop(GRACE));
        }
    }
    // What a command that was interrupted had just started.
    for (_, process) in process::below(&folder(name)) {
        note(process.stop(GRACE));
    }
    // Whatever Pods left, also those of nodes that are not written down.
    let nodes = fs::read_dir(folder(name).join("nodes"))
        .into_iter()
        .flatten()
        .flatten();
    for node in nodes {
        note(destroy(&node.path()));
    }
    for namespace in namespaces {
        note(Netns::delete(&namespace).map_err(Into::into));
    }
    let folder = folder(name);
    if errors.is_empty()
        && folder.exists()
        && let Err(error) = remove(&folder)
    {
        errors.push(format!("{error:#}"));
    }
    if !errors.is_empty() {
        bail!(
            "{}\n(weft down again takes the rest away)",
            errors.join("\n")
        );
    }
    println!("cluster {name} is gone");
    Ok(())
}

fn remove(folder: &Path) -> anyhow::Result<()> {
    // A mount below would have its files removed with ours.
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("read the mounts")?;
    let below = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .find(|at| Path::new(at).starts_with(folder));
    if let Some(below) = below {
        bail!("{below} is still mounted: {} stays", folder.display());
    }
    fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))
}

/// Connections whose other end does not answer would keep the namespace for minutes.
fn forget_connections(cluster: &Cluster, node: &str) -> anyhow::Result<()> {
    let namespace = Path::new("/run/netns").join(cluster.namespace(Some(node)));
    Netns::open(namespace)?
        .run(|| kernel::sysctl::ensure("net/ipv4/tcp_orphan_retries", "1"))??;
    Ok(())
}

fn fail_nodes(cluster: &str, names: &[String]) -> anyhow::Result<()> {
    let mut cluster = Cluster::expect(cluster)?;
    for name in names {
        let Some(node) = cluster.nodes.iter().find(|node| node.name() == *name) else {
            let all: Vec<_> = cluster.nodes.iter().map(super::Node::name).collect();
            bail!(
                "cluster {} has no node {name}: its nodes are {}",
                cluster.name,
                all.join(", ")
            );
        };
        let number = node.number;
        // First the wire: what ends here is not to be told to anybody.
        topology::plug(&cluster.name, number, false)?;
        forget_connections(&cluster, name)?;
        if let Some(process) = &node.process {
            process.signal(Signal::SIGKILL)?;
            process.stop(GRACE)?;
        }
        destroy(&cluster.node_folder(name))?;
        Netns::delete(&cluster.namespace(Some(name)))?;
        if let Some(node) = cluster.nodes.iter_mut().find(|node| node.number == number) {
            node.process = None;
        }
        cluster.save()?;
        println!("node {name} is down");
    }
    Ok(())
}
