//! Names of tables and chains: kube-proxy's, so that operators and their tools find their way, and
//! those of the branches into which long chains are split.

use std::fmt;

use data_encoding::BASE32;
use sha2::{Digest as _, Sha256};

use crate::model::{Endpoint, PortName};

/// A table that has rules of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Table {
    Filter,
    Nat,
}

impl Table {
    pub(super) const ALL: [Self; 2] = [Self::Filter, Self::Nat];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
        }
    }
}

/// A chain of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Chain {
    Fixed(Fixed),
    Port(PortChain),
    Shared(Place, Branch),
}

impl Chain {
    pub(super) fn table(self) -> Table {
        match self {
            Self::Fixed(Fixed::Forward) => Table::Filter,
            Self::Fixed(_) | Self::Port(_) => Table::Nat,
            Self::Shared(place, _) => place.table(),
        }
    }

    /// Chains are written in this order, so that what a rule jumps to is there before the rule, and
    /// removed in the opposite one.
    pub(super) fn rank(self) -> u8 {
        match self {
            Self::Fixed(_) => 0,
            Self::Port(chain) => 1 + chain.kind as u8,
            Self::Shared(Place::NatNodePorts, _) => 6,
            Self::Shared(_, Branch::Byte(_)) => 7,
            Self::Shared(_, Branch::Nibble(_)) => 8,
            Self::Shared(_, Branch::Root) => 9,
        }
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(chain) => out.write_str(chain.name()),
            Self::Port(chain) => chain.fmt(out),
            Self::Shared(place, branch) => {
                out.write_str(place.name())?;
                match branch {
                    Branch::Root => Ok(()),
                    Branch::Nibble(low) => write!(out, "-{low:X}"),
                    Branch::Byte(byte) => write!(out, "-{byte:02X}"),
                }
            }
        }
    }
}

/// Chains that do not depend on any Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Fixed {
    /// Marks packets for masquerading.
    MarkMasq,
    /// Marks packets that do not come from one of several cluster networks (ours: kube-proxy has
    /// one network at most).
    OffCluster,
    /// Masquerades marked packets.
    Postrouting,
    /// Lets forwarded Service traffic pass.
    Forward,
}

impl Fixed {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::MarkMasq => "KUBE-MARK-MASQ",
            Self::OffCluster => "KUBE-OFF-CLUSTER",
            Self::Postrouting => "KUBE-POSTROUTING",
            Self::Forward => "KUBE-FORWARD",
        }
    }
}

/// A chain that holds rules of all Services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Place {
    /// Addresses with endpoints.
    NatServices,
    /// Node ports with endpoints.
    NatNodePorts,
    /// Cluster IPs without endpoints.
    FilterServices,
    /// Other fronts without endpoints.
    FilterExternal,
    /// Load balancer addresses that only some sources may use.
    FilterFirewall,
}

impl Place {
    pub(super) const ALL: [Self; 5] = [
        Self::NatServices,
        Self::NatNodePorts,
        Self::FilterServices,
        Self::FilterExternal,
        Self::FilterFirewall,
    ];

    pub(super) fn table(self) -> Table {
        match self {
            Self::NatServices | Self::NatNodePorts => Table::Nat,
            Self::FilterServices | Self::FilterExternal | Self::FilterFirewall => Table::Filter,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::NatServices | Self::FilterServices => "KUBE-SERVICES",
            Self::NatNodePorts => "KUBE-NODEPORTS",
            Self::FilterExternal => "KUBE-EXTERNAL-SERVICES",
            Self::FilterFirewall => "KUBE-PROXY-FIREWALL",
        }
    }
}

/// Where in a split chain: by the low four bits of the destination, then by the next four.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Branch {
    Root,
    /// The low four bits.
    Nibble(u8),
    /// The low eight bits.
    Byte(u8),
}

