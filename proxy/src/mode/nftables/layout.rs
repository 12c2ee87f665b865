//! The table's sets and maps, their keys and values, and how both look as bytes and as text.
//!
//! The names that kube-proxy has too mean what they mean there. Bytes are the kernel's registers:
//! each field of a concatenation padded to four bytes, addresses and ports in network order, the
//! slot number (`numgen`, `jhash`) in host order.

mod bytes;

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use kernel::nft::{Field, NewSet, Values};

use crate::model::{Family, List, Protocol};

/// The table, in families `ip` and `ip6`.
pub const TABLE: &str = "weft-proxy";

/// Whether a front has an address of its own or is a port of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// An address and a port.
    Ip,
    /// A port of the node's addresses.
    NodePort,
}

/// A set or map of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Set {
    /// Fronts → where a packet goes on.
    Services(Place),
    /// Fronts → the chain of their list's size, for those that get there by a detour.
    Lists(List, Place),
    /// Front and slot → endpoint.
    Endpoints(List, Place),
    /// Fronts without endpoints → refuse or drop.
    NoEndpoints(Place),
    /// Cluster IPs of Services.
    ClusterIps,
    /// Addresses that answer on node ports.
    NodePortIps,
    /// Fronts with source ranges.
    FirewallIps,
    /// Front and source → allowed.
    SourceRanges,
    /// Local endpoints, as source and destination: connections that come back to where they began.
    Hairpin,
    /// Client and front → endpoint, with time-outs; written by the packets themselves.
    Affinity,
    /// Fronts with affinity → the chain that notes their clients.
    AffinityTimeouts(Place),
}

const PLACES: [Place; 2] = [Place::Ip, Place::NodePort];
const LISTS: [List; 2] = [List::Cluster, List::Local];

impl Set {
    /// All of them.
    pub fn all() -> Vec<Self> {
        let mut all = vec![
            Self::ClusterIps,
            Self::NodePortIps,
            Self::FirewallIps,
            Self::SourceRanges,
            Self::Hairpin,
            Self::Affinity,
        ];
        for place in PLACES {
            all.extend([
                Self::Services(place),
                Self::NoEndpoints(place),
                Self::AffinityTimeouts(place),
            ]);
            for list in LISTS {
                all.extend([Self::Lists(list, place), Self::Endpoints(list, place)]);
            }
        }
        all
    }

    /// Those whose elements are ours alone: all but what packets write.
    pub fn planned() -> impl Iterator<Item = Self> {
        Self::all().into_iter().filter(|set| *set != Self::Affinity)
    }

