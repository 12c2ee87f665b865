//! What the kernel has of our table.

use std::collections::BTreeMap;

use kernel::nft::{Chain, Rule, Socket, Transaction};
use sha2::{Digest as _, Sha256};

use super::book::Contents;
use super::layout::{Data, Key, Set};
use super::ruleset::{Ruleset, table};
use crate::model::Family;

/// What the names of seals begin with: the chain that says what the kernel made of our rules.
const SEAL: &str = "sealed-";

/// The rules that were found, told by their fingerprints.
pub struct Found {
    family: Family,
    /// There is such a table.
    exists: bool,
    chains: Vec<Chain>,
    /// Of all rules, as the kernel has them.
    fingerprint: String,
    /// Sets that are there, and whether they are as we declare them.
    sets_fit: bool,
}

/// Looks at tables, chains, sets and rules, without their elements.
pub fn rules(socket: &mut Socket, family: Family) -> kernel::Result<Found> {
    let table = table(family);
    let chains = socket.chains(&table)?;
    let sets = socket.sets(&table)?;
    let fits = |found: &kernel::nft::Set| {
        let ours = Set::all().into_iter().find(|set| set.name() == found.name);
        ours.is_none_or(|ours| ours.new_set(family).is_form_of(found))
    };
    let all_there = Set::all()
        .iter()
        .all(|set| sets.iter().any(|found| found.name == set.name()));
    let exists = socket.has_table(&table)?;
    Ok(Found {
        family,
        exists,
        sets_fit: all_there && sets.iter().all(fits),
        fingerprint: fingerprint(&socket.rules(&table)?),
        chains,
    })
}

/// The same for the same rules in the same order of each chain.
fn fingerprint(rules: &[Rule]) -> String {
    let mut by_chain: BTreeMap<&str, Vec<&Rule>> = BTreeMap::new();
    for rule in rules {
        by_chain.entry(&rule.chain).or_default().push(rule);
    }
    let mut hash = Sha256::new();
    for (chain, rules) in by_chain {
        hash.update(chain.as_bytes());
        hash.update([0]);
        for rule in rules {
            hash.update((rule.expressions.len() as u64).to_ne_bytes());
            hash.update(&rule.expressions);
        }
    }
    let digest = hash.finalize();
    data_encoding::HEXLOWER.encode(&digest[..8])
}

impl Found {
    /// Whether these are the wanted rules, whole and untouched.
    pub fn is(&self, wanted: &Ruleset) -> bool {
        let has = |name: &str| self.chains.iter().any(|chain| chain.name == name);
        self.sets_fit
            && has(&wanted.stamp())
            && has(&self.seal_name())
            && wanted.chains.iter().all(|chain| has(&chain.name))
    }

    /// Whether the table must go before the wanted one can come: sets of another form cannot be
    /// changed in place.
    pub fn must_go(&self) -> bool {
        self.exists && !self.sets_fit
    }

    /// What makes the rules the wanted ones.
    pub fn transaction(&self, wanted: &Ruleset) -> Transaction {
        let stamp = wanted.stamp();
        let wanted_too = |name: &str| wanted.chains.iter().any(|chain| chain.name == name);
        let stale: Vec<String> = self
            .chains
            .iter()
            .map(|chain| chain.name.clone())
            .filter(|name| !wanted_too(name) && *name != stamp)
            .collect();
        match self.must_go() {
            true => wanted.transaction(&[]),
            false => wanted.transaction(&stale),
        }
    }

    /// What notes that these, as they were just written, are the wanted ones.
    pub fn seal(&self) -> Transaction {
        let mut transaction = Transaction::new(&table(self.family));
        transaction.add_chain(&self.seal_name(), None);
        transaction
    }

    fn seal_name(&self) -> String {
        format!("{SEAL}{}", self.fingerprint)
    }
}

/// All elements of ours. What is not of our form has a place too: it differs from whatever is wanted.
pub fn contents(socket: &mut Socket, family: Family) -> kernel::Result<Observed> {
    let mut observed = Observed::default();
    let table = table(family);
    for set in Set::planned() {
        let start = || Observed::default();
        let found = socket.fold_elements(&table, set.name(), start, |observed, element| {
            let key = Key::decode(set, family, &element.key, element.key_end.as_deref());
            match (key, Data::decode(set, family, element.data.as_ref())) {
                (Some(key), Some(data)) => {
                    observed.contents.insert((set, key), data);
                }
                _ => observed.strange.push((set, element)),
            }
        })?;
        if let Some(found) = found {
            observed.contents.extend(found.contents);
            observed.strange.extend(found.strange);
        }
    }
    Ok(observed)
}

/// What was found in the sets and maps.
#[derive(Default)]
pub struct Observed {
    /// Elements of our form.
    pub contents: Contents,
    /// Somebody else's, by the kernel's bytes.
    pub strange: Vec<(Set, kernel::nft::Element)>,
}
