//! etcd goes away, comes back, comes back empty, or has compacted what a daemon missed.

use anyhow::{Context, Result, ensure};
use std::time::Duration;
use tests::cluster::{PREFIX, Stack, config_key};
use tests::pod::Family;
use tests::traffic::{Stream, TcpServer};
use tests::{Cluster, Options, eventually, requirement};

fn can_run() -> bool {
    requirement::is_root() && requirement::has_programs(&["etcd", "etcdctl", "ping"])
}

fn ensure_daemons_alive(cluster: &mut Cluster) -> Result<()> {
    for node in &mut cluster.nodes {
        node.daemon.as_mut().context("a daemon")?.ensure_alive()?;
    }
    Ok(())
}

#[test]
fn traffic_survives_an_outage_and_changes_flow_again_after_it() -> Result<()> {
    if !can_run() {
        return Ok(());
    }
    let options = Options::new("vxlan");
    let mut cluster = Cluster::start(&options)?;
    let (a, b) = (cluster.pod(0, "a")?, cluster.pod(1, "b")?);
    cluster.wait_connected(&[&a, &b], Stack::V4)?;
    let server = TcpServer::start(&b.namespace, b.ip(Family::V4)?, 0)?;
    let stream = Stream::start(&a.namespace, server.address)?;
    cluster.store.stop()?;
    std::thread::sleep(Duration::from_secs(3));
    ensure_daemons_alive(&mut cluster)?;
    cluster.store.resume()?;
    cluster.join(&options)?.start_daemon()?;
    let c = cluster.pod(2, "c")?;
    cluster.wait_connected(&[&a, &b, &c], Stack::V4)?;
    stream.finish().with_context(|| cluster.state())?;
    Ok(())
}

#[test]
fn daemons_take_their_subnets_again_when_the_data_is_gone() -> Result<()> {
    if !can_run() {
        return Ok(());
    }
    let options = Options::new("vxlan");
    let mut cluster = Cluster::start(&options)?;
    let (a, b) = (cluster.pod(0, "a")?, cluster.pod(1, "b")?);
    cluster.wait_connected(&[&a, &b], Stack::V4)?;
    let server = TcpServer::start(&b.namespace, b.ip(Family::V4)?, 0)?;
    let stream = Stream::start(&a.namespace, server.address)?;
    let mut before = cluster.store.keys(&format!("{PREFIX}/subnets/"))?;
    before.sort();
    cluster.store.stop()?;
    cluster.store.wipe()?;
    cluster.store.resume()?;
    cluster
        .store
        .put(&config_key(), &options.network_config().to_string())?;
    eventually("the leases are back", Duration::from_secs(30), || {
        let mut now = cluster.store.keys(&format!("{PREFIX}/subnets/"))?;
        now.sort();
        ensure!(now == before, "leases before: {before:?}, now: {now:?}");
        Ok(())
    })
    .with_context(|| cluster.state())?;
    ensure_daemons_alive(&mut cluster)?;
    cluster.wait_connected(&[&a, &b], Stack::V4)?;
    stream.finish().with_context(|| cluster.state())?;
    Ok(())
}

#[test]
fn a_deleted_lease_is_taken_again() -> Result<()> {
    if !can_run() {
        return Ok(());
    }
    let mut cluster = Cluster::start(&Options::new("host-gw"))?;
    let (a, b) = (cluster.pod(0, "a")?, cluster.pod(1, "b")?);
    cluster.wait_connected(&[&a, &b], Stack::V4)?;
    let mut before = cluster.store.keys(&format!("{PREFIX}/subnets/"))?;
    before.sort();
    for key in &before {
        cluster.store.delete(key)?;
    }
    eventually("the leases are back", Duration::from_secs(15), || {
        let mut now = cluster.store.keys(&format!("{PREFIX}/subnets/"))?;
        now.sort();
        ensure!(now == before, "leases before: {before:?}, now: {now:?}");
        Ok(())
    })
    .with_context(|| cluster.state())?;
    ensure_daemons_alive(&mut cluster)?;
    cluster.wait_connected(&[&a, &b], Stack::V4)
}

/// A daemon is cut off while a lease comes and the history is compacted: it must list anew.
#[test]
fn a_compacted_watch_misses_nothing() -> Result<()> {
    if !can_run() {
        return Ok(());
    }
    let options = Options::new("vxlan");
    let mut cluster = Cluster::start(&options)?;
    let n1 = cluster.nodes[0].namespace.clone();
    n1.sh("nft add table ip cut")?;
    n1.sh("nft add chain ip cut input { type filter hook input priority 0 ; }")?;
    n1.sh("nft add rule ip cut input tcp sport 2379 drop")?;
    cluster.store.stop()?;
    cluster.store.resume()?;
    cluster.join(&options)?.start_daemon()?;
    for _ in 0..5 {
        cluster.store.put("/elsewhere", "makes a revision")?;
    }
    cluster.store.compact()?;
    n1.sh("nft delete table ip cut")?;
    let subnet = cluster.nodes[2].subnet(Family::V4)?;
    let line = format!("ip route show {subnet}");
    eventually(
        "n1 has the new peer's route",
        Duration::from_secs(60),
        || {
            let route = n1.sh(&line)?;
            ensure!(route.contains("flannel.1"), "{line}: {route:?}");
            Ok(())
        },
    )
    .with_context(|| cluster.state())?;
    ensure_daemons_alive(&mut cluster)
}
