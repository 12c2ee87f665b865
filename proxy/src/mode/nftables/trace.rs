//! Follows an imaginary packet through the rules and elements, as the kernel would.

use std::net::SocketAddr;

use super::book::{self, Contents};
use super::layout::{At, Data, Key, Place, Set};
use super::ruleset::{Action, Basis, Draw, Match, Rule, Ruleset, place_of, render, ruleset};
use crate::model::{Protocol, Wanted};
use crate::trace::{Outcome, Packet, Verdict};

/// Chains may not lead into each other so often; ours do not come near.
const DEPTH: usize = 16;

/// What becomes of a packet by the rules and elements that `wanted` comes to.
pub fn trace(wanted: &Wanted, packet: &Packet) -> Outcome {
    let timeouts = wanted.balancers.values().filter_map(|each| each.affinity);
    let rules = ruleset(&Basis {
        site: wanted.site.clone(),
        timeouts: match wanted.site.affinity_by_hash {
            true => Default::default(),
            false => timeouts.collect(),
        },
    });
    let contents = book::contents(wanted);
    let mut walk = Walk {
        rules: &rules,
        contents: &contents,
        packet,
        marked: false,
        targets: Vec::new(),
        steps: Vec::new(),
    };
    let verdict = walk.run();
    let targets = std::mem::take(&mut walk.targets);
    let masqueraded = |target: &SocketAddr| walk.marked || walk.is_hairpin(*target);
    let endpoints = targets
        .iter()
        .map(|target| (*target, masqueraded(target)))
        .collect();
    Outcome {
        verdict,
        endpoints,
        steps: walk.steps,
    }
}

struct Walk<'a> {
    rules: &'a Ruleset,
    contents: &'a Contents,
    packet: &'a Packet,
    marked: bool,
    targets: Vec<SocketAddr>,
    steps: Vec<String>,
}

/// How a chain ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// At its end: the calling chain goes on.
    Fell,
    /// For good.
    Stop(Verdict),
}

