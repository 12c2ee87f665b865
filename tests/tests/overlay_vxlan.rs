//! VXLAN in user space (`--data-path=tun`) beside nodes on the kernel's device: one network.

use anyhow::{Context, Result, ensure};
use std::time::Duration;
use tests::cluster::{Node, PREFIX, Stack};
use tests::pod::{Family, Pod};
use tests::traffic::{Ping, TcpServer, UdpEcho, exchange, exchange_datagrams};
use tests::wait::eventually;
use tests::{Cluster, Options, flat_network, requirement};

/// Packets that the workers gave to the device.
const RECEIVED: &str = "tunnel_packets_total{direction=\"received\",path=\"user\"}";

fn can_run() -> bool {
    requirement::is_root() && requirement::has_programs(&["etcd", "etcdctl", "ping"])
}

/// A cluster whose first `tun` nodes are in user space.
fn mixed(options: &Options, tun: usize) -> Result<Cluster> {
    Cluster::start_with(options, |index| {
        let own = (index < tun).then(|| "--data-path=tun".to_owned());
        own.into_iter().collect()
    })
}

/// The family's device and the address that stands for a node's whole subnet.
fn end(node: &Node, family: Family) -> Result<(&'static str, String)> {
    let device = match family {
        Family::V4 => "flannel.1",
        Family::V6 => "flannel-v6.1",
    };
    Ok((device, node.subnet(family)?.addr().to_string()))
}

/// A series of the node's `/metrics`, as `tunnel_packets_total{…}`.
fn metric(node: &Node, series: &str) -> Result<u64> {
    let (_, page) = node.flanneld.health("metrics")?;
    let value = page.lines().find_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        (name.strip_prefix("flanneld_") == Some(series)).then_some(value)
    });
    let value = value.with_context(|| format!("no {series} in\n{page}"))?;
    Ok(value.parse()?)
}

/// Packets that `device` of the node has received.
fn received(node: &Node, device: &str) -> Result<u64> {
    let table = node.namespace.sh("cat /proc/net/dev")?;
    let mut lines = table.lines();
    let row = lines.find_map(|line| line.trim().strip_prefix(device)?.strip_prefix(':'));
    let packets = row.and_then(|row| row.split_whitespace().nth(1));
    Ok(packets
        .with_context(|| format!("no {device} in {table}"))?
        .parse()?)
}

#[test]
fn a_tun_node_and_a_kernel_node_are_one_network() -> Result<()> {
    if !can_run() {
        return Ok(());
    }
    let cluster = mixed(&Options::new("vxlan"), 1)?;
    flat_network::check(&cluster, Stack::V4, 1450)
}

#[test]
fn two_tun_nodes_and_a_kernel_node_in_both_families() -> Result<()> {
    if !can_run() {
        return Ok(());
    }
    let cluster = mixed(&Options::new("vxlan").nodes(3).stack(Stack::Dual), 2)?;
    flat_network::check(&cluster, Stack::Dual, 1430)
}

#[test]
fn every_byte_arrives_in_both_directions_and_none_is_dropped() -> Result<()> {
    if !can_run() {
        return Ok(());
    }
    let cluster = mixed(&Options::new("vxlan").stack(Stack::Dual), 1)?;
    let (tun, kernel) = (cluster.pod(0, "tun")?, cluster.pod(1, "kernel")?);
    cluster.wait_connected(&[&tun, &kernel], Stack::Dual)?;
    let node = &cluster.nodes[0];
    let drops = || -> Result<Vec<(&str, u64)>> {
        // Path and senders are sound: whatever is dropped for these reasons is our fault.
        let reasons = [
            "malformed",
            "unknown_peer",
            "foreign_source",
            "not_for_us",
            "no_peer",
        ];
        reasons
            .into_iter()
            .map(|reason| {
                let series = format!("tunnel_dropped_total{{reason=\"{reason}\"}}");
                Ok((reason, metric(node, &series)?))
            })
            .collect()
    };
    let before = drops()?;
    for family in [Family::V4, Family::V6] {
        for (from, to) in [(&tun, &kernel), (&kernel, &tun)] {
            let pair = || {
                format!(
                    "{} to {}, {family:?}\n{}",
                    from.name,
                    to.name,
                    cluster.state()
                )
            };
            every_byte(from, to, family).with_context(pair)?;
        }
    }
    ensure!(
        drops()? == before,
        "dropped: {:?}, before {before:?}",
        drops()?
    );
    Ok(())
}

fn every_byte(from: &Pod, to: &Pod, family: Family) -> Result<()> {
    let ip = to.ip(family)?;
    // Smaller than an Ethernet frame may be, up to the MTU of 1430.
    let largest = 1430 - family.ping_overhead();
    for payload in [1, 7, 18, 64, 1000, largest - 1, largest] {
        Ping::new(ip)
            .count(1)
            .payload(payload)
            .run(&from.namespace)?;
    }
    let udp = UdpEcho::start(&to.namespace, ip)?;
    // In one packet, and in fragments, of which only the first has ports.
    let sizes = [1, 2, 63, 512, 1382, 1383, 1500, 4000, 30_001];
    exchange_datagrams(&from.namespace, udp.address, sizes)?;
    let tcp = TcpServer::start(&to.namespace, ip, 0)?;
    exchange(&from.namespace, tcp.address, 24 << 20, 3)
}

