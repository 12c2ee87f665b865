//! What has been written to the kernel, by service port, and the difference to what shall be: pure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::elements::{self, Element, Slots};
use super::layout::{Data, Key, Set};
use crate::model::{Balancer, NodePortAddresses, PortName, Site, Wanted};

/// Elements by set and key.
pub type Contents = HashMap<(Set, Key), Data>;

/// Elements to be deleted, then elements to be added. A key in both gets new data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// As they are in the kernel.
    pub delete: Vec<Element>,
    /// New ones.
    pub add: Vec<Element>,
}

impl Delta {
    /// How many changes it has.
    pub fn len(&self) -> usize {
        self.delete.len() + self.add.len()
    }

    /// There is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Joins another one.
    pub fn extend(&mut self, other: Self) {
        self.delete.extend(other.delete);
        self.add.extend(other.add);
    }
}

/// One service port as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// What it was written from.
    pub balancer: Arc<Balancer>,
    /// Where its endpoints are.
    pub slots: Slots,
}

/// All service ports as written.
#[derive(Clone, Debug, Default)]
pub struct Book {
    ports: BTreeMap<PortName, Written>,
    /// How many ports have an element of a set that ports share.
    shared: HashMap<(Set, Key), u32>,
    /// How many ports have an affinity time-out.
    timeouts: BTreeMap<u32, usize>,
}

fn is_shared(set: Set) -> bool {
    matches!(set, Set::ClusterIps | Set::Hairpin)
}

impl Book {
    /// A port as written.
    pub fn get(&self, name: &PortName) -> Option<&Written> {
        self.ports.get(name)
    }

    /// All ports.
    pub fn ports(&self) -> &BTreeMap<PortName, Written> {
        &self.ports
    }

    /// The affinity time-outs in use.
    pub fn timeouts(&self) -> impl Iterator<Item = u32> {
        self.timeouts.keys().copied()
    }

    /// Notes that a port is now as `wanted` (`None`: gone) and says what that changes.
    pub fn change(
        &mut self,
        name: &PortName,
        wanted: Option<&Arc<Balancer>>,
        site: &Site,
    ) -> Delta {
        let old = self.ports.remove(name);
        let before = old.as_ref().map_or(Vec::new(), |old| {
            elements::elements(name.protocol, &old.balancer, &old.slots, site)
        });
        let slots = old.as_ref().map(|old| &old.slots);
        let new = wanted.map(|balancer| Written {
            slots: slots.unwrap_or(&Slots::default()).next(balancer, site),
            balancer: Arc::clone(balancer),
        });
        let after = new.as_ref().map_or(Vec::new(), |new| {
            elements::elements(name.protocol, &new.balancer, &new.slots, site)
        });
        self.count_timeouts(old.as_ref().map(|old| &old.balancer), wanted);
        if let Some(new) = new {
            self.ports.insert(name.clone(), new);
        }
        self.only_last(difference(&before, &after))
    }

    /// Puts a port into an empty place, with its endpoints in the given slots if they are free to
    /// stay there; returns its elements. For comparing with what the kernel has.
    pub fn insert(
        &mut self,
        name: &PortName,
        balancer: &Arc<Balancer>,
        slots: &Slots,
        site: &Site,
    ) -> Vec<Element> {
        let written = Written {
            slots: slots.next(balancer, site),
            balancer: Arc::clone(balancer),
        };
        let all = elements::elements(name.protocol, balancer, &written.slots, site);
        for element in all.iter().filter(|element| is_shared(element.set)) {
            *self.shared.entry((element.set, element.key)).or_default() += 1;
        }
        self.count_timeouts(None, Some(balancer));
        self.ports.insert(name.clone(), written);
        all
    }

