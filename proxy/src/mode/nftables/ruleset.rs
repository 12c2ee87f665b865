//! The table's rules, as values: how many there are depends on the site and never on the Services.
//!
//! ```text
//! prerouting, output   firewall-check        source ranges, before any translation
//!                      services              front → chain, by service-ips or service-nodeports
//!                        cluster-5           marks what comes from elsewhere for masquerade, draws
//!                                            one of five slots, translates (see `slots`)
//!                        pick-cluster        known client → its endpoint; else list → cluster-5
//!                        internal-local      a cluster IP with the Local policy: marks, pick-local
//!                        external-cluster    marks for masquerade, then as pick-cluster
//!                        external-local      Pods and the node: as pick-cluster; others: pick-local
//! input, forward,      service-endpoints-check, nodeport-endpoints-check
//! output                                     refuse or drop what has no endpoint
//!                      cluster-ips-check     refuse what a cluster IP does not offer
//! postrouting          note-clients          affinity: remembers who was led where
//!                      masquerading          what is marked, and hairpins
//! ```
//! All of it is looked at for the first packet of a connection only. Hooks and priorities are
//! kube-proxy's, so that others can order themselves before or after.

mod render;

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};

use ipnet::IpNet;
use kernel::nft::{Hook, HookType, Transaction};
use sha2::{Digest as _, Sha256};

use super::encode::encode;
use super::layout::{Chain, Place, Set, TABLE};
use super::slots;
use crate::model::{Family, List, LocalDetector, NodePortAddresses, Site};
pub use render::render;

/// What the rules are made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Basis {
    /// The site.
    pub site: Site,
    /// The affinity time-outs in use, in seconds.
    pub timeouts: BTreeSet<u32>,
}

/// Something that a packet must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// It begins a connection.
    New,
    /// Its connection has been translated.
    Translated,
    /// A key made from it is in (or, with `false`, is not in) a set.
    In(Set, bool),
    /// Its source is (is not) in a network.
    Source(IpNet, bool),
    /// Its destination is (is not) in a network.
    Destination(IpNet, bool),
    /// It came (did not come) in by an interface; the name may end in `*`.
    Interface(String, bool),
    /// Its source is an address of this host.
    LocalSource,
    /// Its destination is an address of this host.
    LocalDestination,
    /// It has the mark.
    Marked(u32),
    /// It is of TCP.
    Tcp,
}

/// Something done to a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Sets the mark.
    Mark(u32),
    /// Clears it.
    Unmark(u32),
    /// Replaces the source by the host's.
    Masquerade,
    /// Drops it.
    Drop,
    /// Refuses it by ICMP.
    Reject,
    /// Refuses it as TCP does.
    Reset,
    /// Into a chain and back.
    Jump(String),
    /// On to a chain.
    Goto(String),
    /// Where the map says, if it has the key.
    Verdict(Set),
    /// Replaces the destination by what the map says, if it has the key.
    Translate(Set, Draw),
    /// Remembers the client's endpoint for so many seconds.
    Note(u32),
}

/// The seed of the hash of a client's address: the same on every node.
pub const HASH_SEED: u32 = 0x7765_6674;

/// How the key of a translation is completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Draw {
    /// By a random number below.
    Random(u32),
    /// By the hash of the source.
    Hash(u32),
    /// By the source.
    Client,
}

/// Matches, then actions; the first that does not apply ends the rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// All must hold.
    pub matches: Vec<Match>,
    /// In order.
    pub actions: Vec<Action>,
}

/// A chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainRules {
    /// Its name.
    pub name: String,
    /// For a base chain.
    pub hook: Option<(HookType, Hook, i32)>,
    /// In order.
    pub rules: Vec<Rule>,
}

/// All chains of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruleset {
    /// The family.
    pub family: Family,
    /// In the order in which they are written: called ones before callers.
    pub chains: Vec<ChainRules>,
}

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

impl Ruleset {
    /// A name for the chain that says which rules these are: it differs when they do.
    pub fn stamp(&self) -> String {
        let digest = Sha256::digest(self.rules_text());
        let hex: String = digest[..8].iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        format!("{STAMP}{hex}")
    }

    /// How many rules there are.
    pub fn count(&self) -> usize {
        self.chains.iter().map(|chain| chain.rules.len()).sum()
    }

    /// The transaction that brings the table to these rules, whatever rules it had. Sets, maps and
    /// their elements stay. `stale` names chains to be removed.
    pub fn transaction(&self, stale: &[String]) -> Transaction {
        let mut transaction = Transaction::new(&table(self.family));
        self.write(&mut transaction, stale);
        transaction
    }

    /// The same rules in a table of another name, which is gone again when the transaction ends.
    pub fn rehearsal(&self) -> Transaction {
        let rehearsed = kernel::nft::Table::new(table(self.family).family, "weft-proxy-probe");
        let mut transaction = Transaction::new(&rehearsed);
        self.write(&mut transaction, &[]);
        transaction.delete_table();
        transaction
    }

    fn write(&self, transaction: &mut Transaction, stale: &[String]) {
        transaction.add_table();
        for set in Set::all() {
            transaction.add_set(&set.new_set(self.family));
        }
        for chain in &self.chains {
            transaction.add_chain(&chain.name, chain.hook);
        }
        for name in self.chains.iter().map(|chain| &chain.name).chain(stale) {
            transaction.flush_chain(name);
        }
        for chain in &self.chains {
            for rule in &chain.rules {
                transaction.add_rule(&chain.name, &encode(rule, self.family));
            }
        }
        for name in stale {
            transaction.delete_chain(name);
        }
        transaction.add_chain(&self.stamp(), None);
    }
}

/// What the names of stamps begin with.
pub const STAMP: &str = "rules-";

pub(super) fn place_of(set: Set) -> Place {
    match set {
        Set::Services(place)
        | Set::Lists(_, place)
        | Set::Endpoints(_, place)
        | Set::NoEndpoints(place)
        | Set::AffinityTimeouts(place) => place,
        _ => Place::Ip,
    }
}

/// The table as `kernel::nft` names it.
pub fn table(family: Family) -> kernel::nft::Table {
    let family = match family {
        Family::V4 => kernel::nft::Family::Ip,
        Family::V6 => kernel::nft::Family::Ip6,
    };
    kernel::nft::Table::new(family, TABLE)
}

#[cfg(test)]
mod tests;
