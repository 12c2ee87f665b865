//! Clusters over the udp backend.

use anyhow::{Context, Result};
use serde_json::json;
use tests::cluster::Stack;
use tests::{Cluster, Options, flat_network, requirement};

fn check(options: &Options) -> Result<()> {
    if !requirement::is_root() || !requirement::has_programs(&["etcd", "etcdctl", "ping"]) {
        return Ok(());
    }
    let cluster = Cluster::start(options)?;
    flat_network::check(&cluster, options.stack, 1472)
}

fn by(data_path: &str) -> Options {
    let mut options = Options::new("udp");
    options.backend = json!({ "Type": "udp", "DataPath": data_path });
    options
}

#[test]
fn two_nodes() -> Result<()> {
    check(&Options::new("udp"))
}

#[test]
fn three_nodes_with_nftables() -> Result<()> {
    check(&Options::new("udp").nodes(3).nftables())
}

#[test]
fn another_port() -> Result<()> {
    let mut options = Options::new("udp");
    options.backend = json!({ "Type": "UDP", "Port": 9285 });
    check(&options)
}

#[test]
fn ipv6_inside_by_each_data_path() -> Result<()> {
    for data_path in ["ebpf", "offload", "plain"] {
        check(&by(data_path).stack(Stack::Dual)).context(data_path)?;
    }
    Ok(())
}

/// Each node has a choice of its own; all understand each other.
#[test]
fn data_paths_mixed() -> Result<()> {
    if !requirement::is_root() || !requirement::has_programs(&["etcd", "etcdctl", "ping"]) {
        return Ok(());
    }
    let mut cluster = Cluster::prepare(&Options::new("udp").nodes(3))?;
    for (node, data_path) in cluster.nodes.iter_mut().zip(["ebpf", "offload", "plain"]) {
        let flags = node.flanneld.flags_mut();
        flags.push(format!("--data-path={data_path}"));
        node.start_daemon()?;
    }
    flat_network::check(&cluster, Stack::V4, 1472)
}
