//! A peer that left while the daemon was down is removed at its start; what is not ours stays.

use anyhow::{Context, Result, ensure};
use tests::cluster::{PREFIX, Stack};
use tests::pod::Family;
use tests::{Cluster, Options, requirement};

fn check(options: &Options) -> Result<()> {
    if !requirement::is_root() || !requirement::has_programs(&["etcd", "etcdctl", "ping"]) {
        return Ok(());
    }
    let mut cluster = Cluster::start(&options.clone().nodes(3))?;
    let (a, b) = (cluster.pod(0, "a")?, cluster.pod(1, "b")?);
    let c = cluster.pod(2, "c")?;
    cluster.wait_connected(&[&a, &b, &c], options.stack)?;
    let n1 = cluster.nodes[0].namespace.clone();
    n1.sh("ip route add 10.99.0.0/24 via 192.168.66.12")?;
    let mut gone = Vec::new();
    for &family in options.stack.families() {
        gone.push(cluster.nodes[2].subnet(family)?);
    }

    cluster.nodes[0].take_daemon()?.kill()?;
    cluster.nodes[2].take_daemon()?.kill()?;
    let keys = cluster.store.keys(&format!("{PREFIX}/subnets/"))?;
    let part = gone[0].to_string().replace('/', "-");
    let key = keys.iter().find(|key| key.contains(&part));
    cluster
        .store
        .delete(key.with_context(|| format!("no lease of {part} in {keys:?}"))?)?;
    cluster.nodes[0].start_daemon()?;

    for subnet in &gone {
        let family = if subnet.addr().is_ipv4() { "-4" } else { "-6" };
        cluster.nodes[0].wait_for(
            &format!("the route to {subnet} is gone"),
            &format!("ip {family} route show {subnet}"),
            |now| now.trim().is_empty(),
        )?;
        cluster.nodes[0].wait_for(
            &format!("the neighbour {} is gone", subnet.addr()),
            &format!("ip {family} neigh show {} nud permanent", subnet.addr()),
            |now| now.trim().is_empty(),
        )?;
    }
    let fdb =
        cluster.nodes[0].wait_for("the forwarding entry to n3 is gone", "bridge fdb", |now| {
            !now.contains("dst 192.168.66.13") && !now.contains("dst fd66::13")
        })?;
    if options.backend["Type"] == "vxlan" {
        ensure!(
            fdb.contains("dst 192.168.66.12"),
            "n2's entry is gone too:\n{fdb}"
        );
    }
    let foreign = n1.sh("ip route show 10.99.0.0/24")?;
    ensure!(
        foreign.contains("192.168.66.12"),
        "someone else's route is gone"
    );
    cluster.wait_connected(&[&a, &b], options.stack)
}

#[test]
fn vxlan() -> Result<()> {
    check(&Options::new("vxlan").stack(Stack::Dual))
}

#[test]
fn host_gw() -> Result<()> {
    check(&Options::new("host-gw").stack(Stack::Dual))
}

#[test]
fn peer_that_leaves_while_the_daemon_runs() -> Result<()> {
    if !requirement::is_root() || !requirement::has_programs(&["etcd", "etcdctl", "ping"]) {
        return Ok(());
    }
    let mut cluster = Cluster::start(&Options::new("vxlan"))?;
    let subnet = cluster.nodes[1].subnet(Family::V4)?;
    let line = format!("ip route show {subnet}");
    cluster.nodes[0].wait_for("n2's route is there", &line, |now| {
        now.contains("flannel.1")
    })?;
    cluster.nodes[1].take_daemon()?.kill()?;
    let part = subnet.to_string().replace('/', "-");
    cluster.store.delete(&format!("{PREFIX}/subnets/{part}"))?;
    cluster.nodes[0].wait_for("n2's route is gone", &line, |now| now.trim().is_empty())?;
    cluster.nodes[0]
        .wait_for(
            "n2's entry is gone",
            "bridge fdb show dev flannel.1",
            |now| !now.contains("dst 192.168.66.12"),
        )
        .map(drop)
}