/// What a service port's own chain is for. In the order of references, the last first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    /// One endpoint.
    Endpoint,
    /// The Local list.
    Local,
    /// The Cluster list.
    Cluster,
    /// The entry for traffic to fronts other than the cluster IP.
    External,
    /// Source ranges of load balancer addresses.
    Firewall,
}

impl Kind {
    fn prefix(self) -> &'static str {
        match self {
            Self::Endpoint => "KUBE-SEP-",
            Self::Local => "KUBE-SVL-",
            Self::Cluster => "KUBE-SVC-",
            Self::External => "KUBE-EXT-",
            Self::Firewall => "KUBE-FW-",
        }
    }
}

/// A chain of one service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PortChain {
    pub(super) kind: Kind,
    hash: [u8; 16],
}

impl PortChain {
    /// The chain of an endpoint of a service port.
    pub(super) fn endpoint(port: &PortName, endpoint: &Endpoint) -> Self {
        let address = std::net::SocketAddr::new(endpoint.ip, endpoint.port);
        Self {
            kind: Kind::Endpoint,
            hash: hash(&format!("{port}{}{address}", port.protocol)),
        }
    }

    /// Another chain of a service port.
    pub(super) fn of(kind: Kind, port: &PortName) -> Self {
        Self {
            kind,
            hash: hash(&format!("{port}{}", port.protocol)),
        }
    }

    /// The same service port's chain of another kind.
    pub(super) fn sibling(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }
}

impl fmt::Display for PortChain {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.kind.prefix())?;
        // BASE32 writes ASCII only.
        out.write_str(std::str::from_utf8(&self.hash).map_err(|_| fmt::Error)?)
    }
}

/// The first 16 characters of the base32 of the SHA-256, as kube-proxy names chains.
fn hash(text: &str) -> [u8; 16] {
    let digest = Sha256::digest(text.as_bytes());
    let mut name = [0; 16];
    // 10 bytes are 16 characters of five bits.
    BASE32.encode_mut(&digest[..10], &mut name);
    name
}

/// Which chains are meant.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// Those that this mode makes or has in common with kube-proxy's iptables mode.
    Ours,
    /// These and those of kube-proxy's ipvs mode.
    KubeProxys,
}

impl Whose {
    pub(super) fn has(self, table: Table, chain: &str) -> bool {
        is_ours(table, chain) || (self == Self::KubeProxys && is_ipvs(table, chain))
    }
}

/// Chains that kube-proxy's ipvs mode has besides.
fn is_ipvs(table: Table, chain: &str) -> bool {
    match table {
        Table::Filter => [
            "KUBE-IPVS-FILTER",
            "KUBE-IPVS-OUT-FILTER",
            "KUBE-SOURCE-RANGES-FIREWALL",
            "KUBE-NODE-PORT",
        ]
        .contains(&chain),
        Table::Nat => ["KUBE-LOAD-BALANCER", "KUBE-NODE-PORT", "KUBE-FIREWALL"].contains(&chain),
    }
}

/// Whether a chain is one that only a Service proxy makes, ours or a former kube-proxy: everything
/// in it is ours to replace. KUBE-FIREWALL is not: the kubelet has it too.
pub(super) fn is_ours(table: Table, name: &str) -> bool {
    if name == CANARY {
        return true;
    }
    let split = |place: Place| {
        place.table() == table
            && name.strip_prefix(place.name()).is_some_and(|rest| {
                rest.is_empty() || (rest.starts_with('-') && is_hex(&rest[1..]))
            })
    };
    if Place::ALL.into_iter().any(split) {
        return true;
    }
    match table {
        Table::Filter => ["KUBE-FORWARD", "KUBE-NODEPORTS"].contains(&name),
        Table::Nat => {
            [Fixed::MarkMasq, Fixed::OffCluster, Fixed::Postrouting]
                .iter()
                .any(|fixed| fixed.name() == name)
                || PORT_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        }
    }
}

