//! Nodes, plain Pods with routes between them, and what every node's proxy reads.
//!
//! ```text
//!   outside 203.0.113.1 ── underlay ══╦══ n1 192.168.66.11 ── Pods 10.244.1.0/24, fd44:0:0:1::/64
//!                                     ╚══ n2 192.168.66.12 ── Pods 10.244.2.0/24, fd44:0:0:2::/64
//! ```
//! Cluster IPs are of 10.96.0.0/16 and fd96::/112 and lead nowhere but to a node's default route.
//! Addresses of 198.51.100.0/24 and 2001:db8:e::/64 (external IPs, load balancers) are routed to n1.

use super::daemon::{Daemon, Proxy};
use super::manifest::{Manifests, Port};
use super::mode::Mode;
use crate::cluster::Stack;
use crate::namespace::Namespace;
use crate::pod::Family;
use crate::run::Run;
use crate::topology::{self, Underlay};
use crate::traffic::{TcpServer, UdpServer};
use anyhow::{Context, Result};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};

/// Cluster IP number `number` of a family.
pub fn cluster_ip(family: Family, number: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 96, 0, number).into(),
        Family::V6 => Ipv6Addr::new(0xfd96, 0, 0, 0, 0, 0, 0, number.into()).into(),
    }
}

/// An address of the world that is routed to n1 but that no node has.
pub fn external_ip(family: Family, number: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(198, 51, 100, number).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0xe, 0, 0, 0, 0, number.into()).into(),
    }
}

fn pod_ip(family: Family, node: u8, number: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 244, node, number).into(),
        Family::V6 => Ipv6Addr::new(0xfd44, 0, 0, node.into(), 0, 0, 0, u16::from(number)).into(),
    }
}

/// What kind of site.
#[derive(Clone, Debug)]
pub struct Options {
    /// How the nodes' proxies work.
    pub mode: Mode,
    /// Families of Pods and Services.
    pub stack: Stack,
    /// Number of nodes.
    pub nodes: u8,
    /// More flags for every proxy.
    pub flags: Vec<String>,
}

impl Options {
    /// Two nodes with both families.
    pub fn new(mode: Mode) -> Self {
        Self {
            mode,
            stack: Stack::Dual,
            nodes: 2,
            flags: Vec::new(),
        }
    }

    /// With these families.
    pub fn stack(mut self, stack: Stack) -> Self {
        self.stack = stack;
        self
    }

    /// With one more flag for every proxy.
    pub fn flag(mut self, flag: &str) -> Self {
        self.flags.push(flag.to_owned());
        self
    }
}

/// The nodes and what they read. The order of the fields is the order of their end.
#[derive(Debug)]
pub struct Site {
    /// The nodes, n1 first.
    pub nodes: Vec<Node>,
    /// What every proxy reads.
    pub manifests: Manifests,
    /// The underlay and the outside.
    pub underlay: Underlay,
    /// Of the nodes' proxies.
    pub mode: Mode,
    /// Of Pods and Services.
    pub stack: Stack,
    /// Owner of all of it.
    pub run: Run,
}

/// A node.
#[derive(Debug)]
pub struct Node {
    /// Its namespace.
    pub namespace: Namespace,
    /// `n1`.
    pub name: String,
    /// 1.
    pub number: u8,
    /// How its proxy is started.
    pub proxy: Proxy,
    /// Its proxy, when it runs.
    pub daemon: Option<Daemon>,
    /// Pods made on it.
    pods: AtomicU8,
}

/// A Pod: a client, or the place of a [`Backend`].
#[derive(Clone, Debug)]
pub struct Pod {
    /// Its namespace.
    pub namespace: Namespace,
    /// The name of its node.
    pub node: String,
    /// The node's end of its veth pair.
    pub device: String,
    /// Its addresses, IPv4 first.
    pub ips: Vec<IpAddr>,
}

/// A Pod whose servers answer on one port, TCP and UDP, on each of its addresses.
#[derive(Debug)]
pub struct Backend {
    /// Where.
    pub pod: Pod,
    /// The port.
    pub port: u16,
    /// Listening as long as the value lives.
    pub servers: Vec<(TcpServer, UdpServer)>,
}

impl Site {
    /// A site whose proxies run; `None`, loudly, when the machine cannot have it.
    pub fn start(options: &Options) -> Result<Option<Self>> {
        let Some(mut site) = Self::prepare(options)? else {
            return Ok(None);
        };
        for node in &mut site.nodes {
            node.start_proxy()?;
        }
        Ok(Some(site))
    }

