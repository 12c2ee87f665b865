//! The node, its Pods and a client outside.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use kernel::{Netns, process};
use proxy::{
    mode::{
        Mode, Report,
        iptables::{Choice, IptablesMode, Options},
    },
    model::{Changed, Family, Wanted},
};

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_millis(1500);

/// Both forms.
const FORMS: [Choice; 2] = [Choice::Nft, Choice::Legacy];

/// Runs a test on a new bed for each form of iptables and each family.
pub fn on_each(test: fn(Bed)) {
    for form in FORMS {
        for family in Family::ALL {
            let Some(bed) = Bed::new(form, family) else {
                return;
            };
            println!("with {form:?} and {}", family.label());
            test(bed);
        }
    }
}

/// Says that a test is skipped, past the harness, which swallows what a passing test prints.
fn skip(reason: std::fmt::Arguments<'_>) {
    let thread = thread::current();
    let test = thread.name().unwrap_or("a test");
    let line = format!("SKIPPED: {test}: {reason}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// A namespace that goes with the test.
struct Named {
    name: String,
    netns: Netns,
}

impl Named {
    fn new(role: &str) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("weft-pi{}-{number}{role}", std::process::id());
        match Netns::create(&name) {
            Ok(netns) => Some(Self { name, netns }),
            Err(error) if std::env::var_os("WEFT_REQUIRE_ROOT").is_none() => {
                skip(format_args!(
                    "needs root ({error}; run scripts/test.sh with sudo)"
                ));
                None
            }
            Err(error) => panic!("{error}"),
        }
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        Netns::delete(&self.name).unwrap();
    }
}

/// A node with two Pods (10.244.0.2 and .3) and a client (192.0.2.2; the node is 192.0.2.1).
/// IPv6: fd00:244:: and fd00:2::.
pub struct Bed {
    node: Named,
    client: Named,
    pods: Vec<Named>,
    stop: Arc<AtomicBool>,
    mode: Option<IptablesMode>,
    pub choice: Choice,
    pub family: Family,
}

impl Bed {
    pub fn new(choice: Choice, family: Family) -> Option<Self> {
        let programs = match choice {
            Choice::Legacy => ["iptables-legacy", "ip6tables-legacy"],
            _ => ["iptables-nft", "ip6tables-nft"],
        };
        if let Some(missing) = programs.iter().find(|name| process::find(name).is_none()) {
            skip(format_args!("needs {missing} (apt-get install iptables)"));
            return None;
        }
        let bed = Self {
            node: Named::new("n")?,
            client: Named::new("c")?,
            pods: vec![Named::new("p")?, Named::new("q")?],
            stop: Arc::default(),
            mode: None,
            choice,
            family,
        };
        bed.wire();
        Some(bed)
    }

    fn wire(&self) {
        let ends = [
            ("c0", &self.client),
            ("p2", &self.pods[0]),
            ("p3", &self.pods[1]),
        ];
        for place in [&self.node, &self.client, &self.pods[0], &self.pods[1]] {
            let quiet = || {
                // Links made from now on do not wait for duplicate addresses to be found, and the node
                // does not spend on redirects what ICMP it may send in a second.
                for key in [
                    "net.ipv6.conf.default.accept_dad",
                    "net.ipv4.conf.all.send_redirects",
                    "net.ipv4.conf.default.send_redirects",
                ] {
                    kernel::sysctl::ensure(key, "0").unwrap();
                }
            };
            place.netns.run(quiet).unwrap();
        }
        let mut node = vec!["link set lo up".to_owned()];
        for (link, end) in ends {
            node.push(format!(
                "link add {link} type veth peer name eth0 netns {}",
                end.name
            ));
            node.push(format!("link set {link} up"));
        }
        node.push("addr add 192.0.2.1/24 dev c0".into());
        node.push("addr add fd00:2::1/64 dev c0 nodad".into());
        // As on every node: a packet must have a way before it is translated.
        node.push("route add default via 192.0.2.2".into());
        node.push("-6 route add default via fd00:2::2".into());
        for host in [2, 3] {
            node.push(format!("addr add 10.244.0.1/32 dev p{host}"));
            node.push(format!("route add 10.244.0.{host}/32 dev p{host}"));
            node.push(format!("addr add fd00:244::1/128 dev p{host} nodad"));
            node.push(format!("-6 route add fd00:244::{host}/128 dev p{host}"));
        }
        self.ip(&self.node, &node);
        self.in_node(|| {
            for key in [
                "net.ipv4.ip_forward",
                "net.ipv6.conf.all.forwarding",
                // A Pod that is sent its own packet back by the node.
                "net.ipv4.conf.all.accept_local",
            ] {
                kernel::sysctl::ensure(key, "1").unwrap();
            }
        });
        self.ip(
            &self.client,
            &[
                "link set lo up".into(),
                "link set eth0 up".into(),
                "addr add 192.0.2.2/24 dev eth0".into(),
                "addr add fd00:2::2/64 dev eth0 nodad".into(),
                "route add default via 192.0.2.1".into(),
                "-6 route add default via fd00:2::1".into(),
            ],
        );
        for (pod, host) in self.pods.iter().zip([2, 3]) {
            self.ip(
                pod,
                &[
                    "link set lo up".into(),
                    "link set eth0 up".into(),
                    format!("addr add 10.244.0.{host}/32 dev eth0"),
                    "route add 10.244.0.1 dev eth0".into(),
                    "route add default via 10.244.0.1".into(),
                    format!("addr add fd00:244::{host}/128 dev eth0 nodad"),
                    "-6 route add fd00:244::1 dev eth0".into(),
                    "-6 route add default via fd00:244::1".into(),
                ],
            );
        }
    }

    fn ip(&self, place: &Named, commands: &[String]) {
        place
            .netns
            .run(|| {
                for command in commands {
                    let arguments: Vec<_> = command.split(' ').collect();
                    process::run(command, "ip", &arguments, "").unwrap();
                }
            })
            .unwrap();
    }

    pub fn in_node<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.node.netns.run(work).unwrap()
    }

    /// An address by its last part in a network: `pod`, `node`, `client` or a cluster IP.
    pub fn pod(&self, host: u8) -> IpAddr {
        match self.family {
            Family::V4 => format!("10.244.0.{host}"),
            Family::V6 => format!("fd00:244::{host}"),
        }
        .parse()
        .unwrap()
    }

    pub fn node_ip(&self) -> IpAddr {
        self.outside(1)
    }

    pub fn client_ip(&self) -> IpAddr {
        self.outside(2)
    }

    fn outside(&self, host: u8) -> IpAddr {
        match self.family {
            Family::V4 => format!("192.0.2.{host}"),
            Family::V6 => format!("fd00:2::{host}"),
        }
        .parse()
        .unwrap()
    }

    pub fn cluster_ip(&self, host: u8) -> IpAddr {
        match self.family {
            Family::V4 => format!("10.96.0.{host}"),
            Family::V6 => format!("fd00:96::{host:x}"),
        }
        .parse()
        .unwrap()
    }

    /// Each Pod answers TCP on 8080 with the address that it sees.
    pub fn serve(&self) {
        for (pod, host) in self.pods.iter().zip([2, 3]) {
            let address = SocketAddr::new(self.pod(host), 8080);
            let listener = pod
                .netns
                .run(|| TcpListener::bind(address).unwrap())
                .unwrap();
            listener.set_nonblocking(true).unwrap();
            let stop = Arc::clone(&self.stop);
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    match listener.accept() {
                        Ok((mut stream, peer)) => {
                            let answer = format!("{} {}", address.ip(), peer.ip());
                            // A client that has gone away already is its own affair.
                            let _gone = stream.write_all(answer.as_bytes());
                        }
                        Err(_) => thread::sleep(Duration::from_millis(5)),
                    }
                }
            });
        }
    }

    /// Connects from the client outside.
    pub fn client_calls(&self, to: SocketAddr) -> std::io::Result<(IpAddr, IpAddr)> {
        self.client.netns.run(|| call(to)).unwrap()
    }

    /// Connects from the node.
    pub fn node_calls(&self, to: SocketAddr) -> std::io::Result<(IpAddr, IpAddr)> {
        self.node.netns.run(|| call(to)).unwrap()
    }

    /// Connects from the Pod with this host number.
    pub fn pod_calls(&self, host: u8, to: SocketAddr) -> std::io::Result<(IpAddr, IpAddr)> {
        self.pods[usize::from(host) - 2]
            .netns
            .run(|| call(to))
            .unwrap()
    }

    /// Another process of the proxy.
    pub fn restart(&mut self) {
        self.mode = None;
    }

    pub fn with_mode<T: Send>(&mut self, work: impl FnOnce(&mut IptablesMode) -> T + Send) -> T {
        let options = Options {
            choice: self.choice,
            lock_wait: Duration::from_secs(30),
            ..Options::default()
        };
        let family = self.family;
        let mode = self
            .mode
            .get_or_insert_with(|| IptablesMode::new(family, options));
        self.node.netns.run(|| work(mode)).unwrap()
    }

    pub fn sync(&mut self, wanted: &Wanted, changed: &Changed) -> Report {
        let report = self.with_mode(|mode| mode.sync(wanted, changed));
        assert_eq!(report.errors, Vec::<String>::new());
        report
    }

    /// Runs a program in the node, with the name of this form and family in place of `iptables`.
    pub fn iptables(&self, suffix: &str, arguments: &str) -> String {
        let base = match self.family {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        };
        let form = match self.choice {
            Choice::Legacy => "legacy",
            _ => "nft",
        };
        let program = format!("{base}-{form}{suffix}");
        let words: Vec<_> = arguments.split_whitespace().collect();
        self.in_node(|| {
            process::run(&format!("{program} {arguments}"), &program, &words, "").unwrap()
        })
    }

    /// All rules of `nat` and `filter`, without comments and counters.
    pub fn saved(&self) -> String {
        ["nat", "filter"]
            .map(|table| self.iptables("-save", &format!("-t {table}")))
            .concat()
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split(" [").next().unwrap_or(line).to_owned() + "\n")
            .collect()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Who answered, and whom it saw.
fn call(to: SocketAddr) -> std::io::Result<(IpAddr, IpAddr)> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (pod, seen) = answer
        .split_once(' ')
        .ok_or_else(|| std::io::Error::other(format!("answer {answer:?}")))?;
    let ip = |text: &str| text.parse().map_err(std::io::Error::other);
    Ok((ip(pod)?, ip(seen)?))
}
