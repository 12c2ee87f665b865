//! A whole cluster: underlay, a store of leases, nodes with flanneld, Pods through the kube-flannel conflist.

use crate::conflist::{Conflist, Runtime};
use crate::etcd::Etcd;
use crate::flanneld::{Daemon, Flanneld};
use crate::namespace::Namespace;
use crate::pod::{Family, Pod};
use crate::run::Run;
use crate::subject::{self, Subject};
use crate::topology::{self, Underlay};
use crate::traffic::Ping;
use crate::wait::eventually;
use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

/// The key prefix in etcd, flannel's default.
pub const PREFIX: &str = "/coreos.com/network";
/// The cluster's IPv4 network.
pub const NETWORK: &str = "10.5.0.0/16";
/// The cluster's IPv6 network.
pub const NETWORK6: &str = "fd05::/48";

/// Which families the Pods have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stack {
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
    /// Both.
    Dual,
}

impl Stack {
    /// The families, one or two.
    pub fn families(self) -> &'static [Family] {
        match self {
            Self::V4 => &[Family::V4],
            Self::V6 => &[Family::V6],
            Self::Dual => &[Family::V4, Family::V6],
        }
    }
}

/// What kind of cluster.
#[derive(Clone, Debug)]
pub struct Options {
    /// Number of nodes.
    pub nodes: u8,
    /// The network configuration's `Backend`.
    pub backend: Value,
    /// Address families.
    pub stack: Stack,
    /// nftables in place of iptables.
    pub nftables: bool,
    /// More flags for every flanneld.
    pub flags: Vec<String>,
}

impl Options {
    /// Two nodes, IPv4, iptables, with the backend of this `Type`.
    pub fn new(backend: &str) -> Self {
        Self {
            nodes: 2,
            backend: json!({ "Type": backend }),
            stack: Stack::V4,
            nftables: false,
            flags: Vec::new(),
        }
    }

    /// With so many nodes.
    pub fn nodes(mut self, nodes: u8) -> Self {
        self.nodes = nodes;
        self
    }

    /// With these families.
    pub fn stack(mut self, stack: Stack) -> Self {
        self.stack = stack;
        self
    }

    /// With nftables rules.
    pub fn nftables(mut self) -> Self {
        self.nftables = true;
        self
    }

    /// The network configuration as it goes to etcd.
    pub fn network_config(&self) -> Value {
        let families = self.stack.families();
        let mut config = json!({
            "EnableIPv4": families.contains(&Family::V4),
            "EnableIPv6": families.contains(&Family::V6),
            "EnableNFTables": self.nftables,
            "Backend": self.backend,
        });
        if families.contains(&Family::V4) {
            config["Network"] = json!(NETWORK);
        }
        if families.contains(&Family::V6) {
            config["IPv6Network"] = json!(NETWORK6);
        }
        config
    }
}

/// A running cluster. The order of the fields is the order of their end.
#[derive(Debug)]
pub struct Cluster<S = Etcd> {
    /// The nodes, n1 first.
    pub nodes: Vec<Node>,
    /// Where leases come from: etcd, or a Kubernetes API server.
    pub store: S,
    /// The underlay and the outside.
    pub underlay: Underlay,
    /// Owner of all of it.
    pub run: Run,
}

/// A node.
#[derive(Debug)]
pub struct Node {
    /// Its namespace.
    pub namespace: Namespace,
    /// How its daemon is started.
    pub flanneld: Flanneld,
    /// Its daemon, when it runs.
    pub daemon: Option<Daemon>,
    /// Calls the plugins.
    pub runtime: Runtime,
    /// The kube-flannel conflist with this node's files.
    pub conflist: Conflist,
    /// Its number, 1 for n1.
    pub number: u8,
}

impl Cluster {
    /// Underlay and etcd with the network configuration; no node yet.
    pub fn empty(options: &Options) -> Result<Self> {
        let run = Run::new()?;
        let underlay = Underlay::new(&run)?;
        let addresses = [
            topology::ROUTER.to_string(),
            format!("[{}]", topology::ROUTER6),
        ];
        let addresses = addresses.each_ref().map(String::as_str);
        let etcd = Etcd::start(&underlay.namespace, &addresses, &run.subfolder("etcd")?)?;
        etcd.put(&config_key(), &options.network_config().to_string())?;
        Ok(Self::new(etcd, underlay, run))
    }

    /// Everything but the daemons.
    pub fn prepare(options: &Options) -> Result<Self> {
        let mut cluster = Self::empty(options)?;
        for _ in 0..options.nodes {
            cluster.join(options)?;
        }
        Ok(cluster)
    }

    /// A whole cluster: every daemon is ready when this returns.
    pub fn start(options: &Options) -> Result<Self> {
        let mut cluster = Self::prepare(options)?;
        for node in &mut cluster.nodes {
            node.start_daemon()?;
        }
        Ok(cluster)
    }

