//! The plan: what differs between what is wanted and what was last written (or is found), chain by chain.
//!
//! [`Committed`] remembers a number for each chain's rules instead of the rules: enough to tell that
//! a chain need not be written, and small. Pure: no I/O and no clock.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::{BuildHasher as _, RandomState},
};

use crate::model::{Balancer, LocalDetector, PortName, Site, Wanted};

use super::{
    jumps::{FIREWALL, FIREWALL_JUMPS, JUMPS, firewall_rule},
    names::{Chain, Place, PortChain, Table},
    observed::Observed,
    port::{self, endpoint_count},
    rule::Rules,
    script::Script,
    terms::{LARGE, Parts, Terms},
    tree::Tree,
};

/// What was last written, as far as the next plan needs it.
pub(super) struct Committed {
    terms: Terms,
    /// A number of every chain's rules.
    chains: HashMap<Chain, u64>,
    ports: BTreeMap<PortName, Placed>,
    trees: Vec<Tree>,
    endpoints: usize,
    seed: RandomState,
}

/// What a service port has.
struct Placed {
    chains: Box<[PortChain]>,
    shared: Box<[(Place, Option<u8>)]>,
    endpoints: usize,
}

/// Where a plan writes what differs, and from what.
struct Differences<'a> {
    script: Script,
    observed: Option<&'a Observed>,
}

impl Committed {
    /// Nothing has been planned.
    fn new(wanted: &Wanted, parts: Parts, endpoint_limit: usize) -> Self {
        let endpoints: usize = wanted
            .balancers
            .values()
            .map(|balancer| endpoint_count(balancer, endpoint_limit))
            .sum();
        let terms = Terms {
            site: wanted.site.clone(),
            parts,
            endpoint_limit,
            large: endpoints > LARGE,
        };
        let family = terms.family();
        let trees = Place::ALL
            .into_iter()
            .map(|place| {
                let tail = match place {
                    Place::NatServices => terms.node_port_tail(),
                    _ => Rules::default(),
                };
                Tree::new(place, family, tail)
            })
            .collect();
        Self {
            terms,
            chains: HashMap::new(),
            ports: BTreeMap::new(),
            trees,
            endpoints: 0,
            seed: RandomState::new(),
        }
    }

    /// Plans everything anew and compares it with what is there.
    pub(super) fn full(
        wanted: &Wanted,
        parts: Parts,
        endpoint_limit: usize,
        observed: &Observed,
    ) -> (Self, Script) {
        let mut committed = Self::new(wanted, parts, endpoint_limit);
        let mut differences = Differences {
            script: Script::default(),
            observed: Some(observed),
        };
        committed.everything(wanted, &mut differences);
        let script = &mut differences.script;
        committed.remove_stale(observed, script);
        committed.ensure_jumps(observed, script);
        committed.ensure_firewall(observed, script);
        (committed, differences.script)
    }

    fn everything(&mut self, wanted: &Wanted, differences: &mut Differences<'_>) {
        for (chain, rules) in self.terms.fixed() {
            self.write(chain, &rules, differences);
        }
        for (name, balancer) in &wanted.balancers {
            self.place(name, Some(balancer), differences);
        }
        self.write_shared(differences);
    }

    /// Plans the changes of some service ports. The site must be as it was ([`Committed::is_of`]).
    pub(super) fn update(&mut self, wanted: &Wanted, ports: &BTreeSet<PortName>) -> Script {
        let mut differences = Differences {
            script: Script::default(),
            observed: None,
        };
        let before: usize = ports
            .iter()
            .filter_map(|name| self.ports.get(name))
            .map(|placed| placed.endpoints)
            .sum();
        let after: usize = ports
            .iter()
            .filter_map(|name| wanted.balancers.get(name))
            .map(|balancer| endpoint_count(balancer, self.terms.endpoint_limit))
            .sum();
        let large = self.endpoints - before + after > LARGE;
        let flips = std::mem::replace(&mut self.terms.large, large) != large;
        for name in ports {
            let balancer = wanted.balancers.get(name).map(AsRef::as_ref);
            self.place(name, balancer, &mut differences);
        }
        if flips {
            // Every endpoint's comments come or go.
            for (name, balancer) in &wanted.balancers {
                if !ports.contains(name) {
                    self.place(name, Some(balancer), &mut differences);
                }
            }
        }
        self.write_shared(&mut differences);
        differences.script
    }

