//! Where it happens: an etcd in a namespace of its own, and for each subject two nodes of their own.
//!
//! ```text
//!   node 1 (eth0 192.168.66.11) ═══ veth ═══ (eth0 192.168.66.12) node 2
//!       │ store0 172.30.S.1                     │ store0 172.30.S.2
//!       └────────────── br0 172.30.0.1, etcd ───┘
//! ```
//! The nodes' underlay is one veth pair, without a bridge between, as in the measured facts that the
//! bounds were taken from. etcd is reached by other links, so that nothing but the measured traffic
//! is on the underlay. Traffic runs between addresses of the nodes themselves: each has the first
//! address of its subnet (the one that `cni0` would have) on loopback, and no Pod's veth and bridge
//! lie between the socket and the overlay. All subjects stand at the same time and take turns.

use ::tests::etcd::Etcd;
use ::tests::{Namespace, Run};
use anyhow::{Context, Result};
use serde_json::Value;
use std::net::Ipv4Addr;
use std::path::PathBuf;

const STORE: &str = "172.30.0.1";

/// The nodes' underlay addresses.
pub const UNDERLAY: [Ipv4Addr; 2] = [
    Ipv4Addr::new(192, 168, 66, 11),
    Ipv4Addr::new(192, 168, 66, 12),
];

/// The run and its etcd. The order of the fields is the order of their end.
#[derive(Debug)]
pub struct Lab {
    pub etcd: Etcd,
    store: Namespace,
    pub run: Run,
    /// TCP's congestion control for what is measured.
    pub congestion: String,
}

impl Lab {
    /// Starts etcd.
    pub fn new(congestion: &str) -> Result<Self> {
        let run = Run::new()?;
        let store = run.namespace("store")?;
        store.ip_batch(&format!(
            "link add br0 type bridge
             link set br0 up
             address add {STORE}/16 dev br0"
        ))?;
        let etcd = Etcd::start(&store, &[STORE], &run.subfolder("etcd")?)?;
        Ok(Self {
            etcd,
            store,
            run,
            congestion: congestion.to_owned(),
        })
    }

    /// Two joined nodes with names of their own; `number` is the subject's, unique in the lab.
    pub fn nodes(&self, word: &str, number: usize) -> Result<[Namespace; 2]> {
        let nodes = [
            self.run.namespace(&format!("{word}-1"))?,
            self.run.namespace(&format!("{word}-2"))?,
        ];
        nodes[0].ip_batch(&format!(
            "link add eth0 type veth peer name eth0 netns {}",
            nodes[1].name()
        ))?;
        for (index, node) in nodes.iter().enumerate() {
            let (own, side) = (UNDERLAY[index], index + 1);
            // 172.30.0 is the store's own.
            let third = number + 1;
            self.store.ip_batch(&format!(
                "link add s{number}n{side} type veth peer name store0 netns {}
                 link set s{number}n{side} master br0 up",
                node.name()
            ))?;
            node.ip_batch(&format!(
                "link set eth0 up
                 address add {own}/24 dev eth0
                 link set store0 up
                 address add 172.30.{third}.{side}/16 dev store0",
            ))?;
            node.set_sysctl("net/ipv4/ip_forward", "1")?;
        }
        Ok(nodes)
    }

    /// A folder of the run.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        self.run.subfolder(name)
    }

    /// Where daemons find etcd.
    pub fn endpoint(&self) -> String {
        format!("http://{STORE}:2379")
    }

    /// Writes the network configuration of one subject.
    pub fn configure(&self, prefix: &str, network: &Value) -> Result<()> {
        self.etcd
            .put(&format!("{prefix}/config"), &network.to_string())
            .with_context(|| format!("configure {prefix}"))
    }
}
