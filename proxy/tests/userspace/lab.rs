//! A node with userspace mode, a client and two endpoints, each in a namespace of its own: the node routes between
//! them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use kernel::Netns;
use proxy::mode::userspace::{Counters, Options, Userspace};
use proxy::mode::{Mode as _, Report};
use proxy::model::{
    Balancer, Changed, Endpoint, Family, Front, FrontKind, LocalDetector, NodePortAddresses,
    ObjectName, Policy, PortName, Protocol, Site, Wanted,
};

/// A test that waits longer than this has failed.
pub const PATIENCE: Duration = Duration::from_secs(10);

static SERIAL: AtomicU32 = AtomicU32::new(0);

/// A namespace, removed at the end.
pub struct Host {
    name: String,
    netns: Netns,
}

impl Host {
    fn new(role: &str) -> Option<Self> {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let name = format!("weft-p{}-{serial}{role}", std::process::id());
        match Netns::create(&name) {
            Ok(netns) => Some(Self { name, netns }),
            Err(error) if std::env::var_os("WEFT_REQUIRE_ROOT").is_none() => {
                let line = format!("SKIPPED: userspace mode: needs root ({error})\n");
                io::stderr().write_all(line.as_bytes()).unwrap();
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Runs an `ip` command inside, which must succeed.
    pub fn ip(&self, line: &str) -> String {
        let mut ip = Command::new("ip");
        ip.args(["-n", &self.name]).args(line.split_whitespace());
        self.run_ip(ip, "", line)
    }

    /// Runs `ip` commands inside, in one process; all must succeed.
    fn ip_batch(&self, lines: &[String]) {
        let mut ip = Command::new("ip");
        ip.args(["-n", &self.name, "-batch", "-"]);
        self.run_ip(ip, &lines.join("\n"), "-batch");
    }

    fn run_ip(&self, mut ip: Command, input: &str, what: &str) -> String {
        ip.stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut ip = ip.spawn().unwrap();
        ip.stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        let output = ip.wait_with_output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{}: ip {what}: {input}{errors}",
            self.name
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A program to be run inside.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Runs `work` inside, on a thread of its own.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.netns.run(work).unwrap()
    }

    /// Connects from inside.
    pub fn connect(&self, to: &str) -> io::Result<TcpStream> {
        let to: SocketAddr = to.parse().unwrap();
        let stream = self.run(|| TcpStream::connect_timeout(&to, PATIENCE))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// Whether a connection from inside meets silence.
    pub fn hears_nothing(&self, to: &str) -> bool {
        let to: SocketAddr = to.parse().unwrap();
        let limit = Duration::from_millis(500);
        match self.run(|| TcpStream::connect_timeout(&to, limit)) {
            Err(error) => error.kind() == io::ErrorKind::TimedOut,
            Ok(_) => false,
        }
    }

    /// A TCP listener inside.
    pub fn listen(&self, at: &str) -> TcpListener {
        self.run(|| TcpListener::bind(at)).unwrap()
    }

    /// A UDP socket inside.
    pub fn udp(&self, at: &str) -> UdpSocket {
        let socket = self.run(|| UdpSocket::bind(at)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    /// A TCP server inside that says `name` and the client's address, on one line, to each connection, then echoes.
    pub fn tcp_server(&self, at: &str, name: &'static str) {
        let listener = self.listen(at);
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                thread::spawn(move || {
                    let from = stream.peer_addr()?.ip();
                    stream.write_all(format!("{name} {from}\n").as_bytes())?;
                    let mut echo = stream.try_clone()?;
                    io::copy(&mut stream, &mut echo)?;
                    echo.shutdown(std::net::Shutdown::Write)
                });
            }
        });
    }

    /// A UDP server inside that answers `name` and what it was sent, until told `stop`.
    pub fn udp_server(&self, at: &str, name: &'static str) {
        let socket = self.run(|| UdpSocket::bind(at)).unwrap();
        thread::spawn(move || {
            let mut buffer = vec![0; 65536];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                if &buffer[..length] == b"stop" {
                    return;
                }
                let text = String::from_utf8_lossy(&buffer[..length]);
                let _ = socket.send_to(format!("{name} {text}").as_bytes(), from);
            }
        });
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Err(error) = Netns::delete(&self.name) {
            eprintln!("{error}");
        }
    }
}

/// All of it.
pub struct Lab {
    pub client: Host,
    pub node: Host,
    pub ends: [Host; 2],
    pub mode: Option<Userspace>,
    pub wanted: Wanted,
}

/// The node's addresses on the client's side.
pub const NODE: [&str; 2] = ["192.0.2.1", "192.0.2.11"];
pub const NODE6: &str = "fd02::1";
pub const CLIENT: &str = "192.0.2.2";

/// An endpoint: number 1 is local (as far as the proxy is told), number 2 is not.
pub fn end(family: Family, n: usize) -> Endpoint {
    let ip = match family {
        Family::V4 => format!("10.244.{n}.2"),
        Family::V6 => format!("fd44:{n}::2"),
    };
    Endpoint {
        ip: ip.parse().unwrap(),
        port: 8080,
        local: n == 1,
    }
}

impl Lab {
    /// `None`, said loudly, without root.
    pub fn new(family: Family) -> Option<Self> {
        Self::with(family, Options::default())
    }

    pub fn with(family: Family, options: Options) -> Option<Self> {
        let (client, node) = (Host::new("c")?, Host::new("n")?);
        let ends = [Host::new("e")?, Host::new("f")?];
        let up = "link set lo up".to_owned();
        let mut of_node = vec![up.clone()];
        let sides = [
            (&client, "192.0.2", "fd02"),
            (&ends[0], "10.244.1", "fd44:1"),
            (&ends[1], "10.244.2", "fd44:2"),
        ];
        let addresses = |link: &str, v4: &str, v6: &str, last: u8| {
            [
                format!("address add {v4}.{last}/24 dev {link}"),
                format!("address add {v6}::{last}/64 dev {link} nodad"),
                format!("link set {link} up"),
            ]
        };
        for (n, (host, v4, v6)) in sides.iter().enumerate() {
            let peer = &host.name;
            of_node.push(format!(
                "link add v{n} type veth peer name eth0 netns {peer}"
            ));
            of_node.extend(addresses(&format!("v{n}"), v4, v6, 1));
        }
        of_node.push(format!("address add {}/24 dev v0", NODE[1]));
        node.ip_batch(&of_node);
        for (host, v4, v6) in sides {
            let mut lines = vec![up.clone()];
            lines.extend(addresses("eth0", v4, v6, 2));
            lines.push(format!("route add default via {v4}.1"));
            lines.push(format!("route add default via {v6}::1"));
            host.ip_batch(&lines);
        }
        let mode = node.run(|| Userspace::new(family, options)).unwrap();
        let wanted = Wanted {
            site: site(family),
            balancers: BTreeMap::new(),
        };
        Some(Self {
            client,
            node,
            ends,
            mode: Some(mode),
            wanted,
        })
    }

    /// Changes a service port, and syncs just that.
    pub fn set(&mut self, name: &str, protocol: Protocol, balancer: Balancer) -> Report {
        let name = port_name(name, protocol);
        self.wanted
            .balancers
            .insert(name.clone(), Arc::new(balancer));
        self.sync(&Changed::Ports(BTreeSet::from([name])))
    }

    /// Removes a service port, and syncs just that.
    pub fn unset(&mut self, name: &str, protocol: Protocol) -> Report {
        let name = port_name(name, protocol);
        self.wanted.balancers.remove(&name);
        self.sync(&Changed::Ports(BTreeSet::from([name])))
    }

    /// Syncs, in the node.
    pub fn sync(&mut self, changed: &Changed) -> Report {
        let (mode, wanted) = (self.mode.as_mut().unwrap(), &self.wanted);
        self.node.run(|| mode.sync(wanted, changed))
    }

    pub fn mode(&mut self) -> &mut Userspace {
        self.mode.as_mut().unwrap()
    }

    pub fn counters(&mut self) -> Arc<Counters> {
        self.mode().counters()
    }

    /// Which endpoint serves a new connection of the client, and whom it takes the client for.
    pub fn ask(&self, to: &str) -> (String, IpAddr) {
        ask(&mut self.client.connect(to).unwrap())
    }

    /// The same, where an error may come: of connecting or later.
    pub fn try_ask(&self, to: &str) -> io::Result<String> {
        try_ask(&mut self.client.connect(to)?)
    }
}

/// Reads the first line of a `tcp_server`.
pub fn ask(stream: &mut TcpStream) -> (String, IpAddr) {
    let line = try_ask(stream).unwrap();
    let (name, from) = line.split_once(' ').unwrap();
    (name.to_owned(), from.parse().unwrap())
}

/// The same, where an error is what is expected.
pub fn try_ask(stream: &mut TcpStream) -> io::Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        stream.read_exact(&mut byte)?;
        if byte[0] == b'\n' {
            return Ok(String::from_utf8_lossy(&line).into_owned());
        }
        line.push(byte[0]);
    }
}

