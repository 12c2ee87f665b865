//! Every data path of the udp backend talks to every other, in both directions and both families, byte
//! for byte, and what is on the wire is a bare IP packet in a UDP datagram.

use anyhow::{Context, Result, ensure};
use std::net::IpAddr;
use std::time::Duration;
use tests::capture::{Capture, check_packet};
use tests::cluster::{Node, Stack};
use tests::pod::Family;
use tests::traffic::{Ping, TcpServer, UdpEcho, exchange, exchange_datagrams};
use tests::{Cluster, Options, Pod, eventually, requirement};

const DATA_PATHS: [&str; 3] = ["ebpf", "offload", "plain"];
const PORT: u16 = 8285;
const BULK_BYTES: usize = 8 << 20;

/// Two nodes of each data path, each with a Pod.
fn mixed_cluster() -> Result<Option<(Cluster, Vec<Pod>)>> {
    let programs = ["etcd", "etcdctl", "ping", "tcpdump", "ethtool"];
    if !requirement::is_root() || !requirement::has_programs(&programs) {
        return Ok(None);
    }
    let nodes = u8::try_from(DATA_PATHS.len() * 2)?;
    let mut cluster = Cluster::prepare(&Options::new("udp").nodes(nodes).stack(Stack::Dual))?;
    for (node, wanted) in cluster.nodes.iter_mut().zip(DATA_PATHS.iter().cycle()) {
        let flag = format!("--data-path={wanted}");
        node.flanneld.flags_mut().push(flag);
        node.start_daemon()?;
    }
    let pods = (0..cluster.nodes.len())
        .map(|at| cluster.pod(at, &format!("p{}", at + 1)))
        .collect::<Result<Vec<_>>>()?;
    cluster.wait_connected(&pods.iter().collect::<Vec<_>>(), Stack::Dual)?;
    for (node, wanted) in cluster.nodes.iter().zip(DATA_PATHS.iter().cycle()) {
        let found = node.data_path()?;
        ensure!(
            found == *wanted,
            "n{} runs {found:?}, not {wanted}\n{}",
            node.number,
            cluster.state()
        );
    }
    Ok(Some((cluster, pods)))
}

/// Pings, TCP both ways at once, and datagrams of many sizes, whole and in fragments.
fn talk(from: &Pod, to: &Pod, family: Family, mtu: u32) -> Result<()> {
    let ip: IpAddr = to.ip(family)?;
    let full = mtu - family.ping_overhead();
    for payload in [1, 8, 56, 500, full - 1, full] {
        let ping = Ping::new(ip).count(1).payload(payload);
        // After its first answer ping waits for another only twice as long as that one took.
        eventually("ping", Duration::from_secs(5), || ping.run(&from.namespace))?;
    }
    let too_big = Ping::new(ip).count(1).payload(full + 1);
    ensure!(
        too_big.run(&from.namespace).is_err(),
        "a packet above the MTU got through"
    );
    let udp = UdpEcho::start(&to.namespace, ip)?;
    let whole = usize::try_from(full)?;
    let sizes = (0..whole)
        .step_by(61)
        .chain(whole - 3..whole + 3)
        .chain([2000, 3000, 8000, 40_000]);
    exchange_datagrams(&from.namespace, udp.address, sizes)?;
    let tcp = TcpServer::start(&to.namespace, ip, 0)?;
    exchange(&from.namespace, tcp.address, BULK_BYTES, 1)
}

/// Each kind of node (first of its kind) to each kind (second of its kind).
fn each_pair(cluster: &Cluster, pods: &[Pod]) -> Result<()> {
    let (first, second) = pods.split_at(DATA_PATHS.len());
    let mtu = cluster.nodes[0].mtu()?;
    for (from, from_path) in first.iter().zip(DATA_PATHS) {
        for (to, to_path) in second.iter().zip(DATA_PATHS) {
            for family in [Family::V4, Family::V6] {
                talk(from, to, family, mtu).with_context(|| {
                    format!("{from_path} to {to_path}, {family:?}\n{}", cluster.state())
                })?;
            }
        }
    }
    Ok(())
}

/// The link between the nodes hands large and unfinished packets on as they are, as virtual links do.
#[test]
fn each_pair_over_a_virtual_link() -> Result<()> {
    let Some((cluster, pods)) = mixed_cluster()? else {
        return Ok(());
    };
    each_pair(&cluster, &pods)
}

/// The link carries what a real wire carries: every packet by itself, its checksums finished. All that
/// leaves a node is looked at.
#[test]
fn each_pair_over_a_wire() -> Result<()> {
    let Some((cluster, pods)) = mixed_cluster()? else {
        return Ok(());
    };
    for node in &cluster.nodes {
        be_a_wire(node)?;
    }
    let captures = cluster
        .nodes
        .iter()
        .map(|node| Capture::start(&node.namespace, "eth0", PORT, cluster.run.folder()))
        .collect::<Result<Vec<_>>>()?;
    each_pair(&cluster, &pods)?;
    for (capture, node) in captures.into_iter().zip(&cluster.nodes) {
        let own = node.ip(Family::V4);
        let sent: Vec<_> = (capture.finish()?.into_iter())
            .filter(|datagram| IpAddr::from(datagram.source.0) == own)
            .collect();
        let path = node.data_path()?;
        ensure!(
            sent.len() > 1000,
            "n{} ({path}): only {} datagrams were captured",
            node.number,
            sent.len()
        );
        for datagram in sent {
            check_packet(&datagram.payload)
                .with_context(|| format!("n{} ({path}) sent {datagram:?}", node.number))?;
            ensure!(datagram.destination.1 == PORT, "{datagram:?}");
            ensure!(datagram.dont_fragment, "n{} ({path}): no DF", node.number);
            let inner_tos = match datagram.payload[0] >> 4 {
                4 => datagram.payload[1],
                _ => datagram.payload[0] << 4 | datagram.payload[1] >> 4,
            };
            ensure!(
                datagram.tos == inner_tos,
                "n{} ({path}): TOS {:#x} outside, {inner_tos:#x} inside",
                node.number,
                datagram.tos
            );
        }
    }
    Ok(())
}

/// The programs of a killed daemon go on talking to nodes of every data path.
#[test]
fn a_killed_daemon_is_missed_by_nobody() -> Result<()> {
    let Some((mut cluster, pods)) = mixed_cluster()? else {
        return Ok(());
    };
    for node in &cluster.nodes {
        be_a_wire(node)?;
    }
    ensure!(DATA_PATHS[0] == "ebpf");
    cluster.nodes[0].take_daemon()?.kill()?;
    let ip = pods[0].ip(Family::V4)?;
    let (tcp, udp) = (
        TcpServer::start(&pods[0].namespace, ip, 0)?,
        UdpEcho::start(&pods[0].namespace, ip)?,
    );
    for (from, path) in pods[1..].iter().zip(DATA_PATHS.iter().cycle().skip(1)) {
        exchange_datagrams(&from.namespace, udp.address, [0, 1, 500, 1444])
            .and_then(|()| exchange(&from.namespace, tcp.address, 2 << 20, 5))
            .with_context(|| format!("from {path} to a killed node\n{}", cluster.state()))?;
    }
    Ok(())
}

/// The node's link to the others carries what a real wire carries.
fn be_a_wire(node: &Node) -> Result<()> {
    let line = "ethtool -K eth0 tx off tso off gso off";
    node.namespace.sh(line).map(drop)
}
