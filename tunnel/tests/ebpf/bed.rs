//! Two nodes with a TUN device each that nobody reads, joined by a veth pair.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::{Duration, Instant},
};

use kernel::Netns;
use tunnel::{
    Own, Peer, Table, Wire,
    ebpf::{self, Ebpf, Settings},
};

/// The two, with everything that goes at the end of the test, also of a failed one.
pub struct Bed {
    pub nodes: [Node; 2],
    folder: PathBuf,
    bpffs: bool,
    /// Kept alive by this handle alone.
    router: Option<Netns>,
}

/// Number 1 or 2; its subnets are 10.5.N.0/24 and fd00:N::/64.
pub struct Node {
    pub name: String,
    pub netns: Netns,
    pub settings: Settings,
}

/// True when the test may run; else says loudly that it is skipped.
pub fn may_run() -> bool {
    use std::{io::Write as _, os::unix::fs::MetadataExt as _};
    let root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let why = match ebpf::probe() {
        Ok(()) if root => return true,
        Err(error @ ebpf::Error::NotBuilt(_)) => error.to_string(),
        // The kernel of the test machine must take the programs.
        Err(error) if root => panic!("{error}"),
        _ => "needs root (run scripts/test.sh with sudo)".to_owned(),
    };
    assert!(std::env::var_os("WEFT_REQUIRE_ROOT").is_none(), "{why}");
    let test = std::thread::current();
    let line = format!("SKIPPED: {}: {why}\n", test.name().unwrap_or("a test"));
    std::io::stderr().write_all(line.as_bytes()).unwrap();
    false
}

impl Bed {
    /// With a router between the nodes, whose link to node 2 carries packets of `mtu` bytes.
    pub fn routed(mtu: u32) -> Self {
        let mut bed = Self::new(false);
        let name = format!("{}-r", bed.node(1).name);
        let router = Netns::create(&name).unwrap();
        for (number, node) in (1..).zip(&bed.nodes) {
            if number == 1 {
                node.ip("link del u0");
            }
            let mtu = if number == 2 { mtu } else { 1500 };
            node.ip(&format!(
                "link add u0 type veth peer name r{number} netns {name} mtu {mtu}"
            ));
            node.ip(&format!("addr add 192.168.66.{number}/32 dev u0"));
            node.ip("link set u0 up");
            node.ip(&format!(
                "route add default via 169.254.0.{number} dev u0 onlink"
            ));
            let inside = |args: String| router.run(|| run(&mut command(&args))).unwrap();
            inside(format!("ip link set r{number} up"));
            inside(format!("ip addr add 169.254.0.{number}/32 dev r{number}"));
            inside(format!("ip route add 192.168.66.{number} dev r{number}"));
            inside("sysctl -qw net.ipv4.ip_forward=1".to_owned());
        }
        Netns::delete(&name).unwrap();
        bed.await_underlay();
        bed.router = Some(router);
        bed
    }

    /// With `bpffs` a file system for pins is mounted in a folder of the test's own.
    pub fn new(bpffs: bool) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let id = format!(
            "weft-e{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Relaxed)
        );
        let folder = std::env::temp_dir().join(&id);
        fs::create_dir(&folder).unwrap();
        let nodes = [1, 2].map(|number| Node::new(&id, number, &folder));
        let bed = Self {
            nodes,
            folder,
            bpffs,
            router: None,
        };
        if bpffs {
            run(Command::new("mount")
                .args(["-t", "bpf", "bpf"])
                .arg(&bed.folder));
        }
        let [one, two] = &bed.nodes;
        one.ip(&format!(
            "link add u0 type veth peer name u0 netns {}",
            two.name
        ));
        for (number, node) in (1..).zip(&bed.nodes) {
            node.set_up(number);
        }
        // A link that just came up drops for a moment; later the neighbours must be found anew.
        bed.await_underlay();
        bed.node(1).ip("neigh flush dev u0");
        bed.node(2).ip("neigh flush dev u0");
        bed
    }

    /// Waits until the nodes reach each other.
    fn await_underlay(&self) {
        let end = Instant::now() + Duration::from_secs(30);
        while !self.node(1).ping("-c 1 192.168.66.2") {
            assert!(
                Instant::now() < end,
                "{}: node 2 does not answer over the underlay within 30 s",
                self.node(1).name
            );
        }
    }

    /// Attaches on both nodes.
    pub fn attach(&self) -> [Ebpf; 2] {
        [0, 1].map(|at| self.nodes[at].attach(&table(2 - at as u8)))
    }

    pub fn node(&self, number: usize) -> &Node {
        &self.nodes[number - 1]
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.router = None;
        for node in &self.nodes {
            Netns::delete(&node.name).unwrap();
        }
        if self.bpffs {
            run(Command::new("umount").arg(&self.folder));
        }
        fs::remove_dir_all(&self.folder).unwrap();
    }
}