    /// Everything but the proxies.
    pub fn prepare(options: &Options) -> Result<Option<Self>> {
        if !options.mode.is_possible() {
            return Ok(None);
        }
        let run = Run::new()?;
        let underlay = Underlay::new(&run)?;
        let manifests = Manifests::new(run.subfolder("manifests")?);
        let mut site = Self {
            nodes: Vec::new(),
            manifests,
            underlay,
            mode: options.mode,
            stack: options.stack,
            run,
        };
        for number in 1..=options.nodes {
            site.join(number, options)?;
        }
        site.route()?;
        for node in &site.nodes {
            let families = site.stack.families().iter();
            let ips: Vec<_> = families.map(|family| node.ip(*family)).collect();
            site.manifests.node(&node.name, &ips)?;
        }
        Ok(Some(site))
    }

    fn join(&mut self, number: u8, options: &Options) -> Result<()> {
        let namespace = self.underlay.join(&self.run, number)?;
        namespace.set_sysctl("net/ipv4/ip_forward", "1")?;
        namespace.set_sysctl("net/ipv6/conf/all/forwarding", "1")?;
        let name = format!("n{number}");
        let log = self.run.folder().join(format!("{name}.weft-proxy.log"));
        let cidrs = self.stack.families().iter().map(|family| match family {
            Family::V4 => "10.244.0.0/16",
            Family::V6 => "fd44::/48",
        });
        let cidrs = cidrs.collect::<Vec<_>>().join(",");
        let folder = self.manifests.folder();
        let mut proxy = Proxy::new(&namespace, &name, folder, log)
            .mode(self.mode)
            .flag(format!("--cluster-cidr={cidrs}"));
        for flag in &options.flags {
            proxy = proxy.flag(flag.clone());
        }
        self.nodes.push(Node {
            namespace,
            name,
            number,
            proxy,
            daemon: None,
            pods: AtomicU8::new(0),
        });
        Ok(())
    }

    /// Routes between the nodes' Pods, and from the outside to the external addresses.
    fn route(&self) -> Result<()> {
        for node in &self.nodes {
            let mut lines = String::new();
            for peer in self.nodes.iter().filter(|peer| peer.number != node.number) {
                let (v4, v6) = topology::node_addresses(peer.number);
                let pods4 = pod_ip(Family::V4, peer.number, 0);
                let pods6 = pod_ip(Family::V6, peer.number, 0);
                lines += &format!("route add {pods4}/24 via {v4}\nroute add {pods6}/64 via {v6}\n");
            }
            node.namespace.ip_batch(&lines)?;
        }
        let (external4, external6) = (external_ip(Family::V4, 0), external_ip(Family::V6, 0));
        let (v4, v6) = topology::node_addresses(1);
        self.underlay.namespace.ip_batch(&format!(
            "route add {external4}/24 via {v4}\nroute add {external6}/64 via {v6}"
        ))?;
        self.underlay.outside.ip_batch(&format!(
            "route add {external4}/24 via 203.0.113.254
             route add {external6}/64 via 2001:db8:113::254"
        ))
    }

