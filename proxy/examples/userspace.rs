//! Measures one TCP stream through userspace mode against a bare copy loop, between network namespaces.
//!
//! `cargo run --release -p proxy --example userspace [-- SECONDS ROUNDS]` (root). The loop is what `socat` does:
//! one process, read(2) and write(2) of 8 KiB. Sender, forwarder and receiver have a namespace each, joined by
//! veth pairs; each round measures both, one after the other. Prints Gbit/s of each round, the medians, and the ratio.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use kernel::Netns;
use proxy::mode::Mode as _;
use proxy::mode::userspace::{Options, Userspace};
use proxy::model::{
    Balancer, Changed, Endpoint, Family, Front, FrontKind, LocalDetector, NodePortAddresses,
    ObjectName, Policy, PortName, Protocol, Site, Wanted,
};

const CLUSTER_IP: &str = "10.96.0.10:80";
const LOOP: &str = "192.0.2.1:81";
const ENDPOINT: &str = "10.244.1.2:8080";
/// What sender and receiver hand to the kernel at once.
const BLOCK: usize = 128 * 1024;
/// What the copy loop reads at once, as socat does by default.
const LOOP_BLOCK: usize = 8192;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let seconds: f64 = arguments.next().map_or(Ok(2.0), |text| text.parse())?;
    let rounds: usize = arguments.next().map_or(Ok(5), |text| text.parse())?;
    ensure!(rounds > 0, "at least one round");
    let lab = Lab::new()?;
    let mut mode = lab
        .node
        .netns
        .run(|| Userspace::new(Family::V4, Options::default()))??;
    let wanted = wanted()?;
    let report = lab.node.netns.run(|| mode.sync(&wanted, &Changed::All))?;
    ensure!(report.errors.is_empty(), "{}", report.errors.join("; "));
    lab.copy_loop()?;
    let mut figures = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        for (front, figures) in [LOOP, CLUSTER_IP].into_iter().zip(&mut figures) {
            figures.push(lab.measure(front, Duration::from_secs_f64(seconds))?);
        }
        let [copy, forward] = figures.each_ref().map(|all| all[all.len() - 1]);
        println!("copy loop {copy:6.2} Gbit/s   userspace {forward:6.2} Gbit/s");
    }
    let [copy, forward] = figures.map(median);
    println!(
        "medians: {copy:.2} and {forward:.2} Gbit/s, ratio {:.2}",
        forward / copy
    );
    Ok(())
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// A namespace, removed at the end.
struct Host {
    name: String,
    netns: Netns,
}

impl Host {
    fn new(role: &str) -> Result<Self> {
        let name = format!("weft-us{}-{role}", std::process::id());
        let netns = Netns::create(&name)?;
        let host = Self { name, netns };
        host.ip("link set lo up")?;
        Ok(host)
    }

    fn ip(&self, line: &str) -> Result<()> {
        let mut command = Command::new("ip");
        command.args(["-n", &self.name]).args(line.split(' '));
        let status = command.status().context("run ip")?;
        ensure!(status.success(), "ip {line}: {status}");
        Ok(())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Err(error) = Netns::delete(&self.name) {
            eprintln!("{error}");
        }
    }
}

struct Lab {
    client: Host,
    node: Host,
    endpoint: Host,
}

impl Lab {
    fn new() -> Result<Self> {
        let lab = Self {
            client: Host::new("client")?,
            node: Host::new("node")?,
            endpoint: Host::new("endpoint")?,
        };
        for (host, link, net) in [
            (&lab.client, "v0", "192.0.2"),
            (&lab.endpoint, "v1", "10.244.1"),
        ] {
            let peer = &host.name;
            lab.node.ip(&format!(
                "link add {link} type veth peer name eth0 netns {peer}"
            ))?;
            for (host, link, last) in [(&lab.node, link, 1), (host, "eth0", 2)] {
                host.ip(&format!("address add {net}.{last}/24 dev {link}"))?;
                host.ip(&format!("link set {link} up"))?;
            }
            host.ip(&format!("route add default via {net}.1"))?;
        }
        Ok(lab)
    }

    /// What the mode is measured against.
    fn copy_loop(&self) -> Result<()> {
        let listener = self.node.netns.run(|| TcpListener::bind(LOOP))??;
        let node = Netns::open(self.node.netns.path())?;
        thread::spawn(move || -> Result<()> {
            let mut block = vec![0; LOOP_BLOCK];
            loop {
                let (mut from, _) = listener.accept()?;
                let mut to = node.run(|| TcpStream::connect(ENDPOINT))??;
                to.set_nodelay(true)?;
                loop {
                    match from.read(&mut block)? {
                        0 => break,
                        count => to.write_all(&block[..count])?,
                    }
                }
            }
        });
        Ok(())
    }

    /// Gbit/s that the endpoint receives, from the first byte to the last.
    fn measure(&self, front: &str, duration: Duration) -> Result<f64> {
        let listener = self.endpoint.netns.run(|| TcpListener::bind(ENDPOINT))??;
        let receiver = thread::spawn(move || -> Result<f64> {
            let (mut stream, _) = listener.accept()?;
            let mut block = vec![0; BLOCK];
            let mut bytes = stream.read(&mut block)?;
            let start = Instant::now();
            loop {
                match stream.read(&mut block)? {
                    0 => break,
                    count => bytes += count,
                }
            }
            Ok(bytes as f64 * 8e-9 / start.elapsed().as_secs_f64())
        });
        let front: SocketAddr = front.parse()?;
        let mut stream = self.client.netns.run(|| TcpStream::connect(front))??;
        let block = vec![0; BLOCK];
        let start = Instant::now();
        while start.elapsed() < duration {
            stream.write_all(&block)?;
        }
        drop(stream);
        match receiver.join() {
            Ok(figure) => figure,
            Err(_) => anyhow::bail!("the receiver panicked"),
        }
    }
}

fn wanted() -> Result<Wanted> {
    let front: SocketAddr = CLUSTER_IP.parse()?;
    let endpoint: SocketAddr = ENDPOINT.parse()?;
    let ip: IpAddr = front.ip();
    let balancer = Balancer {
        fronts: vec![Front {
            kind: FrontKind::ClusterIp,
            ip: Some(ip),
            port: front.port(),
        }],
        internal_policy: Policy::Cluster,
        external_policy: Policy::Cluster,
        affinity: None,
        source_ranges: Vec::new(),
        cluster: vec![Endpoint {
            ip: endpoint.ip(),
            port: endpoint.port(),
            local: true,
        }],
        local: Vec::new(),
        any_endpoint: true,
    };
    let name = PortName {
        service: ObjectName::new("default", "web"),
        port: "".into(),
        protocol: Protocol::Tcp,
    };
    Ok(Wanted {
        site: Site {
            family: Family::V4,
            node: "node".into(),
            masquerade_all: false,
            masquerade_mark: 0x4000,
            local: LocalDetector::None,
            node_port_addresses: NodePortAddresses::All,
            service_cidrs: Vec::new(),
            affinity_by_hash: false,
            localhost_node_ports: false,
            conntrack_liberal: false,
        },
        balancers: BTreeMap::from([(name, Arc::new(balancer))]),
    })
}
