//! The udp overlay as others see it: a foreign node's socket, and whoever counts the hops.

use std::io::{ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{setsockopt, sockopt};
use serde_json::{Value, json};
use tests::capture::check_packet;
use tests::cluster::{Node, PREFIX, Stack};
use tests::pod::Family;
use tests::{Cluster, Pod, eventually, requirement};

const DATA_PATHS: [&str; 3] = ["ebpf", "offload", "plain"];
const PORT: u16 = 8285;
/// Behind the foreign node; leases are taken from the first hundred subnets.
const FOREIGN_POD: Ipv4Addr = Ipv4Addr::new(10, 5, 250, 5);

/// So many nodes by this data path; `None` when the host cannot, said loudly.
fn cluster(data_path: &str, nodes: u8) -> Result<Option<Cluster>> {
    if !requirement::is_root() || !requirement::has_programs(&["etcd", "etcdctl", "ping"]) {
        return Ok(None);
    }
    Cluster::by_data_path(data_path, nodes).map(Some)
}

/// The tunnel is one link: only the two nodes are routers on the way, and each counts once.
#[test]
fn the_nodes_are_the_only_hops() -> Result<()> {
    for data_path in DATA_PATHS {
        let Some(cluster) = cluster(data_path, 2)? else {
            return Ok(());
        };
        let (a, b) = (cluster.pod(0, "a")?, cluster.pod(1, "b")?);
        cluster.wait_connected(&[&a, &b], Stack::V4)?;
        let to = b.ip(Family::V4)?;
        let ping = |ttl: u8| {
            let line = format!("ping -n -c 1 -W 1 -t {ttl} {to} || true");
            a.namespace.exec("sh", &["-c", &line])
        };
        for (ttl, node) in (1..).zip(&cluster.nodes) {
            hop(node, || ping(ttl)).with_context(|| format!("{data_path}, hop {ttl}"))?;
        }
        eventually("the third hop answers", Duration::from_secs(10), || {
            let output = ping(3)?;
            // 64 at the sender, less one for each router.
            let answer = format!("64 bytes from {to}: icmp_seq=1 ttl=62 ");
            ensure!(output.contains(&answer), "{data_path}: {output}");
            Ok(())
        })?;
    }
    Ok(())
}

/// Repeats a ping until `node` says that it went too far.
fn hop(node: &Node, ping: impl Fn() -> Result<String>) -> Result<()> {
    let subnet = node.subnet(Family::V4)?;
    eventually("a router answers", Duration::from_secs(10), || {
        let output = ping()?;
        let line = (output.lines()).find(|line| line.ends_with("Time to live exceeded"));
        let from = line.and_then(|line| line.strip_prefix("From ")?.split_whitespace().next());
        let from: IpAddr = from.with_context(|| output.clone())?.parse()?;
        ensure!(subnet.contains(&from), "{from} is not n{}", node.number);
        Ok(())
    })
}

/// A foreign daemon takes what comes out of its socket for packets: they must be whole, none larger than
/// the MTU, all checksums finished, on a virtual link too.
#[test]
fn a_foreign_node_gets_finished_packets() -> Result<()> {
    for data_path in DATA_PATHS {
        let Some(cluster) = cluster(data_path, 1)? else {
            return Ok(());
        };
        let n1 = &cluster.nodes[0];
        let mtu = usize::try_from(n1.mtu()?)?;
        let a = cluster.pod(0, "a")?;
        let foreign = cluster.underlay.join(&cluster.run, 2)?;
        let (address, _) = tests::topology::node_addresses(2);
        let socket = foreign.run(|| Ok(UdpSocket::bind((address, PORT))?))?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;

        announce(&cluster, address, None)?;
        for packet in talk(&a, &socket, n1).context(data_path)? {
            ensure!(
                packet.len() <= mtu,
                "{data_path}: {} bytes came in one piece",
                packet.len()
            );
            check_packet(&packet).with_context(|| format!("{data_path}: {packet:02x?}"))?;
        }
        if data_path == "ebpf" {
            // That the above can fail: who says that it finishes them gets them as they are.
            announce(&cluster, address, Some(true))?;
            eventually("packets come unfinished", Duration::from_secs(10), || {
                let packets = talk(&a, &socket, n1)?;
                ensure!(packets.iter().any(|packet| check_packet(packet).is_err()));
                Ok(())
            })?;
        }
    }
    Ok(())
}

/// Writes the foreign node's lease: like n1's but for the address, and for what it says of checksums.
fn announce(cluster: &Cluster, address: Ipv4Addr, finishes: Option<bool>) -> Result<()> {
    let own = cluster.nodes[0].subnet(Family::V4)?;
    let key = |subnet: &str| format!("{PREFIX}/subnets/{}", subnet.replace('/', "-"));
    let lease = cluster.store.get(&key(&own.to_string()))?;
    let mut lease: Value = serde_json::from_str(&lease.context("the lease of n1")?)?;
    lease["PublicIP"] = json!(address);
    lease["BackendData"] = match finishes {
        Some(word) => json!({ "FinishesChecksums": word }),
        None => Value::Null,
    };
    cluster.store.put(&key("10.5.250.0/24"), &lease.to_string())
}

/// The Pod sends bulk by TCP and by UDP; answers all packets that the socket got of it.
fn talk(from: &Pod, socket: &UdpSocket, node: &Node) -> Result<Vec<Vec<u8>>> {
    const ENOUGH: usize = 12_000;
    let tunnel = SocketAddr::new(node.ip(Family::V4), PORT);
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| from.namespace.run(send));
        let mut packets = Vec::new();
        // Payload seen, by IP protocol.
        let (mut tcp, mut udp) = (0, 0);
        let mut buffer = vec![0; 1 << 16];
        let end = Instant::now() + Duration::from_secs(10);
        while (tcp < ENOUGH || udp < ENOUGH) && Instant::now() < end {
            let length = match socket.recv(&mut buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error.into()),
            };
            let packet = &buffer[..length];
            ensure!(length >= 28 && packet[0] == 0x45, "{packet:02x?}");
            match packet[9] {
                6 if packet[33] & 2 != 0 => {
                    let answer = welcome(packet)?;
                    socket.send_to(&answer, tunnel)?;
                }
                6 => tcp += length - 20 - usize::from(packet[32] >> 4) * 4,
                17 => udp += length - 28,
                _ => {}
            }
            packets.push(packet.to_vec());
        }
        match sender.join() {
            // The connection stays until all is there.
            Ok(connection) => connection.map(drop)?,
            Err(panic) => std::panic::resume_unwind(panic),
        }
        ensure!(
            tcp >= ENOUGH && udp >= ENOUGH,
            "only {tcp} bytes by TCP and {udp} by UDP"
        );
        Ok(packets)
    })
}

