//! The settings that flags and the KubeProxyConfiguration file both have.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use ipnet::IpNet;

use super::listen::{self, Written};
use super::values::{self, List, LocalMode, ModeChoice, NodePortAddress};

/// One field for each setting, `None` where nothing is written.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub(super) struct Given {
    /// How to program the node: auto (nftables where it works, else iptables, else userspace),
    /// nftables, iptables or userspace
    #[arg(long, value_name = "MODE", value_parser = values::mode)]
    pub proxy_mode: Option<ModeChoice>,
    /// Networks of Pods, one for each family, for --detect-local-mode ClusterCIDR
    #[arg(long, value_name = "CIDRS", value_parser = values::networks)]
    pub cluster_cidr: Option<List<IpNet>>,
    /// Where node ports answer: networks of node addresses, or primary, localhost, all. Default:
    /// primary in nftables and userspace mode, all in iptables mode
    #[arg(long, value_name = "LIST", value_parser = values::node_port_addresses)]
    pub nodeport_addresses: Vec<List<NodePortAddress>>,
    /// Masquerade everything that goes to cluster IPs
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = values::boolean)]
    pub masquerade_all: Option<bool>,
    /// Bit of the packet mark for what is to be masqueraded [default: 14]
    #[arg(long, value_name = "BIT", value_parser = clap::value_parser!(u8).range(0..=31))]
    pub iptables_masquerade_bit: Option<u8>,
    /// How often everything is compared; a change not applied in twice this time is unhealthy
    /// [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = values::period)]
    pub iptables_sync_period: Option<Duration>,
    /// Least time between two syncs; 0: at once [default: 1s in iptables mode, else 0]
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub iptables_min_sync_period: Option<Duration>,
    /// Node ports on 127.0.0.0/8 in iptables mode, by route_localnet [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = values::boolean)]
    pub iptables_localhost_nodeports: Option<bool>,
    /// Connections to track for each core; 0 leaves the limit alone [default: 32768]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=i64::from(i32::MAX)))]
    pub conntrack_max_per_core: Option<u32>,
    /// Connections to track at least [default: 131072]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=i64::from(i32::MAX)))]
    pub conntrack_min: Option<u32>,
    /// When idle established TCP connections are forgotten; 0 leaves it alone [default: 24h]
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub conntrack_tcp_timeout_established: Option<Duration>,
    /// When TCP connections in CLOSE_WAIT are forgotten; 0 leaves it alone [default: 1h]
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub conntrack_tcp_timeout_close_wait: Option<Duration>,
    /// Track TCP packets outside the window too
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = values::boolean)]
    pub conntrack_tcp_be_liberal: Option<bool>,
    /// When UDP flows without an answer are forgotten; 0 leaves it alone
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub conntrack_udp_timeout: Option<Duration>,
    /// When UDP flows with answers are forgotten; 0 leaves it alone
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub conntrack_udp_timeout_stream: Option<Duration>,
    /// How traffic of Pods is told: ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix
    #[arg(long, value_name = "MODE", value_parser = values::local_mode)]
    pub detect_local_mode: Option<LocalMode>,
    /// The Pods' bridge, for --detect-local-mode BridgeInterface
    #[arg(long, value_name = "NAME", value_parser = values::interface)]
    pub pod_bridge_interface: Option<String>,
    /// How names of Pods' interfaces begin, for --detect-local-mode InterfaceNamePrefix
    #[arg(long, value_name = "PREFIX", value_parser = values::interface)]
    pub pod_interface_name_prefix: Option<String>,
    /// Where /metrics, /proxyMode and the like are served [default: 127.0.0.1:10249]; empty: not
    #[arg(long, value_name = "IP:PORT", value_parser = listen::listen)]
    pub metrics_bind_address: Option<Written>,
    /// Where /healthz and /livez are served [default: port 10256 of the Node's primary address, or
    /// of loopback if that is not known]; empty: not
    #[arg(long, value_name = "IP:PORT", value_parser = listen::listen)]
    pub healthz_bind_address: Option<Written>,
    /// The node's primary address, in place of the one that the Node object has
    #[arg(long, value_name = "IP", value_parser = values::address)]
    pub bind_address: Option<IpAddr>,
    /// End when a health or metrics address cannot be bound
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = values::boolean)]
    pub bind_address_hard_fail: Option<bool>,
    /// The kubeconfig; without: that of the Pod we run in
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// How often a kube-proxy lists everything anew; a watch needs no such time [default: 15m]
    #[arg(long, value_name = "DURATION", value_parser = values::period)]
    pub config_sync_period: Option<Duration>,
    /// Our oom_score_adj, -1000 to 1000 [default: -999]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(i16).range(-1000..=1000))]
    pub oom_score_adj: Option<i16>,
    /// Feature gates of kube-proxy (Name=true,...); all are accepted and none is known
    #[arg(long, value_name = "GATES", value_parser = values::feature_gates)]
    pub feature_gates: Vec<List<(String, bool)>>,
}
