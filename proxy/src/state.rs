//! What is known of the cluster, and what a node shall do about it: events in, [`Wanted`] per family
//! out. No I/O, no clock.
//!
//! Theory: an event marks its Service as dirty, and that is all it does. The next [`State::take`]
//! resolves dirty Services, together with those that gain or lose an address by a clash, and
//! compares each resulting balancer with the one before; only those that differ are handed out. So
//! what comes out depends on the objects alone, not on the order or the batches they came in, and
//! an event costs what its Service costs, however many others there are.

mod claims;
mod family;
mod fronts;
mod select;
mod store;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;

pub use claims::Clash;

use crate::model::{
    Balancer, Changed, Event, Family, Kind, NodeInfo, ObjectName, PortName, Site, Wanted,
};
use family::FamilyState;
use store::Store;

/// Services, slices and the own Node, and what they come to for each family.
#[derive(Debug)]
pub struct State {
    store: Store,
    node: Option<NodeInfo>,
    /// Between `Restarted(Node)` and `Listed(Node)`: whether the Node was named.
    node_named: bool,
    families: BTreeMap<Family, FamilyState>,
    listed: BTreeSet<Kind>,
}

/// What brings a copy of [`Wanted`] up to date: everything, or the ports that may differ. Balancers
/// are shared, so it is small, and it can be sent to the thread of a mode.
#[derive(Clone, Debug, PartialEq)]
pub enum Update {
    /// In place of what was there.
    All(Wanted),
    /// These ports; `None`: gone.
    Ports(BTreeMap<PortName, Option<Arc<Balancer>>>),
}

impl Update {
    /// Applies it to the copy and says what may differ. The first update of a family is
    /// [`Update::All`]; ports for a copy that is not there yet cannot be placed and say
    /// [`Changed::All`] for nothing.
    pub fn apply(self, copy: &mut Option<Wanted>) -> Changed {
        match (self, copy) {
            (Self::All(wanted), copy) => {
                *copy = Some(wanted);
                Changed::All
            }
            (Self::Ports(_), None) => Changed::All,
            (Self::Ports(ports), Some(copy)) => {
                let mut changed = BTreeSet::new();
                for (port, balancer) in ports {
                    changed.insert(port.clone());
                    match balancer {
                        Some(balancer) => copy.balancers.insert(port, balancer),
                        None => copy.balancers.remove(&port),
                    };
                }
                Changed::Ports(changed)
            }
        }
    }
}

/// The health-check port of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthPort {
    /// Where the cloud's balancer asks.
    pub port: u16,
    /// Distinct addresses of local endpoints that are ready. Those that drain do not count, though
    /// traffic still falls back to them: that is what drains a balancer.
    pub local_endpoints: usize,
}

/// How much has changed in a family, for the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Changes of Services since the last [`State::take`].
    pub services_pending: usize,
    /// Changes of Services ever.
    pub services_total: u64,
    /// Changes of slices since the last [`State::take`].
    pub endpoints_pending: usize,
    /// Changes of slices ever.
    pub endpoints_total: u64,
}

/// Services whose policy is Local and that have endpoints, but on other nodes only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NoLocal {
    /// By the internal policy.
    pub internal: usize,
    /// By the external policy.
    pub external: usize,
}

/// Clashes that have begun or ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClashNews {
    /// New ones.
    pub begun: Vec<Clash>,
    /// Those that are over.
    pub ended: Vec<Clash>,
}

impl State {
    /// Knows nothing yet. One site for each family that is served; a second one of a family
    /// replaces the first.
    pub fn new(sites: impl IntoIterator<Item = Site>) -> Self {
        let families = sites
            .into_iter()
            .map(|site| (site.family, FamilyState::new(site)));
        Self {
            store: Store::default(),
            node: None,
            node_named: false,
            families: families.collect(),
            listed: BTreeSet::new(),
        }
    }

    /// Takes in news. Cheap: the work is done by [`State::take`].
    pub fn apply(&mut self, event: Event) {
        match event {
            Event::Service(service) => {
                let families: Vec<_> = service
                    .cluster_ips
                    .iter()
                    .map(|&ip| Family::of(ip))
                    .collect();
                if let Some(before) = self.store.put_service(service) {
                    self.count_service(before.into_iter().chain(families));
                }
            }
            Event::ServiceGone(name) => {
                if let Some(families) = self.store.remove_service(&name) {
                    self.count_service(families);
                }
            }
            Event::Slice(slice) => {
                let (family, triggered) = (slice.family, slice.triggered);
                if self.store.put_slice(slice) {
                    self.count_slice(family, triggered);
                }
            }
            Event::SliceGone(name) => {
                if let Some(family) = self.store.remove_slice(&name) {
                    self.count_slice(family, None);
                }
            }
            Event::Node(node) => {
                self.node_named = true;
                self.set_node(node);
            }
            Event::ServiceCidrs(nets) => {
                for family in self.families.values_mut() {
                    family.set_service_cidrs(&nets);
                }
            }
            Event::Restarted(Kind::Node) => self.node_named = false,
            Event::Restarted(kind) => self.store.restarted(kind),
            Event::Listed(kind) => self.listed(kind),
        }
    }