    /// Its name in the kernel.
    pub fn name(self) -> &'static str {
        use List::{Cluster, Local};
        use Place::{Ip, NodePort};
        match self {
            Self::Services(Ip) => "service-ips",
            Self::Services(NodePort) => "service-nodeports",
            Self::Lists(Cluster, Ip) => "cluster-lists",
            Self::Lists(Cluster, NodePort) => "cluster-nodeport-lists",
            Self::Lists(Local, Ip) => "local-lists",
            Self::Lists(Local, NodePort) => "local-nodeport-lists",
            Self::Endpoints(Cluster, Ip) => "endpoints",
            Self::Endpoints(Cluster, NodePort) => "nodeport-endpoints",
            Self::Endpoints(Local, Ip) => "local-endpoints",
            Self::Endpoints(Local, NodePort) => "local-nodeport-endpoints",
            Self::NoEndpoints(Ip) => "no-endpoint-services",
            Self::NoEndpoints(NodePort) => "no-endpoint-nodeports",
            Self::ClusterIps => "cluster-ips",
            Self::NodePortIps => "nodeport-ips",
            Self::FirewallIps => "firewall-ips",
            Self::SourceRanges => "source-ranges",
            Self::Hairpin => "hairpin-connections",
            Self::Affinity => "affinity",
            Self::AffinityTimeouts(Ip) => "affinity-timeouts",
            Self::AffinityTimeouts(NodePort) => "affinity-nodeport-timeouts",
        }
    }

    /// Its declaration, without the name: what nft wants between braces.
    pub fn declaration(self, family: Family) -> String {
        let (ip, front) = (ip_word(family), front_text(family));
        let node = "meta l4proto . th dport";
        let slot = "numgen inc mod 2";
        let fronts = |place| match place {
            Place::Ip => front.clone(),
            Place::NodePort => node.to_owned(),
        };
        match self {
            Self::Services(place)
            | Self::Lists(_, place)
            | Self::NoEndpoints(place)
            | Self::AffinityTimeouts(place) => format!("typeof {} : verdict;", fronts(place)),
            Self::Endpoints(_, place) => {
                format!("typeof {} . {slot} : {ip} daddr . th dport;", fronts(place))
            }
            Self::ClusterIps | Self::NodePortIps => format!("typeof {ip} daddr;"),
            Self::FirewallIps => format!("typeof {front};"),
            Self::SourceRanges => format!("typeof {front} . {ip} saddr; flags interval;"),
            Self::Hairpin => format!("typeof {ip} saddr . {front};"),
            Self::Affinity => format!(
                "typeof {ip} saddr . {front} : {ip} daddr . th dport; flags dynamic,timeout; timeout 3h; size {AFFINITY_SIZE};"
            ),
        }
    }

    /// Its keys are of the connection as it began, not of the packet.
    pub fn is_of_original(self) -> bool {
        matches!(self, Self::AffinityTimeouts(_))
    }

    /// The same for the kernel.
    pub fn new_set(self, family: Family) -> NewSet {
        let ip = match family {
            Family::V4 => Field::Ipv4,
            Family::V6 => Field::Ipv6,
        };
        let node = [Field::Protocol, Field::Port];
        let front = [ip, Field::Protocol, Field::Port];
        let of = |place| match place {
            Place::Ip => front.to_vec(),
            Place::NodePort => node.to_vec(),
        };
        let key = match self {
            Self::ClusterIps | Self::NodePortIps => vec![ip],
            Self::FirewallIps => front.to_vec(),
            Self::SourceRanges => [&front[..], &[ip]].concat(),
            Self::Hairpin | Self::Affinity => [&[ip], &front[..]].concat(),
            Self::Endpoints(_, place) => [of(place), vec![Field::Number]].concat(),
            Self::Services(place)
            | Self::Lists(_, place)
            | Self::NoEndpoints(place)
            | Self::AffinityTimeouts(place) => of(place),
        };
        NewSet {
            name: self.name().to_owned(),
            key,
            values: match self.data() {
                DataKind::None => None,
                DataKind::Verdict => Some(Values::Verdict),
                DataKind::Endpoint => Some(Values::Fields(vec![ip, Field::Port])),
            },
            interval: self == Self::SourceRanges,
            dynamic: (self == Self::Affinity).then_some((10_800, AFFINITY_SIZE)),
        }
    }

    /// It maps keys to values.
    pub fn is_map(self) -> bool {
        !matches!(
            self,
            Self::ClusterIps
                | Self::NodePortIps
                | Self::FirewallIps
                | Self::SourceRanges
                | Self::Hairpin
        )
    }

    /// What its data is.
    fn data(self) -> DataKind {
        match self {
            Self::Services(_)
            | Self::Lists(..)
            | Self::NoEndpoints(_)
            | Self::AffinityTimeouts(_) => DataKind::Verdict,
            Self::Endpoints(..) | Self::Affinity => DataKind::Endpoint,
            _ => DataKind::None,
        }
    }
}

/// Clients that are remembered at most; a full table means a new choice, not a lost packet.
pub const AFFINITY_SIZE: u32 = 262_144;

enum DataKind {
    None,
    Verdict,
    Endpoint,
}

/// `ip` or `ip6`: the family's word in rules, and the table's family.
pub fn ip_word(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

/// A front as a key.
pub fn front_text(family: Family) -> String {
    format!("{} daddr . meta l4proto . th dport", ip_word(family))
}

/// A front, as far as a packet shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct At {
    /// `None`: a node port.
    pub ip: Option<IpAddr>,
    /// The protocol.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
}

impl At {
    /// Which of the two kinds it is.
    pub fn place(self) -> Place {
        match self.ip {
            Some(_) => Place::Ip,
            None => Place::NodePort,
        }
    }
}

