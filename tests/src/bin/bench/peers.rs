//! 5,000 leases at once: how long until the kernel has them all, against bare `ip` and `bridge`.

use crate::lines::Lines;
use crate::outcome::{Outcome, Series};
use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::process::Command;
use std::time::{Duration, Instant};
use tests::cluster::{PREFIX, config_key};
use tests::{Cluster, Namespace, Options, eventually, process};

const PEERS: u32 = 5000;
/// Changes of one lease that are timed.
const CHANGES: u32 = 20;

/// A peer's subnet, address and device address.
struct Peer {
    subnet: String,
    public: String,
    mac: String,
}

fn peer(number: u32) -> Peer {
    let (high, low) = (number / 250, number % 250);
    Peer {
        subnet: format!("10.{}.{}.0", 100 + high, low),
        public: format!("172.16.{high}.{low}"),
        mac: format!("02:00:0a:{high:02x}:{low:02x}:01"),
    }
}

impl Peer {
    fn key(&self) -> String {
        format!("{PREFIX}/subnets/{}-24", self.subnet)
    }

    fn lease(&self) -> String {
        format!(
            "{{\"PublicIP\":\"{}\",\"PublicIPv6\":null,\"BackendType\":\"vxlan\",\
             \"BackendData\":{{\"VNI\":1,\"VtepMAC\":\"{}\"}}}}",
            self.public, self.mac
        )
    }
}

/// Measures `rounds` rounds of each.
pub fn run(rounds: u32) -> Result<Outcome> {
    let mut options = Options::new("vxlan").nodes(1);
    options
        .flags
        .push("--subnet-lease-renew-margin=60".to_owned());
    let mut cluster = Cluster::prepare(&options)?;
    let mut config = options.network_config();
    config["Network"] = "10.0.0.0/8".into();
    config["SubnetLen"] = 24.into();
    // Our own subnet stays clear of the peers'.
    config["SubnetMax"] = "10.50.0.0".into();
    cluster.store.put(&config_key(), &config.to_string())?;
    cluster.nodes[0].start_daemon()?;
    let node = cluster.nodes[0].namespace.clone();
    let peers: Vec<_> = (0..PEERS).map(peer).collect();
    let pairs: Vec<_> = peers
        .iter()
        .map(|peer| (peer.key(), peer.lease()))
        .collect();

    let mut ours = Series::new("ours: etcd event until 5,000 peers are programmed");
    let mut floor = Series::new("ip -batch and bridge -batch, the same entries");
    for round in 0..rounds {
        floor.push(batch(&cluster, &peers, round)?);
        let lease = cluster.store.grant(3600)?;
        let last = &pairs[pairs.len() - 1].0;
        let mut watch = Lines::start(&cluster.underlay.namespace, &watch_command(last))?;
        // The watcher has no sign of being ready.
        std::thread::sleep(Duration::from_millis(500));
        cluster.store.put_all(
            &lease,
            pairs
                .iter()
                .map(|(key, value)| (key.as_str(), value.as_str())),
        )?;
        let event = watch.first("PUT", Duration::from_secs(10))?;
        let done = wait_programmed(&node, &peers).with_context(|| {
            cluster.nodes[0]
                .daemon
                .as_ref()
                .map_or_else(String::new, process::Process::log_tail)
        })?;
        ours.push(done.duration_since(event));
        if round + 1 < rounds {
            cluster.store.ctl(&["lease", "revoke", &lease])?;
            eventually("the peers are gone", Duration::from_secs(60), || {
                let left = routes(&node)?;
                ensure!(left == 0, "{left} peer routes are left");
                Ok(())
            })?;
        }
    }
    let daemon = cluster.nodes[0].daemon.as_ref().context("the daemon")?;
    let resident = daemon.resident_bytes()? as f64 / 1e6;
    let change = changes(&cluster, &node)?;

    let mut outcome = Outcome::default();
    let ratio = ours.median() / floor.median();
    outcome.promise(
        "5,000 peers programmed, of the batch tools' time",
        ratio,
        1.5,
        "×",
    );
    outcome.promise("resident memory with 5,000 peers", resident, 20.0, "MB");
    outcome.promise(
        "one lease changed: put sent until applied",
        change.median(),
        20.0,
        "ms",
    );
    outcome.series = vec![ours, floor, change];
    Ok(outcome)
}

