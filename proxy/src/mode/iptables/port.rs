//! One service port as rules: its own chains, and its lines in the chains that all share.

use std::net::{IpAddr, SocketAddr};

use crate::model::{Balancer, Endpoint, Family, Fate, Front, FrontKind, List, Policy, PortName};

use super::{
    names::{Fixed, Kind, Place, PortChain},
    rule::Rules,
    sample::{probability, sample},
    terms::Terms,
};

/// What a service port comes to.
#[derive(Default)]
pub(super) struct Rendered {
    /// Its own chains, each once.
    pub(super) chains: Vec<(PortChain, Rules)>,
    /// Its lines in shared chains; each pair of place and byte once.
    pub(super) shared: Vec<(Place, Option<u8>, Rules)>,
}

impl Rendered {
    fn share(&mut self, place: Place, front: &Front) -> &mut Rules {
        let bucket = match front.ip {
            Some(ip) => Some(low_byte(ip)),
            None if place == Place::NatNodePorts => Some(high_byte(front.port)),
            None => None,
        };
        let position = self
            .shared
            .iter()
            .position(|(other, byte, _)| (*other, *byte) == (place, bucket))
            .unwrap_or_else(|| {
                self.shared.push((place, bucket, Rules::default()));
                self.shared.len() - 1
            });
        &mut self.shared[position].2
    }

    fn chain(&mut self, chain: PortChain) -> &mut Rules {
        self.chains.push((chain, Rules::default()));
        // Just pushed.
        let last = self.chains.len() - 1;
        &mut self.chains[last].1
    }
}

/// By which shared chains of addresses are split.
fn low_byte(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(ip) => ip.octets()[3],
        IpAddr::V6(ip) => ip.octets()[15],
    }
}

/// By which node ports are split; the halves swapped, for the high one comes first
/// ([`super::names::Branch`]).
fn high_byte(port: u16) -> u8 {
    port.to_be_bytes()[0].rotate_left(4)
}

/// How many endpoints a service port has, as far as the size of the cluster goes.
pub(super) fn endpoint_count(balancer: &Balancer, limit: usize) -> usize {
    balancer.cluster.len().max(balancer.local.len()).min(limit)
}

/// Renders one service port.
pub(super) fn render(port: &PortName, balancer: &Balancer, terms: &Terms) -> Rendered {
    Port {
        port,
        balancer,
        terms,
        chain: PortChain::of(Kind::Cluster, port),
        out: Rendered::default(),
    }
    .render()
}

struct Port<'a> {
    port: &'a PortName,
    balancer: &'a Balancer,
    terms: &'a Terms,
    chain: PortChain,
    out: Rendered,
}