    /// The families of Pods and Services.
    pub fn families(&self) -> &'static [Family] {
        self.stack.families()
    }

    /// Cluster IP number `number` in each family.
    pub fn cluster_ips(&self, number: u8) -> Vec<IpAddr> {
        let families = self.families().iter();
        families.map(|family| cluster_ip(*family, number)).collect()
    }

    /// External address number `number` in each family.
    pub fn external_ips(&self, number: u8) -> Vec<IpAddr> {
        let families = self.families().iter();
        families
            .map(|family| external_ip(*family, number))
            .collect()
    }

    /// Makes a Pod on node `index` (0 is n1).
    pub fn pod(&self, index: usize) -> Result<Pod> {
        let node = self.nodes.get(index).context("no such node")?;
        let count = node.pods.fetch_add(1, Ordering::Relaxed) + 1;
        let device = format!("p{count}");
        let namespace = self.run.namespace(&format!("{}{device}", node.name))?;
        // Only for this link: its addresses are known to be unique.
        namespace.set_sysctl("net/ipv6/conf/default/accept_dad", "0")?;
        node.namespace.ip_batch(&format!(
            "link add {device} type veth peer name eth0 netns {pod}
             link set {device} up",
            pod = namespace.name()
        ))?;
        let (mut inside, mut outside) = ("link set eth0 up\n".to_owned(), String::new());
        let mut ips = Vec::new();
        for &family in self.families() {
            let (ip, gateway) = (
                pod_ip(family, node.number, 10 + count),
                pod_ip(family, node.number, 1),
            );
            let (length, nodad) = match family {
                Family::V4 => (32, ""),
                Family::V6 => (128, "nodad"),
            };
            inside += &format!(
                "address add {ip}/{length} dev eth0 {nodad}
                 route add {gateway}/{length} dev eth0
                 route add default via {gateway} dev eth0 src {ip}\n"
            );
            outside += &format!(
                "address add {gateway}/{length} dev {device} {nodad}
                 route add {ip}/{length} dev {device} src {gateway}\n"
            );
            ips.push(ip);
        }
        namespace.ip_batch(&inside)?;
        node.namespace.ip_batch(&outside)?;
        Ok(Pod {
            namespace,
            node: node.name.clone(),
            device,
            ips,
        })
    }

    /// Makes a Pod on node `index` that answers on `port`.
    pub fn backend(&self, index: usize, port: u16) -> Result<Backend> {
        let pod = self.pod(index)?;
        Backend::start(pod, port)
    }

    /// What an endpoint sees as client when node `index` masquerades: the node's address on the way
    /// to it.
    pub fn masqueraded(&self, index: usize, endpoint: &Pod, family: Family) -> IpAddr {
        let node = &self.nodes[index];
        match endpoint.node == node.name {
            true => pod_ip(family, node.number, 1),
            false => node.ip(family),
        }
    }

    /// Starts node `index`'s proxy anew in another mode, as an operator would: the old process ends
    /// by SIGTERM, the new one cleans up after it.
    pub fn switch_mode(&mut self, index: usize, mode: Mode) -> Result<()> {
        let node = &mut self.nodes[index];
        node.stop_proxy()?;
        node.proxy = node.proxy.clone().mode(mode);
        node.start_proxy()?;
        self.mode = mode;
        Ok(())
    }
}

impl Node {
    /// Its address on the underlay.
    pub fn ip(&self, family: Family) -> IpAddr {
        let (v4, v6) = topology::node_addresses(self.number);
        match family {
            Family::V4 => v4.into(),
            Family::V6 => v6.into(),
        }
    }

    /// Starts its proxy and waits until it has synced.
    pub fn start_proxy(&mut self) -> Result<()> {
        let daemon = self.proxy.start();
        self.daemon = Some(daemon.with_context(|| format!("weft-proxy on {}", self.name))?);
        Ok(())
    }

    /// Ends its proxy as a service manager does.
    pub fn stop_proxy(&mut self) -> Result<()> {
        let daemon = self.take_proxy()?;
        let status = crate::flanneld::terminate(daemon)?;
        anyhow::ensure!(status.success(), "weft-proxy on {}: {status}", self.name);
        Ok(())
    }

    /// Takes the running proxy out, to end it in some other way.
    pub fn take_proxy(&mut self) -> Result<Daemon> {
        let daemon = self.daemon.take();
        daemon.with_context(|| format!("no weft-proxy runs on {}", self.name))
    }
}

impl Pod {
    /// Its address of a family.
    pub fn ip(&self, family: Family) -> Result<IpAddr> {
        let mut ips = self.ips.iter();
        let ip = ips.find(|ip| family.has(**ip));
        ip.copied()
            .with_context(|| format!("{} has no {family:?} address", self.namespace.name()))
    }
}

impl Backend {
    /// Listens on `port` of each of the Pod's addresses.
    pub fn start(pod: Pod, port: u16) -> Result<Self> {
        let servers = pod.ips.iter().map(|ip| {
            anyhow::Ok((
                TcpServer::start(&pod.namespace, *ip, port)?,
                UdpServer::start(&pod.namespace, *ip, port)?,
            ))
        });
        let servers = servers.collect::<Result<_>>()?;
        Ok(Self { pod, port, servers })
    }

    /// Where it answers.
    pub fn address(&self, family: Family) -> Result<SocketAddr> {
        Ok(SocketAddr::new(self.pod.ip(family)?, self.port))
    }

    /// Its port under a Service port's name, TCP.
    pub fn tcp(&self, name: &'static str) -> Port {
        Port::tcp(name, self.port)
    }

    /// The same, UDP.
    pub fn udp(&self, name: &'static str) -> Port {
        Port::udp(name, self.port)
    }
}
