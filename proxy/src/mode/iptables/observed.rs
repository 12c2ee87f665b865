//! What is there: the output of iptables-save, of which only our chains and the jumps to them are
//! looked at.

use std::{collections::HashMap, ops::Range};

use super::{
    canonical,
    jumps::{FIREWALL, Jump},
    names::{Chain, Table},
    ownership::Whose,
};

/// The chain that is not ours alone.
const SHARED: (Table, &str) = (Table::Filter, FIREWALL);

/// Both tables.
#[derive(Debug, Default)]
pub(super) struct Observed {
    filter: Saved,
    nat: Saved,
}

/// One table.
#[derive(Debug, Default)]
pub(super) struct Saved {
    text: String,
    /// Our chains, and where their rules stand in the text; `None` if they are in pieces, which
    /// iptables-save never does.
    chains: HashMap<String, Option<Range<usize>>>,
    /// Rules of the kernel's chains that go to a chain of ours, as (chain, rule).
    jumps: Vec<(String, String)>,
    /// Rules of KUBE-FIREWALL, if there is such a chain.
    firewall: Option<Vec<String>>,
}

impl Observed {
    /// From the output of iptables-save for each table.
    pub(super) fn new(whose: Whose, filter: String, nat: String) -> Self {
        Self {
            filter: Saved::parse(whose, Table::Filter, filter),
            nat: Saved::parse(whose, Table::Nat, nat),
        }
    }

    fn of(&self, table: Table) -> &Saved {
        match table {
            Table::Filter => &self.filter,
            Table::Nat => &self.nat,
        }
    }

    /// Whether a chain is there with exactly these rules.
    pub(super) fn has(&self, chain: Chain, rules: &str) -> bool {
        let saved = self.of(chain.table());
        let Some(Some(range)) = saved.chains.get(&chain.to_string()) else {
            return false;
        };
        let mut wanted = rules.lines();
        let mut there = saved.text[range.clone()].lines().filter_map(appended);
        loop {
            match (wanted.next(), there.next()) {
                (None, None) => return true,
                (Some(wanted), Some((_, there))) if canonical::same(wanted, there) => {}
                _ => return false,
            }
        }
    }

    /// Whether a chain of ours has no rules.
    pub(super) fn is_empty(&self, table: Table, chain: &str) -> bool {
        let range = self.of(table).chains.get(chain);
        range.is_some_and(|range| range.as_ref().is_some_and(Range::is_empty))
    }

    /// Our chains that are there.
    pub(super) fn chains(&self, table: Table) -> impl Iterator<Item = &str> {
        self.of(table).chains.keys().map(String::as_str)
    }

    /// Whether the jump is there.
    pub(super) fn has_jump(&self, jump: &Jump, comments: bool) -> bool {
        let rule = jump.rule(comments);
        self.jumps(jump.table)
            .any(|(from, there)| from == jump.from && canonical::same(&rule, there))
    }

    /// Rules of foreign chains that go to a chain of ours, as (chain, rule).
    pub(super) fn jumps(&self, table: Table) -> impl Iterator<Item = (&str, &str)> {
        self.of(table)
            .jumps
            .iter()
            .map(|(from, rule)| (from.as_str(), rule.as_str()))
    }

    /// The rules of KUBE-FIREWALL, if there is such a chain.
    pub(super) fn firewall(&self) -> Option<&[String]> {
        self.filter.firewall.as_deref()
    }
}

impl Saved {
    fn parse(whose: Whose, table: Table, text: String) -> Self {
        let mut saved = Self::default();
        let mut position = 0;
        let mut last = "";
        for line in text.split_inclusive('\n') {
            let range = position..position + line.len();
            position = range.end;
            if let Some(declared) = line.strip_prefix(':') {
                let name = declared.split_whitespace().next().unwrap_or("");
                if (table, name) == SHARED {
                    saved.firewall = Some(Vec::new());
                } else if whose.has(table, name) {
                    saved.chains.insert(name.to_owned(), Some(0..0));
                }
                continue;
            }
            let Some((name, rule)) = appended(line) else {
                continue;
            };
            if let Some(known) = saved.chains.get_mut(name) {
                *known = match known.take() {
                    Some(empty) if empty.is_empty() => Some(range),
                    Some(before) if last == name => Some(before.start..range.end),
                    _ => None,
                };
            } else if (table, name) == SHARED {
                saved.firewall.get_or_insert_default().push(rule.to_owned());
            } else if let Some(target) = canonical::target(rule)
                && (whose.has(table, target) || (table, target) == SHARED)
            {
                saved.jumps.push((name.to_owned(), rule.to_owned()));
            }
            last = name;
        }
        saved.text = text;
        saved
    }
}

/// Chain and rule of an `-A` line.
fn appended(line: &str) -> Option<(&str, &str)> {
    let rest = line.strip_prefix("-A ")?.trim_end_matches(['\n', '\r']);
    Some(rest.split_once(' ').unwrap_or((rest, "")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mode::iptables::names::Fixed;

    const NAT: &str = "\
# Generated by iptables-save v1.8.9
*nat
:PREROUTING ACCEPT [0:0]
:DOCKER - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-SERVICES - [0:0]
-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A PREROUTING -j DOCKER
-A DOCKER -j RETURN
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
COMMIT
";

    #[test]
    fn finds_our_chains_and_jumps_among_others() {
        let observed = Observed::new(Whose::Ours, String::new(), NAT.to_owned());
        let mut chains: Vec<_> = observed.chains(Table::Nat).collect();
        chains.sort_unstable();
        assert_eq!(chains, ["KUBE-MARK-MASQ", "KUBE-SERVICES"]);
        assert_eq!(observed.jumps(Table::Nat).count(), 1);
        let chain = Chain::Fixed(Fixed::MarkMasq);
        assert!(observed.has(chain, "-j MARK --set-xmark 0x4000/0x4000\n"));
        assert!(!observed.has(chain, "-j MARK --set-xmark 0x8000/0x8000\n"));
        assert!(!observed.has(chain, ""));
        assert_eq!(observed.firewall(), None);
    }

    #[test]
    fn a_chain_in_pieces_is_never_what_is_wanted() {
        let text = "*nat\n:KUBE-MARK-MASQ - [0:0]\n:X - [0:0]\n-A KUBE-MARK-MASQ -j RETURN\n\
                    -A X -j RETURN\n-A KUBE-MARK-MASQ -j RETURN\nCOMMIT\n";
        let observed = Observed::new(Whose::Ours, String::new(), text.to_owned());
        let chain = Chain::Fixed(Fixed::MarkMasq);
        assert!(!observed.has(chain, "-j RETURN\n-j RETURN\n"));
    }
}