impl Walk<'_> {
    fn run(&mut self) -> Verdict {
        let own = self.packet.interface.is_none();
        let (before, nat) = match own {
            true => ("filter-output-pre-dnat", "nat-output"),
            false => ("filter-prerouting-pre-dnat", "nat-prerouting"),
        };
        if let End::Stop(verdict) = self.chain(before, 0) {
            return verdict;
        }
        self.chain(nat, 0);
        if !self.targets.is_empty() {
            return Verdict::Balanced;
        }
        let filters: &[&str] = match (own, self.packet.destination_is_local) {
            (true, true) => &["filter-output", "filter-input"],
            (true, false) => &["filter-output"],
            (false, true) => &["filter-input"],
            (false, false) => &["filter-forward"],
        };
        for filter in filters {
            if let End::Stop(verdict) = self.chain(filter, 0) {
                return verdict;
            }
        }
        Verdict::NotOurs
    }

    fn chain(&mut self, name: &str, depth: usize) -> End {
        let Some(chain) = self.rules.chains.iter().find(|chain| chain.name == name) else {
            self.steps.push(format!("there is no chain {name}"));
            return End::Fell;
        };
        if depth > DEPTH {
            self.steps.push(format!("{name}: too deep"));
            return End::Fell;
        }
        for rule in &chain.rules {
            if let Some(end) = self.rule(name, rule, depth) {
                return end;
            }
        }
        End::Fell
    }

    /// `None`: on to the next rule.
    fn rule(&mut self, chain: &str, rule: &Rule, depth: usize) -> Option<End> {
        if !rule.matches.iter().all(|each| self.matches(each)) {
            return None;
        }
        for action in &rule.actions {
            let text = render(rule, self.rules.family);
            match action {
                Action::Mark(_) => {
                    self.step(chain, &text, "marked for masquerade");
                    self.marked = true;
                }
                Action::Unmark(_) | Action::Masquerade | Action::Note(_) => {}
                Action::Drop => {
                    self.step(chain, &text, "dropped");
                    return Some(End::Stop(Verdict::Drop));
                }
                Action::Reject | Action::Reset => {
                    self.step(chain, &text, "rejected");
                    return Some(End::Stop(Verdict::Reject));
                }
                Action::Jump(to) => match self.chain(to, depth + 1) {
                    End::Fell => {}
                    stop => return Some(stop),
                },
                Action::Goto(to) => {
                    self.step(chain, &text, &format!("on to {to}"));
                    return Some(self.chain(to, depth + 1));
                }
                Action::Verdict(set) => {
                    let key = Key::At(self.front(place_of(*set)));
                    let data = self.contents.get(&(*set, key))?;
                    self.step(chain, &text, &format!("{key} : {data}"));
                    match data {
                        Data::Goto(to) => return Some(self.chain(&to.to_string(), depth + 1)),
                        Data::Jump(to) => match self.chain(&to.to_string(), depth + 1) {
                            End::Fell => {}
                            stop => return Some(stop),
                        },
                        Data::Drop => return Some(End::Stop(Verdict::Drop)),
                        Data::None | Data::Endpoint(..) => {}
                    }
                }
                Action::Translate(set, draw) => {
                    if self.translate(chain, &text, *set, *draw) {
                        return Some(End::Stop(Verdict::Balanced));
                    }
                    return None;
                }
            }
        }
        None
    }

    /// Whether it is translated for certain; endpoints that it may be translated to are noted.
    fn translate(&mut self, chain: &str, text: &str, set: Set, draw: Draw) -> bool {
        let below = match draw {
            Draw::Random(below) | Draw::Hash(below) => below,
            Draw::Client => {
                self.step(
                    chain,
                    text,
                    "a client that is known goes where it went before",
                );
                return false;
            }
        };
        let front = self.front(place_of(set));
        let mut found = 0;
        for slot in 0..below {
            let data = self.contents.get(&(set, Key::Slot(front, slot)));
            if let Some(Data::Endpoint(ip, port)) = data {
                found += 1;
                let target = SocketAddr::new(*ip, *port);
                if !self.targets.contains(&target) {
                    self.targets.push(target);
                }
            }
        }
        if found == 0 {
            return false;
        }
        let what = match draw {
            Draw::Hash(_) => "by the client's address",
            _ => "at random",
        };
        self.step(
            chain,
            text,
            &format!("{what} one of {found} of {below} slots"),
        );
        found == below
    }

    fn step(&mut self, chain: &str, rule: &str, what: &str) {
        self.steps.push(format!("{chain}: {rule} → {what}"));
    }

    fn front(&self, place: Place) -> At {
        At {
            ip: (place == Place::Ip).then_some(self.packet.destination.ip()),
            protocol: self.packet.protocol,
            port: self.packet.destination.port(),
        }
    }

    fn is_hairpin(&self, target: SocketAddr) -> bool {
        let to = At {
            ip: Some(target.ip()),
            protocol: self.packet.protocol,
            port: target.port(),
        };
        let key = Key::From(self.packet.source.ip(), to);
        self.contents.contains_key(&(Set::Hairpin, key))
    }

    fn matches(&self, each: &Match) -> bool {
        let packet = self.packet;
        let (source, destination) = (packet.source.ip(), packet.destination.ip());
        match each {
            Match::New => true,
            Match::Translated => false,
            Match::In(set, inside) => {
                let has = |key| self.contents.contains_key(&(*set, key));
                let front = self.front(Place::Ip);
                let found = match set {
                    Set::ClusterIps | Set::NodePortIps => has(Key::Ip(destination)),
                    Set::SourceRanges => self.contents.keys().any(|(of, key)| {
                        let Key::Range(at, net) = key else {
                            return false;
                        };
                        of == set && *at == front && net.contains(&source)
                    }),
                    Set::Hairpin => has(Key::From(source, front)),
                    _ => has(Key::At(front)),
                };
                found == *inside
            }
            Match::Source(net, yes) => net.contains(&source) == *yes,
            Match::Destination(net, yes) => net.contains(&destination) == *yes,
            Match::Interface(name, yes) => {
                let own = packet.interface.as_deref().unwrap_or_default();
                let found = match name.strip_suffix('*') {
                    Some(prefix) => own.starts_with(prefix),
                    None => own == name,
                };
                found == *yes
            }
            Match::LocalSource => packet.source_is_local,
            Match::LocalDestination => packet.destination_is_local,
            Match::Marked(_) => self.marked,
            Match::Tcp => packet.protocol == Protocol::Tcp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Family;
    use crate::trace::cases;

    #[test]
    fn packets_go_where_they_should() {
        for family in Family::ALL {
            for mut case in cases::all(family) {
                // What a cluster IP does not offer is refused here; iptables mode, as kube-proxy's,
                // lets it pass and time out.
                let clusters = book::contents(&case.wanted);
                let to = Key::Ip(case.packet.destination.ip());
                if case.verdict == Verdict::NotOurs && clusters.contains_key(&(Set::ClusterIps, to))
                {
                    case.verdict = Verdict::Reject;
                }
                case.check(&trace(&case.wanted, &case.packet));
            }
        }
    }
}
