//! What is to be written, as texts for `iptables-restore --noflush --counters`.

use std::fmt::Write as _;

use super::{
    names::{Chain, Table},
    ownership::rank_of_name,
};

/// Changes of both tables.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Script {
    filter: Changes,
    nat: Changes,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Changes {
    /// Rules of the kernel's chains to delete, as `CHAIN rule`; before everything else.
    deleted: Vec<String>,
    /// Chains to write whole: rank, name, rules.
    replaced: Vec<(u8, String, String)>,
    /// Rules to put at the end of a chain that others have rules in, as `CHAIN rule`.
    appended: Vec<String>,
    /// Rules to put first in the kernel's chains, as `CHAIN rule`.
    inserted: Vec<String>,
    /// Chains to remove.
    removed: Vec<String>,
}

impl Script {
    fn of(&mut self, table: Table) -> &mut Changes {
        match table {
            Table::Filter => &mut self.filter,
            Table::Nat => &mut self.nat,
        }
    }

    /// Makes a chain, or replaces what it has.
    pub(super) fn replace(&mut self, chain: Chain, rules: &str) {
        self.of(chain.table())
            .replaced
            .push((chain.rank(), chain.to_string(), rules.to_owned()));
    }

    /// Makes a chain without rules, or empties it.
    pub(super) fn empty(&mut self, table: Table, chain: &str) {
        self.of(table)
            .replaced
            .push((0, chain.to_owned(), String::new()));
    }

    /// Removes a chain, which nothing that stays refers to.
    pub(super) fn remove(&mut self, table: Table, chain: impl Into<String>) {
        self.of(table).removed.push(chain.into());
    }

    pub(super) fn append(&mut self, table: Table, chain: &str, rule: &str) {
        self.of(table).appended.push(format!("{chain} {rule}"));
    }

    pub(super) fn insert(&mut self, table: Table, chain: &str, rule: &str) {
        self.of(table).inserted.push(format!("{chain} {rule}"));
    }

    pub(super) fn delete(&mut self, table: Table, chain: &str, rule: &str) {
        self.of(table).deleted.push(format!("{chain} {rule}"));
    }

    /// Rules written or deleted, and chains removed.
    pub(super) fn changes(&self) -> usize {
        [&self.filter, &self.nat]
            .into_iter()
            .map(|table| {
                let rules: usize = table
                    .replaced
                    .iter()
                    .map(|(_, _, rules)| 1 + rules.lines().count())
                    .sum();
                rules
                    + table.appended.len()
                    + table.deleted.len()
                    + table.inserted.len()
                    + table.removed.len()
            })
            .sum()
    }

    /// The texts to apply in this order. Each has at most about `most` lines: `iptables-nft` takes time
    /// that grows with the square of a text's length, and 77 s at once are 6 s in pieces. Cut where
    /// it may, each text leaves nothing that refers to something missing.
    pub(super) fn texts(mut self, most: usize) -> Vec<String> {
        let mut pen = Pen {
            most,
            ..Pen::default()
        };
        for table in Table::ALL {
            std::mem::take(self.of(table)).write(table, &mut pen);
        }
        pen.finish()
    }
}

impl Changes {
    fn write(mut self, table: Table, pen: &mut Pen) {
        pen.begin(table);
        for rule in &self.deleted {
            pen.line("-D ", rule);
        }
        self.replaced.sort_by_key(|(rank, ..)| *rank);
        // Each is let go of as it is written: together they may be large.
        for (_, chain, rules) in self.replaced {
            pen.replace(&chain, &rules);
        }
        for rule in &self.appended {
            pen.line("-A ", rule);
        }
        for rule in &self.inserted {
            // Number 1 is what -I does by itself; named, for the reader.
            let (chain, rest) = rule.split_once(' ').unwrap_or((rule, ""));
            pen.line("-I ", &format!("{chain} 1 {rest}"));
        }
        self.removed
            .sort_by(|a, b| rank_of_name(b).cmp(&rank_of_name(a)).then(a.cmp(b)));
        for chain in &self.removed {
            pen.remove(chain);
        }
        pen.end();
    }
}

/// Writes texts, beginning a new one when the present one is long enough.
#[derive(Default)]
struct Pen {
    most: usize,
    texts: Vec<String>,
    /// The text so far, of tables that are complete.
    text: String,
    table: Option<Table>,
    declarations: String,
    rules: String,
    lines: usize,
}

impl Pen {
    fn begin(&mut self, table: Table) {
        self.table = Some(table);
    }

    fn end(&mut self) {
        let Some(table) = self.table else { return };
        if self.declarations.is_empty() && self.rules.is_empty() {
            return;
        }
        // Writing to a String cannot fail.
        let _infallible = write!(
            self.text,
            "*{}\n{}{}COMMIT\n",
            table.name(),
            self.declarations,
            self.rules
        );
        self.declarations.clear();
        self.rules.clear();
    }

    /// Begins a new text if this one is full.
    fn turn(&mut self, more: usize) {
        if self.lines > 0 && self.lines + more > self.most {
            self.end();
            self.texts.push(std::mem::take(&mut self.text));
            self.lines = 0;
        }
        self.lines += more;
    }

    fn line(&mut self, verb: &str, rule: &str) {
        self.turn(1);
        let _infallible = writeln!(self.rules, "{verb}{rule}");
    }

    fn replace(&mut self, chain: &str, rules: &str) {
        self.turn(1 + rules.lines().count());
        let _infallible = writeln!(self.declarations, ":{chain} - [0:0]");
        for rule in rules.lines() {
            let _infallible = writeln!(self.rules, "-A {chain} {rule}");
        }
    }

    fn remove(&mut self, chain: &str) {
        self.turn(2);
        // Naming it empties it.
        let _infallible = writeln!(self.declarations, ":{chain} - [0:0]");
        let _infallible = writeln!(self.rules, "-X {chain}");
    }

    fn finish(mut self) -> Vec<String> {
        if !self.text.is_empty() {
            self.texts.push(self.text);
        }
        self.texts
    }
}