impl Node {
    fn new(id: &str, number: u8, folder: &Path) -> Self {
        let name = format!("{id}-{number}");
        Self {
            netns: Netns::create(&name).unwrap(),
            settings: Settings {
                device: "flannel0".to_owned(),
                underlay: "u0".to_owned(),
                local: SocketAddrV4::new(Ipv4Addr::new(192, 168, 66, number), 8285),
                underlay_mtu: 1500,
                wire: Wire::Ip,
                pins: folder.join(&name),
            },
            name,
        }
    }

    fn set_up(&self, number: u8) {
        let other = 3 - number;
        self.ip("link set lo up");
        self.sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        self.ip(&format!("addr add 192.168.66.{number}/24 dev u0"));
        self.ip("link set u0 up");
        self.ip("tuntap add mode tun flannel0 multi_queue");
        self.ip("link set flannel0 mtu 1472 up");
        self.ip(&format!("addr add 10.5.{number}.0/32 dev flannel0"));
        self.ip(&format!(
            "route add 10.5.{other}.0/24 dev flannel0 src 10.5.{number}.0"
        ));
        self.ip(&format!("addr add fd00:{number}::1/128 dev flannel0 nodad"));
        self.ip(&format!(
            "route add fd00:{other}::/64 dev flannel0 src fd00:{number}::1"
        ));
    }

    pub fn attach(&self, table: &Table) -> Ebpf {
        self.netns
            .run(|| Ebpf::attach(&self.settings, table))
            .unwrap()
            .unwrap()
    }

    /// Detaches whatever is attached, as `cleanup` does.
    pub fn remove(&self) -> usize {
        let Settings {
            device,
            underlay,
            pins,
            ..
        } = &self.settings;
        self.netns
            .run(|| ebpf::remove(device, Some(underlay), pins))
            .unwrap()
            .unwrap()
    }

    /// Runs `ip` inside.
    pub fn ip(&self, args: &str) -> String {
        self.sh(&format!("ip {args}"))
    }

    /// Runs a program inside, words parted by blanks; panics if it fails.
    pub fn sh(&self, line: &str) -> String {
        self.netns.run(|| run(&mut command(line))).unwrap()
    }

    /// A Pod behind a bridge, at 10.5.N.2.
    pub fn add_pod(&self, number: u8) -> Netns {
        let name = format!("{}-pod", self.name);
        let pod = Netns::create(&name).unwrap();
        // Its handle is enough from here on.
        self.ip("link add cni0 mtu 1472 type bridge");
        self.ip("link set cni0 up");
        self.ip(&format!("addr add 10.5.{number}.1/24 dev cni0"));
        self.ip(&format!(
            "link add p0 mtu 1472 type veth peer name eth0 mtu 1472 netns {name}"
        ));
        self.ip("link set p0 master cni0 up");
        let inside = |args: &str| {
            pod.run(|| run(&mut command(&format!("ip {args}"))))
                .unwrap()
        };
        inside("link set eth0 up");
        inside(&format!("addr add 10.5.{number}.2/24 dev eth0"));
        inside(&format!("route add default via 10.5.{number}.1"));
        Netns::delete(&name).unwrap();
        pod
    }

    /// A filter of somebody else on the underlay: accepts everything, at priority 100.
    pub fn add_foreign_filter(&self) {
        self.sh("tc qdisc add dev u0 clsact");
        let mut tc = command("tc filter add dev u0 ingress prio 100 bpf bytecode");
        tc.args(["1,6 0 0 0,", "flowid", "1:1"]);
        self.netns.run(|| run(&mut tc)).unwrap();
    }

    /// True if the other node's address answers.
    pub fn ping(&self, args: &str) -> bool {
        let line = format!("ping -q -i 0.01 -W 1 {args}");
        self.netns
            .run(|| command(&line).output().unwrap().status.success())
            .unwrap()
    }
}

/// The table of the node that has `number` as its only peer.
pub fn table(number: u8) -> Table {
    Table::new(Own::default(), vec![peer(number)])
}

pub fn peer(number: u8) -> Peer {
    Peer {
        address: SocketAddr::from(([192, 168, 66, number], 8285)),
        v4: Some(format!("10.5.{number}.0/24").parse().unwrap()),
        v6: Some(format!("fd00:{number}::/64").parse().unwrap()),
        mac: None,
        finishes_checksums: true,
    }
}

fn command(line: &str) -> Command {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().unwrap());
    command.args(words);
    command
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}
