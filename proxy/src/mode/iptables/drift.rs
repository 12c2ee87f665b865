//! Whether someone else changed our chains, found out without listing rules.
//!
//! Legacy: the shape of the two tables, by a system call each. nf_tables: the generation number, which
//! any change of any program moves; only then the list of chains, which says for each how many rules
//! it has and how many jumps lead to it, so that a flushed chain, a rule added or deleted and a lost
//! jump all show. What does not show is a rule swapped for another; the timed full sync finds that.

use std::{
    hash::{BuildHasher as _, RandomState},
    time::{Duration, Instant},
};

use kernel::iptables::{Fingerprint, Iptables, Variant};

use super::names::{Table, is_ours};

/// The list of chains may take this part of our time while others change rules all the time …
const SHARE: u32 = 20;
/// … but is never put off for longer.
const PATIENCE: Duration = Duration::from_millis(700);

/// What our chains looked like after our last write.
#[derive(Default)]
pub(super) struct Drift {
    seen: Option<Seen>,
    /// What took the place of a look that failed.
    trouble: Option<String>,
    not_before: Option<Instant>,
    seed: RandomState,
}

/// A look at both tables.
#[derive(PartialEq)]
pub(super) struct Seen {
    prints: Vec<Fingerprint>,
    /// A number of the list of our chains (nf_tables).
    chains: Option<u64>,
}

impl Drift {
    /// The look before a sync, for [`Drift::written`].
    pub(super) fn before(&self, iptables: &Iptables) -> Option<Seen> {
        self.seen(iptables).ok()
    }

    /// Remembers how things look after a sync. If it wrote nothing, what it compared was there before and
    /// must look the same afterwards, or someone interfered meanwhile.
    pub(super) fn written(&mut self, iptables: &Iptables, before: Option<Seen>, wrote: bool) {
        self.trouble = None;
        match self.seen(iptables) {
            Ok(seen) => {
                let same = |before: &Seen| {
                    before.chains == seen.chains
                        && (seen.chains.is_some() || before.prints == seen.prints)
                };
                if !wrote && before.as_ref().is_some_and(|before| !same(before)) {
                    self.trouble = Some("rules changed during a sync".to_owned());
                }
                self.seen = Some(seen);
            }
            Err(error) => {
                self.seen = None;
                self.trouble = Some(error.to_string());
            }
        }
    }

    /// Says what changed since.
    pub(super) fn look(&mut self, iptables: &Iptables) -> Option<String> {
        if let Some(trouble) = self.trouble.take() {
            return Some(trouble);
        }
        let seen = self.seen.as_mut()?;
        let prints = match prints(iptables) {
            Ok(prints) => prints,
            Err(error) => return Some(error.to_string()),
        };
        if prints == seen.prints {
            return None;
        }
        if iptables.variant() == Variant::Legacy {
            return Some("rules of table nat or filter were changed".to_owned());
        }
        let started = Instant::now();
        if self.not_before.is_some_and(|time| started < time) {
            return None;
        }
        let chains = match chains(iptables, &self.seed) {
            Ok(chains) => Some(chains),
            Err(error) => return Some(error.to_string()),
        };
        self.not_before = Some(Instant::now() + (started.elapsed() * SHARE).min(PATIENCE));
        if chains != seen.chains {
            return Some("chains of table nat or filter were changed".to_owned());
        }
        // Something else changed.
        seen.prints = prints;
        None
    }

    fn seen(&self, iptables: &Iptables) -> kernel::Result<Seen> {
        // The number first: a change in between shows at the next look.
        let prints = prints(iptables)?;
        let chains = match iptables.variant() {
            Variant::Nft => Some(chains(iptables, &self.seed)?),
            Variant::Legacy => None,
        };
        Ok(Seen { prints, chains })
    }
}

fn prints(iptables: &Iptables) -> kernel::Result<Vec<Fingerprint>> {
    match iptables.variant() {
        // One number for all tables.
        Variant::Nft => Ok(vec![iptables.fingerprint("nat")?]),
        Variant::Legacy => Table::ALL
            .iter()
            .map(|table| iptables.fingerprint(table.name()))
            .collect(),
    }
}

fn chains(iptables: &Iptables, seed: &RandomState) -> kernel::Result<u64> {
    let mut sum = 0u64;
    for table in Table::ALL {
        for chain in iptables.chain_uses(table.name())? {
            if is_ours(table, &chain.name) || chain.name == super::jumps::FIREWALL {
                // The order of the list does not matter.
                sum = sum.wrapping_add(seed.hash_one((table, &chain)));
            }
        }
    }
    Ok(sum)
}