/// Sends a datagram and waits for the answer.
pub fn exchange(socket: &UdpSocket, to: &str, text: &str) -> io::Result<(String, SocketAddr)> {
    socket.send_to(text.as_bytes(), to)?;
    let mut buffer = [0; 2048];
    let (length, from) = socket.recv_from(&mut buffer)?;
    Ok((
        String::from_utf8_lossy(&buffer[..length]).into_owned(),
        from,
    ))
}

/// Waits until something is so.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

pub fn port_name(name: &str, protocol: Protocol) -> PortName {
    PortName {
        service: ObjectName::new("default", name),
        port: "".into(),
        protocol,
    }
}

pub fn site(family: Family) -> Site {
    Site {
        family,
        node: "n1".into(),
        masquerade_all: false,
        masquerade_mark: 0x4000,
        local: LocalDetector::None,
        node_port_addresses: NodePortAddresses::All,
        service_cidrs: Vec::new(),
        affinity_by_hash: false,
        localhost_node_ports: false,
        conntrack_liberal: false,
    }
}

pub fn front(kind: FrontKind, ip: &str, port: u16) -> Front {
    Front {
        kind,
        ip: Some(ip.parse().unwrap()),
        port,
    }
}

pub fn node_port(port: u16) -> Front {
    Front {
        kind: FrontKind::NodePort,
        ip: None,
        port,
    }
}

/// A cluster IP, and these endpoints.
pub fn balancer(front: Front, endpoints: &[Endpoint]) -> Balancer {
    Balancer {
        fronts: vec![front],
        internal_policy: Policy::Cluster,
        external_policy: Policy::Cluster,
        affinity: None,
        source_ranges: Vec::new(),
        cluster: endpoints.to_vec(),
        local: endpoints.iter().filter(|e| e.local).copied().collect(),
        any_endpoint: !endpoints.is_empty(),
    }
}

/// A cluster IP with both endpoints.
pub fn web(family: Family) -> Balancer {
    let ip = match family {
        Family::V4 => "10.96.0.10",
        Family::V6 => "fd96::10",
    };
    let front = front(FrontKind::ClusterIp, ip, 80);
    balancer(front, &[end(family, 1), end(family, 2)])
}