    /// The same, node `index` (0 is n1) having flags of its own: the configuration is the cluster's.
    pub fn start_with(options: &Options, own: impl Fn(usize) -> Vec<String>) -> Result<Self> {
        let mut cluster = Self::prepare(options)?;
        for (index, node) in cluster.nodes.iter_mut().enumerate() {
            node.flanneld.flags_mut().extend(own(index));
            node.start_daemon()?;
        }
        Ok(cluster)
    }

    /// A whole cluster by the udp backend, each node of which runs this data path and no other.
    pub fn by_data_path(data_path: &str, nodes: u8) -> Result<Self> {
        let mut options = Options::new("udp").nodes(nodes);
        options.backend = json!({ "Type": "udp", "DataPath": data_path });
        let cluster = Self::start(&options)?;
        for node in &cluster.nodes {
            let found = node.data_path()?;
            if found != data_path {
                bail!("n{} runs {found}\n{}", node.number, cluster.state());
            }
        }
        Ok(cluster)
    }

    /// Adds a node, its daemon not yet started.
    pub fn join(&mut self, options: &Options) -> Result<&mut Node> {
        let store = match options.stack {
            Stack::V6 => format!("http://[{}]:2379", topology::ROUTER6),
            Stack::V4 | Stack::Dual => format!("http://{}:2379", topology::ROUTER),
        };
        let flags = [format!("--etcd-endpoints={store}")].into_iter();
        self.join_with(flags.chain(options.flags.iter().cloned()))
    }
}

impl<S> Cluster<S> {
    /// A cluster without nodes.
    pub fn new(store: S, underlay: Underlay, run: Run) -> Self {
        Self {
            nodes: Vec::new(),
            store,
            underlay,
            run,
        }
    }

    /// Adds a node whose daemon, not yet started, has these flags beside those that all have.
    pub fn join_with(&mut self, more: impl Iterator<Item = String>) -> Result<&mut Node> {
        let number = u8::try_from(self.nodes.len() + 1)?;
        let namespace = self.underlay.join(&self.run, number)?;
        let folder = self.run.subfolder(&format!("n{number}.files"))?;
        let mut flags = vec!["--iface=eth0".to_owned(), "--ip-masq".to_owned()];
        flags.extend(more);
        let plugins = subject::plugin_folder(Subject::Ours, self.run.folder())?;
        let flanneld = Flanneld::new(&namespace, folder.clone(), flags);
        let conflist = Conflist::parse(&kube_flannel_conflist(&flanneld.subnet_file(), &folder))?;
        self.nodes.push(Node {
            runtime: Runtime::new(&namespace, plugins),
            namespace,
            flanneld,
            daemon: None,
            conflist,
            number,
        });
        self.nodes.last_mut().context("the node just added")
    }

    /// Adds a Pod on node `index` (0 is n1).
    pub fn pod(&self, index: usize, name: &str) -> Result<Pod> {
        self.pod_with(index, name, Map::new())
    }

    /// Adds a Pod with a port of the node mapped to it.
    pub fn pod_with_host_port(
        &self,
        index: usize,
        name: &str,
        host_port: u16,
        port: u16,
    ) -> Result<Pod> {
        let mapping =
            |protocol| json!({"hostPort": host_port, "containerPort": port, "protocol": protocol});
        let mut capabilities = Map::new();
        capabilities.insert(
            "portMappings".to_owned(),
            json!([mapping("tcp"), mapping("udp")]),
        );
        self.pod_with(index, name, capabilities)
    }

    fn pod_with(&self, index: usize, name: &str, capabilities: Map<String, Value>) -> Result<Pod> {
        let node = &self.nodes[index];
        Pod::add(&self.run, &node.runtime, &node.conflist, name, capabilities)
    }

    /// Waits until every Pod can ping every other in each family that it has.
    pub fn wait_connected(&self, pods: &[&Pod], stack: Stack) -> Result<()> {
        for from in pods {
            for to in pods.iter().filter(|to| to.name != from.name) {
                for &family in stack.families() {
                    let ip = to.ip(family)?;
                    let what = format!("{} reaches {} at {ip}", from.name, to.name);
                    let limit = Duration::from_secs(15);
                    eventually(&what, limit, || Ping::new(ip).count(1).run(&from.namespace))
                        .with_context(|| self.state())?;
                }
            }
        }
        Ok(())
    }

