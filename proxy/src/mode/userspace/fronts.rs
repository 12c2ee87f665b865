//! From balancers to what the node must have: sockets, and addresses that are routed to the node itself.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::surroundings::{Surroundings, is_served};
use crate::model::{Balancer, FrontKind, PortName, Protocol};

/// Where a socket is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
    /// TCP or UDP.
    pub(super) protocol: Protocol,
    /// Never a wildcard.
    pub(super) address: SocketAddr,
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.address, self.protocol)
    }
}

/// A socket that a service port wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Door {
    /// Where.
    pub(super) place: Place,
    /// What the front is.
    pub(super) kind: FrontKind,
    /// See [`Surroundings::gate`]; always empty for UDP, whose datagrams are judged one flow at a time.
    pub(super) gate: Vec<Vec<IpNet>>,
}

/// Which fronts are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// All, TCP and UDP.
    Everything,
    /// Node ports, TCP only; for [`Loopback`](super::Loopback).
    TcpNodePorts,
}

/// What one service port wants of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Claim {
    /// Its sockets.
    pub(super) doors: Vec<Door>,
    /// Its addresses, to be routed to the node unless the node has them by itself.
    pub(super) addresses: BTreeSet<IpAddr>,
    /// Addresses that it must not have, and why.
    pub(super) refused: Vec<(IpAddr, &'static str)>,
}

/// What `balancer` wants. Nothing for SCTP, which userspace does not serve.
pub(super) fn claim(
    name: &PortName,
    balancer: &Balancer,
    around: &Surroundings,
    scope: Scope,
) -> Claim {
    let mut claim = Claim::default();
    let served = match scope {
        Scope::Everything => name.protocol != Protocol::Sctp,
        Scope::TcpNodePorts => name.protocol == Protocol::Tcp,
    };
    if !served {
        return claim;
    }
    for front in &balancer.fronts {
        let addresses: Vec<IpAddr> = match (front.kind, front.ip) {
            (FrontKind::NodePort, _) => around.node_ports.iter().copied().collect(),
            (_, Some(ip)) if scope == Scope::Everything => {
                if let Some(why) = refusal(ip, around) {
                    claim.refused.push((ip, why));
                    continue;
                }
                claim.addresses.insert(ip);
                vec![ip]
            }
            _ => Vec::new(),
        };
        if !is_served(balancer, front.kind) {
            continue;
        }
        for ip in addresses {
            let gate = match name.protocol {
                Protocol::Tcp => around.gate(balancer, front.kind, ip),
                _ => Vec::new(),
            };
            claim.doors.push(Door {
                place: Place {
                    protocol: name.protocol,
                    address: SocketAddr::new(ip, front.port),
                },
                kind: front.kind,
                gate,
            });
        }
    }
    claim
}

/// Why an address cannot be taken. A local route takes it whole, with all its ports: unlike a rule of a packet
/// filter, which looks at one.
fn refusal(ip: IpAddr, around: &Surroundings) -> Option<&'static str> {
    if ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() {
        Some("it is no address of one host")
    } else if around.next_hops.contains(&ip) {
        Some("this node reaches other networks by it, and would be cut off")
    } else {
        None
    }
}
