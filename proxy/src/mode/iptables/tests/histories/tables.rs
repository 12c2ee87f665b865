//! Tables as iptables-restore would leave them, which refuses what the kernel would refuse.

use std::collections::BTreeMap;

use crate::mode::iptables::{canonical, names::Table};

/// Chains with their rules.
pub(super) struct Tables {
    pub(super) chains: BTreeMap<(Table, String), Vec<String>>,
}

impl Tables {
    /// With the kernel's own chains only.
    pub(super) fn built_in() -> Self {
        let filter = ["INPUT", "FORWARD", "OUTPUT"].map(|chain| (Table::Filter, chain));
        let nat = ["PREROUTING", "OUTPUT", "POSTROUTING"].map(|chain| (Table::Nat, chain));
        Self {
            chains: filter
                .into_iter()
                .chain(nat)
                .map(|(table, chain)| ((table, chain.to_owned()), Vec::new()))
                .collect(),
        }
    }

    /// Fails the test at the first chain that differs.
    pub(super) fn assert_same(&self, wanted: &Self) {
        for (name, rules) in &wanted.chains {
            assert_eq!(self.chains.get(name), Some(rules), "{name:?}");
        }
        let names: Vec<_> = self
            .chains
            .keys()
            .filter(|name| !wanted.chains.contains_key(*name))
            .collect();
        assert!(names.is_empty(), "left over: {names:?}");
    }

    /// As iptables-save prints a table.
    pub(super) fn save(&self, table: Table) -> String {
        let mut declared = format!("*{}\n", table.name());
        let mut rules = String::new();
        for ((_, chain), lines) in self.chains.iter().filter(|((of, _), _)| *of == table) {
            declared += &format!(":{chain} - [0:0]\n");
            for line in lines {
                rules += &format!("-A {chain} {line}\n");
            }
        }
        declared + &rules + "COMMIT\n"
    }

    /// Carries out a text.
    pub(super) fn restore(&mut self, text: &str) {
        let mut table = None;
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('*') {
                table = Table::ALL.into_iter().find(|table| table.name() == name);
                continue;
            }
            let of = table.expect("a line outside of a table");
            if let Some(declared) = line.strip_prefix(':') {
                let chain = declared.strip_suffix(" - [0:0]").unwrap();
                self.chains.insert((of, chain.to_owned()), Vec::new());
            } else if line == "COMMIT" {
                self.check(of);
                table = None;
            } else {
                self.command(of, line);
            }
        }
        assert_eq!(table, None, "a table without COMMIT");
    }

    fn command(&mut self, table: Table, line: &str) {
        let (verb, rest) = line.split_once(' ').unwrap();
        let (chain, rule) = rest.split_once(' ').unwrap_or((rest, ""));
        let key = (table, chain.to_owned());
        let rules = self
            .chains
            .get_mut(&key)
            .unwrap_or_else(|| panic!("no chain for {line}"));
        match verb {
            "-A" => rules.push(rule.to_owned()),
            "-I" => rules.insert(0, rule.strip_prefix("1 ").unwrap().to_owned()),
            "-D" => {
                let position = rules.iter().position(|there| there == rule).unwrap();
                rules.remove(position);
            }
            "-X" => {
                assert!(rules.is_empty(), "{line}: not empty");
                self.chains.remove(&key);
            }
            _ => panic!("{line}"),
        }
    }

    /// Nothing refers to a chain that is not there.
    fn check(&self, table: Table) {
        for ((_, chain), rules) in self.chains.iter().filter(|((of, _), _)| *of == table) {
            for rule in rules {
                let target = canonical::target(rule).unwrap_or("");
                let there = self.chains.contains_key(&(table, target.to_owned()));
                assert!(
                    there || !target.starts_with("KUBE-"),
                    "{chain}: {rule}: no such chain"
                );
            }
        }
    }
}