/// The order of [`Chain::rank`] for a chain known by name only.
pub(super) fn rank_of_name(name: &str) -> u8 {
    match PORT_PREFIXES
        .iter()
        .position(|prefix| name.starts_with(prefix))
    {
        // Prefixes are in the order of `Kind`, and those of old kube-proxies after them.
        Some(position) => 1 + position.min(Kind::Firewall as usize) as u8,
        None if name.starts_with("KUBE-MARK-") || name == Fixed::OffCluster.name() => 0,
        None => match name.len() - name.trim_end_matches(|c: char| c.is_ascii_hexdigit()).len() {
            2 => 7,
            1 => 8,
            _ => 9,
        },
    }
}

/// kube-proxy's canary, by which it notices that tables were flushed; we need none.
pub(super) const CANARY: &str = "KUBE-PROXY-CANARY";

/// Beginnings of names of service ports' chains, in the order of [`Kind`]; KUBE-XLB- is of
/// kube-proxy before 1.24.
const PORT_PREFIXES: [&str; 6] = [
    "KUBE-SEP-",
    "KUBE-SVL-",
    "KUBE-SVC-",
    "KUBE-EXT-",
    "KUBE-FW-",
    "KUBE-XLB-",
];

fn is_hex(text: &str) -> bool {
    (1..=2).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ObjectName, Protocol};

    fn port(namespace: &str, name: &str, port: &str, protocol: Protocol) -> PortName {
        PortName {
            service: ObjectName::new(namespace, name),
            port: port.into(),
            protocol,
        }
    }

    #[test]
    fn service_chains_have_the_names_that_every_cluster_shows() {
        let of = |port: &PortName| PortChain::of(Kind::Cluster, port).to_string();
        for (namespace, name, named, protocol, chain) in [
            (
                "default",
                "kubernetes",
                "https",
                Protocol::Tcp,
                "KUBE-SVC-NPX46M4PTMTKRN6Y",
            ),
            (
                "kube-system",
                "kube-dns",
                "dns",
                Protocol::Udp,
                "KUBE-SVC-TCOU7JCQXEZGVUNU",
            ),
            (
                "kube-system",
                "kube-dns",
                "dns-tcp",
                Protocol::Tcp,
                "KUBE-SVC-ERIFXISQEP7F7OF4",
            ),
        ] {
            assert_eq!(of(&port(namespace, name, named, protocol)), chain);
        }
    }

    #[test]
    fn endpoint_chains_are_of_service_and_endpoint() {
        // From kube-proxy's own tests: ns1/svc1:p80 at 10.180.0.1:80.
        let endpoint = Endpoint {
            ip: "10.180.0.1".parse().unwrap(),
            port: 80,
            local: false,
        };
        let chain = PortChain::endpoint(&port("ns1", "svc1", "p80", Protocol::Tcp), &endpoint);
        assert_eq!(chain.to_string(), "KUBE-SEP-SXIVWICOYRO3J4NJ");
    }

    #[test]
    fn names_fit_what_the_kernel_takes() {
        for place in Place::ALL {
            let name = Chain::Shared(place, Branch::Byte(0xab)).to_string();
            assert!(name.len() <= 28, "{name}");
            assert!(is_ours(place.table(), &name), "{name}");
        }
    }

    #[test]
    fn the_kubelets_and_other_programs_chains_are_not_ours() {
        for name in [
            "KUBE-FIREWALL",
            "KUBE-IPTABLES-HINT",
            "KUBE-KUBELET-CANARY",
            "KUBE-SERVICES-mine",
            "KUBE-ROUTER-SERVICES",
            "DOCKER",
        ] {
            assert!(!is_ours(Table::Nat, name), "{name}");
            assert!(!is_ours(Table::Filter, name), "{name}");
        }
        assert!(!is_ours(Table::Filter, "KUBE-SVC-NPX46M4PTMTKRN6Y"));
    }
}
