//! From what is written to [`Checked`].

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::duration::show_duration;
use super::given::Given;
use super::listen::{self, Listen};
use super::values::{IptablesVariant, List, LocalMode, ModeName, NodePortAddress};
use super::{Error, file, flags};
use crate::model::Family;

/// kube-proxy's ports.
const HEALTHZ_PORT: u16 = 10256;
const METRICS_PORT: u16 = 10249;

/// A configuration that needs no more checking.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    /// The mode; `None`: the best that works, in the order nftables, iptables, userspace.
    pub mode: Option<ModeName>,
    /// The own Node's name.
    pub node: Arc<str>,
    /// Where objects come from.
    pub source: Source,
    /// The node's primary address, in place of the Node object's.
    pub bind_address: Option<IpAddr>,
    /// How traffic of local Pods is told.
    pub detect_local: DetectLocal,
    /// Where node ports answer; empty: the mode's default (see [`Checked::node_port_addresses`]).
    pub node_port_list: Vec<NodePortAddress>,
    /// Networks of cluster IPs, from `--service-cidr`.
    pub service_cidrs: Vec<IpNet>,
    /// Masquerade all that goes to cluster IPs.
    pub masquerade_all: bool,
    /// The mark of what is to be masqueraded: one bit.
    pub masquerade_mark: u32,
    /// A full comparison at least so often; twice this without a sync is unhealthy.
    pub sync_period: Duration,
    /// The least time between syncs, if the operator says so (see [`Checked::min_sync_period`]).
    pub min_sync_period: Option<Duration>,
    /// Session affinity without state.
    pub affinity_by_hash: bool,
    /// Which iptables programs.
    pub iptables_variant: IptablesVariant,
    /// Iptables mode, IPv4: node ports on loopback by route_localnet.
    pub iptables_localhost_node_ports: bool,
    /// Other modes: TCP node ports on loopback by a forwarder.
    pub localhost_node_ports: bool,
    /// How long forwarded connections may go on after SIGTERM.
    pub graceful_timeout: Duration,
    /// Connection tracking.
    pub conntrack: Conntrack,
    /// Our oom_score_adj.
    pub oom_score_adj: i16,
    /// Where `/healthz` is.
    pub healthz: Listen,
    /// Where `/metrics` is.
    pub metrics: Listen,
    /// End when one of the two cannot be bound.
    pub bind_address_hard_fail: bool,
    /// `--config-sync-period`; means nothing here but is shown on `/configz`.
    pub config_sync_period: Duration,
    /// By name, as written; none is known.
    pub feature_gates: BTreeMap<String, bool>,
    /// Print, do nothing.
    pub dry_run: bool,
    /// Sync once and end.
    pub once: bool,
    /// Set sysctls and end.
    pub init_only: bool,
    /// `-v`.
    pub verbosity: i64,
    /// The flags as written, for `/flagz`.
    pub flags: Vec<(String, String)>,
    /// What was accepted and changes nothing, and what is likely not meant: for the log.
    pub notes: Vec<String>,
}

/// Where objects come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The Kubernetes API.
    Kube {
        /// Without: that of the Pod we run in, unless `master` is given.
        kubeconfig: Option<PathBuf>,
        /// The server's URL, in place of the kubeconfig's.
        master: Option<String>,
    },
    /// A folder of manifests.
    Folder(PathBuf),
}

/// How traffic of local Pods is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DetectLocal {
    /// Its source is in one of these, at most one for each family; none: it is not told.
    ClusterCidr(Vec<IpNet>),
    /// Its source is in the Node's podCIDRs.
    NodeCidr,
    /// It comes in here.
    Interface(String),
    /// It comes in by an interface whose name begins so.
    InterfacePrefix(String),
}

/// Settings of connection tracking; a zero time leaves the kernel's value alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conntrack {
    /// Connections for each core; 0: the limit is left alone.
    pub max_per_core: u32,
    /// Connections at least.
    pub min: u32,
    /// Idle established TCP.
    pub tcp_established: Duration,
    /// TCP in CLOSE_WAIT.
    pub tcp_close_wait: Duration,
    /// Track packets outside the window.
    pub tcp_be_liberal: bool,
    /// UDP without answers.
    pub udp: Duration,
    /// UDP with answers.
    pub udp_stream: Duration,
}

