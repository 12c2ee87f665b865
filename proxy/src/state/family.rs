//! One family: who owns which front, the balancers, and what has changed since they were taken.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;

use super::claims::{Claimant, Claims, Clash, Spot};
use super::fronts::{self, asked, port_name};
use super::select::{self, Viewpoint};
use super::store::Held;
use super::{ClashNews, Counts, HealthPort, NoLocal, Update, of_family};
use crate::model::{
    Balancer, Family, Front, FrontKind, ObjectName, Policy, PortName, Protocol, Service,
    ServicePort, Site, Slice, Wanted,
};

#[derive(Debug)]
pub(super) struct FamilyState {
    wanted: Wanted,
    /// The networks of cluster IPs that the settings name.
    own_cidrs: Vec<IpNet>,
    /// Those that the API server names.
    api_cidrs: Vec<IpNet>,
    claims: Claims,
    told_clashes: BTreeSet<Clash>,
    /// Not handed out yet; `None`: everything.
    pending: Option<BTreeSet<PortName>>,
    pub(super) counts: Counts,
    pub(super) triggers: Vec<i64>,
    pub(super) health: BTreeMap<ObjectName, HealthPort>,
    no_local_internal: BTreeSet<ObjectName>,
    no_local_external: BTreeSet<ObjectName>,
}

impl FamilyState {
    pub(super) fn new(site: Site) -> Self {
        Self {
            own_cidrs: site.service_cidrs.clone(),
            api_cidrs: Vec::new(),
            claims: Claims::new(site.family),
            told_clashes: BTreeSet::new(),
            wanted: Wanted {
                site,
                balancers: BTreeMap::new(),
            },
            pending: None,
            counts: Counts::default(),
            triggers: Vec::new(),
            health: BTreeMap::new(),
            no_local_internal: BTreeSet::new(),
            no_local_external: BTreeSet::new(),
        }
    }

    fn family(&self) -> Family {
        self.wanted.site.family
    }

    pub(super) fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    pub(super) fn no_local(&self) -> NoLocal {
        NoLocal {
            internal: self.no_local_internal.len(),
            external: self.no_local_external.len(),
        }
    }

    pub(super) fn clashes(&self) -> impl Iterator<Item = &Clash> {
        self.claims.clashes().iter()
    }

    pub(super) fn clash_news(&mut self, news: &mut ClashNews) {
        let now = self.claims.clashes();
        if *now != self.told_clashes {
            news.begun
                .extend(now.difference(&self.told_clashes).cloned());
            news.ended
                .extend(self.told_clashes.difference(now).cloned());
            self.told_clashes = now.clone();
        }
    }

    /// Whether Services have to be resolved anew: it is another node.
    pub(super) fn set_site(&mut self, site: Site) -> bool {
        let other_node = self.wanted.site.node != site.node;
        self.own_cidrs = site.service_cidrs.clone();
        self.replace_site(site);
        other_node
    }

    pub(super) fn set_service_cidrs(&mut self, nets: &[IpNet]) {
        self.api_cidrs = of_family(nets, self.family()).collect();
        self.replace_site(self.wanted.site.clone());
    }

    fn replace_site(&mut self, mut site: Site) {
        let cidrs = self.own_cidrs.iter().chain(&self.api_cidrs).copied();
        let cidrs: BTreeSet<_> = cidrs.collect();
        site.service_cidrs = cidrs.into_iter().collect();
        if site != self.wanted.site {
            self.wanted.site = site;
            self.pending = None;
        }
    }

    pub(super) fn take(&mut self) -> Option<Update> {
        self.counts.services_pending = 0;
        self.counts.endpoints_pending = 0;
        match self.pending.replace(BTreeSet::new()) {
            None => Some(Update::All(self.wanted.clone())),
            Some(ports) if ports.is_empty() => None,
            Some(ports) => {
                let balancers = &self.wanted.balancers;
                let ports = ports.into_iter().map(|port| {
                    let balancer = balancers.get(&port).cloned();
                    (port, balancer)
                });
                Some(Update::Ports(ports.collect()))
            }
        }
    }

    /// Claims what a Service asks for now and gives back what it asked for before. `touched` gets
    /// the Services that gain or lose a front by it.
    pub(super) fn claim(
        &mut self,
        before: Option<&Service>,
        after: Option<&Service>,
        touched: &mut BTreeSet<ObjectName>,
    ) {
        let before = self.claims_of(before);
        let after = self.claims_of(after);
        for (spot, claimant) in before.difference(&after) {
            let gains = self.claims.remove(*spot, claimant);
            touched.extend(gains.map(|port| port.service));
        }
        for (spot, claimant) in after.difference(&before) {
            let loses = self.claims.add(*spot, claimant.clone());
            touched.extend(loses.map(|port| port.service));
        }
    }

    fn claims_of(&self, service: Option<&Service>) -> BTreeSet<(Spot, Claimant)> {
        let claims = service.into_iter().flat_map(|service| {
            let asked = asked(service, self.family()).into_iter();
            asked.map(|asked| {
                let claimant = Claimant {
                    created: service.created,
                    port: port_name(service, asked.port),
                    kind: asked.front.kind,
                };
                (spot(asked.front, asked.port.protocol), claimant)
            })
        });
        claims.collect()
    }

