//! The elements that one balancer puts into the table, as a pure function.
//!
//! Elements of two balancers never have the same key, but for [`Set::ClusterIps`] and
//! [`Set::Hairpin`], which several ports of a Service share: those are counted by the caller.

use ipnet::IpNet;

use super::layout::{At, Chain, Data, Key, Place, Set};
use super::slots::{self, Target};
use crate::model::{Balancer, Endpoint, Fate, Front, FrontKind, List, Policy, Protocol, Site};

/// An element of a set or map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Element {
    /// Where it is.
    pub set: Set,
    /// Its key.
    pub key: Key,
    /// Its value.
    pub data: Data,
}

/// The order of both lists' endpoints in their slots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slots {
    /// Of the cluster list.
    pub cluster: Vec<Target>,
    /// Of the local list.
    pub local: Vec<Target>,
}

impl Slots {
    /// Of a list.
    pub fn of(&self, list: List) -> &[Target] {
        match list {
            List::Cluster => &self.cluster,
            List::Local => &self.local,
        }
    }

    /// The slots for `balancer`, as near to these as can be.
    pub fn next(&self, balancer: &Balancer, site: &Site) -> Self {
        let next = |list: List| {
            let mut wanted: Vec<Target> = targets(balancer.list(list));
            wanted.truncate(slots::MOST as usize);
            match by_hash(balancer, site) {
                true => slots::hashed(&wanted, slots::hash_size_for(wanted.len())),
                false => slots::reslot(self.of(list), &wanted),
            }
        };
        Self {
            cluster: next(List::Cluster),
            local: next(List::Local),
        }
    }
}

fn targets(endpoints: &[Endpoint]) -> Vec<Target> {
    // A list may name an endpoint twice only if it is local in one slice and not in another.
    let mut all: Vec<Target> = endpoints.iter().map(|each| (each.ip, each.port)).collect();
    all.dedup();
    all
}

fn by_hash(balancer: &Balancer, site: &Site) -> bool {
    balancer.affinity.is_some() && site.affinity_by_hash
}

/// The front as packets show it.
pub fn at(front: &Front, protocol: Protocol) -> At {
    At {
        ip: front.ip,
        protocol,
        port: front.port,
    }
}

/// Which of the balancer's lists a front may lead to.
pub fn lists(balancer: &Balancer, front: &Front) -> Vec<List> {
    let fates = match front.kind {
        FrontKind::ClusterIp => vec![balancer.internal()],
        _ => vec![balancer.external(), balancer.short_circuit()],
    };
    let mut lists: Vec<List> = fates
        .into_iter()
        .filter_map(|fate| match fate {
            Fate::Balance(list) => Some(list),
            Fate::Reject | Fate::Drop => None,
        })
        .collect();
    lists.sort_unstable();
    lists.dedup();
    lists
}

/// All elements of one balancer, with its endpoints in the given slots. Sorted.
pub fn elements(
    protocol: Protocol,
    balancer: &Balancer,
    slots: &Slots,
    site: &Site,
) -> Vec<Element> {
    let mut writer = Writer {
        out: Vec::new(),
        protocol,
        balancer,
        slots,
        hash: by_hash(balancer, site),
    };
    for front in &balancer.fronts {
        writer.front(front);
    }
    if writer.served() {
        let local = balancer.reachable().into_iter().filter(|each| each.local);
        for endpoint in local {
            let to = At {
                ip: Some(endpoint.ip),
                protocol,
                port: endpoint.port,
            };
            writer.push(Set::Hairpin, Key::From(endpoint.ip, to), Data::None);
        }
    }
    let mut out = writer.out;
    out.sort_unstable();
    out.dedup();
    out
}

struct Writer<'a> {
    out: Vec<Element>,
    protocol: Protocol,
    balancer: &'a Balancer,
    slots: &'a Slots,
    hash: bool,
}

