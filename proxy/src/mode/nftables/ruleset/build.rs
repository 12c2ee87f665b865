//! The chains of a site, from the ones that map elements lead to down to the base chains.

use std::fmt;

use ipnet::IpNet;
use kernel::nft::{Hook, HookType};

use super::{Action, Basis, ChainRules, Draw, Match, Rule, Ruleset};
use crate::mode::nftables::layout::{Chain, Place, Set};
use crate::mode::nftables::slots;
use crate::model::{Family, List, LocalDetector, NodePortAddresses, Site};

fn rule<const M: usize, const A: usize>(matches: [Match; M], actions: [Action; A]) -> Rule {
    Rule {
        matches: matches.into(),
        actions: actions.into(),
    }
}

fn chain(name: impl fmt::Display, rules: Vec<Rule>) -> ChainRules {
    ChainRules {
        name: name.to_string(),
        hook: None,
        rules,
    }
}

fn base(name: &str, hook: (HookType, Hook, i32), rules: Vec<Rule>) -> ChainRules {
    ChainRules {
        hook: Some(hook),
        ..chain(name, rules)
    }
}

const DSTNAT: i32 = -100;
const SRCNAT: i32 = 100;

/// The rules.
pub fn ruleset(basis: &Basis) -> Ruleset {
    let site = &basis.site;
    let mut chains = vec![reject_chain()];
    for list in [List::Cluster, List::Local] {
        for place in [Place::Ip, Place::NodePort] {
            chains.extend(slots::sizes().map(|size| size_chain(site, list, place, size)));
            if site.affinity_by_hash {
                chains.extend(slots::hash_sizes().map(|size| hash_chain(site, list, place, size)));
            }
        }
        chains.push(pick_chain(site, list));
    }
    chains.extend([
        internal_local(site),
        external_cluster(site),
        external_local(site),
        services(site),
    ]);
    chains.extend(checks(site));
    chains.extend(basis.timeouts.iter().map(|seconds| note_chain(*seconds)));
    chains.push(masquerading(site));
    chains.extend(base_chains(!basis.timeouts.is_empty()));
    Ruleset {
        family: site.family,
        chains,
    }
}

/// A client of TCP is refused by a reset: what ICMP says of a connection that is just being made is
/// lost where the client is on this machine (its socket is busy), and held back where the kernel has
/// sent it a redirect.
fn reject_chain() -> ChainRules {
    let rules = vec![
        rule([Match::Tcp], [Action::Reset]),
        rule([], [Action::Reject]),
    ];
    chain(Chain::Reject, rules)
}

/// The mark for what comes from elsewhere to a cluster IP, if that is told at all.
///
/// It stands at the head of the cluster list's chains, which saves every connection a look-up of its
/// own: whoever gets there by another front is marked already, or is of this node and not from
/// elsewhere. The local list's chains serve clients whose address must stay, so cluster IPs with the
/// Local policy pass by [`internal_local`].
fn mark_if_from_elsewhere(site: &Site) -> Option<Rule> {
    let matches = local_matches(site, false);
    let marks = site.masquerade_all || !matches.is_empty();
    marks.then(|| Rule {
        matches: if site.masquerade_all {
            Vec::new()
        } else {
            matches
        },
        actions: vec![Action::Mark(site.masquerade_mark)],
    })
}

/// The head of a chain that cluster IPs lead to directly.
fn head(site: &Site, list: List, place: Place) -> Vec<Rule> {
    match (list, place) {
        (List::Cluster, Place::Ip) => mark_if_from_elsewhere(site).into_iter().collect(),
        _ => Vec::new(),
    }
}

fn size_chain(site: &Site, list: List, place: Place, size: u32) -> ChainRules {
    let draw = |below| {
        let translate = Action::Translate(Set::Endpoints(list, place), Draw::Random(below));
        rule([], [translate])
    };
    let mut rules = head(site, list, place);
    rules.push(draw(size));
    if size > slots::EXACT {
        rules.extend(vec![draw(size); slots::TRIES as usize - 1]);
        rules.push(draw(size / 2));
    }
    chain(Chain::Size(list, place, size), rules)
}

fn hash_chain(site: &Site, list: List, place: Place, size: u32) -> ChainRules {
    let translate = Action::Translate(Set::Endpoints(list, place), Draw::Hash(size));
    let mut rules = head(site, list, place);
    rules.push(rule([], [translate]));
    chain(Chain::Hash(list, place, size), rules)
}

fn pick_chain(site: &Site, list: List) -> ChainRules {
    let mut rules = head(site, list, Place::Ip);
    rules.extend([
        rule([], [Action::Translate(Set::Affinity, Draw::Client)]),
        rule([], [Action::Verdict(Set::Lists(list, Place::Ip))]),
        rule([], [Action::Verdict(Set::Lists(list, Place::NodePort))]),
    ]);
    chain(Chain::Pick(list), rules)
}

fn internal_local(site: &Site) -> ChainRules {
    let mut rules: Vec<Rule> = mark_if_from_elsewhere(site).into_iter().collect();
    rules.push(rule(
        [],
        [Action::Goto(Chain::Pick(List::Local).to_string())],
    ));
    chain(Chain::InternalLocal, rules)
}

fn external_cluster(site: &Site) -> ChainRules {
    let on = Action::Goto(Chain::Pick(List::Cluster).to_string());
    let mark = Action::Mark(site.masquerade_mark);
    chain(Chain::ExternalCluster, vec![rule([], [mark, on])])
}

