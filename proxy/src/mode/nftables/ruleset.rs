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

mod build;
mod render;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use ipnet::IpNet;
use kernel::nft::{Hook, HookType, Transaction};
use sha2::{Digest as _, Sha256};

use super::encode::encode;
use super::layout::{Place, Set, TABLE};
use crate::model::{Family, Site};
pub use build::ruleset;
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