impl Writer<'_> {
    fn push(&mut self, set: Set, key: Key, data: Data) {
        self.out.push(Element { set, key, data });
    }

    fn served(&self) -> bool {
        !self.balancer.fronts.is_empty()
    }

    fn front(&mut self, front: &Front) {
        let (balancer, at) = (self.balancer, at(front, self.protocol));
        match front.kind {
            FrontKind::ClusterIp => {
                self.push(
                    Set::ClusterIps,
                    front.ip.map_or(Key::At(at), Key::Ip),
                    Data::None,
                );
                match balancer.internal() {
                    Fate::Balance(list) if self.detours(list) => {
                        let first = match list {
                            List::Cluster => Chain::Pick(list),
                            List::Local => Chain::InternalLocal,
                        };
                        self.push(Set::Services(at.place()), Key::At(at), Data::Goto(first));
                        self.list(at, list);
                    }
                    Fate::Balance(list) => {
                        let chain = self.chain(list, at.place());
                        self.push(Set::Services(at.place()), Key::At(at), Data::Goto(chain));
                    }
                    fate => self.no_endpoint(at, fate),
                }
            }
            FrontKind::ExternalIp | FrontKind::LoadBalancer | FrontKind::NodePort => {
                self.external(at);
                if front.kind == FrontKind::LoadBalancer {
                    self.source_ranges(at);
                }
            }
        }
        for list in lists(balancer, front) {
            self.endpoints(at, list);
        }
        if let Some(seconds) = balancer.affinity.filter(|_| !self.hash) {
            let data = Data::Jump(Chain::Note(seconds));
            self.push(Set::AffinityTimeouts(at.place()), Key::At(at), data);
        }
    }

    fn external(&mut self, at: At) {
        let balancer = self.balancer;
        let Fate::Balance(cluster) = balancer.short_circuit() else {
            return self.no_endpoint(at, Fate::Reject);
        };
        let first = match balancer.external_policy {
            Policy::Cluster => Chain::ExternalCluster,
            Policy::Local => Chain::ExternalLocal,
        };
        self.push(Set::Services(at.place()), Key::At(at), Data::Goto(first));
        self.list(at, cluster);
        match balancer.external() {
            Fate::Balance(list) if list != cluster => self.list(at, list),
            Fate::Balance(_) => {}
            fate => self.no_endpoint(at, fate),
        }
    }

    /// A cluster IP leads to its list's chain at once, unless clients must be looked for first, or
    /// the chain is one whose clients keep their addresses.
    fn detours(&self, list: List) -> bool {
        list == List::Local || (self.balancer.affinity.is_some() && !self.hash)
    }

    fn chain(&self, list: List, place: Place) -> Chain {
        let slots = self.slots.of(list).len();
        match self.hash {
            true => Chain::Hash(list, place, slots as u32),
            false => Chain::Size(list, place, slots::size_for(slots)),
        }
    }

    fn list(&mut self, at: At, list: List) {
        let chain = self.chain(list, at.place());
        self.push(Set::Lists(list, at.place()), Key::At(at), Data::Goto(chain));
    }

    fn endpoints(&mut self, at: At, list: List) {
        let slots = self.slots;
        for (slot, (ip, port)) in (0..).zip(slots.of(list)) {
            let data = Data::Endpoint(*ip, *port);
            self.push(Set::Endpoints(list, at.place()), Key::Slot(at, slot), data);
        }
    }

    fn no_endpoint(&mut self, at: At, fate: Fate) {
        let data = match fate {
            Fate::Drop => Data::Drop,
            Fate::Reject | Fate::Balance(_) => Data::Goto(Chain::Reject),
        };
        self.push(Set::NoEndpoints(at.place()), Key::At(at), data);
    }

    fn source_ranges(&mut self, at: At) {
        // Without endpoints everybody is refused; nobody needs to be dropped.
        let guarded = !self.balancer.source_ranges.is_empty()
            && matches!(self.balancer.short_circuit(), Fate::Balance(_));
        let Some(ip) = at.ip.filter(|_| guarded) else {
            return;
        };
        self.push(Set::FirewallIps, Key::At(at), Data::None);
        // The node's own packets to an address of a load balancer may carry that address as source.
        let nets = self.balancer.source_ranges.iter().map(IpNet::trunc);
        for net in IpNet::aggregate(&nets.chain([IpNet::from(ip)]).collect()) {
            self.push(Set::SourceRanges, Key::Range(at, net), Data::None);
        }
    }
}

#[cfg(test)]
mod tests;
