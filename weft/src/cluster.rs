//! A cluster on one machine: each node a network namespace on an underlay, what runs there, and where it is kept.
//!
//! ```text
//!   host: 127.0.0.1:PORT ─┐ (a socket made on the host, used from inside)
//!                         ▼
//!   weft-NAME      192.168.66.1  weft server ═ br0 ═╦═ eth0 192.168.66.11  weft-NAME-n1: weft node
//!                                                   ╠═ eth0 192.168.66.12  weft-NAME-n2: weft node
//!                                                   ╚═ …
//! ```
//! Nothing is made in the host's own network, so clusters of several names stand side by side.

pub mod down;
mod etcd;
mod owner;
pub mod process;
pub mod status;
pub mod topology;
mod turn;
pub mod up;

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use self::process::Process;

/// Where clusters are kept.
const FOLDER: &str = "/var/lib/weft/clusters";
/// More nodes have no address in the underlay.
pub const MOST_NODES: u8 = 200;

/// Which cluster.
#[derive(Clone, Debug, clap::Args)]
pub struct Which {
    /// The cluster's name; several stand side by side.
    #[arg(long, env = "WEFT_CLUSTER", default_value = "weft", value_parser = name)]
    pub name: String,
}

fn name(text: &str) -> Result<String, String> {
    let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if (1..=24).contains(&text.len()) && text.chars().all(letter) && !text.starts_with('-') {
        Ok(text.to_owned())
    } else {
        Err("a name has 1 to 24 of a-z, 0-9 and -".to_owned())
    }
}

/// What is known of a cluster, kept as `cluster.json` in its folder. Written before what it names is made, so that
/// whatever happens can be taken away again.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// Its name.
    pub name: String,
    /// How it was asked for.
    pub shape: Shape,
    /// The port of the API server on the host's loopback.
    pub port: u16,
    /// etcd, if it keeps the objects and was started here.
    pub etcd: Option<Process>,
    /// The API server, the controllers, the scheduler.
    pub server: Option<Process>,
    /// By number, from 1.
    pub nodes: Vec<Node>,
}

/// How a cluster was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// How many nodes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=i64::from(MOST_NODES)))]
    pub nodes: u8,
    /// How Pods on different nodes reach each other: vxlan, udp, host-gw.
    #[arg(long, default_value = "vxlan", value_parser = ["vxlan", "udp", "host-gw"])]
    pub backend: String,
    /// How Services are made: nftables, iptables, userspace.
    #[arg(long, default_value = "nftables", value_parser = ["nftables", "iptables", "userspace"])]
    pub proxy_mode: String,
    /// Where objects are kept: embedded, etcd (one is started), or etcd://HOST:PORT.
    #[arg(long, default_value = "embedded")]
    pub store: String,
    /// The Pods' addresses; each node gets a /24 of them.
    #[arg(long, value_name = "CIDR", default_value = "10.244.0.0/16")]
    pub cluster_cidr: ipnet::Ipv4Net,
    /// The Services' addresses.
    #[arg(long, value_name = "CIDR", default_value = "10.96.0.0/16")]
    pub service_cidr: ipnet::Ipv4Net,
    /// Seconds without a word after which a node counts as lost.
    #[arg(long, value_name = "SECONDS", default_value_t = 12, value_parser = clap::value_parser!(u32).range(4..))]
    pub node_monitor_grace_period: u32,
    /// Root file systems and images for Pods (image: NAME is DIR/NAME, a folder, or DIR/NAME.tar); `image: host` needs
    /// none.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/weft/images")]
    pub images: PathBuf,
}

/// A node.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// From 1.
    pub number: u8,
    /// What runs there.
    pub process: Option<Process>,
}

impl Node {
    /// `n1`
    pub fn name(&self) -> String {
        format!("n{}", self.number)
    }

    /// In the underlay.
    pub fn ip(&self) -> Ipv4Addr {
        topology::node_address(self.number)
    }
}

impl Cluster {
    /// Reads what is there.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn load(name: &str) -> anyhow::Result<Option<Self>> {
        let path = folder(name).join("cluster.json");
        match fs::read(&path) {
            Ok(bytes) => {
                let read = serde_json::from_slice(&bytes);
                read.map(Some).with_context(|| {
                    format!(
                        "read {} (weft down --name {name} takes away what can be found without it)",
                        path.display()
                    )
                })
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }

    /// Reads what must be there.
    ///
    /// # Errors
    /// As above, or there is no such cluster.
    pub fn expect(name: &str) -> anyhow::Result<Self> {
        match Self::load(name)? {
            Some(cluster) => Ok(cluster),
            None => bail!("there is no cluster {name}: weft up --name {name} makes it"),
        }
    }

    /// Takes up what runs and is not written down: a command that was interrupted had just started it.
    pub fn take_up_strays(&mut self) {
        for (data, process) in process::below(&self.folder()) {
            let place = if data == self.server_folder() {
                &mut self.server
            } else if data == self.etcd_folder().join("data") {
                &mut self.etcd
            } else {
                let folders: Vec<_> = self
                    .nodes
                    .iter()
                    .map(|node| self.node_folder(&node.name()))
                    .collect();
                let Some(index) = folders.iter().position(|folder| *folder == data) else {
                    continue;
                };
                let Some(node) = self.nodes.get_mut(index) else {
                    continue;
                };
                &mut node.process
            };
            if !place.as_ref().is_some_and(Process::alive) {
                *place = Some(process);
            }
        }
    }

    /// Writes it down.
    ///
    /// # Errors
    /// The file system's.
    pub fn save(&self) -> anyhow::Result<()> {
        let path = self.folder().join("cluster.json");
        let new = path.with_extension("new");
        let text = serde_json::to_vec_pretty(self).context("write the cluster down")?;
        fs::write(&new, text)
            .and_then(|()| fs::rename(&new, &path))
            .with_context(|| format!("write {}", path.display()))
    }

    /// All its files.
    pub fn folder(&self) -> PathBuf {
        folder(&self.name)
    }

    /// The API server's.
    pub fn server_folder(&self) -> PathBuf {
        self.folder().join("server")
    }

    /// etcd's.
    pub fn etcd_folder(&self) -> PathBuf {
        self.folder().join("etcd")
    }

    /// A node's.
    pub fn node_folder(&self, node: &str) -> PathBuf {
        self.folder().join("nodes").join(node)
    }

    /// The administrator's kubeconfig, for whom the cluster is.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder().join("kubeconfig")
    }

    /// The same as the API server has written it.
    pub fn server_kubeconfig(&self) -> PathBuf {
        self.server_folder().join("admin.kubeconfig")
    }

    /// The API server as nodes reach it.
    pub fn server_address(&self) -> IpAddr {
        topology::SERVER.into()
    }

    /// The API server and the nodes are told that they are of this cluster by this.
    pub fn namespace(&self, node: Option<&str>) -> String {
        topology::namespace(&self.name, node)
    }
}

fn folder(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

/// Only root makes namespaces.
fn need_root(command: &str) -> anyhow::Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    bail!("this makes network namespaces and needs root: sudo weft {command}")
}
