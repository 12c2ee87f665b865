//! Clusters over the udp backend.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tests::cluster::Stack;
use tests::{Cluster, Options, flat_network, requirement};

const DATA_PATHS: [&str; 3] = ["ebpf", "offload", "plain"];

fn check(options: &Options) -> Result<()> {
    if !requirement::is_root() || !requirement::has_programs(&["etcd", "etcdctl", "ping"]) {
        return Ok(());
    }
    let cluster = Cluster::start(options)?;
    if let Some(wanted) = options.backend["DataPath"].as_str() {
        run_by(&cluster, [wanted].into_iter().cycle())?;
    }
    flat_network::check(&cluster, options.stack, 1472)
}

/// Fails unless each node runs the data path that it was told to.
fn run_by<'a>(cluster: &Cluster, wanted: impl Iterator<Item = &'a str>) -> Result<()> {
    for (node, wanted) in cluster.nodes.iter().zip(wanted) {
        let found = node.data_path()?;
        let state = || cluster.state();
        ensure!(
            found == wanted,
            "n{} runs {found}, not {wanted}\n{}",
            node.number,
            state()
        );
    }
    Ok(())
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
    for data_path in DATA_PATHS {
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
    for (node, data_path) in cluster.nodes.iter_mut().zip(DATA_PATHS) {
        let flags = node.flanneld.flags_mut();
        flags.push(format!("--data-path={data_path}"));
        node.start_daemon()?;
    }
    run_by(&cluster, DATA_PATHS.into_iter())?;
    flat_network::check(&cluster, Stack::V4, 1472)
}
