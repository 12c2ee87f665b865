//! What goes wrong around a running overlay: nothing crashes, traffic comes back, every drop is counted
//! by its reason.

use anyhow::{Context, Result, ensure};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};
use tests::cluster::{Node, Stack};
use tests::pod::Family;
use tests::traffic::{Ping, TcpServer, exchange};
use tests::{Cluster, Namespace, Pod, eventually, requirement};

const PORT: u16 = 8285;

struct Scene {
    cluster: Cluster,
    here: Pod,
    there: Pod,
}

impl Scene {
    /// Two nodes with this data path and a Pod on each.
    fn new(data_path: &str) -> Result<Option<Self>> {
        if !requirement::is_root() || !requirement::has_programs(&["etcd", "etcdctl", "ping"]) {
            return Ok(None);
        }
        let cluster = Cluster::by_data_path(data_path, 2)?;
        let (here, there) = (cluster.pod(0, "here")?, cluster.pod(1, "there")?);
        cluster.wait_connected(&[&here, &there], Stack::V4)?;
        Ok(Some(Self {
            cluster,
            here,
            there,
        }))
    }

    fn node(&self) -> &Node {
        &self.cluster.nodes[0]
    }

    /// Packets that the first node dropped for this reason.
    fn dropped(&self, reason: &str) -> Result<f64> {
        let series = format!("flanneld_tunnel_dropped_total{{reason=\"{reason}\"}}");
        self.node().metric(&series)
    }

    /// Waits until ping and TCP work again, and checks that the first node's daemon never ended.
    fn works(&mut self) -> Result<()> {
        let ip = self.there.ip(Family::V4)?;
        eventually("packets pass again", Duration::from_secs(20), || {
            Ping::new(ip).count(2).run(&self.here.namespace)
        })
        .with_context(|| self.cluster.state())?;
        let server = TcpServer::start(&self.there.namespace, ip, 0)?;
        exchange(&self.here.namespace, server.address, 1 << 20, 7)?;
        let daemon = self.cluster.nodes[0].daemon.as_mut();
        daemon.context("no daemon")?.ensure_alive()
    }

    /// The counter moves by at least `least`, since `before`.
    fn counted(&self, reason: &str, before: f64, least: f64) -> Result<()> {
        eventually("the drops are counted", Duration::from_secs(10), || {
            let now = self.dropped(reason)?;
            ensure!(
                now - before >= least,
                "{reason}: {} of at least {least} were counted",
                now - before
            );
            Ok(())
        })
    }
}

/// Sends these payloads in turn for a while, as fast as one thread can; returns how many it sent.
fn flood(from: &Namespace, to: SocketAddr, payloads: &[Vec<u8>], time: Duration) -> Result<u32> {
    let socket = from.run(|| Ok(UdpSocket::bind(("0.0.0.0", 0))?))?;
    let end = Instant::now() + time;
    let mut sent = 0;
    while Instant::now() < end {
        for payload in payloads {
            // A full buffer here is the sender's own trouble.
            sent += u32::from(socket.send_to(payload, to).is_ok());
        }
    }
    Ok(sent)
}

/// An IPv4 packet without payload, its header checksum left out (nobody gets as far).
fn bare(source: IpAddr, destination: IpAddr) -> Vec<u8> {
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (source, destination) else {
        panic!("IPv4 addresses");
    };
    let mut packet = vec![0x45, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0, 0];
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet
}

/// Random bytes (a fixed sequence), from nothing to more than a packet.
fn garbage() -> Vec<Vec<u8>> {
    let mut seed = 1_u32;
    let mut next = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        seed >> 16
    };
    let mut garbage: Vec<Vec<u8>> = (0..64)
        .map(|_| {
            let length = next() % 1400;
            (0..length).map(|_| next() as u8).collect()
        })
        .collect();
    // Beginnings that look right.
    for (at, payload) in garbage.iter_mut().enumerate() {
        if let Some(first) = payload.first_mut() {
            *first = [0x45, 0x60, 0x4f, *first][at % 4];
        }
    }
    garbage
}

