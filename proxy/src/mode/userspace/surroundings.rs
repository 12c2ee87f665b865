//! What a front does with a client, given the node around it: served from which list, refused, or met
//! with silence.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use super::picker::Stickiness;
use crate::model::{Balancer, Fate, FrontKind, List, LocalDetector, Policy};

/// The node as the workers see it; replaced as a whole when it changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Surroundings {
    /// Addresses of the node itself.
    pub(super) own: BTreeSet<IpAddr>,
    /// Addresses by which the node reaches others.
    pub(super) next_hops: BTreeSet<IpAddr>,
    /// Addresses of the node on which node ports answer.
    pub(super) node_ports: BTreeSet<IpAddr>,
    /// Which traffic is of local Pods.
    pub(super) pods: LocalDetector,
    /// How session affinity is kept.
    pub(super) stickiness: Stickiness,
}

/// What becomes of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// An endpoint of this list, which is not empty.
    Serve(List),
    /// It is told that there is nobody.
    Refuse,
    /// It hears nothing.
    Silence,
}

/// All of it is the node.
const LOOPBACK: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);

impl Surroundings {
    /// What becomes of a client at the front `at` of this kind. `link_to` names the link by which the
    /// node reaches an address; asked only where the answer depends on it.
    pub(super) fn admit(
        &self,
        balancer: &Balancer,
        kind: FrontKind,
        at: IpAddr,
        client: IpAddr,
        link_to: impl FnOnce(IpAddr) -> Option<String>,
    ) -> Verdict {
        let ranges = self.allowed_sources(balancer, kind, at);
        if ranges.is_some_and(|ranges| !is_in(&ranges, client)) {
            return Verdict::Silence;
        }
        let fate = match kind {
            FrontKind::ClusterIp => balancer.internal(),
            _ if balancer.external_policy == Policy::Cluster => balancer.external(),
            // A client that connects from the node to an address routed to the node has that very
            // address as its source.
            _ if client == at || self.is_inside(client, link_to) => balancer.short_circuit(),
            _ => balancer.external(),
        };
        match fate {
            Fate::Balance(list) => Verdict::Serve(list),
            Fate::Reject => Verdict::Refuse,
            Fate::Drop => Verdict::Silence,
        }
    }

    /// Who may use a load balancer's address; `None`: everyone.
    fn allowed_sources(
        &self,
        balancer: &Balancer,
        kind: FrontKind,
        at: IpAddr,
    ) -> Option<Vec<IpNet>> {
        if kind != FrontKind::LoadBalancer || balancer.source_ranges.is_empty() {
            return None;
        }
        let mut ranges = balancer.source_ranges.clone();
        // Where the node itself is allowed, so is what it sends to the address from the address.
        if self.own.iter().any(|own| is_in(&ranges, *own)) {
            ranges.push(at.into());
        }
        Some(ranges)
    }

    /// Which sources a listening socket lets in at all, as groups: a source must be in one network of each
    /// group. What the groups keep out gets no answer, not even a handshake.
    ///
    /// They never keep out whom [`Surroundings::admit`] would serve, but may let in whom it would not: an
    /// interface cannot be seen here.
    pub(super) fn gate(&self, balancer: &Balancer, kind: FrontKind, at: IpAddr) -> Vec<Vec<IpNet>> {
        let mut groups = Vec::from_iter(self.allowed_sources(balancer, kind, at));
        let is_silent = |fate| fate == Fate::Drop;
        if kind == FrontKind::ClusterIp {
            if is_silent(balancer.internal()) {
                groups.push(Vec::new());
            }
        } else if is_silent(balancer.external()) {
            groups.extend(self.inside(at));
        }
        groups
    }

    /// The networks of local clients, where they can be told by address.
    fn inside(&self, at: IpAddr) -> Option<Vec<IpNet>> {
        let pods: &[IpNet] = match &self.pods {
            LocalDetector::None => &[],
            LocalDetector::Cidrs(cidrs) => cidrs,
            LocalDetector::Interface(_) | LocalDetector::InterfacePrefix(_) => return None,
        };
        let own = self.own.iter().copied().chain([at]).map(|ip| match ip {
            IpAddr::V4(ip) if ip.is_loopback() => IpNet::V4(LOOPBACK),
            ip => ip.into(),
        });
        let family = |net: &IpNet| net.addr().is_ipv4() == at.is_ipv4();
        Some(own.chain(pods.iter().copied()).filter(family).collect())
    }

    /// The client is the node itself or one of its Pods.
    fn is_inside(&self, client: IpAddr, link_to: impl FnOnce(IpAddr) -> Option<String>) -> bool {
        if client.is_loopback() || self.own.contains(&client) {
            return true;
        }
        match &self.pods {
            LocalDetector::None => false,
            LocalDetector::Cidrs(cidrs) => is_in(cidrs, client),
            // A stream does not say by which link it came, so we ask by which one its answers leave.
            LocalDetector::Interface(name) => link_to(client).is_some_and(|link| link == *name),
            LocalDetector::InterfacePrefix(prefix) => {
                link_to(client).is_some_and(|link| link.starts_with(prefix))
            }
        }
    }
}

fn is_in(nets: &[IpNet], ip: IpAddr) -> bool {
    nets.iter().any(|net| net.contains(&ip))
}

/// Whether a front of this kind needs a socket: where everyone is refused, the kernel does it best.
pub(super) fn is_served(balancer: &Balancer, kind: FrontKind) -> bool {
    let fates = match kind {
        FrontKind::ClusterIp => [balancer.internal(); 2],
        _ => [balancer.external(), balancer.short_circuit()],
    };
    fates != [Fate::Reject; 2]
}

#[cfg(test)]
mod tests;