/// A key. Prints as nft does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// An address.
    Ip(IpAddr),
    /// A front.
    At(At),
    /// A slot of a front.
    Slot(At, u32),
    /// A source, then a front (or an endpoint, for hairpins).
    From(IpAddr, At),
    /// A front, then the network that a source is in.
    Range(At, IpNet),
}

impl fmt::Display for At {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(ip) = self.ip {
            write!(out, "{ip} . ")?;
        }
        write!(out, "{} . {}", self.protocol, self.port)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => write!(out, "{ip}"),
            Self::At(at) => write!(out, "{at}"),
            Self::Slot(at, slot) => write!(out, "{at} . {slot}"),
            Self::From(source, at) => write!(out, "{source} . {at}"),
            // nft prints a network of one address as the address.
            Self::Range(at, net) if net.prefix_len() == net.max_prefix_len() => {
                write!(out, "{at} . {}", net.addr())
            }
            Self::Range(at, net) => write!(out, "{at} . {net}"),
        }
    }
}

/// A chain that map elements lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Chain {
    /// Translates to one of so many endpoints, or to a slot of a table of so many.
    Size(List, Place, u32),
    /// Translates to the slot that the client's address hashes to.
    Hash(List, Place, u32),
    /// Looks for a known client, then for the size of the list.
    Pick(List),
    /// A client of a cluster IP with the Local policy.
    InternalLocal,
    /// A client of a front that is not a cluster IP: masquerade, then [`Chain::Pick`].
    ExternalCluster,
    /// The same with the Local policy.
    ExternalLocal,
    /// Notes the client for so many seconds.
    Note(u32),
    /// Refuses.
    Reject,
}

impl fmt::Display for Chain {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |list: &List| match list {
            List::Cluster => "cluster",
            List::Local => "local",
        };
        let place = |place: &Place| match place {
            Place::Ip => "",
            Place::NodePort => "-nodeport",
        };
        match self {
            Self::Size(of, at, size) => write!(out, "{}{}-{size}", list(of), place(at)),
            Self::Hash(of, at, size) => write!(out, "{}{}-hash-{size}", list(of), place(at)),
            Self::Pick(of) => write!(out, "pick-{}", list(of)),
            Self::InternalLocal => out.write_str("internal-local"),
            Self::ExternalCluster => out.write_str("external-cluster"),
            Self::ExternalLocal => out.write_str("external-local"),
            Self::Note(seconds) => write!(out, "note-client-{seconds}"),
            Self::Reject => out.write_str("reject-chain"),
        }
    }
}

impl Chain {
    /// Reads a name back.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "pick-cluster" => Self::Pick(List::Cluster),
            "pick-local" => Self::Pick(List::Local),
            "internal-local" => Self::InternalLocal,
            "external-cluster" => Self::ExternalCluster,
            "external-local" => Self::ExternalLocal,
            "reject-chain" => Self::Reject,
            _ => {
                let (rest, number) = name.rsplit_once('-')?;
                let number: u32 = number.parse().ok()?;
                if rest == "note-client" {
                    return Some(Self::Note(number));
                }
                let (rest, hash) = match rest.strip_suffix("-hash") {
                    Some(rest) => (rest, true),
                    None => (rest, false),
                };
                let (rest, place) = match rest.strip_suffix("-nodeport") {
                    Some(rest) => (rest, Place::NodePort),
                    None => (rest, Place::Ip),
                };
                let list = match rest {
                    "cluster" => List::Cluster,
                    "local" => List::Local,
                    _ => return None,
                };
                match hash {
                    true => Self::Hash(list, place, number),
                    false => Self::Size(list, place, number),
                }
            }
        })
    }
}

/// What a map gives for a key. Prints as nft does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Data {
    /// Nothing: an element of a set.
    None,
    /// On to a chain.
    Goto(Chain),
    /// Into a chain and back.
    Jump(Chain),
    /// Away with it.
    Drop,
    /// An endpoint.
    Endpoint(IpAddr, u16),
}

impl fmt::Display for Data {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => Ok(()),
            Self::Goto(chain) => write!(out, "goto {chain}"),
            Self::Jump(chain) => write!(out, "jump {chain}"),
            Self::Drop => out.write_str("drop"),
            Self::Endpoint(ip, port) => write!(out, "{ip} . {port}"),
        }
    }
}

#[cfg(test)]
mod tests;