    /// Whether it was planned for this site with these parts.
    pub(super) fn is_of(&self, site: &Site, parts: Parts) -> bool {
        self.terms.site == *site && self.terms.parts == parts
    }

    /// Brings one service port up to date.
    fn place(
        &mut self,
        name: &PortName,
        balancer: Option<&Balancer>,
        differences: &mut Differences<'_>,
    ) {
        let old = self.ports.remove(name);
        self.endpoints -= old.as_ref().map_or(0, |old| old.endpoints);
        let rendered = balancer
            .map(|balancer| port::render(name, balancer, &self.terms))
            .unwrap_or_default();

        for (chain, rules) in &rendered.chains {
            self.write(Chain::Port(*chain), rules, differences);
        }
        let chains: BTreeSet<_> = rendered.chains.iter().map(|(chain, _)| *chain).collect();
        let shared: BTreeSet<_> = rendered
            .shared
            .iter()
            .map(|(place, bucket, _)| (*place, *bucket))
            .collect();
        if let Some(old) = old {
            for chain in old.chains.iter().filter(|chain| !chains.contains(chain)) {
                self.drop_chain(Chain::Port(*chain), differences);
            }
            for (place, bucket) in old.shared.iter().filter(|slot| !shared.contains(slot)) {
                self.tree(*place).set(*bucket, name, None);
            }
        }
        for (place, bucket, rules) in rendered.shared {
            self.tree(place).set(bucket, name, Some(rules));
        }
        if let Some(balancer) = balancer {
            let endpoints = endpoint_count(balancer, self.terms.endpoint_limit);
            self.endpoints += endpoints;
            let placed = Placed {
                chains: chains.into_iter().collect(),
                shared: shared.into_iter().collect(),
                endpoints,
            };
            self.ports.insert(name.clone(), placed);
        }
    }

    fn tree(&mut self, place: Place) -> &mut Tree {
        // In the order of `Place::ALL`, which is that of the declaration.
        &mut self.trees[place as usize]
    }

    fn write_shared(&mut self, differences: &mut Differences<'_>) {
        for place in Place::ALL {
            for (chain, rules) in self.tree(place).take_changed() {
                match rules {
                    Some(rules) => self.write(chain, &rules, differences),
                    None => self.drop_chain(chain, differences),
                }
            }
        }
    }

    fn write(&mut self, chain: Chain, rules: &Rules, differences: &mut Differences<'_>) {
        let number = self.seed.hash_one(rules.text());
        let before = self.chains.insert(chain, number);
        let same = match differences.observed {
            Some(observed) => observed.has(chain, rules.text()),
            None => before == Some(number),
        };
        if !same {
            differences.script.replace(chain, rules.text());
        }
    }

    fn drop_chain(&mut self, chain: Chain, differences: &mut Differences<'_>) {
        // A full plan removes what it finds and does not know.
        if self.chains.remove(&chain).is_some() && differences.observed.is_none() {
            differences.script.remove(chain.table(), chain.to_string());
        }
    }

