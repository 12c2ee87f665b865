//! Rules as text: what `nft list ruleset` shows, for people and for golden tests.

use std::fmt::Write as _;

use kernel::nft::HookType;

use super::{Action, Draw, HASH_SEED, Match, Rule, Ruleset, place_of};
use crate::mode::nftables::layout::{Place, Set, TABLE, front_text, ip_word};
use crate::model::Family;

impl Ruleset {
    pub(super) fn rules_text(&self) -> String {
        let mut out = String::new();
        for chain in &self.chains {
            for rule in &chain.rules {
                let _ = writeln!(out, "{} {}", chain.name, render(rule, self.family));
            }
        }
        out
    }

    /// Sets, chains and rules as a script for a reader; elements are left out.
    pub fn script(&self) -> String {
        let table = format!("{} {TABLE}", ip_word(self.family));
        let mut out = format!("add table {table}\n");
        for set in Set::all() {
            let kind = if set.is_map() { "map" } else { "set" };
            let (name, declaration) = (set.name(), set.declaration(self.family));
            let _ = writeln!(out, "add {kind} {table} {name} {{ {declaration} }}");
        }
        for chain in &self.chains {
            let hook = chain.hook.map_or(String::new(), |(kind, hook, priority)| {
                let kind = match kind {
                    HookType::Filter => "filter",
                    HookType::Nat => "nat",
                };
                let hook = format!("{hook:?}").to_lowercase();
                format!(" {{ type {kind} hook {hook} priority {priority}; policy accept; }}")
            });
            let _ = writeln!(out, "add chain {table} {}{hook}", chain.name);
        }
        for chain in &self.chains {
            let _ = writeln!(out, "flush chain {table} {}", chain.name);
            for rule in &chain.rules {
                let text = render(rule, self.family);
                let _ = writeln!(out, "add rule {table} {} {text}", chain.name);
            }
        }
        out
    }
}

/// A rule as nft writes it.
pub fn render(rule: &Rule, family: Family) -> String {
    let matches = rule.matches.iter().map(|each| render_match(each, family));
    let actions = rule.actions.iter().map(|each| render_action(each, family));
    matches.chain(actions).collect::<Vec<_>>().join(" ")
}

fn render_match(each: &Match, family: Family) -> String {
    let ip = ip_word(family);
    let not = |yes: &bool| if *yes { "" } else { "!= " };
    match each {
        Match::New => "ct state new".to_owned(),
        Match::Translated => "ct status dnat".to_owned(),
        Match::In(set, yes) => {
            let key = match set {
                Set::ClusterIps | Set::NodePortIps => format!("{ip} daddr"),
                Set::SourceRanges => format!("{} . {ip} saddr", front_text(family)),
                Set::Hairpin => format!("{ip} saddr . {}", front_text(family)),
                _ => front_text(family),
            };
            format!("{key} {}@{}", not(yes), set.name())
        }
        Match::Source(net, yes) => format!("{ip} saddr {}{net}", not(yes)),
        Match::Destination(net, yes) => format!("{ip} daddr {}{net}", not(yes)),
        Match::Interface(name, yes) => format!("iifname {}\"{name}\"", not(yes)),
        Match::LocalSource => "fib saddr type local".to_owned(),
        Match::LocalDestination => "fib daddr type local".to_owned(),
        Match::Tcp => "meta l4proto tcp".to_owned(),
        Match::Marked(mark) => format!("meta mark & {mark:#x} != 0"),
    }
}

fn render_action(each: &Action, family: Family) -> String {
    let ip = ip_word(family);
    let front = |place, original: bool| match (place, original) {
        (Place::Ip, false) => front_text(family),
        (Place::Ip, true) => {
            format!("ct original {ip} daddr . meta l4proto . ct original proto-dst")
        }
        (Place::NodePort, false) => "meta l4proto . th dport".to_owned(),
        (Place::NodePort, true) => "meta l4proto . ct original proto-dst".to_owned(),
    };
    match each {
        Action::Mark(mark) => format!("meta mark set meta mark | {mark:#x}"),
        Action::Unmark(mark) => format!("meta mark set meta mark ^ {mark:#x}"),
        Action::Masquerade => "masquerade fully-random".to_owned(),
        Action::Drop => "drop".to_owned(),
        Action::Reject => "reject".to_owned(),
        Action::Reset => "reject with tcp reset".to_owned(),
        Action::Jump(name) => format!("jump {name}"),
        Action::Goto(name) => format!("goto {name}"),
        Action::Verdict(set) => {
            let front = front(place_of(*set), set.is_of_original());
            format!("{front} vmap @{}", set.name())
        }
        Action::Translate(set, draw) => {
            let front = front(place_of(*set), false);
            let key = match draw {
                Draw::Random(below) => format!("{front} . numgen random mod {below}"),
                Draw::Hash(below) => {
                    format!("{front} . jhash {ip} saddr mod {below} seed {HASH_SEED:#x}")
                }
                Draw::Client => format!("{ip} saddr . {front}"),
            };
            format!("dnat {ip} to {key} map @{}", set.name())
        }
        Action::Note(seconds) => format!(
            "update @{} {{ ct original {ip} saddr . {} timeout {seconds}s : {ip} daddr . th dport }}",
            Set::Affinity.name(),
            front(Place::Ip, true),
        ),
    }
}