impl Checked {
    /// Where node ports answer in a mode.
    pub fn node_port_addresses(&self, mode: ModeName) -> Vec<NodePortAddress> {
        match (self.node_port_list.as_slice(), mode) {
            ([], ModeName::Iptables) => Vec::new(),
            ([], ModeName::Nftables | ModeName::Userspace) => vec![NodePortAddress::Primary],
            (list, _) => list.to_vec(),
        }
    }

    /// The least time between two syncs in a mode. Only iptables mode rests by default: a sync
    /// there writes the shared chains whole.
    pub fn min_sync_period(&self, mode: ModeName) -> Duration {
        self.min_sync_period.unwrap_or(match mode {
            ModeName::Iptables => Duration::from_secs(1).min(self.sync_period),
            ModeName::Nftables | ModeName::Userspace => Duration::ZERO,
        })
    }

    /// What an operator should know of a mode with this configuration, for the log.
    pub fn remarks(&self, mode: ModeName) -> Vec<String> {
        let mut remarks = Vec::new();
        if mode == ModeName::Iptables && self.node_port_list.is_empty() {
            remarks.push(
                "node ports answer on all addresses of the node: give --nodeport-addresses primary \
                 to have them on its primary address only"
                    .to_owned(),
            );
        }
        if mode == ModeName::Iptables && self.localhost_node_ports {
            remarks.push(
                "--localhost-nodeports changes nothing in iptables mode, which has \
                 --iptables-localhost-nodeports"
                    .to_owned(),
            );
        }
        if self.detect_local == DetectLocal::ClusterCidr(Vec::new()) {
            remarks.push(
                "traffic of Pods is not told from other traffic: give --cluster-cidr or another \
                 --detect-local-mode to have clients from outside masqueraded"
                    .to_owned(),
            );
        }
        remarks
    }
}

/// Joins flags and file, fills in defaults and checks what goes together.
pub(super) fn check(
    written: flags::Written,
    file: Option<file::Written>,
    hostname: &str,
) -> Result<Checked, Error> {
    let flags::Written {
        flags,
        listed,
        replaceable,
        mut notes,
    } = written;
    let has_file = file.is_some();
    let file = match file {
        None => file::Written {
            given: flags.given,
            ..file::Written::default()
        },
        Some(file) => {
            if !replaceable.is_empty() {
                let names = replaceable.join(", --");
                notes.push(format!("--{names}: ignored, for --config is given"));
            }
            file
        }
    };
    let given = file.given;
    if !file.unknown.is_empty() {
        let keys = file.unknown.join(", ");
        notes.push(format!("--config: unknown keys change nothing: {keys}"));
    }
    let feature_gates: BTreeMap<_, _> = given
        .feature_gates
        .iter()
        .flat_map(|List(gates)| gates.iter().cloned())
        .collect();
    if !feature_gates.is_empty() {
        let names: Vec<_> = feature_gates.keys().map(String::as_str).collect();
        notes.push(format!(
            "feature gates change nothing: {}",
            names.join(", ")
        ));
    }
    let bind_address = given.bind_address.filter(|ip| !ip.is_unspecified());
    // kube-proxy's deprecated ports count for flags only.
    let port = |flag: Option<u16>, default| flag.filter(|_| !has_file).unwrap_or(default);
    let healthz = match port(flags.healthz_port, HEALTHZ_PORT) {
        0 => Listen::Off,
        port => given
            .healthz_bind_address
            .map_or(Listen::Node(port), |address| address.with_port(port)),
    };
    let metrics = match port(flags.metrics_port, METRICS_PORT) {
        0 => Listen::Off,
        port => given.metrics_bind_address.map_or_else(
            || listen::Written::At(listen::loopback(given.bind_address), None).with_port(port),
            |address| address.with_port(port),
        ),
    };
    let (sync_period, min_sync_period) = periods(&given)?;
    let detect_local = detect_local(&given)?;
    let ours = flags.ours;
    let source = ours.source.unwrap_or(flags::SourceChoice::Kube).complete(
        given.kubeconfig.filter(|path| !path.as_os_str().is_empty()),
        flags.master.filter(|master| !master.is_empty()),
    );
    let hour = Duration::from_secs(3600);
    Ok(Checked {
        mode: given.proxy_mode.and_then(|choice| choice.0),
        node: node_name(flags.hostname_override, file.hostname_override, hostname)?,
        source,
        bind_address,
        detect_local,
        node_port_list: given
            .nodeport_addresses
            .into_iter()
            .flat_map(|List(list)| list)
            .collect(),
        service_cidrs: ours.service_cidr.unwrap_or_default().0,
        masquerade_all: given.masquerade_all.unwrap_or(false),
        masquerade_mark: 1 << given.iptables_masquerade_bit.unwrap_or(14),
        sync_period,
        min_sync_period,
        affinity_by_hash: ours.session_affinity.unwrap_or(false),
        iptables_variant: ours.iptables_variant.unwrap_or_default(),
        iptables_localhost_node_ports: given.iptables_localhost_nodeports.unwrap_or(true),
        localhost_node_ports: ours.localhost_nodeports.unwrap_or(false),
        graceful_timeout: ours.graceful_timeout.unwrap_or_default(),
        conntrack: Conntrack {
            max_per_core: given.conntrack_max_per_core.unwrap_or(32_768),
            min: given.conntrack_min.unwrap_or(131_072),
            tcp_established: given.conntrack_tcp_timeout_established.unwrap_or(24 * hour),
            tcp_close_wait: given.conntrack_tcp_timeout_close_wait.unwrap_or(hour),
            tcp_be_liberal: given.conntrack_tcp_be_liberal.unwrap_or(false),
            udp: given.conntrack_udp_timeout.unwrap_or_default(),
            udp_stream: given.conntrack_udp_timeout_stream.unwrap_or_default(),
        },
        oom_score_adj: given.oom_score_adj.unwrap_or(-999),
        healthz,
        metrics,
        bind_address_hard_fail: given.bind_address_hard_fail.unwrap_or(false),
        config_sync_period: given.config_sync_period.unwrap_or(hour / 4),
        feature_gates,
        dry_run: ours.dry_run.unwrap_or(false),
        once: ours.once.unwrap_or(false),
        init_only: flags.init_only.unwrap_or(false),
        verbosity: flags.verbosity.or(file.verbosity).unwrap_or(0),
        flags: listed,
        notes,
    })
}

