//! Walks an imaginary packet through planned rules. It understands the matches and targets that this
//! mode writes and nothing else.

mod rule;

use std::{collections::BTreeMap, net::SocketAddr};

use crate::{
    model::{PortName, Wanted},
    trace::{Outcome, Packet, Verdict},
};

use super::{Options, Parts, names::Table, plan};
use rule::{Rule, Target};

/// Planned rules, by table and chain.
pub struct Chains {
    text: BTreeMap<(Table, String), String>,
    rules: BTreeMap<(Table, String), Vec<Rule>>,
}

/// A branch of the packet's way: chance may send it to several endpoints.
#[derive(Clone, Default)]
struct Way {
    mark: u32,
    /// Where it has been sent instead.
    sent_to: Option<SocketAddr>,
    /// Chains that it is in, the innermost last, and the next rule in each.
    stack: Vec<(String, usize)>,
}

/// What a table's rules decided.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Decision {
    /// Nothing.
    Pass,
    Accept,
    Drop,
    Reject,
    Dnat,
    Masquerade,
}

impl Chains {
    /// All rules that are wanted, as they would be written to an empty node.
    pub fn planned(wanted: &Wanted, options: &Options) -> Self {
        let text = plan::all_chains(wanted, Parts::default(), options.endpoint_limit);
        let rules = text
            .iter()
            .map(|(name, text)| (name.clone(), text.lines().map(Rule::parse).collect()))
            .collect();
        Self { text, rules }
    }

    /// The rules as iptables-save would print them, without the tables' frames.
    pub fn text(&self) -> String {
        self.lines().collect()
    }

    /// The rules that say which Service port they are of, as `-t TABLE -A CHAIN …`; and those of the
    /// chains that they lead to.
    pub fn of(&self, port: &PortName) -> Vec<String> {
        let mut chains: Vec<(Table, String)> = Vec::new();
        let mut found = Vec::new();
        let comment = [
            format!("\"{port}\""),
            format!("\"{port} "),
            format!(" {port} "),
        ];
        let mut follow: Vec<(Table, String)> = Vec::new();
        for ((table, chain), text) in &self.text {
            if chain.starts_with("KUBE-SEP-") || text.is_empty() {
                continue;
            }
            for (line, rule) in text.lines().zip(self.rules(*table, chain)) {
                if comment
                    .iter()
                    .any(|comment| line.contains(comment.as_str()))
                {
                    found.push(render(*table, chain, line));
                    if let Target::Jump(next) | Target::Goto(next) = &rule.target {
                        follow.push((*table, next.clone()));
                    }
                    chains.push((*table, chain.clone()));
                }
            }
        }
        while let Some((table, chain)) = follow.pop() {
            let seen = chains.contains(&(table, chain.clone()));
            if seen || chain == "KUBE-MARK-MASQ" {
                continue;
            }
            for (line, rule) in self
                .text
                .get(&(table, chain.clone()))
                .map_or("", String::as_str)
                .lines()
                .zip(self.rules(table, &chain))
            {
                found.push(render(table, &chain, line));
                if let Target::Jump(next) | Target::Goto(next) = &rule.target {
                    follow.push((table, next.clone()));
                }
            }
            chains.push((table, chain));
        }
        found
    }

    fn lines(&self) -> impl Iterator<Item = String> {
        self.text.iter().flat_map(|((table, chain), text)| {
            text.lines()
                .map(move |rule| render(*table, chain, rule) + "\n")
        })
    }

    fn rules(&self, table: Table, chain: &str) -> &[Rule] {
        self.rules
            .get(&(table, chain.to_owned()))
            .map_or(&[], Vec::as_slice)
    }

