//! Clusters over the vxlan backend.

use anyhow::Result;
use tests::cluster::Stack;
use tests::{Cluster, Options, flat_network, requirement};

fn check(options: &Options, mtu: u32) -> Result<()> {
    if !requirement::is_root() || !requirement::has_programs(&["etcd", "etcdctl", "ping"]) {
        return Ok(());
    }
    let cluster = Cluster::start(options)?;
    flat_network::check(&cluster, options.stack, mtu)
}

#[test]
fn two_nodes_v4() -> Result<()> {
    check(&Options::new("vxlan"), 1450)
}

#[test]
fn three_nodes_v4_with_nftables() -> Result<()> {
    check(&Options::new("vxlan").nodes(3).nftables(), 1450)
}

#[test]
fn two_nodes_v6() -> Result<()> {
    check(&Options::new("vxlan").stack(Stack::V6), 1430)
}

#[test]
fn three_nodes_dual_stack() -> Result<()> {
    check(&Options::new("vxlan").nodes(3).stack(Stack::Dual), 1430)
}

#[test]
fn two_nodes_dual_stack_with_nftables() -> Result<()> {
    check(&Options::new("vxlan").stack(Stack::Dual).nftables(), 1430)
}

#[test]
fn direct_routing_uses_no_overlay_between_neighbours() -> Result<()> {
    if !requirement::is_root() || !requirement::has_programs(&["etcd", "etcdctl", "ping"]) {
        return Ok(());
    }
    let mut options = Options::new("vxlan");
    options.backend["DirectRouting"] = true.into();
    let cluster = Cluster::start(&options)?;
    flat_network::check(&cluster, options.stack, 1450)?;
    let peer = cluster.nodes[1].subnet(tests::pod::Family::V4)?;
    let route = cluster.nodes[0]
        .namespace
        .sh(&format!("ip route show {peer}"))?;
    anyhow::ensure!(
        route.contains("via 192.168.66.12 dev eth0"),
        "the route to the neighbour is {route:?}"
    );
    Ok(())
}