fn node_name(
    flag: Option<String>,
    file: Option<String>,
    hostname: &str,
) -> Result<Arc<str>, Error> {
    let name = flag.filter(|name| !name.is_empty()).or(file);
    let name = name.as_deref().unwrap_or(hostname).trim().to_lowercase();
    if name.is_empty() {
        return Err(Error::Check(
            "the node has no name: give --hostname-override the name of its Node".to_owned(),
        ));
    }
    Ok(name.into())
}

fn periods(given: &Given) -> Result<(Duration, Option<Duration>), Error> {
    let sync = given
        .iptables_sync_period
        .unwrap_or(Duration::from_secs(30));
    match given.iptables_min_sync_period {
        Some(min) if min > sync => Err(Error::Check(format!(
            "--iptables-min-sync-period (minSyncPeriod) {} is longer than --iptables-sync-period \
             (syncPeriod) {}: make it shorter",
            show_duration(min),
            show_duration(sync)
        ))),
        min => Ok((sync, min)),
    }
}

fn detect_local(given: &Given) -> Result<DetectLocal, Error> {
    let named = |name: &Option<String>, mode, flag, key| match name {
        Some(name) if !name.is_empty() => Ok(name.clone()),
        _ => Err(Error::Check(format!(
            "--detect-local-mode (detectLocalMode) {mode} needs a name: give {flag} ({key})"
        ))),
    };
    Ok(match given.detect_local_mode.unwrap_or_default() {
        LocalMode::NodeCidr => DetectLocal::NodeCidr,
        LocalMode::BridgeInterface => DetectLocal::Interface(named(
            &given.pod_bridge_interface,
            "BridgeInterface",
            "--pod-bridge-interface",
            "detectLocal.bridgeInterface",
        )?),
        LocalMode::InterfaceNamePrefix => DetectLocal::InterfacePrefix(named(
            &given.pod_interface_name_prefix,
            "InterfaceNamePrefix",
            "--pod-interface-name-prefix",
            "detectLocal.interfaceNamePrefix",
        )?),
        LocalMode::ClusterCidr => {
            let nets = given.cluster_cidr.clone().unwrap_or_default().0;
            for family in Family::ALL {
                let count = nets.iter().filter(|net| Family::of_net(net) == family);
                if count.count() > 1 {
                    let label = family.label();
                    return Err(Error::Check(format!(
                        "--cluster-cidr (clusterCIDR) has more than one {label} network: give one \
                         for each family"
                    )));
                }
            }
            DetectLocal::ClusterCidr(nets)
        }
    })
}