impl Port<'_> {
    fn render(mut self) -> Rendered {
        let fronts = self.fronts();
        for front in &fronts {
            match front.kind {
                FrontKind::ClusterIp => self.cluster_ip(front),
                _ => self.external(front),
            }
        }
        self.own_chains(&fronts);
        self.out
    }

    /// The fronts that this family can have.
    fn fronts(&self) -> Vec<Front> {
        let family = self.terms.family();
        self.balancer
            .fronts
            .iter()
            .filter(|front| match front.ip {
                Some(ip) => Family::of(ip) == family,
                None => front.kind == FrontKind::NodePort,
            })
            .copied()
            .collect()
    }

    fn of(&self, kind: Kind) -> PortChain {
        self.chain.sibling(kind)
    }

    fn cluster_ip(&mut self, front: &Front) {
        let fate = self.balancer.internal();
        match fate {
            Fate::Balance(list) => {
                let target = self.of(kind_of(list));
                let comment = format!("{} cluster IP", self.port);
                self.line(Place::NatServices, front, &comment, target);
            }
            Fate::Reject | Fate::Drop => self.refuse(Place::FilterServices, front, fate),
        }
    }

    fn external(&mut self, front: &Front) {
        let firewalled = front.kind == FrontKind::LoadBalancer
            && !self.balancer.source_ranges.is_empty()
            && self.balancer.any_endpoint;
        if self.balancer.any_endpoint {
            let (place, what) = match front.kind {
                FrontKind::ExternalIp => (Place::NatServices, " external IP"),
                FrontKind::LoadBalancer => (Place::NatServices, " loadbalancer IP"),
                FrontKind::NodePort | FrontKind::ClusterIp => (Place::NatNodePorts, ""),
            };
            let target = self.of(if firewalled {
                Kind::Firewall
            } else {
                Kind::External
            });
            let comment = format!("{}{what}", self.port);
            self.line(place, front, &comment, target);
        }
        if firewalled {
            let comment = format!(
                "{} traffic not accepted by {}",
                self.port,
                self.of(Kind::Firewall)
            );
            self.line(Place::FilterFirewall, front, &comment, "DROP");
        }
        let fate = self.balancer.external();
        if !matches!(fate, Fate::Balance(_)) {
            self.refuse(Place::FilterExternal, front, fate);
        }
    }

    /// A line for a front in a shared chain.
    fn line(&mut self, place: Place, front: &Front, comment: &str, target: impl std::fmt::Display) {
        let (terms, protocol) = (self.terms, self.port.protocol);
        let rule = self.out.share(place, front).rule();
        let rule = match front.ip {
            Some(ip) => rule.destination(ip),
            None => rule,
        };
        let rule = rule
            .protocol(protocol)
            .comment(terms.comment(format_args!("{comment}")));
        // What is a node port is told by KUBE-SERVICES in nat; in filter nothing has told it yet.
        let rule = if front.ip.is_none() && place == Place::FilterExternal {
            rule.destination_local()
        } else {
            rule
        };
        rule.port(Some(front.port)).jump(target);
    }

    fn refuse(&mut self, place: Place, front: &Front, fate: Fate) {
        if fate == Fate::Drop {
            let comment = format!("{} has no local endpoints", self.port);
            return self.line(place, front, &comment, "DROP");
        }
        let comment = format!("{} has no endpoints", self.port);
        let target = match self.terms.family() {
            Family::V4 => "REJECT --reject-with icmp-port-unreachable",
            Family::V6 => "REJECT --reject-with icmp6-port-unreachable",
        };
        self.line(place, front, &comment, target);
    }

    fn own_chains(&mut self, fronts: &[Front]) {
        let has = |kind: fn(FrontKind) -> bool| fronts.iter().any(|front| kind(front.kind));
        let internal = has(|kind| kind == FrontKind::ClusterIp);
        let external = has(|kind| kind != FrontKind::ClusterIp) && self.balancer.any_endpoint;
        // The Cluster list serves short circuits too.
        let uses_cluster =
            external || (internal && self.balancer.internal() == Fate::Balance(List::Cluster));
        let uses_local = (internal && self.balancer.internal() == Fate::Balance(List::Local))
            || (external && self.balancer.external() == Fate::Balance(List::Local));
        let limit = self.terms.endpoint_limit;
        let list = |used: bool, list| match used {
            true => sample(self.balancer.list(list), limit, &self.terms.site.node),
            false => Vec::new(),
        };
        let (cluster, local) = (
            list(uses_cluster, List::Cluster),
            list(uses_local, List::Local),
        );

        let mut all: Vec<_> = cluster.iter().chain(&local).copied().collect();
        all.sort_unstable();
        all.dedup_by_key(|endpoint| (endpoint.ip, endpoint.port));
        for endpoint in &all {
            self.endpoint_chain(endpoint);
        }
        for (list, endpoints) in [(List::Cluster, cluster), (List::Local, local)] {
            if !endpoints.is_empty() {
                self.list_chain(list, &endpoints, fronts);
            }
        }
        if external {
            self.external_chain();
        }
        let load_balancers: Vec<_> = fronts
            .iter()
            .filter(|front| front.kind == FrontKind::LoadBalancer)
            .collect();
        if external && !load_balancers.is_empty() && !self.balancer.source_ranges.is_empty() {
            self.firewall_chain();
        }
    }

    /// KUBE-SEP: where one endpoint's connections are translated.
    fn endpoint_chain(&mut self, endpoint: &Endpoint) {
        let (port, terms, balancer) = (self.port, self.terms, self.balancer);
        let chain = PortChain::endpoint(port, endpoint);
        let rules = self.out.chain(chain);
        // An endpoint that reaches itself must be answered through here.
        rules
            .rule()
            .source(endpoint.ip)
            .comment(terms.endpoint_comment(format_args!("{port}")))
            .jump(Fixed::MarkMasq.name());
        let rule = rules
            .rule()
            .protocol(port.protocol)
            .comment(terms.endpoint_comment(format_args!("{port}")));
        let rule = match balancer.affinity {
            Some(_) if terms.parts.recent => rule.matching(format_args!(
                "-m recent --set --name {chain} --mask {} --rsource",
                all_ones(terms.family())
            )),
            _ => rule,
        };
        let address = SocketAddr::new(endpoint.ip, endpoint.port);
        rule.port(None)
            .jump(format_args!("DNAT --to-destination {address}"));
    }

    /// KUBE-SVC or KUBE-SVL: chooses one of the endpoints.
    fn list_chain(&mut self, list: List, endpoints: &[Endpoint], fronts: &[Front]) {
        let (port, terms, balancer) = (self.port, self.terms, self.balancer);
        let chain = self.of(kind_of(list));
        let rules = self.out.chain(chain);
        if balancer.internal() == Fate::Balance(list) {
            for front in fronts {
                if let (FrontKind::ClusterIp, Some(ip)) = (front.kind, front.ip) {
                    terms.masquerade_internal(rules, port, (ip, front.port));
                }
            }
        }
        if let Some(seconds) = balancer.affinity.filter(|_| terms.parts.recent) {
            for endpoint in endpoints {
                let address = SocketAddr::new(endpoint.ip, endpoint.port);
                let target = PortChain::endpoint(port, endpoint);
                rules
                    .rule()
                    .comment(terms.endpoint_comment(format_args!("{port} -> {address}")))
                    .matching(format_args!(
                        "-m recent --rcheck --seconds {seconds} --reap --name {target} --mask {} \
                         --rsource",
                        all_ones(terms.family())
                    ))
                    .jump(target);
            }
        }
        for (position, endpoint) in endpoints.iter().enumerate() {
            let address = SocketAddr::new(endpoint.ip, endpoint.port);
            let rule = rules
                .rule()
                .comment(terms.endpoint_comment(format_args!("{port} -> {address}")));
            let rule = match endpoints.len() - position {
                1 => rule,
                left => rule.matching(format_args!(
                    "-m statistic --mode random --probability {:.11}",
                    probability(left)
                )),
            };
            rule.jump(PortChain::endpoint(port, endpoint));
        }
    }

    /// KUBE-EXT: what comes for a front that is not the cluster IP.
    fn external_chain(&mut self) {
        let (port, terms, balancer) = (self.port, self.terms, self.balancer);
        let cluster = self.of(Kind::Cluster);
        let list = match balancer.external() {
            Fate::Balance(list) => Some(self.of(kind_of(list))),
            Fate::Reject | Fate::Drop => None,
        };
        let rules = self.out.chain(self.chain.sibling(Kind::External));
        match balancer.external_policy {
            Policy::Cluster => rules
                .rule()
                .comment(terms.comment(format_args!(
                    "masquerade traffic for {port} external destinations"
                )))
                .jump(Fixed::MarkMasq.name()),
            Policy::Local => {
                terms.jump_if_local(
                    rules,
                    format_args!("pod traffic for {port} external destinations"),
                    cluster,
                );
                // The front may be an address of this node and then be the source too.
                rules
                    .rule()
                    .comment(terms.comment(format_args!(
                        "masquerade LOCAL traffic for {port} external destinations"
                    )))
                    .source_local()
                    .jump(Fixed::MarkMasq.name());
                rules
                    .rule()
                    .comment(terms.comment(format_args!(
                        "route LOCAL traffic for {port} external destinations"
                    )))
                    .source_local()
                    .jump(cluster);
            }
        }
        if let Some(list) = list {
            rules.rule().jump(list);
        }
    }

    /// KUBE-FW: which sources may use the load balancer's addresses.
    fn firewall_chain(&mut self) {
        let (port, terms, balancer) = (self.port, self.terms, self.balancer);
        let external = self.of(Kind::External);
        let rules = self.out.chain(self.chain.sibling(Kind::Firewall));
        for range in &balancer.source_ranges {
            if Family::of_net(range) == terms.family() {
                rules
                    .rule()
                    .source(range.trunc())
                    .comment(terms.comment(format_args!("{port} loadbalancer IP")))
                    .jump(external);
            }
        }
        if let Some(comment) = terms.comment(format_args!(
            "other traffic to {port} will be dropped by KUBE-PROXY-FIREWALL"
        )) {
            // A rule without target: for the reader.
            drop(rules.rule().comment(Some(comment)));
        }
    }
}

fn kind_of(list: List) -> Kind {
    match list {
        List::Cluster => Kind::Cluster,
        List::Local => Kind::Local,
    }
}

/// The mask of `recent` that keeps the whole address.
fn all_ones(family: Family) -> IpAddr {
    match family {
        Family::V4 => [255; 4].into(),
        Family::V6 => [0xff; 16].into(),
    }
}