fn external_local(site: &Site) -> ChainRules {
    let cluster = || Action::Goto(Chain::Pick(List::Cluster).to_string());
    let mut rules: Vec<Rule> = local_matches(site, true)
        .into_iter()
        .map(|local| rule([local], [cluster()]))
        .collect();
    let mark = Action::Mark(site.masquerade_mark);
    rules.push(rule([Match::LocalSource], [mark.clone(), cluster()]));
    if site.masquerade_all {
        rules.push(rule([], [mark]));
    }
    let local = Action::Goto(Chain::Pick(List::Local).to_string());
    rules.push(rule([], [local]));
    chain(Chain::ExternalLocal, rules)
}

/// The detector's conditions: one of them must hold (`yes`), or none may.
fn local_matches(site: &Site, yes: bool) -> Vec<Match> {
    match &site.local {
        LocalDetector::None => Vec::new(),
        LocalDetector::Cidrs(nets) => nets
            .iter()
            .filter(|net| Family::of_net(net) == site.family)
            .map(|net| Match::Source(net.trunc(), yes))
            .collect(),
        LocalDetector::Interface(name) => vec![Match::Interface(name.clone(), yes)],
        LocalDetector::InterfacePrefix(prefix) => {
            vec![Match::Interface(format!("{prefix}*"), yes)]
        }
    }
}

fn services(site: &Site) -> ChainRules {
    let rules = vec![
        rule([], [Action::Verdict(Set::Services(Place::Ip))]),
        Rule {
            matches: node_port_matches(site),
            actions: vec![Action::Verdict(Set::Services(Place::NodePort))],
        },
    ];
    chain("services", rules)
}

fn node_port_matches(site: &Site) -> Vec<Match> {
    match site.node_port_addresses {
        NodePortAddresses::Some(_) => vec![Match::In(Set::NodePortIps, true)],
        NodePortAddresses::All => {
            let loopback = match site.family {
                Family::V4 => IpNet::V4(ipnet::Ipv4Net::new_assert([127, 0, 0, 0].into(), 8)),
                Family::V6 => IpNet::from(std::net::IpAddr::V6(std::net::Ipv6Addr::LOCALHOST)),
            };
            vec![Match::LocalDestination, Match::Destination(loopback, false)]
        }
    }
}

fn checks(site: &Site) -> Vec<ChainRules> {
    let firewall = rule(
        [
            Match::In(Set::FirewallIps, true),
            Match::In(Set::SourceRanges, false),
        ],
        [Action::Drop],
    );
    let mut cluster_ips = vec![rule(
        [Match::In(Set::ClusterIps, true)],
        [Action::Goto(Chain::Reject.to_string())],
    )];
    let nets = site.service_cidrs.iter().map(IpNet::trunc);
    for net in nets.filter(|net| Family::of_net(net) == site.family) {
        cluster_ips.push(rule([Match::Destination(net, true)], [Action::Drop]));
    }
    let node_ports = Rule {
        matches: node_port_matches(site),
        actions: vec![Action::Verdict(Set::NoEndpoints(Place::NodePort))],
    };
    let services = rule([], [Action::Verdict(Set::NoEndpoints(Place::Ip))]);
    vec![
        chain("firewall-check", vec![firewall]),
        chain("service-endpoints-check", vec![services]),
        chain("nodeport-endpoints-check", vec![node_ports]),
        chain("cluster-ips-check", cluster_ips),
    ]
}

fn note_chain(seconds: u32) -> ChainRules {
    chain(
        Chain::Note(seconds),
        vec![rule([], [Action::Note(seconds)])],
    )
}

fn masquerading(site: &Site) -> ChainRules {
    let mark = site.masquerade_mark;
    let marked = rule(
        [Match::Marked(mark)],
        [Action::Unmark(mark), Action::Masquerade],
    );
    let hairpin = rule(
        [Match::Translated, Match::In(Set::Hairpin, true)],
        [Action::Masquerade],
    );
    chain("masquerading", vec![marked, hairpin])
}

fn base_chains(affinity: bool) -> Vec<ChainRules> {
    let on_new = |name: &str| rule([Match::New], [Action::Jump(name.to_owned())]);
    let always = |name: &str| rule([], [Action::Jump(name.to_owned())]);
    let mut postrouting = vec![always("masquerading")];
    let mut chains = Vec::new();
    if affinity {
        let to = |place| rule([], [Action::Verdict(Set::AffinityTimeouts(place))]);
        chains.push(chain(
            "note-clients",
            vec![to(Place::Ip), to(Place::NodePort)],
        ));
        let translated = Action::Jump("note-clients".to_owned());
        postrouting.insert(0, rule([Match::Translated], [translated]));
    }
    let service_checks = vec![
        on_new("service-endpoints-check"),
        on_new("cluster-ips-check"),
    ];
    chains.extend([
        base(
            "filter-prerouting-pre-dnat",
            (HookType::Filter, Hook::Prerouting, DSTNAT - 10),
            vec![on_new("firewall-check")],
        ),
        base(
            "filter-output-pre-dnat",
            (HookType::Filter, Hook::Output, DSTNAT - 10),
            vec![on_new("firewall-check")],
        ),
        base(
            "filter-input",
            (HookType::Filter, Hook::Input, 0),
            vec![
                on_new("nodeport-endpoints-check"),
                on_new("service-endpoints-check"),
            ],
        ),
        base(
            "filter-forward",
            (HookType::Filter, Hook::Forward, 0),
            service_checks.clone(),
        ),
        base(
            "filter-output",
            (HookType::Filter, Hook::Output, 0),
            service_checks,
        ),
        base(
            "nat-prerouting",
            (HookType::Nat, Hook::Prerouting, DSTNAT),
            vec![always("services")],
        ),
        base(
            "nat-output",
            (HookType::Nat, Hook::Output, DSTNAT),
            vec![always("services")],
        ),
        base(
            "nat-postrouting",
            (HookType::Nat, Hook::Postrouting, SRCNAT),
            postrouting,
        ),
    ]);
    chains
}
