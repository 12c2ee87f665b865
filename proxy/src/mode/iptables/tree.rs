//! A chain that all Services share, split into branches by bits of the destination where it gets
//! long, so that neither writing a change nor a packet's walk grows with the number of Services.
//!
//! A chain is split when it has more than [`LEAF`] rules below it: into 16 by four bits of the
//! address (or node port), and each of those again by four more ([`Branch`]). So there are at most 16 + 256 branches, and a
//! small cluster has the one chain that kube-proxy would have. Which branches there are follows
//! from the rules alone and not from their history.

use std::{collections::BTreeMap, collections::BTreeSet};

use crate::model::{Family, PortName, Protocol};

use super::{
    names::{Branch, Chain, Place},
    rule::Rules,
};

/// So many rules stay together: as many as the branches that would replace them.
const LEAF: usize = 16;

/// The rules of one shared chain, by who they are for.
pub(super) struct Tree {
    place: Place,
    family: Family,
    /// By [`Branch::Byte`].
    buckets: BTreeMap<u8, Bucket>,
    /// Rules that cannot be told by these bits, which stay at the root.
    rest: Bucket,
    /// The end of the root.
    tail: Rules,
    /// What is to be written again.
    dirty: BTreeSet<Branch>,
    /// Branches that had been split when last written.
    split: BTreeSet<Branch>,
}

#[derive(Default)]
struct Bucket {
    count: usize,
    ports: BTreeMap<PortName, Rules>,
}

impl Tree {
    pub(super) fn new(place: Place, family: Family, tail: Rules) -> Self {
        Self {
            place,
            family,
            buckets: BTreeMap::new(),
            rest: Bucket::default(),
            tail,
            dirty: BTreeSet::from([Branch::Root]),
            split: BTreeSet::new(),
        }
    }

    /// Sets the rules of a service port in a bucket; no rules take it out.
    pub(super) fn set(&mut self, bucket: Option<u8>, port: &PortName, rules: Option<Rules>) {
        self.dirty.insert(Branch::Root);
        let slot = match bucket {
            None => &mut self.rest,
            Some(byte) => {
                self.dirty.insert(Branch::Nibble(byte & 15));
                self.dirty.insert(Branch::Byte(byte));
                self.buckets.entry(byte).or_default()
            }
        };
        slot.count += rules.as_ref().map_or(0, Rules::count);
        let old = match rules {
            Some(rules) => slot.ports.insert(port.clone(), rules),
            None => slot.ports.remove(port),
        };
        slot.count -= old.map_or(0, |rules| rules.count());
        if let Some(byte) = bucket
            && self
                .buckets
                .get(&byte)
                .is_some_and(|slot| slot.ports.is_empty())
        {
            self.buckets.remove(&byte);
        }
    }

    /// The chains that may have changed since the last call, each with its rules or, where it is not
    /// to be there, without.
    pub(super) fn take_changed(&mut self) -> Vec<(Chain, Option<Rules>)> {
        // Where a branch begins or ceases to be split, everything below it moves.
        for branch in [Branch::Root]
            .into_iter()
            .chain((0..16).map(Branch::Nibble))
        {
            if !self.dirty.contains(&branch) {
                continue;
            }
            let split = self.is_split(branch);
            if split != self.split.contains(&branch) {
                match branch {
                    Branch::Root => self.dirty.extend((0..16).map(Branch::Nibble)),
                    Branch::Nibble(low) => self
                        .dirty
                        .extend((0..16).map(|high| Branch::Byte(high << 4 | low))),
                    Branch::Byte(_) => {}
                }
            }
            if split {
                self.split.insert(branch);
            } else {
                self.split.remove(&branch);
            }
        }
        std::mem::take(&mut self.dirty)
            .into_iter()
            .map(|branch| (Chain::Shared(self.place, branch), self.rules(branch)))
            .collect()
    }

    fn under(&self, low: u8) -> impl Iterator<Item = (u8, &Bucket)> {
        (0..16).filter_map(move |high| {
            let byte = high << 4 | low;
            self.buckets.get(&byte).map(|bucket| (byte, bucket))
        })
    }

    fn is_split(&self, branch: Branch) -> bool {
        let count: usize = match branch {
            Branch::Root => self.buckets.values().map(|bucket| bucket.count).sum(),
            Branch::Nibble(low) if self.is_split(Branch::Root) => {
                self.under(low).map(|(_, bucket)| bucket.count).sum()
            }
            Branch::Nibble(_) | Branch::Byte(_) => 0,
        };
        count > LEAF
    }

    fn rules(&self, branch: Branch) -> Option<Rules> {
        let mut rules = Rules::default();
        match branch {
            Branch::Root => {
                let split = self.is_split(branch);
                for low in 0..16 {
                    if !split {
                        self.inline(low, &mut rules);
                    } else if self.under(low).next().is_some() {
                        self.branch_off(Branch::Nibble(low), &mut rules);
                    }
                }
                append_all(&mut rules, &self.rest);
                rules.append(&self.tail);
                Some(rules)
            }
            Branch::Nibble(low) => {
                self.under(low).next()?;
                if !self.is_split(Branch::Root) {
                    return None;
                }
                if self.is_split(branch) {
                    for (byte, _) in self.under(low) {
                        self.branch_off(Branch::Byte(byte), &mut rules);
                    }
                } else {
                    self.inline(low, &mut rules);
                }
                Some(rules)
            }
            Branch::Byte(byte) => {
                let bucket = self.buckets.get(&byte)?;
                if !self.is_split(Branch::Nibble(byte & 15)) {
                    return None;
                }
                append_all(&mut rules, bucket);
                Some(rules)
            }
        }
    }

    /// What leads into a branch. A packet that a branch does not know comes back, and tries no
    /// other branch of eight bits.
    fn branch_off(&self, branch: Branch, rules: &mut Rules) {
        let chain = Chain::Shared(self.place, branch);
        match (branch, self.place) {
            (Branch::Root, _) => {}
            (Branch::Nibble(high), Place::NatNodePorts) => {
                let first = u16::from(high) << 12;
                for protocol in protocols(self.under(high).map(|(_, bucket)| bucket)) {
                    let rule = rules.rule().protocol(protocol);
                    rule.ports(first, first | 0x0fff).jump(chain);
                }
            }
            (Branch::Byte(byte), Place::NatNodePorts) => {
                let first = u16::from(byte.rotate_left(4)) << 8;
                for protocol in protocols(self.buckets.get(&byte).into_iter()) {
                    let rule = rules.rule().protocol(protocol);
                    rule.ports(first, first | 0x00ff).goto(chain);
                }
            }
            (Branch::Nibble(low), _) => {
                let rule = rules.rule().destination_bits(self.family, low, 0x0f);
                rule.jump(chain);
            }
            (Branch::Byte(byte), _) => {
                let high = byte & 0xf0;
                let rule = rules.rule().destination_bits(self.family, high, 0xf0);
                rule.goto(chain);
            }
        }
    }

    fn inline(&self, low: u8, rules: &mut Rules) {
        for (_, bucket) in self.under(low) {
            append_all(rules, bucket);
        }
    }
}

/// The protocols that buckets have rules of.
fn protocols<'a>(buckets: impl Iterator<Item = &'a Bucket>) -> BTreeSet<Protocol> {
    buckets
        .flat_map(|bucket| bucket.ports.keys())
        .map(|port| port.protocol)
        .collect()
}

fn append_all(rules: &mut Rules, bucket: &Bucket) {
    for of_port in bucket.ports.values() {
        rules.append(of_port);
    }
}