    /// Links, routes and daemon logs of all nodes, for the message of a failed test.
    pub fn state(&self) -> String {
        let mut text = String::new();
        for node in &self.nodes {
            for line in [
                "ip -brief address",
                "ip route",
                "ip -6 route",
                "ip neigh show nud permanent",
                "bridge fdb",
                "ip -statistics link",
                "nstat -z",
            ] {
                let out = node.namespace.sh(line);
                let out = out.unwrap_or_else(|error| format!("{error:#}\n"));
                text.push_str(&format!("--- n{}: {line}\n{out}", node.number));
            }
            let page = (node.metrics()).unwrap_or_else(|error| format!("{error:#}"));
            let tunnel = (page.lines())
                .filter(|line| line.starts_with("flanneld_tunnel") && !line.ends_with(" 0"));
            text.push_str(&format!("--- n{}: counters\n", node.number));
            for line in tunnel {
                text.push_str(&format!("{line}\n"));
            }
            if let Some(daemon) = &node.daemon {
                text.push_str(&format!(
                    "--- n{}: flanneld's log\n{}\n",
                    node.number,
                    daemon.log_tail()
                ));
            }
        }
        text
    }
}

impl Node {
    /// Starts the daemon and waits until it is ready.
    pub fn start_daemon(&mut self) -> Result<()> {
        let daemon = self.flanneld.start();
        self.daemon = Some(daemon.with_context(|| format!("flanneld on n{}", self.number))?);
        Ok(())
    }

    /// Takes the running daemon out, to end it in some way.
    pub fn take_daemon(&mut self) -> Result<Daemon> {
        let daemon = self.daemon.take();
        daemon.with_context(|| format!("no flanneld runs on n{}", self.number))
    }

    /// The node's underlay address.
    pub fn ip(&self, family: Family) -> IpAddr {
        let (v4, v6) = topology::node_addresses(self.number);
        match family {
            Family::V4 => v4.into(),
            Family::V6 => v6.into(),
        }
    }

    /// The node's leased subnet, as `10.5.7.0/24`.
    pub fn subnet(&self, family: Family) -> Result<ipnet::IpNet> {
        let key = match family {
            Family::V4 => "FLANNEL_SUBNET",
            Family::V6 => "FLANNEL_IPV6_SUBNET",
        };
        let gateway: ipnet::IpNet = self.flanneld.subnet_env(key)?.parse()?;
        Ok(gateway.trunc())
    }

    /// The Pods' MTU.
    pub fn mtu(&self) -> Result<u32> {
        Ok(self.flanneld.subnet_env("FLANNEL_MTU")?.parse()?)
    }

    /// The daemon's `/metrics` page.
    pub fn metrics(&self) -> Result<String> {
        match self.flanneld.health("metrics")? {
            (200, page) => Ok(page),
            (status, body) => bail!("n{}: /metrics says {status} {body:?}", self.number),
        }
    }

    /// The value of one series of `/metrics`, for example `flanneld_peers`.
    pub fn metric(&self, series: &str) -> Result<f64> {
        let page = self.metrics()?;
        let value = (page.lines()).find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        let value = value.with_context(|| format!("no {series} in\n{page}"))?;
        Ok(value.trim().parse()?)
    }

    /// The data path that the daemon says it has chosen.
    pub fn data_path(&self) -> Result<String> {
        let page = self.metrics()?;
        let line = (page.lines()).find(|line| line.starts_with("flanneld_tunnel_info{"));
        let name = line.and_then(|line| line.split_once("data_path=\"")?.1.split_once('"'));
        let (name, _) = name.with_context(|| format!("no flanneld_tunnel_info in\n{page}"))?;
        Ok(name.to_owned())
    }

    /// Waits until `line` prints something that satisfies `is_good`.
    pub fn wait_for(
        &self,
        what: &str,
        line: &str,
        is_good: impl Fn(&str) -> bool,
    ) -> Result<String> {
        let limit = Duration::from_secs(15);
        let found = eventually(what, limit, || {
            let output = self.namespace.sh(line)?;
            if !is_good(&output) {
                bail!("n{}: {line}:\n{output}", self.number);
            }
            Ok(output)
        });
        found.with_context(|| match &self.daemon {
            Some(daemon) => format!("flanneld's log ends:\n{}", daemon.log_tail()),
            None => "flanneld does not run".to_owned(),
        })
    }
}

/// The key of the network configuration.
pub fn config_key() -> String {
    format!("{PREFIX}/config")
}

/// The kube-flannel conflist; its files go below `folder` so that nodes do not share them.
pub fn kube_flannel_conflist(subnet_file: &Path, folder: &Path) -> Value {
    json!({
        "name": "cbr0",
        "cniVersion": "1.0.0",
        "plugins": [
            {
                "type": "flannel",
                "subnetFile": subnet_file,
                "dataDir": folder.join("cni-flannel"),
                "ipam": { "dataDir": folder.join("cni-networks") },
                "delegate": { "hairpinMode": true, "isDefaultGateway": true },
            },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    })
}
