//! The node's own address or MTU changes under a running daemon.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::time::Duration;
use tests::cluster::{PREFIX, Stack};
use tests::pod::Family;
use tests::{Cluster, Options, eventually, requirement};

fn can_run() -> bool {
    requirement::is_root() && requirement::has_programs(&["etcd", "etcdctl", "ping"])
}

/// n2 gets another address: it keeps its subnet, publishes the new address, peers follow.
fn address_changes(options: &Options) -> Result<()> {
    if !can_run() {
        return Ok(());
    }
    let cluster = Cluster::start(options)?;
    let (a, b) = (cluster.pod(0, "a")?, cluster.pod(1, "b")?);
    cluster.wait_connected(&[&a, &b], Stack::V4)?;
    let n2 = &cluster.nodes[1];
    let subnet = n2.subnet(Family::V4)?;
    n2.namespace.ip_batch(
        "address del 192.168.66.12/24 dev eth0
         address add 192.168.66.32/24 dev eth0
         route add default via 192.168.66.1",
    )?;
    let key = format!("{PREFIX}/subnets/{}", subnet.to_string().replace('/', "-"));
    eventually(
        "the new address is published",
        Duration::from_secs(15),
        || {
            let lease = cluster.store.get(&key)?.context("the lease is gone")?;
            let lease: Value = serde_json::from_str(&lease)?;
            ensure!(lease["PublicIP"] == "192.168.66.32", "published: {lease}");
            Ok(())
        },
    )
    .with_context(|| cluster.state())?;
    cluster.wait_connected(&[&a, &b], Stack::V4)?;
    ensure!(
        n2.subnet(Family::V4)? == subnet,
        "the node took another subnet"
    );
    for line in ["ip route", "bridge fdb"] {
        cluster.nodes[0].wait_for("no trace of the old address", line, |now| {
            !now.contains("192.168.66.12")
        })?;
    }
    Ok(())
}

#[test]
fn vxlan_address_changes() -> Result<()> {
    address_changes(&Options::new("vxlan"))
}

#[test]
fn vxlan_tun_address_changes() -> Result<()> {
    address_changes(&vxlan_tun())
}

/// VXLAN in user space.
fn vxlan_tun() -> Options {
    let mut options = Options::new("vxlan");
    options.backend["DataPath"] = "tun".into();
    options
}

#[test]
fn host_gw_address_changes() -> Result<()> {
    address_changes(&Options::new("host-gw"))
}

#[test]
fn udp_address_changes() -> Result<()> {
    address_changes(&Options::new("udp"))
}

#[test]
fn vxlan_mtu_changes() -> Result<()> {
    mtu_changes(&Options::new("vxlan"))
}

#[test]
fn vxlan_tun_mtu_changes() -> Result<()> {
    mtu_changes(&vxlan_tun())
}

fn mtu_changes(options: &Options) -> Result<()> {
    if !can_run() {
        return Ok(());
    }
    let cluster = Cluster::start(options)?;
    let n1 = &cluster.nodes[0];
    ensure!(n1.mtu()? == 1450);
    n1.namespace.sh("ip link set eth0 mtu 1400")?;
    n1.wait_for("the device follows", "ip link show flannel.1", |now| {
        now.contains("mtu 1350")
    })?;
    eventually("subnet.env follows", Duration::from_secs(10), || {
        let mtu = n1.mtu()?;
        ensure!(mtu == 1350, "FLANNEL_MTU={mtu}");
        Ok(())
    })
}