    fn count_timeouts(&mut self, old: Option<&Arc<Balancer>>, new: Option<&Arc<Balancer>>) {
        if let Some(seconds) = new.and_then(|new| new.affinity) {
            *self.timeouts.entry(seconds).or_default() += 1;
        }
        if let Some(seconds) = old.and_then(|old| old.affinity)
            && let Some(count) = self.timeouts.get_mut(&seconds)
        {
            *count -= 1;
            if *count == 0 {
                self.timeouts.remove(&seconds);
            }
        }
    }

    /// Leaves shared elements alone that another port still has or already had.
    fn only_last(&mut self, mut delta: Delta) -> Delta {
        let shared = &mut self.shared;
        delta.delete.retain(|element| {
            if !is_shared(element.set) {
                return true;
            }
            let key = (element.set, element.key);
            let count = shared.entry(key).or_insert(1);
            *count -= 1;
            let last = *count == 0;
            if last {
                shared.remove(&key);
            }
            last
        });
        delta.add.retain(|element| {
            if !is_shared(element.set) {
                return true;
            }
            let count = shared.entry((element.set, element.key)).or_default();
            *count += 1;
            *count == 1
        });
        delta
    }
}

/// The difference between two sorted lists of elements.
fn difference(before: &[Element], after: &[Element]) -> Delta {
    let mut delta = Delta::default();
    let (mut old, mut new) = (before.iter().peekable(), after.iter().peekable());
    loop {
        match (old.peek(), new.peek()) {
            (None, None) => return delta,
            (Some(a), Some(b)) if a == b => {
                old.next();
                new.next();
            }
            (Some(a), Some(b)) if a > b => delta.add.extend(new.next()),
            (None, Some(_)) => delta.add.extend(new.next()),
            (Some(_), _) => delta.delete.extend(old.next()),
        }
    }
}

/// What the site itself puts into the table.
pub fn site_elements(site: &Site) -> Vec<Element> {
    match &site.node_port_addresses {
        NodePortAddresses::All => Vec::new(),
        NodePortAddresses::Some(addresses) => addresses
            .iter()
            .map(|ip| Element {
                set: Set::NodePortIps,
                key: Key::Ip(*ip),
                data: Data::None,
            })
            .collect(),
    }
}

/// What of `elements` is not there yet. Takes out of `observed` what it meets, so that in the end
/// what nobody wants is left in it.
pub fn compare(observed: &mut Contents, seen: &mut Contents, elements: Vec<Element>) -> Delta {
    let mut delta = Delta::default();
    for element in elements {
        let key = (element.set, element.key);
        if seen.contains_key(&key) {
            continue;
        }
        match observed.remove(&key) {
            Some(data) if data == element.data => {}
            other => {
                if let Some(data) = other {
                    delta.delete.push(Element { data, ..element });
                }
                delta.add.push(element);
            }
        }
        if is_shared(element.set) {
            seen.insert(key, element.data);
        }
    }
    delta
}

/// The order in which ports are written at a cold start: what everything else needs comes first.
pub fn by_importance(wanted: &Wanted) -> Vec<(&PortName, &Arc<Balancer>)> {
    let rank = |name: &PortName| match (&*name.service.namespace, &*name.service.name) {
        ("kube-system", "kube-dns" | "coredns") => 0,
        ("default", "kubernetes") => 1,
        ("kube-system", _) => 2,
        _ => 3,
    };
    let mut all: Vec<_> = wanted.balancers.iter().collect();
    all.sort_by_key(|(name, _)| rank(name));
    all
}

/// All elements that `wanted` comes to from scratch.
pub fn contents(wanted: &Wanted) -> Contents {
    let mut book = Book::default();
    let site = &wanted.site;
    let ports = wanted
        .balancers
        .iter()
        .flat_map(|(name, balancer)| book.insert(name, balancer, &Slots::default(), site));
    site_elements(site)
        .into_iter()
        .chain(ports)
        .map(|element| ((element.set, element.key), element.data))
        .collect()
}

#[cfg(test)]
pub(crate) mod tests;
