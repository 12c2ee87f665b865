//! Clusters over the udp backend.

use anyhow::Result;
use serde_json::json;
use tests::cluster::Stack;
use tests::{Cluster, Options, flat_network, requirement};

fn check(options: &Options) -> Result<()> {
    if !requirement::is_root() || !requirement::has_programs(&["etcd", "etcdctl", "ping"]) {
        return Ok(());
    }
    let cluster = Cluster::start(options)?;
    flat_network::check(&cluster, Stack::V4, 1472)
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
