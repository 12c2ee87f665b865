//! Peers of the udp overlay are followed at once, and every packet that goes nowhere is counted by its
//! reason, whatever carries the packets.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt};
use tests::cluster::{Node, PREFIX, Stack};
use tests::namespace::Namespace;
use tests::pod::{Family, Pod};
use tests::{Cluster, eventually, requirement};

const DATA_PATHS: [&str; 3] = ["ebpf", "offload", "plain"];
/// Inside the network, and nobody's unless chance wants it: leases are taken from the first hundred.
const NOBODY: Ipv4Addr = Ipv4Addr::new(10, 5, 200, 9);

/// Two nodes with a Pod each, connected.
fn connected(data_path: &str) -> Result<Option<(Cluster, Pod, Pod)>> {
    if !requirement::is_root() || !requirement::has_programs(&["etcd", "etcdctl", "ping"]) {
        return Ok(None);
    }
    let cluster = Cluster::by_data_path(data_path, 2)?;
    let (a, b) = (cluster.pod(0, "a")?, cluster.pod(1, "b")?);
    cluster.wait_connected(&[&a, &b], Stack::V4)?;
    Ok(Some((cluster, a, b)))
}

fn dropped(node: &Node, reason: &str) -> Result<u64> {
    let (_, page) = node.flanneld.health("metrics")?;
    let series = format!("flanneld_tunnel_dropped_total{{reason=\"{reason}\"}} ");
    let value = page.lines().find_map(|line| line.strip_prefix(&series));
    let value = value.with_context(|| format!("no {series} in\n{page}"))?;
    Ok(value.parse()?)
}

/// Runs a line in a shell inside a namespace.
fn shell(inside: &Namespace, line: &str) -> Result<String> {
    inside.exec("sh", &["-c", line])
}

/// Does something until the counter of `reason` moves.
fn moves(node: &Node, reason: &str, act: impl Fn() -> Result<()>) -> Result<()> {
    let before = dropped(node, reason)?;
    let what = format!("n{}: {reason} is counted", node.number);
    eventually(&what, Duration::from_secs(10), || {
        act()?;
        ensure!(dropped(node, reason)? > before, "still {before}");
        Ok(())
    })
    .with_context(|| match node.flanneld.health("metrics") {
        Ok((_, page)) => page,
        Err(error) => format!("{error:#}"),
    })
}

