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
            Self::Shared(place, branch) => {
                // Services lead to node ports.
                let place = u8::from(place != Place::NatNodePorts);
                place
                    + match branch {
                        Branch::Byte(_) => 6,
                        Branch::Nibble(_) => 7,
                        Branch::Root => 8,
                    }
            }
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
                    Branch::Nibble(first) => write!(out, "-{first:X}"),
                    // As the address or port is written in hexadecimal digits.
                    Branch::Byte(byte) if *place == Place::NatNodePorts => {
                        write!(out, "-{:02X}", byte.rotate_left(4))
                    }
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

/// Where in a split chain: by four bits of the destination, then by four more. Addresses by their low
/// bits, which differ most: the lowest four first. Node ports by their high bits, so that a branch is
/// a range: the highest four first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Branch {
    Root,
    /// The first four bits.
    Nibble(u8),
    /// All eight; the first four are the low ones of this number.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        mode::iptables::ownership::is_ours,
        model::{ObjectName, Protocol},
    };

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
}
