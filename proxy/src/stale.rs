//! Flows of UDP that connection tracking still sends to where a Service no longer is.
//!
//! UDP has no end that the kernel could see, so a client that keeps sending keeps its flow and with
//! it an endpoint that is gone (kubernetes/kubernetes#48370). After a sync [`changes`] says of each
//! changed service port which fronts lost something, and [`plan`] picks the flows to be deleted, each
//! by its own tuple. As in kube-proxy, a Service without endpoints is left alone, policies do not
//! matter, and TCP and SCTP are not touched.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};

use crate::model::{Balancer, Protocol};

/// A tracked flow: what the client sent, and from where the answers come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow {
    /// Its protocol.
    pub protocol: Protocol,
    /// The client.
    pub orig_src: SocketAddr,
    /// What the client sent to.
    pub orig_dst: SocketAddr,
    /// Who answers: the endpoint, or `orig_dst` if nothing was translated.
    pub reply_src: SocketAddr,
}

/// A front of UDP whose flows need a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontChange {
    /// Its address; `None`: a node port.
    pub ip: Option<IpAddr>,
    /// Its port.
    pub port: u16,
    /// Which flows to it are stale.
    pub stale: Stale,
}

/// Which flows to a front are stale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stale {
    /// All but those to these endpoints: it lost some others, or had none before.
    AllBut(BTreeSet<SocketAddr>),
    /// Those to these endpoints: the front is gone, and was theirs.
    Only(BTreeSet<SocketAddr>),
}

/// A service port as it is or was programmed, as far as flows are concerned.
#[derive(Clone, Copy, Debug)]
pub struct Served<'a> {
    /// What was programmed.
    pub balancer: &'a Balancer,
    /// Endpoints that get no new connections and yet still serve (terminating ones, or others than
    /// topology prefers): flows to them go on.
    pub serving: &'a [SocketAddr],
}

impl<'a> From<&'a Balancer> for Served<'a> {
    fn from(balancer: &'a Balancer) -> Self {
        Self {
            balancer,
            serving: &[],
        }
    }
}

/// What a changed service port of UDP leaves behind: as it was before and as it is now, `None` for
/// one that is not there.
pub fn changes(old: Option<Served<'_>>, new: Option<Served<'_>>) -> Vec<FrontChange> {
    let (before, now) = (Side::of(old), Side::of(new));
    let mut changes = Vec::new();
    if now.has_endpoints {
        let has_lost = !before.serving.is_subset(&now.serving);
        for front in &now.fronts {
            let is_newly_served = !before.has_endpoints || !before.fronts.contains(front);
            if has_lost || is_newly_served {
                changes.push(FrontChange {
                    ip: front.0,
                    port: front.1,
                    stale: Stale::AllBut(now.serving.clone()),
                });
            }
        }
    }
    if !before.serving.is_empty() {
        for front in before.fronts.difference(&now.fronts) {
            changes.push(FrontChange {
                ip: front.0,
                port: front.1,
                stale: Stale::Only(before.serving.clone()),
            });
        }
    }
    changes
}

/// One side of a change; nothing for a service port that is not there.
#[derive(Default)]
struct Side {
    fronts: BTreeSet<(Option<IpAddr>, u16)>,
    has_endpoints: bool,
    serving: BTreeSet<SocketAddr>,
}

impl Side {
    fn of(served: Option<Served<'_>>) -> Self {
        let Some(Served { balancer, serving }) = served else {
            return Self::default();
        };
        let fronts = balancer.fronts.iter();
        let endpoints = balancer.reachable();
        let chosen = endpoints.iter();
        let chosen = chosen.map(|endpoint| SocketAddr::new(endpoint.ip, endpoint.port));
        Self {
            fronts: fronts.map(|front| (front.ip, front.port)).collect(),
            has_endpoints: !endpoints.is_empty(),
            serving: chosen.chain(serving.iter().copied()).collect(),
        }
    }
}

/// Which of the flows are to be deleted. `local` are the addresses of the node: a node port is one
/// on these only, so that flows of Pods to the same port elsewhere live on.
pub fn plan(
    changes: &[FrontChange],
    local: &BTreeSet<IpAddr>,
    flows: impl IntoIterator<Item = Flow>,
) -> Vec<Flow> {
    let mut served = HashMap::new();
    let mut gone = HashMap::new();
    for change in changes {
        let front = (change.ip, change.port);
        match &change.stale {
            Stale::AllBut(keep) => served.insert(front, keep),
            Stale::Only(lost) => gone.insert(front, lost),
        };
    }
    let is_stale = |flow: &Flow| {
        let (ip, port) = (flow.orig_dst.ip(), flow.orig_dst.port());
        let of_node = local.contains(&ip).then_some((None, port));
        let fronts = [Some((Some(ip), port)), of_node];
        flow.protocol == Protocol::Udp
            && fronts.iter().flatten().any(|front| {
                match (served.get(front), gone.get(front)) {
                    // A front that another service port has taken over is that one's.
                    (Some(keep), _) => !keep.contains(&flow.reply_src),
                    (None, Some(lost)) => lost.contains(&flow.reply_src),
                    (None, None) => false,
                }
            })
    };
    if changes.is_empty() {
        return Vec::new();
    }
    flows.into_iter().filter(is_stale).collect()
}

#[cfg(test)]
mod tests;
