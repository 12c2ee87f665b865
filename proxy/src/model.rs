//! What the proxy is about, as values: Services and endpoints reduced to what decides where a packet
//! goes. No I/O, no clock; Kubernetes' own types stop at `objects`.
//!
//! Two levels. [`Service`] and [`Slice`] are what the API says, both families together.
//! [`Balancer`] is one service port of one family after every rule has been applied (policies,
//! readiness, topology, clashes): what a mode programs, without looking at anything else.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

pub use source::ObjectName;

/// An address family; each is programmed on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both, IPv4 first.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The family of a network.
    pub fn of_net(net: &IpNet) -> Self {
        Self::of(net.addr())
    }

    /// `IPv4` or `IPv6`, as kube-proxy labels its metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

/// A transport protocol that Services know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// The IANA number.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// As nftables and iptables write it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.word())
    }
}

/// One port of one Service: the unit of work. Prints as `namespace/name:port`, or `namespace/name`
/// where the port has no name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortName {
    /// The Service.
    pub service: ObjectName,
    /// The port's name, which may be empty.
    pub port: Arc<str>,
    /// TCP and UDP of one number are two ports.
    pub protocol: Protocol,
}

impl fmt::Display for PortName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.service)?;
        if !self.port.is_empty() {
            write!(out, ":{}", self.port)?;
        }
        Ok(())
    }
}

/// A traffic policy (`internalTrafficPolicy`, `externalTrafficPolicy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Policy {
    /// All endpoints.
    #[default]
    Cluster,
    /// Endpoints on this node.
    Local,
}

/// A Service of a kind that is proxied (not headless, not ExternalName, not another proxy's).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: ObjectName,
    /// Seconds since 1970 when it was created (0 if unknown): of two that claim one address and
    /// port, the older has it.
    pub created: i64,
    /// One for each family, or one.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// `status.loadBalancer.ingress[].ip` with ipMode nil or VIP.
    pub load_balancer_ips: Vec<IpAddr>,
    /// `spec.loadBalancerSourceRanges`, both families; empty when a prefix of length zero is there.
    pub source_ranges: Vec<IpNet>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// `spec.internalTrafficPolicy`.
    pub internal_policy: Policy,
    /// `spec.externalTrafficPolicy`.
    pub external_policy: Policy,
    /// `spec.sessionAffinity: ClientIP`: for how many seconds.
    pub affinity: Option<u32>,
    /// `spec.healthCheckNodePort` of a LoadBalancer with the Local policy.
    pub health_check_node_port: Option<u16>,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name, which may be empty.
    pub name: Arc<str>,
    /// Its protocol.
    pub protocol: Protocol,
    /// 1 … 65535.
    pub port: u16,
    /// The node port, if it has one.
    pub node_port: Option<u16>,
}

/// An EndpointSlice with addresses (not FQDN).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Its own name.
    pub name: ObjectName,
    /// The Service it belongs to (label `kubernetes.io/service-name`).
    pub service: ObjectName,
    /// The family of its addresses.
    pub family: Family,
    /// Its ports: each endpoint has all of them. Ports without a number are left out.
    pub ports: Vec<SlicePort>,
    /// Its endpoints.
    pub endpoints: Vec<SliceEndpoint>,
    /// `endpoints.kubernetes.io/last-change-trigger-time`, in milliseconds since 1970.
    pub triggered: Option<i64>,
}

/// A port of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    /// The Service port's name.
    pub name: Arc<str>,
    /// Its protocol.
    pub protocol: Protocol,
    /// The number on the endpoint.
    pub port: u16,
}

/// An endpoint of a slice, with the API's defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// `addresses[0]`.
    pub address: IpAddr,
    /// nil = true.
    pub ready: bool,
    /// nil = true.
    pub serving: bool,
    /// nil = false.
    pub terminating: bool,
    /// The node it runs on.
    pub node: Option<Arc<str>>,
    /// `hints.forZones`.
    pub zone_hints: Box<[Arc<str>]>,
    /// `hints.forNodes`.
    pub node_hints: Box<[Arc<str>]>,
}

/// What is known of the own Node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeInfo {
    /// `topology.kubernetes.io/zone`.
    pub zone: Option<Arc<str>>,
    /// `status.addresses` of types InternalIP then ExternalIP, in order.
    pub addresses: Vec<IpAddr>,
    /// `spec.podCIDRs`.
    pub pod_cidrs: Vec<IpNet>,
    /// It has a deletionTimestamp, or the taint `ToBeDeletedByClusterAutoscaler`.
    pub leaving: bool,
}

/// News from a source. A source that lists anew sends `Restarted`, the objects, `Listed`: what was
/// not named in between is gone.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A Service is there or has changed.
    Service(Arc<Service>),
    /// A Service is gone, or of a kind that is not proxied.
    ServiceGone(ObjectName),
    /// A slice is there or has changed.
    Slice(Arc<Slice>),
    /// A slice is gone, or does not count.
    SliceGone(ObjectName),
    /// The own Node; `None`: it does not exist.
    Node(Option<NodeInfo>),
    /// The networks of cluster IPs, as far as the API server has ServiceCIDR objects.
    ServiceCidrs(Vec<IpNet>),
    /// A list of one kind begins.
    Restarted(Kind),
    /// The list of one kind is whole.
    Listed(Kind),
}

/// A kind of object that is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Services.
    Services,
    /// EndpointSlices.
    Slices,
    /// The own Node.
    Node,
}

/// An endpoint that has been chosen: DNAT goes here. Sorted by address, then port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// Its address.
    pub ip: IpAddr,
    /// Its port.
    pub port: u16,
    /// It runs on this node.
    pub local: bool,
}

