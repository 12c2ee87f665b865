//! Clusters over the host-gw backend.

use anyhow::Result;
use tests::cluster::Stack;
use tests::{Cluster, Options, flat_network, requirement};

fn check(options: &Options) -> Result<()> {
    if !requirement::is_root() || !requirement::has_programs(&["etcd", "etcdctl", "ping"]) {
        return Ok(());
    }
    let cluster = Cluster::start(options)?;
    flat_network::check(&cluster, options.stack, 1500)
}

#[test]
fn two_nodes_v4() -> Result<()> {
    check(&Options::new("host-gw"))
}

#[test]
fn three_nodes_v4_with_nftables() -> Result<()> {
    check(&Options::new("host-gw").nodes(3).nftables())
}

#[test]
fn two_nodes_v6() -> Result<()> {
    check(&Options::new("host-gw").stack(Stack::V6))
}

#[test]
fn three_nodes_dual_stack() -> Result<()> {
    check(&Options::new("host-gw").nodes(3).stack(Stack::Dual))
}
