//! A bounded map that forgets what has not been used for a while: clients of session affinity, UDP flows.
//!
//! Every use of an entry is one hash look-up and a store of the time. The queue by age is mended only when
//! somebody asks for the oldest: an entry whose time in the queue is behind its last use is put back
//! to where it belongs, until the first one is where it belongs, which then is the oldest.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::time::{Duration, Instant};

/// See the module.
#[derive(Debug)]
pub(super) struct Aging<K, V> {
    entries: HashMap<K, Entry<V>>,
    /// By a time not later than the last use, and a number that makes it unique.
    queue: BTreeMap<(Instant, u64), K>,
    sequence: u64,
    limit: usize,
    timeout: Duration,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    used: Instant,
    queued: (Instant, u64),
}

impl<K: Eq + Hash + Clone, V> Aging<K, V> {
    /// Holds at most `limit` entries (at least one), each for `timeout` after its last use.
    pub(super) fn new(limit: usize, timeout: Duration) -> Self {
        Self {
            entries: HashMap::new(),
            queue: BTreeMap::new(),
            sequence: 0,
            limit: limit.max(1),
            timeout,
        }
    }

    /// How long an entry lives unused.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Looks up and counts as use. An entry that is due is not there any more.
    pub(super) fn touch(&mut self, key: &K, now: Instant) -> Option<&mut V> {
        let entry = self.entries.get_mut(key)?;
        if now.duration_since(entry.used) >= self.timeout {
            return None;
        }
        entry.used = now;
        Some(&mut entry.value)
    }

    /// Puts an entry in as just used. Answers what had to go for it: the entry of this key, or the oldest
    /// when the map is full.
    pub(super) fn insert(&mut self, key: K, value: V, now: Instant) -> Option<V> {
        let gone = match self.remove(&key) {
            Some(former) => Some(former),
            None if self.entries.len() >= self.limit => self
                .oldest()
                .and_then(|at| self.queue.get(&at).cloned())
                .and_then(|oldest| self.remove(&oldest)),
            None => None,
        };
        self.sequence += 1;
        let queued = (now, self.sequence);
        self.queue.insert(queued, key.clone());
        let entry = Entry {
            value,
            used: now,
            queued,
        };
        self.entries.insert(key, entry);
        gone
    }

    /// Takes an entry out.
    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let entry = self.entries.remove(key)?;
        self.queue.remove(&entry.queued);
        Some(entry.value)
    }

    /// Takes one entry out that is due, if there is one.
    pub(super) fn expire(&mut self, now: Instant) -> Option<V> {
        // Cheap in the common case: the first time in the queue is not later than any last use.
        if self.deadline()? > now {
            return None;
        }
        let (used, _) = self.oldest()?;
        if now.duration_since(used) < self.timeout {
            return None;
        }
        let (_, key) = self.queue.first_key_value()?;
        let key = key.clone();
        self.remove(&key)
    }

    /// Takes out all entries that `unwanted` names.
    pub(super) fn extract(&mut self, mut unwanted: impl FnMut(&K, &V) -> bool) -> Vec<V> {
        let keys: Vec<K> = self
            .entries
            .iter()
            .filter(|(key, entry)| unwanted(key, &entry.value))
            .map(|(key, _)| key.clone())
            .collect();
        keys.iter().filter_map(|key| self.remove(key)).collect()
    }

    /// A time before which nothing is due; `None` when nothing is held.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let ((first, _), _) = self.queue.first_key_value()?;
        Some(*first + self.timeout)
    }

    /// Mends the front of the queue; answers the place of the entry that was used least recently.
    fn oldest(&mut self) -> Option<(Instant, u64)> {
        loop {
            let (at, key) = self.queue.first_key_value()?;
            let (at, key) = (*at, key.clone());
            let entry = self.entries.get_mut(&key)?;
            if entry.used <= at.0 {
                return Some(at);
            }
            entry.queued = (entry.used, at.1);
            self.queue.remove(&at);
            self.queue.insert(entry.queued, key);
        }
    }
}

#[cfg(test)]
mod tests;
