//! A daemon that dies and comes back leaves running connections alone.

use anyhow::{Context, Result, ensure};
use std::time::Duration;
use tests::cluster::Stack;
use tests::flanneld::terminate;
use tests::pod::Family;
use tests::traffic::{Stream, TcpServer};
use tests::{Cluster, Options, requirement};

#[derive(Clone, Copy)]
enum End {
    Kill,
    Terminate,
}

/// Ends and restarts both daemons under a stream. `lossless`: not one segment may be sent twice.
fn restart_under_a_stream(options: &Options, end: End, lossless: bool) -> Result<()> {
    if !requirement::is_root() || !requirement::has_programs(&["etcd", "etcdctl", "ping"]) {
        return Ok(());
    }
    let mut cluster = Cluster::start(options)?;
    let (a, b) = (cluster.pod(0, "a")?, cluster.pod(1, "b")?);
    cluster.wait_connected(&[&a, &b], Stack::V4)?;
    let subnets = |cluster: &Cluster| -> Result<Vec<_>> {
        cluster
            .nodes
            .iter()
            .map(|node| node.subnet(Family::V4))
            .collect()
    };
    let before = subnets(&cluster)?;
    let server = TcpServer::start(&b.namespace, b.ip(Family::V4)?, 0)?;
    let retransmissions = || -> Result<u64> {
        Ok(a.namespace.snmp("Tcp", "RetransSegs")? + b.namespace.snmp("Tcp", "RetransSegs")?)
    };
    let stream = Stream::start(&a.namespace, server.address)?;
    std::thread::sleep(Duration::from_millis(300));
    let resent_before = retransmissions()?;
    for node in &mut cluster.nodes {
        let mut daemon = node.take_daemon()?;
        match end {
            End::Kill => daemon.kill()?,
            End::Terminate => {
                let status = terminate(daemon)?;
                ensure!(status.success(), "SIGTERM: flanneld ended with {status}");
            }
        }
        std::thread::sleep(Duration::from_millis(500));
        node.start_daemon()?;
        std::thread::sleep(Duration::from_secs(1));
    }
    let report = stream.finish().with_context(|| cluster.state())?;
    let resent = retransmissions()? - resent_before;
    if lossless {
        ensure!(resent == 0, "{resent} segments were sent again; {report:?}");
    }
    ensure!(
        subnets(&cluster)? == before,
        "a node came back with another subnet"
    );
    Ok(())
}

#[test]
fn vxlan_killed() -> Result<()> {
    restart_under_a_stream(&Options::new("vxlan"), End::Kill, true)
}

#[test]
fn vxlan_terminated_with_nftables() -> Result<()> {
    restart_under_a_stream(&Options::new("vxlan").nftables(), End::Terminate, true)
}

#[test]
fn host_gw_killed() -> Result<()> {
    restart_under_a_stream(&Options::new("host-gw"), End::Kill, true)
}

#[test]
fn host_gw_terminated() -> Result<()> {
    restart_under_a_stream(&Options::new("host-gw"), End::Terminate, true)
}

/// The TUN device lives as long as the process: TCP bridges the gap.
#[test]
fn udp_killed() -> Result<()> {
    restart_under_a_stream(&Options::new("udp"), End::Kill, false)
}