    /// Walks the first packet of a connection, of a client that no affinity knows. An error names a rule
    /// that is not understood, which is a mistake of this program.
    pub fn trace(&self, packet: &Packet) -> Result<Outcome, String> {
        let mut outcome = Outcome::default();
        let hook = match packet.interface {
            Some(_) => "PREROUTING",
            None => "OUTPUT",
        };
        for (way, _) in self.walk(Table::Nat, hook, Way::default(), packet, &mut outcome.steps)? {
            let hooks: &[&str] = match (&packet.interface, way.sent_to.is_some()) {
                (Some(_), false) if packet.destination_is_local => &["INPUT"],
                (Some(_), _) => &["FORWARD"],
                (None, false) if packet.destination_is_local => &["OUTPUT", "INPUT"],
                (None, _) => &["OUTPUT"],
            };
            let mut ways = vec![way];
            for hook in hooks {
                let mut passed = Vec::new();
                for way in ways {
                    let steps = &mut outcome.steps;
                    for (way, decision) in self.walk(Table::Filter, hook, way, packet, steps)? {
                        match decision {
                            Decision::Drop => outcome.verdict = Verdict::Drop,
                            Decision::Reject => outcome.verdict = Verdict::Reject,
                            _ => passed.push(way),
                        }
                    }
                }
                ways = passed;
            }
            for way in ways {
                let Some(endpoint) = way.sent_to else {
                    continue;
                };
                let steps = &mut outcome.steps;
                for (_, decision) in self.walk(Table::Nat, "POSTROUTING", way, packet, steps)? {
                    let masqueraded = decision == Decision::Masquerade;
                    outcome.endpoints.insert(endpoint, masqueraded);
                }
            }
        }
        if !outcome.endpoints.is_empty() {
            outcome.verdict = Verdict::Balanced;
        }
        Ok(outcome)
    }

    /// All ways through one chain of the kernel's.
    fn walk(
        &self,
        table: Table,
        chain: &str,
        way: Way,
        packet: &Packet,
        steps: &mut Vec<String>,
    ) -> Result<Vec<(Way, Decision)>, String> {
        let start = Way {
            stack: vec![(chain.to_owned(), 0)],
            ..way
        };
        let (mut open, mut ended) = (vec![start], Vec::new());
        while let Some(mut way) = open.pop() {
            let Some((chain, position)) = way.stack.last_mut() else {
                ended.push((way, Decision::Pass));
                continue;
            };
            let Some(rule) = self.rules(table, chain).get(*position) else {
                way.stack.pop();
                open.push(way);
                continue;
            };
            *position += 1;
            let chain = chain.clone();
            if let Some(unknown) = &rule.unknown {
                return Err(format!(
                    "trace through {}: {unknown:?} of rule `{}` is not understood",
                    table.name(),
                    rule.text
                ));
            }
            if !rule.matches(packet, way.sent_to.unwrap_or(packet.destination), way.mark) {
                open.push(way);
                continue;
            }
            if rule.by_chance {
                // Both: first the one that takes the rule.
                open.push(way.clone());
            }
            let step = render(table, &chain, &rule.text);
            if !matches!(rule.target, Target::None) && !steps.contains(&step) {
                steps.push(step);
            }
            let decision = match &rule.target {
                Target::None => None,
                Target::Mark { value, mask } => {
                    way.mark = (way.mark & !mask) ^ value;
                    None
                }
                Target::Jump(chain) => {
                    way.stack.push((chain.clone(), 0));
                    None
                }
                Target::Goto(chain) => {
                    way.stack.pop();
                    way.stack.push((chain.clone(), 0));
                    None
                }
                Target::Return => {
                    way.stack.pop();
                    None
                }
                Target::Accept => Some(Decision::Accept),
                Target::Drop => Some(Decision::Drop),
                Target::Reject => Some(Decision::Reject),
                Target::Masquerade => Some(Decision::Masquerade),
                Target::Dnat(endpoint) => {
                    way.sent_to = Some(*endpoint);
                    Some(Decision::Dnat)
                }
            };
            match decision {
                Some(decision) => ended.push((way, decision)),
                None => open.push(way),
            }
        }
        Ok(ended)
    }
}

fn render(table: Table, chain: &str, rule: &str) -> String {
    format!("-t {} -A {chain} {rule}", table.name())
}