/// A UDP packet without data between two inner addresses, not ECN-capable.
fn inner(source: IpAddr, destination: IpAddr) -> Vec<u8> {
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (source, destination) else {
        return Vec::new();
    };
    let mut packet = vec![0; 28];
    packet[0] = 0x45;
    packet[3] = 28;
    packet[8] = 64;
    packet[9] = 17;
    packet[12..16].copy_from_slice(&source.octets());
    packet[16..20].copy_from_slice(&destination.octets());
    let mut sum: u32 = packet[..20]
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    packet[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    // Ports; no checksum, which IPv4 allows.
    packet[20..24].copy_from_slice(&[0x30, 0x39, 0x00, 0x09]);
    packet[25] = 8;
    packet
}

/// Sends a datagram to n1's tunnel port, with this type of service outside.
fn send(from: &Namespace, source: IpAddr, to: IpAddr, tos: u8, bytes: &[u8]) -> Result<()> {
    from.run(|| {
        let socket = UdpSocket::bind((source, 0))?;
        setsockopt(&socket, sockopt::Ipv4Tos, &i32::from(tos))?;
        socket.send_to(bytes, (to, 8285))?;
        Ok(())
    })
}

/// What a node refuses to take in.
#[test]
fn what_comes_in_wrong_is_counted_by_its_reason() -> Result<()> {
    for data_path in DATA_PATHS {
        let Some((cluster, a, b)) = connected(data_path)? else {
            return Ok(());
        };
        let [n1, n2] = &cluster.nodes[..] else {
            anyhow::bail!("two nodes were wanted");
        };
        let (to, peer) = (n1.ip(Family::V4), n2.ip(Family::V4));
        let (a, b) = (a.ip(Family::V4)?, b.ip(Family::V4)?);
        let good = inner(b, a);
        let stranger = IpAddr::from(tests::topology::ROUTER);
        let underlay = &cluster.underlay.namespace;
        let n2 = &n2.namespace;
        moves(n1, "unknown_peer", || {
            send(underlay, stranger, to, 0, &good)
        })?;
        moves(n1, "foreign_source", || {
            send(n2, peer, to, 0, &inner(NOBODY.into(), a))
        })?;
        moves(n1, "malformed", || send(n2, peer, to, 0, &good[..20]))?;
        moves(n1, "congestion_unmarkable", || send(n2, peer, to, 3, &good))?;
        // Neither IPv4 nor IPv6.
        moves(n1, "unsupported", || send(n2, peer, to, 0, &[0x10; 40]))?;
    }
    Ok(())
}

/// What a node cannot send.
#[test]
fn what_cannot_go_out_is_counted_and_the_sender_is_told() -> Result<()> {
    for data_path in DATA_PATHS {
        let Some((cluster, a, b)) = connected(data_path)? else {
            return Ok(());
        };
        let n1 = &cluster.nodes[0];
        let ping = |to: IpAddr, more: &str| {
            shell(
                &a.namespace,
                &format!("ping -n -c 1 -W 1 {more} {to} || true"),
            )
        };
        moves(n1, "no_peer", || {
            let output = ping(NOBODY.into(), "")?;
            ensure!(output.contains("Destination Net Unreachable"), "{output}");
            Ok(())
        })?;
        if data_path == "ebpf" {
            // Programs know the way to a neighbour without a route.
            continue;
        }
        let b = b.ip(Family::V4)?;
        n1.namespace
            .sh("ip route add 192.168.66.12/32 dev eth0 mtu 1400")?;
        moves(n1, "too_big", || {
            let output = ping(b, "-M do -s 1400")?;
            ensure!(output.contains("mtu = 1372"), "{output}");
            Ok(())
        })?;
        n1.namespace
            .sh("ip route replace unreachable 192.168.66.12/32")?;
        moves(n1, "send_error", || ping(b, "").map(drop))?;
    }
    Ok(())
}

/// Stops the daemon (all its threads), acts, and lets it go on.
fn while_stopped(node: &Node, act: impl FnOnce() -> Result<()>) -> Result<()> {
    let daemon = node.daemon.as_ref().context("no daemon")?;
    daemon.signal(Signal::SIGSTOP)?;
    let outcome = act();
    daemon.signal(Signal::SIGCONT)?;
    outcome
}

/// What user space loses when it cannot keep up, or has no device to write to; programs have neither.
#[test]
fn full_buffers_and_a_device_that_is_down_are_counted() -> Result<()> {
    for data_path in ["offload", "plain"] {
        let Some((cluster, a, b)) = connected(data_path)? else {
            return Ok(());
        };
        let [n1, n2] = &cluster.nodes[..] else {
            anyhow::bail!("two nodes were wanted");
        };
        let (to, peer) = (n1.ip(Family::V4), n2.ip(Family::V4));
        let flood = |bytes: &[u8], count| {
            let socket = n2.namespace.run(|| Ok(UdpSocket::bind((peer, 0))?))?;
            (0..count).try_for_each(|_| Ok(socket.send_to(bytes, (to, 8285)).map(drop)?))
        };

        let before = dropped(n1, "unsupported")?;
        moves(n1, "receive_buffer_full", || {
            while_stopped(n1, || flood(&[0x10; 1400], 20_000))
        })?;
        ensure!(
            dropped(n1, "unsupported")? > before,
            "nothing was left of it"
        );

        let good = inner(b.ip(Family::V4)?, a.ip(Family::V4)?);
        moves(n1, "device_error", || {
            while_stopped(n1, || {
                n1.namespace.sh("ip link set flannel0 down")?;
                // In the receive buffer before the daemon can know that the device is down.
                flood(&good, 500)
            })
        })?;
        cluster.wait_connected(&[&a, &b], Stack::V4)?;

        let b = b.ip(Family::V4)?;
        moves(n1, "send_buffer_full", || {
            let socket = a.namespace.run(|| Ok(UdpSocket::bind(("0.0.0.0", 0))?))?;
            // What waits in the queue of a link is charged to the socket that sent it.
            n1.namespace
                .sh("tc qdisc replace dev eth0 root tbf rate 64kbit burst 1600 limit 100000000")?;
            let end = Instant::now() + Duration::from_millis(500);
            while Instant::now() < end {
                socket.send_to(&[7; 1400], (b, 9))?;
            }
            n1.namespace.sh("tc qdisc del dev eth0 root").map(drop)
        })?;
    }
    Ok(())
}

/// The lease of a peer changes under a daemon: its address, then its being there at all.
#[test]
fn a_peer_that_moves_or_goes_is_followed_at_once() -> Result<()> {
    for data_path in DATA_PATHS {
        let Some((mut cluster, a, b)) = connected(data_path)? else {
            return Ok(());
        };
        let n2 = &mut cluster.nodes[1];
        let subnet = n2.subnet(Family::V4)?;
        // Its daemon must not mend what we write.
        n2.take_daemon()?.kill()?;
        let (n1, n2) = (&cluster.nodes[0], &cluster.nodes[1]);
        let key = format!("{PREFIX}/subnets/{}", subnet.to_string().replace('/', "-"));
        let lease = cluster.store.get(&key)?.context("the lease of n2")?;
        let arrived = || -> Result<u64> {
            let text = n2.namespace.sh("nft list table ip probe")?;
            let packets = text.split("packets ").nth(1);
            let packets = packets.and_then(|text| text.split_whitespace().next());
            Ok(packets.context("no counter")?.parse()?)
        };
        n2.namespace
            .ip_batch("address add 192.168.66.42/24 dev eth0")?;
        shell(
            &n2.namespace,
            "nft add table ip probe; nft add chain ip probe in '{ type filter hook prerouting priority -300; }'; \
             nft add rule ip probe in ip daddr 192.168.66.42 udp dport 8285 counter",
        )?;
        cluster
            .store
            .put(&key, &lease.replace("192.168.66.12", "192.168.66.42"))?;
        let to = b.ip(Family::V4)?;
        let ping = || shell(&a.namespace, &format!("ping -n -c 1 -W 1 {to} || true"));
        eventually(
            "packets go to the new address",
            Duration::from_secs(5),
            || {
                ping()?;
                ensure!(arrived()? > 0);
                Ok(())
            },
        )?;
        cluster.store.delete(&key)?;
        eventually("nobody has the subnet", Duration::from_secs(5), || {
            let output = ping()?;
            ensure!(output.contains("Destination Net Unreachable"), "{output}");
            Ok(())
        })?;
        let before = arrived()?;
        ping()?;
        ensure!(arrived()? == before, "a packet still went to the peer");
        ensure!(dropped(n1, "no_peer")? > 0);
    }
    Ok(())
}
