//! Two nodes, joined by a veth pair or through a router, each with a user-space path, its TUN device and one "Pod" address.

use std::{
    net::IpAddr,
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use kernel::{Mac, Netns};
use tunnel::{
    Counters, DropReason, Own, Peer, Table, Wire,
    user::{Mode, Settings, UserPath},
};

pub const PORT: u16 = 8285;

static SERIAL: AtomicU32 = AtomicU32::new(0);

/// A namespace, removed at the end.
pub struct Node {
    pub name: String,
    pub netns: Netns,
}

impl Node {
    /// `None`, said loudly, without the rights to make one.
    pub fn new(role: &str) -> Option<Self> {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let name = format!("weft-u{}-{serial}{role}", std::process::id());
        match Netns::create(&name) {
            Ok(netns) => {
                let node = Self { name, netns };
                node.sh("ip link set lo up");
                Some(node)
            }
            Err(error) if std::env::var_os("WEFT_REQUIRE_ROOT").is_none() => {
                use std::io::Write as _;
                let line = format!("SKIPPED: user path: needs root ({error})\n");
                std::io::stderr().write_all(line.as_bytes()).unwrap();
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Runs a shell line inside, which must succeed.
    pub fn sh(&self, line: &str) -> String {
        let output = self.try_sh(line);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{}: {line}: {text}{errors}",
            self.name
        );
        text
    }

    /// Runs a shell line inside.
    pub fn try_sh(&self, line: &str) -> Output {
        Command::new("ip")
            .args(["netns", "exec", &self.name, "sh", "-c", line])
            .output()
            .unwrap()
    }

    /// Runs `work` inside, on a thread of its own.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.netns.run(work).unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Err(error) = Netns::delete(&self.name) {
            eprintln!("{error}");
        }
    }
}

/// A node with its path.
pub struct Site {
    pub path: UserPath,
    pub counters: Arc<Counters>,
    pub table: Arc<ArcSwap<Table>>,
    pub node: Node,
}

impl Site {
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.counters.dropped(reason)
    }
}

/// All of it; the paths end before the namespaces go.
pub struct Lab {
    pub sites: [Site; 2],
    pub router: Option<Node>,
}

/// How the two nodes are joined.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Underlay {
    Veth,
    /// The same with IPv6 addresses.
    VethIpv6,
    /// A router whose link to the second node carries only so many bytes.
    Router(u32),
}

pub fn underlay(n: usize, kind: Underlay) -> IpAddr {
    if kind == Underlay::VethIpv6 {
        return format!("fd66::{n}").parse().unwrap();
    }
    let third = if matches!(kind, Underlay::Router(_)) && n == 2 {
        67
    } else {
        66
    };
    IpAddr::from([192, 168, third, 10 + n as u8])
}

pub fn own(n: usize) -> Own {
    Own {
        v4: Some(format!("10.9.{n}.0/24").parse().unwrap()),
        v6: Some(format!("fd09:{n}::/64").parse().unwrap()),
        mac: Some(Mac([2, 0, 0, 0, 0, n as u8])),
    }
}

pub fn peer(n: usize, address: IpAddr) -> Peer {
    let own = own(n);
    Peer {
        address: (address, PORT).into(),
        v4: own.v4,
        v6: own.v6,
        mac: own.mac,
        finishes_checksums: true,
    }
}

/// The device's, over links of 1500 bytes.
pub fn mtu(wire: Wire, kind: Underlay) -> u32 {
    let ip_header = if kind == Underlay::VethIpv6 { 40 } else { 20 };
    1500 - ip_header - 8 - wire.overhead() as u32
}

/// The address of node `n`'s Pod.
pub fn pod(n: usize) -> IpAddr {
    IpAddr::from([10, 9, n as u8, 1])
}

pub fn pod6(n: usize) -> IpAddr {
    format!("fd09:{n}::1").parse().unwrap()
}

