//! The udp overlay under kernel parameters that are not as it would have them.

use anyhow::{Result, ensure};
use std::process::Command;
use tests::cluster::Stack;
use tests::pod::Family;
use tests::traffic::{TcpServer, exchange};
use tests::{Cluster, Options, requirement};

fn can_run() -> bool {
    requirement::is_root() && requirement::has_programs(&["etcd", "etcdctl", "ping"])
}

/// A strict reverse path filter, which stays as it is: packets that programs redirect into the device pass
/// it, because the way back to their source leads there.
#[test]
fn a_strict_reverse_path_filter_is_no_hindrance() -> Result<()> {
    if !can_run() {
        return Ok(());
    }
    let mut cluster = Cluster::prepare(&Options::new("udp"))?;
    for node in &mut cluster.nodes {
        for of in ["all", "default"] {
            let key = format!("net/ipv4/conf/{of}/rp_filter");
            node.namespace.set_sysctl(&key, "1")?;
        }
        node.start_daemon()?;
        let chosen = node.data_path()?;
        if chosen != "ebpf" {
            requirement::skip(&format!("no eBPF data path here but {chosen}"));
            return Ok(());
        }
        let filter = node.namespace.sysctl("net/ipv4/conf/flannel0/rp_filter")?;
        ensure!(filter == "1", "rp_filter of flannel0 is {filter}");
    }
    let (a, b) = (cluster.pod(0, "a")?, cluster.pod(1, "b")?);
    cluster.wait_connected(&[&a, &b], Stack::V4)?;
    let server = TcpServer::start(&b.namespace, b.ip(Family::V4)?, 0)?;
    exchange(&a.namespace, server.address, 1 << 20, 7)?;
    for direction in ["sent", "received"] {
        let series = |path: &str| {
            format!("flanneld_tunnel_packets_total{{direction=\"{direction}\",path=\"{path}\"}}")
        };
        let by_programs = cluster.nodes[1].metric(&series("ebpf"))?;
        let by_hand = cluster.nodes[1].metric(&series("user"))?;
        ensure!(
            by_programs > 10.0 && by_programs > by_hand,
            "{direction}: {by_programs} by programs, {by_hand} by user space\n{}",
            cluster.state()
        );
    }
    Ok(())
}

/// `/proc/sys` is read-only, as in an unprivileged container: one warning, and packets are carried.
#[test]
fn read_only_parameters_are_no_hindrance() -> Result<()> {
    if !can_run() || !requirement::has_programs(&["unshare"]) {
        return Ok(());
    }
    let mut cluster = Cluster::prepare(&Options::new("udp").stack(Stack::Dual))?;
    for node in &mut cluster.nodes {
        for of in ["all", "default"] {
            let key = format!("net/ipv4/conf/{of}/rp_filter");
            node.namespace.set_sysctl(&key, "1")?;
        }
        let plain = node.flanneld.command()?;
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "private", "sh", "-c"])
            .arg("mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec \"$0\" \"$@\"")
            .arg(plain.get_program())
            .args(plain.get_args());
        let log = cluster.run.folder().join(format!("n{}.log", node.number));
        let mut daemon = node.namespace.spawn("flanneld", &mut command, &log)?;
        node.flanneld.wait_ready(&mut daemon)?;
        let text = daemon.log()?;
        let warnings = text.lines().filter(|line| line.contains("accept_ra"));
        ensure!(warnings.count() == 1, "{text}");
        node.daemon = Some(daemon);
    }
    let (a, b) = (cluster.pod(0, "a")?, cluster.pod(1, "b")?);
    cluster.wait_connected(&[&a, &b], Stack::Dual)
}