/// Datagrams in one piece of many (USO), and as much by TCP as goes before the first acknowledgement.
fn send() -> Result<TcpStream> {
    let socket = UdpSocket::bind(("0.0.0.0", 0))?;
    socket.connect((FOREIGN_POD, 9))?;
    setsockopt(&socket, sockopt::UdpGsoSegment, &1000)?;
    let to = SocketAddr::from((FOREIGN_POD, 80));
    // Refused as unreachable until the node has read the lease.
    let mut stream = eventually("the foreign node answers", Duration::from_secs(5), || {
        Ok(TcpStream::connect_timeout(&to, Duration::from_secs(4))?)
    })?;
    // By now the way is known: nothing waits for a neighbour.
    for _ in 0..4 {
        socket.send(&[0xa5; 8000])?;
    }
    stream.set_nonblocking(true)?;
    let written = stream.write(&[0x5a; 30_000])?;
    ensure!(
        written > 14_000,
        "the kernel took only {written} bytes at once"
    );
    Ok(stream)
}

/// The answer to a SYN, RFC 9293: SYN and ACK, segments of at most 1432 bytes.
fn welcome(syn: &[u8]) -> Result<Vec<u8>> {
    let mut packet = vec![0x45, 0, 0, 44, 0, 0, 0x40, 0, 64, 6, 0, 0];
    packet.extend_from_slice(&syn[16..20]);
    packet.extend_from_slice(&syn[12..16]);
    let header = checksum(&packet, 0);
    packet[10..12].copy_from_slice(&header);
    packet.extend_from_slice(&syn[22..24]);
    packet.extend_from_slice(&syn[20..22]);
    let sequence = u32::from_be_bytes(syn[24..28].try_into()?);
    packet.extend(1_u32.to_be_bytes());
    packet.extend(sequence.wrapping_add(1).to_be_bytes());
    packet.extend([6 << 4, 0x12, 0xff, 0xff, 0, 0, 0, 0]);
    packet.extend([2, 4, 0x05, 0x98]);
    let whole = checksum(&packet[12..], 6 + 24);
    packet[36..38].copy_from_slice(&whole);
    check_packet(&packet)?;
    Ok(packet)
}

/// RFC 1071, of an even number of bytes and something more.
fn checksum(bytes: &[u8], more: u32) -> [u8; 2] {
    let words = (bytes.chunks_exact(2)).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let mut sum = words.sum::<u32>() + more;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}