/// What a front is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrontKind {
    /// The Service's cluster IP.
    ClusterIp,
    /// One of `externalIPs`.
    ExternalIp,
    /// An address of a load balancer.
    LoadBalancer,
    /// A port of the node's own addresses.
    NodePort,
}

/// Where clients knock: an address and port, or a port of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Front {
    /// What it is.
    pub kind: FrontKind,
    /// `None` for a node port.
    pub ip: Option<IpAddr>,
    /// The port.
    pub port: u16,
}

/// Which of a balancer's endpoint lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum List {
    /// [`Balancer::cluster`].
    Cluster,
    /// [`Balancer::local`].
    Local,
}

/// What becomes of a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fate {
    /// One of the list's endpoints, which is not empty.
    Balance(List),
    /// There is no endpoint anywhere: refuse, so that the client fails at once.
    Reject,
    /// The policy is Local and endpoints are elsewhere only: say nothing.
    Drop,
}

/// One service port of one family, decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Balancer {
    /// Sorted; those lost to a clash are left out.
    pub fronts: Vec<Front>,
    /// Which list the cluster IP uses.
    pub internal_policy: Policy,
    /// Which list the other fronts use for clients from outside.
    pub external_policy: Policy,
    /// Session affinity by client address: for how many seconds.
    pub affinity: Option<u32>,
    /// Who may use the load balancer's addresses; empty: everyone.
    pub source_ranges: Vec<IpNet>,
    /// Ready endpoints after topology, else the serving and terminating ones. Sorted, no double.
    pub cluster: Vec<Endpoint>,
    /// Local ready endpoints, else local serving and terminating ones. Sorted. Empty when neither
    /// policy is Local: nobody asks.
    pub local: Vec<Endpoint>,
    /// UDP only: endpoints that get no new flows and still serve (they terminate, or topology prefers
    /// others): flows that go there already go on. Sorted.
    pub draining: Vec<Endpoint>,
    /// There is a usable endpoint somewhere in the cluster.
    pub any_endpoint: bool,
}

impl Balancer {
    /// Which endpoints a list has.
    pub fn list(&self, list: List) -> &[Endpoint] {
        match list {
            List::Cluster => &self.cluster,
            List::Local => &self.local,
        }
    }

    /// What becomes of a connection to the cluster IP.
    pub fn internal(&self) -> Fate {
        self.fate(self.internal_policy)
    }

    /// What becomes of a connection from outside to a front that is not the cluster IP. With the
    /// Local policy, Pods of this cluster and the node itself are served as by
    /// [`Balancer::short_circuit`].
    pub fn external(&self) -> Fate {
        self.fate(self.external_policy)
    }

    /// What becomes of a connection of a Pod, or of the node itself, to an external front.
    pub fn short_circuit(&self) -> Fate {
        self.fate(Policy::Cluster)
    }

    fn fate(&self, policy: Policy) -> Fate {
        let list = match policy {
            Policy::Cluster => List::Cluster,
            Policy::Local => List::Local,
        };
        match self.list(list) {
            [] if !self.any_endpoint => Fate::Reject,
            [] if policy == Policy::Local => Fate::Drop,
            // Usable endpoints exist, so the cluster list cannot be empty.
            [] => Fate::Reject,
            _ => Fate::Balance(list),
        }
    }

    /// All endpoints that a connection through this balancer may go to, each once, sorted.
    pub fn reachable(&self) -> Vec<Endpoint> {
        let all: BTreeSet<_> = self.cluster.iter().chain(&self.local).copied().collect();
        all.into_iter().collect()
    }
}

/// How traffic of Pods of this node is told from other traffic (`--detect-local-mode`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LocalDetector {
    /// Not at all: nothing is masqueraded for coming from outside, no short circuit for Pods.
    #[default]
    None,
    /// Its source is in one of these (ClusterCIDR, NodeCIDR); only those of the family count.
    Cidrs(Vec<IpNet>),
    /// It comes in by this interface (BridgeInterface).
    Interface(String),
    /// It comes in by an interface whose name begins so (InterfaceNamePrefix).
    InterfacePrefix(String),
}

/// Which of the node's addresses answer on node ports, resolved for one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodePortAddresses {
    /// Every local address.
    All,
    /// These.
    Some(BTreeSet<IpAddr>),
}

/// What all Services of a family have in common on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// The family.
    pub family: Family,
    /// The own node's name.
    pub node: Arc<str>,
    /// `--masquerade-all`.
    pub masquerade_all: bool,
    /// The mark of packets to be masqueraded; one bit (0x4000 by default).
    pub masquerade_mark: u32,
    /// Which traffic is of local Pods.
    pub local: LocalDetector,
    /// Where node ports answer.
    pub node_port_addresses: NodePortAddresses,
    /// Networks of cluster IPs (ServiceCIDR objects, or `--service-cidr`), for dropping what no
    /// Service has; may be empty.
    pub service_cidrs: Vec<IpNet>,
    /// Session affinity by hash of the client's address instead of a table of clients.
    pub affinity_by_hash: bool,
    /// NodePorts answer on 127.0.0.0/8 too (iptables: route_localnet; IPv4 only).
    pub localhost_node_ports: bool,
    /// nf_conntrack_tcp_be_liberal is on: INVALID packets are not dropped.
    pub conntrack_liberal: bool,
}

/// Everything that a mode shall bring about, for one family.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// The common part.
    pub site: Site,
    /// By service port. Never two with the same front.
    pub balancers: BTreeMap<PortName, Arc<Balancer>>,
}

/// What may differ from the last time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// Anything.
    All,
    /// These service ports: changed, new, or gone. The site is as it was.
    Ports(BTreeSet<PortName>),
}