fn hostile_traffic(data_path: &str) -> Result<()> {
    let Some(mut scene) = Scene::new(data_path)? else {
        return Ok(());
    };
    let node = SocketAddr::new(scene.node().ip(Family::V4), PORT);
    let (here, there) = (scene.here.ip(Family::V4)?, scene.there.ip(Family::V4)?);
    let time = Duration::from_secs(2);
    let peer = scene.cluster.nodes[1].namespace.clone();
    let stranger = scene.cluster.underlay.namespace.clone();

    let malformed = scene.dropped("malformed")? + scene.dropped("unsupported")?;
    let sent = flood(&peer, node, &garbage(), time)?;
    ensure!(sent > 1000, "only {sent} datagrams of garbage were sent");
    scene.works().context("after garbage")?;
    let now = scene.dropped("malformed")? + scene.dropped("unsupported")?;
    ensure!(now > malformed, "garbage was not counted");

    let before = scene.dropped("unknown_peer")?;
    flood(&stranger, node, &[bare(there, here)], time / 4)?;
    scene.counted("unknown_peer", before, 100.0)?;

    let before = scene.dropped("foreign_source")?;
    let outside = IpAddr::from([203, 0, 113, 9]);
    flood(&peer, node, &[bare(outside, here)], time / 4)?;
    scene.counted("foreign_source", before, 100.0)?;

    // Nobody has this subnet: the sender is told.
    let before = scene.dropped("no_peer")?;
    let nowhere = scene
        .here
        .namespace
        .sh("ping -n -c 3 -i 0.2 -W 1 10.5.255.9");
    let text = format!("{:#}", nowhere.err().context("10.5.255.9 answered")?);
    ensure!(text.contains("Unreachable"), "ping said {text}");
    scene.counted("no_peer", before, 3.0)?;
    scene.works()
}

fn device_and_underlay_down(data_path: &str) -> Result<()> {
    let Some(mut scene) = Scene::new(data_path)? else {
        return Ok(());
    };
    let node = scene.node().namespace.clone();
    node.sh("ip link set flannel0 down")?;
    scene.works().context("after flannel0 went down")?;
    for _ in 0..3 {
        node.sh("ip link set eth0 down")?;
        std::thread::sleep(Duration::from_millis(200));
        node.sh("ip link set eth0 up")?;
        node.sh("ip route replace default via 192.168.66.1")?;
        std::thread::sleep(Duration::from_millis(200));
    }
    scene.works().context("after eth0 flapped")?;
    node.sh("ip link delete flannel0")?;
    scene.works().context("after flannel0 was deleted")
}

/// Moves both counters of traffic, whatever the path.
fn traffic_is_counted(data_path: &str) -> Result<()> {
    let Some(mut scene) = Scene::new(data_path)? else {
        return Ok(());
    };
    let sum = |scene: &Scene, direction: &str| -> Result<f64> {
        let page = scene.node().metrics()?;
        let values = page.lines().filter_map(|line| {
            let rest = line.strip_prefix("flanneld_tunnel_bytes_total{")?;
            let (labels, value) = rest.split_once("} ")?;
            labels
                .contains(&format!("direction=\"{direction}\""))
                .then(|| value.parse::<f64>().ok())?
        });
        Ok(values.sum())
    };
    let before = (sum(&scene, "sent")?, sum(&scene, "received")?);
    scene.works()?;
    let least = f64::from(1 << 20);
    eventually("bytes are counted", Duration::from_secs(10), || {
        let now = (sum(&scene, "sent")?, sum(&scene, "received")?);
        ensure!(
            now.0 - before.0 > least && now.1 - before.1 > least,
            "from {before:?} to {now:?} for 1 MiB each way"
        );
        Ok(())
    })
}

macro_rules! for_each_data_path {
    ($($check:ident => $($name:ident = $path:literal),*;)*) => {
        $($(
            #[test]
            fn $name() -> Result<()> {
                $check($path)
            }
        )*)*
    };
}

for_each_data_path! {
    hostile_traffic => hostile_traffic_ebpf = "ebpf", hostile_traffic_offload = "offload", hostile_traffic_plain = "plain";
    device_and_underlay_down => down_ebpf = "ebpf", down_offload = "offload", down_plain = "plain";
    traffic_is_counted => counted_ebpf = "ebpf", counted_offload = "offload", counted_plain = "plain";
}