    fn listed(&mut self, kind: Kind) {
        self.listed.insert(kind);
        match kind {
            Kind::Services => {
                for families in self.store.sweep_services() {
                    self.count_service(families);
                }
            }
            Kind::Slices => {
                for family in self.store.sweep_slices() {
                    self.count_slice(family, None);
                }
            }
            Kind::Node if !self.node_named => self.set_node(None),
            Kind::Node => {}
        }
    }

    fn set_node(&mut self, node: Option<NodeInfo>) {
        let zone = |node: &Option<NodeInfo>| node.as_ref().and_then(|node| node.zone.clone());
        if zone(&self.node) != zone(&node) {
            self.store.touch_all();
        }
        self.node = node;
    }

    fn count_service(&mut self, families: impl IntoIterator<Item = Family>) {
        let families: BTreeSet<_> = families.into_iter().collect();
        for family in families {
            if let Some(family) = self.families.get_mut(&family) {
                family.counts.services_pending += 1;
                family.counts.services_total += 1;
            }
        }
    }

    fn count_slice(&mut self, family: Family, triggered: Option<i64>) {
        if let Some(family) = self.families.get_mut(&family) {
            family.counts.endpoints_pending += 1;
            family.counts.endpoints_total += 1;
            family.triggers.extend(triggered);
        }
    }

    /// Another common part for its family (addresses of the node have changed, say). The networks
    /// that [`Event::ServiceCidrs`] named stay. No effect if it is the same, or if the family is not
    /// served.
    pub fn set_site(&mut self, site: Site) {
        if let Some(family) = self.families.get_mut(&site.family)
            && family.set_site(site)
        {
            self.store.touch_all();
        }
    }

    /// Whether there is something to program: Services and slices have been listed once. Before, a
    /// mode would take away what an earlier process has programmed.
    pub fn ready(&self) -> bool {
        self.listed.contains(&Kind::Services) && self.listed.contains(&Kind::Slices)
    }

    /// The own Node, if it is known.
    pub fn node(&self) -> Option<&NodeInfo> {
        self.node.as_ref()
    }

    /// What may differ since the last call for the family; `None`: nothing. The first time it is
    /// everything. Until it is taken, further changes join it.
    pub fn take(&mut self, family: Family) -> Option<Update> {
        self.resolve();
        self.families.get_mut(&family)?.take()
    }

    /// What is wanted as of the last [`State::take`] of any family; `None` for a family that is not
    /// served.
    pub fn wanted(&self, family: Family) -> Option<&Wanted> {
        self.families.get(&family).map(FamilyState::wanted)
    }

    /// When what was applied since the last call had been triggered, in milliseconds since 1970
    /// (slices of the family only). A first list brings old times; they say nothing of this node.
    pub fn take_triggers(&mut self, family: Family) -> Vec<i64> {
        let family = self.families.get_mut(&family);
        family.map_or_else(Vec::new, |family| std::mem::take(&mut family.triggers))
    }

    /// How much has changed in the family.
    pub fn counts(&self, family: Family) -> Counts {
        let family = self.families.get(&family);
        family.map_or_else(Counts::default, |family| family.counts)
    }

    /// Health-check ports of the family's Services, as of the last [`State::take`].
    pub fn health(&self, family: Family) -> BTreeMap<ObjectName, HealthPort> {
        let family = self.families.get(&family);
        family.map_or_else(BTreeMap::new, |family| family.health.clone())
    }

    /// Services without a local endpoint that want one, as of the last [`State::take`].
    pub fn no_local(&self, family: Family) -> NoLocal {
        let family = self.families.get(&family);
        family.map_or_else(NoLocal::default, FamilyState::no_local)
    }

    /// The clashes there are now, as of the last [`State::take`].
    pub fn clashes(&self) -> impl Iterator<Item = &Clash> {
        self.families.values().flat_map(FamilyState::clashes)
    }

    /// Clashes that have begun or ended since the last call; each is told once.
    pub fn take_clash_news(&mut self) -> ClashNews {
        let mut news = ClashNews::default();
        for family in self.families.values_mut() {
            family.clash_news(&mut news);
        }
        news
    }

    fn resolve(&mut self) {
        let dirty = self.store.take_dirty();
        if dirty.is_empty() {
            return;
        }
        let zone = self.node.as_ref().and_then(|node| node.zone.clone());
        let mut touched = BTreeSet::new();
        for name in &dirty {
            let Some((before, after)) = self.store.replaced(name) else {
                continue;
            };
            for family in self.families.values_mut() {
                family.claim(before.as_deref(), after.as_deref(), &mut touched);
            }
        }
        touched.extend(dirty);
        for name in &touched {
            let (service, slices) = self.store.look_up(name);
            for family in self.families.values_mut() {
                family.resolve(name, service, slices, zone.as_deref());
            }
        }
        self.store.forget_empty(&touched);
    }
}

/// The networks of one family.
fn of_family(nets: &[IpNet], family: Family) -> impl Iterator<Item = IpNet> {
    let nets = nets.iter().copied();
    nets.filter(move |net| Family::of_net(net) == family)
}