/// The floor: the same entries by the iproute2 tools, in a namespace of their own.
fn batch(cluster: &Cluster, peers: &[Peer], round: u32) -> Result<Duration> {
    let namespace = cluster.run.namespace(&format!("batch{round}"))?;
    namespace.ip_batch(
        "link add under type veth peer name under2
         address add 192.168.66.200/24 dev under
         link set under up
         link set under2 up
         link add flannel.1 type vxlan id 1 dev under local 192.168.66.200 dstport 8472 nolearning
         address add 10.0.0.0/32 dev flannel.1
         link set flannel.1 up",
    )?;
    let mut neighbours = String::new();
    let mut entries = String::new();
    let mut routes = String::new();
    for Peer {
        subnet,
        public,
        mac,
    } in peers
    {
        writeln!(
            neighbours,
            "neigh replace {subnet} lladdr {mac} dev flannel.1 nud permanent"
        )?;
        writeln!(
            entries,
            "fdb replace {mac} dev flannel.1 dst {public} self permanent"
        )?;
        writeln!(
            routes,
            "route replace {subnet}/24 via {subnet} dev flannel.1 onlink"
        )?;
    }
    let spent = namespace.run(|| {
        let started = Instant::now();
        for (program, lines) in [("ip", &neighbours), ("bridge", &entries), ("ip", &routes)] {
            process::run_with_input(Command::new(program).args(["-batch", "-"]), lines)?;
        }
        Ok(started.elapsed())
    })?;
    cluster.run.remove(&namespace)?;
    Ok(spent)
}

/// The number of routes by way of the overlay device.
fn routes(node: &Namespace) -> Result<usize> {
    // Cheaper than asking `ip` while the daemon works: one read, and no process.
    let table = node.run(|| Ok(std::fs::read_to_string("/proc/thread-self/net/route")?))?;
    let is_peer = |line: &&str| line.starts_with("flannel.1\t");
    Ok(table.lines().filter(is_peer).count())
}

/// Waits until every route, neighbour and forwarding entry is there; returns when that was.
fn wait_programmed(node: &Namespace, peers: &[Peer]) -> Result<Instant> {
    let wanted = peers.len();
    let end = Instant::now() + Duration::from_secs(60);
    let mut pause = Duration::from_millis(20);
    loop {
        let looked = Instant::now();
        let have = routes(node)?;
        if have >= wanted {
            // Routes come last; if the rest is complete too, it was so when we looked.
            let neighbours = node.sh("ip neigh show dev flannel.1 nud permanent")?;
            let entries = node.sh("bridge fdb show dev flannel.1")?;
            let (n, f) = (neighbours.lines().count(), entries.matches(" dst ").count());
            if n >= wanted && f >= wanted {
                return Ok(looked);
            }
        }
        ensure!(
            Instant::now() < end,
            "only {have} of {wanted} peer routes after a minute"
        );
        // Near the end the answer is wanted more exactly than on the way.
        if have > wanted / 2 {
            pause = Duration::from_millis(5);
        }
        std::thread::sleep(pause);
    }
}

/// Changes one peer's device address again and again; from the put until neighbour and forwarding
/// entry have both been seen to change.
fn changes(cluster: &Cluster, node: &Namespace) -> Result<Series> {
    let mut series = Series::new("ours: one lease changed, put sent until applied");
    let mut neighbours = Lines::start(node, &["ip", "monitor", "neigh"])?;
    let mut entries = Lines::start(node, &["bridge", "monitor", "fdb"])?;
    std::thread::sleep(Duration::from_millis(500));
    for number in 0..CHANGES {
        let mut changed = peer(17);
        changed.mac = format!("02:00:0b:00:{number:02x}:02");
        let sent = Instant::now();
        put(
            &cluster.underlay.namespace,
            &changed.key(),
            &changed.lease(),
        )?;
        let limit = Duration::from_secs(10);
        let neighbour = neighbours.first(&changed.mac, limit)?;
        let entry = entries.first(&changed.mac, limit)?;
        series.push(neighbour.max(entry).duration_since(sent));
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(series)
}

/// A put by etcd's JSON gateway: `etcdctl` takes longer to start than what is measured.
fn put(store: &Namespace, key: &str, value: &str) -> Result<()> {
    let base64 = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let body = serde_json::json!({ "key": base64(key), "value": base64(value) }).to_string();
    let mut stream = store.run(|| Ok(std::net::TcpStream::connect(("127.0.0.1", 2379))?))?;
    write!(
        stream,
        "POST /v3/kv/put HTTP/1.0\r\nHost: etcd\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.contains(" 200 OK"), "etcd's gateway: {answer}");
    Ok(())
}

fn watch_command(key: &str) -> Vec<&str> {
    vec![
        "etcdctl",
        "--endpoints",
        "http://127.0.0.1:2379",
        "watch",
        key,
    ]
}