impl Lab {
    pub fn new(modes: [Mode; 2]) -> Option<Self> {
        Self::with(modes, Underlay::Veth, Wire::Ip)
    }

    pub fn with(modes: [Mode; 2], kind: Underlay, wire: Wire) -> Option<Self> {
        let (one, two) = (Node::new("a")?, Node::new("b")?);
        let router = match kind {
            Underlay::Veth | Underlay::VethIpv6 => {
                join(&one, &two);
                None
            }
            Underlay::Router(mtu) => Some(join_by_router(&one, &two, mtu)?),
        };
        let mut sites = Vec::new();
        for (n, (node, mode)) in (1..).zip([one, two].into_iter().zip(modes)) {
            sites.push(site(node, n, mode, kind, wire));
        }
        let sites = sites.try_into().ok()?;
        Some(Self { sites, router })
    }
}

/// By a veth pair.
pub fn join(one: &Node, two: &Node) {
    let peer = &two.name;
    one.sh(&format!(
        "ip link add eth0 type veth peer name eth0 netns {peer}"
    ));
}

fn join_by_router(one: &Node, two: &Node, mtu: u32) -> Option<Node> {
    let router = Node::new("r")?;
    for (n, node) in [(1, one), (2, two)] {
        let third = 65 + n;
        router.sh(&format!(
            "ip link add r{n} type veth peer name eth0 netns {}; \
             ip addr add 192.168.{third}.1/24 dev r{n}; ip link set r{n} up",
            node.name
        ));
    }
    router.sh("sysctl -qw net.ipv4.ip_forward=1");
    narrow(&router, two, mtu);
    Some(router)
}

/// Sets what the router's link to the second node carries, at both ends.
pub fn narrow(router: &Node, two: &Node, mtu: u32) {
    router.sh(&format!("ip link set r2 mtu {mtu}"));
    two.sh(&format!("ip link set eth0 mtu {mtu}"));
}

/// Node `n` with its path, the other one being its peer.
pub fn site(node: Node, n: usize, mode: Mode, kind: Underlay, wire: Wire) -> Site {
    let address = underlay(n, kind);
    let prefix = if address.is_ipv4() { "24" } else { "64 nodad" };
    node.sh(&format!(
        "ip link set eth0 up; ip addr add {address}/{prefix} dev eth0"
    ));
    if matches!(kind, Underlay::Router(_)) {
        node.sh(&format!("ip route add default via 192.168.{}.1", 65 + n));
    }
    let settings = Settings {
        device: "flannel0".into(),
        bind: (address, PORT).into(),
        wire,
        mode,
        workers: Some(2),
        mtu: mtu(wire, kind),
    };
    let other = 3 - n;
    let peers = vec![peer(other, underlay(other, kind))];
    let table = Arc::new(ArcSwap::from_pointee(Table::new(own(n), peers)));
    let counters = Arc::<Counters>::default();
    let path = node
        .run(|| UserPath::start(&settings, Arc::clone(&table), Arc::clone(&counters)))
        .unwrap();
    set_up_device(&node, n, mtu(wire, kind));
    Site {
        path,
        counters,
        table,
        node,
    }
}

/// Addresses and routes, as the daemon sets them.
pub fn set_up_device(node: &Node, n: usize, mtu: u32) {
    node.sh(&format!(
        "set -e; ip addr add 10.9.{n}.0/32 dev flannel0; ip -6 addr add fd09:{n}::/128 dev flannel0 nodad
         ip link set flannel0 mtu {mtu} up
         ip addr replace 10.9.{n}.1/32 dev lo; ip -6 addr replace fd09:{n}::1/128 dev lo nodad
         ip route add 10.9.0.0/16 dev flannel0 src 10.9.{n}.1; ip -6 route add fd09::/16 dev flannel0 src fd09:{n}::1"
    ));
}

/// Waits until it is so.
pub fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(5);
    while !so() {
        assert!(Instant::now() < end, "{what}: not within 5 s");
        thread::sleep(Duration::from_millis(10));
    }
}