    /// Removes chains that are not wanted, and the kernel's jumps to them. One that a foreign chain
    /// refers to cannot go, and would fail the whole transaction: it stays, empty.
    fn remove_stale(&self, observed: &Observed, script: &mut Script) {
        for table in Table::ALL {
            let wanted: BTreeSet<String> = self
                .chains
                .keys()
                .filter(|chain| chain.table() == table)
                .map(ToString::to_string)
                .collect();
            for chain in observed
                .chains(table)
                .filter(|chain| !wanted.contains(*chain))
            {
                let jumps = || {
                    observed
                        .jumps(table)
                        .filter(|(_, rule)| super::canonical::target(rule) == Some(chain))
                };
                if jumps().any(|(from, _)| !BUILT_IN.contains(&from)) {
                    if !observed.is_empty(table, chain) {
                        script.empty(table, chain);
                    }
                    continue;
                }
                for (from, rule) in jumps() {
                    script.delete(table, from, rule);
                }
                script.remove(table, chain);
            }
        }
    }

    fn ensure_jumps(&self, observed: &Observed, script: &mut Script) {
        let comments = self.terms.parts.comment;
        for jump in JUMPS
            .iter()
            .filter(|jump| !observed.has_jump(jump, comments))
        {
            script.insert(jump.table, jump.from, &jump.rule(comments));
        }
    }

    /// Sees to the rule that keeps others from loopback where node ports answer there.
    fn ensure_firewall(&self, observed: &Observed, script: &mut Script) {
        if !self.terms.localhost_node_ports() {
            return;
        }
        let comments = self.terms.parts.comment;
        let rule = firewall_rule(comments);
        match observed.firewall() {
            None => script.empty(Table::Filter, FIREWALL),
            Some(rules)
                if rules
                    .iter()
                    .any(|there| super::canonical::same(there, &rule)) =>
            {
                return self.ensure_firewall_jumps(observed, script);
            }
            Some(_) => {}
        }
        script.append(Table::Filter, FIREWALL, &rule);
        self.ensure_firewall_jumps(observed, script);
    }

    fn ensure_firewall_jumps(&self, observed: &Observed, script: &mut Script) {
        let comments = self.terms.parts.comment;
        for jump in FIREWALL_JUMPS {
            if !observed.has_jump(&jump, comments) {
                script.insert(jump.table, jump.from, &jump.rule(comments));
            }
        }
    }
}

/// The kernel's own chains of the two tables.
const BUILT_IN: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];

/// Everything that is wanted, by table and chain, in the order in which it would be written.
pub(super) fn all_chains(
    wanted: &Wanted,
    parts: Parts,
    endpoint_limit: usize,
) -> BTreeMap<(Table, String), String> {
    let mut committed = Committed::new(wanted, parts, endpoint_limit);
    let mut chains: BTreeMap<_, String> = BTreeMap::new();
    let mut add = |chain: Chain, rules: &Rules| {
        chains.insert((chain.table(), chain.to_string()), rules.text().to_owned());
    };
    for (chain, rules) in committed.terms.fixed() {
        add(chain, &rules);
    }
    for (name, balancer) in &wanted.balancers {
        let rendered = port::render(name, balancer, &committed.terms);
        for (chain, rules) in &rendered.chains {
            add(Chain::Port(*chain), rules);
        }
        for (place, bucket, rules) in rendered.shared {
            committed.tree(place).set(bucket, name, Some(rules));
        }
    }
    for place in Place::ALL {
        for (chain, rules) in committed.tree(place).take_changed() {
            if let Some(rules) = rules {
                add(chain, &rules);
            }
        }
    }
    for jump in JUMPS.iter().rev() {
        let rules: &mut String = chains
            .entry((jump.table, jump.from.to_owned()))
            .or_default();
        rules.push_str(&jump.rule(parts.comment));
        rules.push('\n');
    }
    chains
}

/// Says what of the site cannot be written as a rule.
pub(super) fn check(site: &Site) -> Result<(), String> {
    let (LocalDetector::Interface(name) | LocalDetector::InterfacePrefix(name)) = &site.local
    else {
        return Ok(());
    };
    let fits = (1..16).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"\"'\\/!+".contains(&byte));
    if fits {
        return Ok(());
    }
    Err(format!(
        "write iptables rules ({}): {name:?} cannot be an interface name (1 to 15 letters, digits, \
         . _ -); set the pod bridge interface or interface prefix anew",
        site.family.label()
    ))
}
