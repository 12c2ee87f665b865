//! Turns what the store says into peers: a pure fold of listings and watch events.
//!
//! Invariant: after every call, [`Tracker::peers`] holds exactly the leases that pass the rules, and
//! the returned changes lead from the snapshot before to the one after, one change per subnet.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::{PeerChange, Peers};
use crate::backend;
use crate::lease::store::{Entry, Event};
use crate::lease::{Lease, Subnet, key};

/// Which leases become peers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Our own subnet: never a peer.
    pub own: Option<Subnet>,
    /// Our own addresses: a lease that holds or carries one would cut us off.
    pub addresses: Vec<IpAddr>,
    /// The networks that subnets are leased from: routes to anything else are not ours to make.
    pub networks: Vec<IpNet>,
    /// The backend types that can be reached.
    pub backend_types: &'static [&'static str],
}

/// The state of the fold.
#[derive(Debug, Default)]
pub struct Tracker {
    rules: Rules,
    stored: BTreeMap<String, Result<Arc<Lease>, String>>,
    /// Gone from a store that lost its data: kept until then, for their owners to come back.
    lingering: BTreeMap<String, Instant>,
    ignored: BTreeMap<String, String>,
    peers: Peers,
}

/// What one call did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// In order of subnet.
    pub changes: Vec<PeerChange>,
    /// Leases that are newly ignored, and why: for the log.
    pub ignored: Vec<(String, String)>,
}

impl Tracker {
    /// Nothing is stored yet.
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            ..Self::default()
        }
    }

    /// The peers now.
    pub fn peers(&self) -> &Peers {
        &self.peers
    }

    /// The leases in the store, ours and unreadable ones included.
    pub fn leases(&self) -> usize {
        self.stored.len()
    }

    /// How many leases are not served though they are not ours.
    pub fn ignored(&self) -> usize {
        self.ignored.len()
    }

    /// Takes a full listing. `linger`: keep what has vanished until that long from `now`.
    pub fn replace(
        &mut self,
        entries: &[Entry],
        now: Instant,
        linger: Option<Duration>,
    ) -> Outcome {
        let mut touched: BTreeSet<String> = self.stored.keys().cloned().collect();
        let listed: BTreeMap<String, Result<Arc<Lease>, String>> = entries
            .iter()
            .map(|entry| (entry.key.clone(), readable(entry)))
            .collect();
        touched.extend(listed.keys().cloned());
        let before = std::mem::replace(&mut self.stored, listed);
        self.lingering
            .retain(|key, _| !self.stored.contains_key(key));
        for (key, lease) in before {
            if self.stored.contains_key(&key) {
                continue;
            }
            if let Some(linger) = linger {
                self.lingering.entry(key.clone()).or_insert(now + linger);
            }
            if self.lingering.contains_key(&key) {
                self.stored.insert(key, lease);
            }
        }
        self.settle(touched)
    }

    /// Takes watch events; the last one for a key counts.
    pub fn apply(&mut self, events: &[Event]) -> Outcome {
        let mut touched = BTreeSet::new();
        for event in events {
            let (key, lease) = match event {
                Event::Put(entry) => (&entry.key, Some(readable(entry))),
                Event::Delete { key } => (key, None),
                Event::Config(_) => continue,
            };
            self.lingering.remove(key);
            match lease {
                Some(lease) => self.stored.insert(key.clone(), lease),
                None => self.stored.remove(key),
            };
            touched.insert(key.clone());
        }
        self.settle(touched)
    }

    /// Drops what has lingered long enough.
    pub fn expire(&mut self, now: Instant) -> Outcome {
        let over: BTreeSet<String> = self
            .lingering
            .iter()
            .filter(|(_, until)| **until <= now)
            .map(|(key, _)| key.clone())
            .collect();
        for key in &over {
            self.lingering.remove(key);
            self.stored.remove(key);
        }
        self.settle(over)
    }

    /// When [`Tracker::expire`] has something to do.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.lingering.values().min().copied()
    }

    /// Our own lease or addresses have changed.
    pub fn set_rules(&mut self, rules: Rules) -> Outcome {
        if rules == self.rules {
            return Outcome::default();
        }
        self.rules = rules;
        self.settle(self.stored.keys().cloned().collect())
    }

    /// Brings `peers` and `ignored` in line with `stored` for these keys.
    fn settle(&mut self, touched: BTreeSet<String>) -> Outcome {
        let mut outcome = Outcome::default();
        for key in touched {
            let verdict = match self.stored.get(&key) {
                None => Verdict::Drop,
                Some(Err(reason)) => Verdict::Ignore(reason.clone()),
                Some(Ok(lease)) => self.rules.judge(lease),
            };
            if let Verdict::Ignore(reason) = &verdict {
                if self.ignored.get(&key) != Some(reason) {
                    outcome.ignored.push((key.clone(), reason.clone()));
                    self.ignored.insert(key.clone(), reason.clone());
                }
            } else {
                self.ignored.remove(&key);
            }
            let Some(subnet) = key::parse(&key) else {
                continue;
            };
            let wanted = match (&verdict, self.stored.get(&key)) {
                (Verdict::Serve, Some(Ok(lease))) => Some(lease),
                // A second spelling of a subnet must not touch the peer under its proper key.
                _ if key::render(&subnet) != key => continue,
                _ => None,
            };
            outcome.changes.extend(self.peers.set(subnet, wanted));
        }
        outcome
    }
}

enum Verdict {
    Serve,
    Ignore(String),
    Drop,
}

impl Rules {
    /// Of a family that we route, but outside its network.
    fn is_foreign(&self, net: IpNet) -> bool {
        let mut of_family = self
            .networks
            .iter()
            .filter(|network| network.addr().is_ipv4() == net.addr().is_ipv4());
        of_family
            .next()
            .is_some_and(|network| !network.contains(&net))
    }

    fn judge(&self, lease: &Lease) -> Verdict {
        let (subnet, attrs) = (&lease.subnet, &lease.attrs);
        if self.own == Some(*subnet) {
            return Verdict::Drop;
        }
        let announced = [
            attrs.public_ip.map(IpAddr::V4),
            attrs.public_ipv6.map(IpAddr::V6),
        ];
        let reason = if self.own.is_some_and(|own| own.overlaps(subnet)) {
            "it overlaps this node's own subnet".to_owned()
        } else if let Some(ip) = self.addresses.iter().find(|ip| subnet.contains(**ip)) {
            format!("it holds this node's own address {ip}")
        } else if let Some(ip) = announced
            .iter()
            .flatten()
            .find(|ip| self.addresses.contains(ip))
        {
            format!("it carries this node's own address {ip}")
        } else if !(subnet.v4.is_some() && announced[0].is_some()
            || subnet.v6.is_some() && announced[1].is_some())
        {
            "it has no public address of its subnet's family".to_owned()
        } else if let Some(net) = subnet.nets().find(|net| self.is_foreign(*net)) {
            format!("{net} is not part of the network")
        } else if !self.backend_types.contains(&attrs.backend_type.as_str()) {
            format!("its backend is \"{}\"", attrs.backend_type)
        } else if let Some(reason) = backend::unusable(lease) {
            reason
        } else {
            return Verdict::Serve;
        };
        Verdict::Ignore(reason)
    }
}

fn readable(entry: &Entry) -> Result<Arc<Lease>, String> {
    let lease = entry.lease.clone()?;
    if key::render(&lease.subnet) != entry.key {
        return Err(format!("the key should be {}", key::render(&lease.subnet)));
    }
    Ok(Arc::new(lease))
}

#[cfg(test)]
mod tests;