#[test]
fn large_packets_of_a_kernel_sender_are_taken_whole() -> Result<()> {
    if !can_run() {
        return Ok(());
    }
    let cluster = mixed(&Options::new("vxlan"), 1)?;
    let (tun, kernel) = (cluster.pod(0, "tun")?, cluster.pod(1, "kernel")?);
    cluster.wait_connected(&[&tun, &kernel], Stack::V4)?;
    let node = &cluster.nodes[0];
    let tcp = TcpServer::start(&tun.namespace, tun.ip(Family::V4)?, 0)?;
    let before = (metric(node, RECEIVED)?, received(node, "eth0")?);
    tests::traffic::bulk(&kernel.namespace, tcp.address, 32 << 20)?;
    let packets = metric(node, RECEIVED)? - before.0;
    let datagrams = received(node, "eth0")? - before.1;
    // A veth pair hands large packets on as they are, so there are fewer datagrams than packets.
    ensure!(
        packets > 20_000 && datagrams < packets,
        "{packets} packets came in {datagrams} datagrams"
    );
    Ok(())
}

/// The kernel's permanent entry for the TUN node is removed; what it asks then is answered.
#[test]
fn arp_and_neighbour_discovery_of_a_kernel_are_answered() -> Result<()> {
    if !can_run() {
        return Ok(());
    }
    let mut cluster = mixed(&Options::new("vxlan").stack(Stack::Dual), 1)?;
    let (tun, kernel) = (cluster.pod(0, "tun")?, cluster.pod(1, "kernel")?);
    cluster.wait_connected(&[&tun, &kernel], Stack::Dual)?;
    // It would put the entry back.
    cluster.nodes[1].take_daemon()?.kill()?;
    let asker = &cluster.nodes[1].namespace;
    for family in [Family::V4, Family::V6] {
        let (device, base) = end(&cluster.nodes[0], family)?;
        let entry = || asker.sh(&format!("ip neigh show {base} dev {device}"));
        let mac = |entry: &str| {
            let mut words = entry
                .split_whitespace()
                .skip_while(|word| *word != "lladdr");
            words.nth(1).map(str::to_owned)
        };
        let permanent = entry()?;
        ensure!(permanent.contains("PERMANENT"), "no entry: {permanent:?}");
        asker.sh(&format!("ip neigh del {base} dev {device}"))?;
        // Group frames go to the TUN node, as they would with flooding.
        let node = cluster.nodes[0].ip(family);
        asker.sh(&format!(
            "bridge fdb append 00:00:00:00:00:00 dev {device} dst {node}"
        ))?;
        let ip = tun.ip(family)?;
        eventually(
            "the kernel has asked and been told",
            Duration::from_secs(5),
            || Ping::new(ip).count(1).run(&kernel.namespace),
        )?;
        let learnt = entry()?;
        ensure!(
            !learnt.contains("PERMANENT")
                && mac(&learnt).is_some()
                && mac(&learnt) == mac(&permanent),
            "the entry was {permanent:?} and is {learnt:?}"
        );
    }
    Ok(())
}

#[test]
fn direct_routing_leaves_neighbours_to_plain_routes() -> Result<()> {
    if !can_run() {
        return Ok(());
    }
    let mut options = Options::new("vxlan");
    options.backend["DirectRouting"] = true.into();
    let cluster = mixed(&options, 1)?;
    let (tun, kernel) = (cluster.pod(0, "tun")?, cluster.pod(1, "kernel")?);
    cluster.wait_connected(&[&tun, &kernel], Stack::V4)?;
    let (node, peer) = (&cluster.nodes[0], cluster.nodes[1].subnet(Family::V4)?);
    let route = node.namespace.sh(&format!("ip route show {peer}"))?;
    ensure!(
        route.trim() == format!("{peer} via 192.168.66.12 dev eth0"),
        "the route to the neighbour is {route:?}"
    );
    // A peer that still sends through the tunnel is heard: the answer takes the plain route.
    let (device, base) = end(node, Family::V4)?;
    let own = node.subnet(Family::V4)?;
    let other = &cluster.nodes[1].namespace;
    let before = metric(node, RECEIVED)?;
    let mac = tun_mac(&cluster)?;
    other.sh(&format!(
        "ip neigh replace {base} lladdr {mac} dev {device} nud permanent"
    ))?;
    other.sh(&format!(
        "bridge fdb replace {mac} dev {device} dst 192.168.66.11 self permanent"
    ))?;
    other.sh(&format!(
        "ip route replace {own} via {base} dev {device} onlink"
    ))?;
    Ping::new(tun.ip(Family::V4)?).run(&kernel.namespace)?;
    ensure!(metric(node, RECEIVED)? > before, "not through the tunnel");
    Ok(())
}

/// The MAC that n1 has announced.
fn tun_mac(cluster: &Cluster) -> Result<String> {
    let subnet = cluster.nodes[0].subnet(Family::V4)?.to_string();
    let key = format!("{PREFIX}/subnets/{}", subnet.replace('/', "-"));
    let lease = cluster.store.get(&key)?.context("no lease")?;
    let lease: serde_json::Value = serde_json::from_str(&lease)?;
    let mac = lease["BackendData"]["VtepMAC"].as_str();
    Ok(mac
        .with_context(|| format!("no MAC in {lease}"))?
        .to_owned())
}
