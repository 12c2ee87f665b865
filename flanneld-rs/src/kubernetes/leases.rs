//! The other Nodes as entries of a lease store: a pure fold of lists and watch events.
//!
//! Two Nodes may say that they have one podCIDR. Then the one whose name sorts first is served and the
//! others are named, whatever was heard first: every node of the cluster decides the same.

use std::collections::{BTreeMap, BTreeSet};

use super::{Annotations, Node};
use crate::config::NetworkConfig;
use crate::lease::store::{Entry, Event};
use crate::lease::{Lease, key};

/// The state of the fold.
#[derive(Debug)]
pub struct Leases {
    /// Our own Node, which is no peer.
    own: String,
    /// By Node: the lease, or why it cannot be used. Nodes that no flannel looks after are not in it.
    nodes: BTreeMap<String, Result<Lease, String>>,
    /// By the lease's key: the Nodes that say they hold it.
    holders: BTreeMap<String, BTreeSet<String>>,
}

impl Leases {
    /// None yet.
    pub fn new(own: &str) -> Self {
        Self {
            own: own.to_owned(),
            nodes: BTreeMap::new(),
            holders: BTreeMap::new(),
        }
    }

    /// A Node as it is now. Returns what that changes.
    pub fn set(&mut self, names: &Annotations, config: &NetworkConfig, node: &Node) -> Vec<Event> {
        self.note(node.name(), node.lease(names, config))
    }

    /// A Node that is no more.
    pub fn remove(&mut self, name: &str) -> Vec<Event> {
        self.note(name, None)
    }

    /// All of them, in order of Nodes.
    pub fn entries(&self) -> Vec<Entry> {
        let names = self.nodes.keys();
        names.filter_map(|name| self.entry(name)).collect()
    }

    fn note(&mut self, name: &str, lease: Option<Result<Lease, String>>) -> Vec<Event> {
        if name == self.own || self.nodes.get(name) == lease.as_ref() {
            return Vec::new();
        }
        let key_of = |lease: Option<&Result<Lease, String>>| {
            let lease = lease?.as_ref().ok()?;
            Some(key::render(&lease.subnet))
        };
        let (old, new) = (key_of(self.nodes.get(name)), key_of(lease.as_ref()));
        // Whoever says the same subnet may be served instead, or no more.
        let mut concerned = BTreeSet::from([name.to_owned()]);
        for key in old.iter().chain(&new) {
            concerned.extend(self.holders.get(key).into_iter().flatten().cloned());
        }
        let entries = |leases: &Self| -> BTreeMap<String, Entry> {
            let all = concerned.iter().filter_map(|name| leases.entry(name));
            all.map(|entry| (entry.key.clone(), entry)).collect()
        };
        let before = entries(self);
        if let Some(key) = old
            && let Some(holders) = self.holders.get_mut(&key)
        {
            holders.remove(name);
            if holders.is_empty() {
                self.holders.remove(&key);
            }
        }
        if let Some(key) = new {
            self.holders.entry(key).or_default().insert(name.to_owned());
        }
        match lease {
            Some(lease) => self.nodes.insert(name.to_owned(), lease),
            None => self.nodes.remove(name),
        };
        let after = entries(self);
        let gone = before.keys().filter(|key| !after.contains_key(*key));
        let gone = gone.map(|key| Event::Delete { key: key.clone() });
        let put = after
            .values()
            .filter(|entry| before.get(&entry.key) != Some(entry));
        gone.chain(put.cloned().map(Event::Put)).collect()
    }

    fn entry(&self, name: &str) -> Option<Entry> {
        let lease = self.nodes.get(name)?;
        // A Node without a subnet has no key; this cannot be taken for one.
        let of_node = || format!("of Node {name}");
        let (key, lease) = match lease {
            Err(why) => (of_node(), Err(why.clone())),
            Ok(lease) => {
                let key = key::render(&lease.subnet);
                match self.holders.get(&key).and_then(BTreeSet::first) {
                    Some(first) if first != name => {
                        let why = format!("its podCIDR {} is that of Node {first}", lease.subnet);
                        (of_node(), Err(why))
                    }
                    _ => (key, Ok(lease.clone())),
                }
            }
        };
        Some(Entry {
            key,
            lease,
            reserved: true,
            revision: 0,
            created: 0,
        })
    }
}

#[cfg(test)]
mod tests;