    /// Decides every port of a Service, or removes them.
    pub(super) fn resolve(
        &mut self,
        name: &ObjectName,
        service: Option<&Service>,
        slices: &[Held],
        zone: Option<&str>,
    ) {
        let service = service.filter(|service| fronts::has_family(service, self.family()));
        self.remove_ports(name, service.map_or(&[], |service| &service.ports));
        self.no_local_internal.remove(name);
        self.no_local_external.remove(name);
        let Some(service) = service else {
            self.health.remove(name);
            return;
        };
        self.set_health(service, slices);
        let mut fronts: BTreeMap<PortName, Vec<Front>> = BTreeMap::new();
        for asked in asked(service, self.family()) {
            let port = port_name(service, asked.port);
            let owner = self.claims.owner(&spot(asked.front, port.protocol));
            let owned = owner == Some(&port);
            let fronts = fronts.entry(port).or_default();
            if owned {
                fronts.push(asked.front);
            }
        }
        for port in &service.ports {
            let full_name = port_name(service, port);
            let mut fronts = fronts.remove(&full_name).unwrap_or_default();
            fronts.sort_unstable();
            fronts.shrink_to_fit();
            let balancer = self.decide(service, port, fronts, slices, zone);
            self.note_no_local(name, &balancer);
            self.put(full_name, balancer);
        }
    }

    fn decide(
        &self,
        service: &Service,
        port: &ServicePort,
        fronts: Vec<Front>,
        slices: &[Held],
        zone: Option<&str>,
    ) -> Balancer {
        let policies = [service.internal_policy, service.external_policy];
        let view = Viewpoint {
            node: &self.wanted.site.node,
            zone,
        };
        let chosen = select::choose(
            of_this_family(slices, self.family()),
            (&port.name, port.protocol),
            view,
            policies.contains(&Policy::Local),
        );
        Balancer {
            fronts,
            internal_policy: service.internal_policy,
            external_policy: service.external_policy,
            affinity: service.affinity,
            source_ranges: of_family(&service.source_ranges, self.family()).collect(),
            // One ready endpoint anywhere, or one that drains, makes this list one.
            any_endpoint: !chosen.cluster.is_empty(),
            cluster: chosen.cluster,
            local: chosen.local,
        }
    }

    fn put(&mut self, port: PortName, balancer: Balancer) {
        if self.wanted.balancers.get(&port).map(|old| &**old) == Some(&balancer) {
            return;
        }
        if let Some(pending) = &mut self.pending {
            pending.insert(port.clone());
        }
        self.wanted.balancers.insert(port, Arc::new(balancer));
    }

    /// Removes the ports of a Service that are not among those to keep.
    fn remove_ports(&mut self, service: &ObjectName, keep: &[ServicePort]) {
        let first = PortName {
            service: service.clone(),
            port: "".into(),
            protocol: Protocol::Tcp,
        };
        let ports = self.wanted.balancers.range(first..).map(|(port, _)| port);
        let gone: Vec<_> = ports
            .take_while(|port| port.service == *service)
            .filter(|port| {
                let same =
                    |kept: &ServicePort| kept.name == port.port && kept.protocol == port.protocol;
                !keep.iter().any(same)
            })
            .cloned()
            .collect();
        for port in gone {
            self.wanted.balancers.remove(&port);
            if let Some(pending) = &mut self.pending {
                pending.insert(port);
            }
        }
    }

    fn set_health(&mut self, service: &Service, slices: &[Held]) {
        let Some(port) = service.health_check_node_port else {
            self.health.remove(&service.name);
            return;
        };
        let node = &*self.wanted.site.node;
        let with_ports =
            of_this_family(slices, self.family()).filter(|slice| !slice.ports.is_empty());
        let local: BTreeSet<_> = with_ports
            .flat_map(|slice| &slice.endpoints)
            .filter(|endpoint| endpoint.ready && endpoint.node.as_deref() == Some(node))
            .map(|endpoint| endpoint.address)
            .collect();
        let health = HealthPort {
            port,
            local_endpoints: local.len(),
        };
        self.health.insert(service.name.clone(), health);
    }

    fn note_no_local(&mut self, service: &ObjectName, balancer: &Balancer) {
        if !balancer.any_endpoint || !balancer.local.is_empty() {
            return;
        }
        let internal = |front: &Front| front.kind == FrontKind::ClusterIp;
        if balancer.internal_policy == Policy::Local && balancer.fronts.iter().any(internal) {
            self.no_local_internal.insert(service.clone());
        }
        if balancer.external_policy == Policy::Local && !balancer.fronts.iter().all(internal) {
            self.no_local_external.insert(service.clone());
        }
    }
}

fn of_this_family(slices: &[Held], family: Family) -> impl Iterator<Item = &Slice> {
    let slices = slices.iter().map(|held| &*held.slice);
    slices.filter(move |slice| slice.family == family)
}

fn spot(front: Front, protocol: Protocol) -> Spot {
    Spot {
        ip: front.ip,
        port: front.port,
        protocol,
    }
}
