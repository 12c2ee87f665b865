//! The objects of the zone and what finds them: by name, by address. Small: names are shared, indexes hold numbers.

mod changes;
mod held;
mod told;

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use slab::Slab;

use crate::model::{Kind, ObjectName};
use held::HeldPod;
pub(super) use held::{Entry, Front, Held, Host};

/// What a namespace has, by name; the numbers lead into the slabs.
#[derive(Debug, Default)]
pub(super) struct Namespace {
    entries: HashMap<Arc<str>, u32>,
    slices: HashMap<Arc<str>, u32>,
    pods: HashMap<Arc<str>, u32>,
}

/// How far the list of a kind is.
#[derive(Clone, Copy, Debug, Default)]
struct Listing {
    /// It has been whole once.
    whole: bool,
    /// Counts the lists begun; what an earlier one told last is no more once this one is whole.
    round: u32,
}

/// All objects.
///
/// INVARIANT: a number in a namespace, an entry, a slice or an index leads to an object in its slab.
#[derive(Debug, Default)]
pub(super) struct Store {
    namespaces: HashMap<Arc<str>, Namespace>,
    entries: Slab<Entry>,
    slices: Slab<Held>,
    pods: Slab<HeldPod>,
    /// Cluster IPs, with the entries of their Services.
    fronts: BTreeSet<(IpAddr, u32)>,
    /// Addresses of endpoints, with their slices.
    hosts: BTreeSet<(IpAddr, u32)>,
    /// Addresses of Pods.
    pod_addresses: BTreeSet<(IpAddr, u32)>,
    /// Names of ports: few, in many places.
    port_names: BTreeSet<Arc<str>>,
    listings: [Listing; 3],
    serial: u32,
}

impl Store {
    pub(super) fn is_listed(&self, kind: Kind) -> bool {
        self.listings[kind as usize].whole
    }

    /// Changes with every piece of news.
    pub(super) fn serial(&self) -> u32 {
        self.serial
    }

    pub(super) fn counts(&self) -> [usize; 3] {
        let fronts = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.front.is_some());
        [fronts.count(), self.slices.len(), self.pods.len()]
    }

    /// No object is held, and no index leads to one.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let indexes = [&self.fronts, &self.hosts, &self.pod_addresses];
        self.namespaces.is_empty()
            && self.entries.is_empty()
            && self.slices.is_empty()
            && self.pods.is_empty()
            && indexes.iter().all(|index| index.is_empty())
    }

    /// How many names of ports are kept for sharing.
    #[cfg(test)]
    pub(super) fn port_names(&self) -> usize {
        self.port_names.len()
    }

    /// A namespace that has something.
    pub(super) fn namespace(&self, name: &str) -> Option<&Namespace> {
        self.namespaces.get(name)
    }

    /// The Service, with the entry that leads to its slices.
    pub(super) fn service(&self, namespace: &Namespace, name: &str) -> Option<(&Entry, &Front)> {
        let entry = self.entries.get(*namespace.entries.get(name)? as usize)?;
        Some((entry, entry.front.as_ref()?))
    }

    /// The Services that have this cluster IP.
    pub(super) fn services_at(&self, address: IpAddr) -> impl Iterator<Item = &Entry> {
        let numbers = at(&self.fronts, address);
        numbers.filter_map(|number| self.entries.get(number as usize))
    }

    /// The slices that have an endpoint with this address, with their Services.
    pub(super) fn slices_at(&self, address: IpAddr) -> impl Iterator<Item = (&Held, &Entry)> {
        let slices = at(&self.hosts, address).filter_map(|number| self.slices.get(number as usize));
        slices.filter_map(|slice| Some((slice, self.entries.get(slice.entry as usize)?)))
    }

    /// The slices of a Service.
    pub(super) fn slices_of(&self, entry: &Entry) -> impl Iterator<Item = &Held> {
        let numbers = entry.slices.iter();
        numbers.filter_map(|number| self.slices.get(*number as usize))
    }

    /// The Pods that have this address.
    pub(super) fn pods_at(&self, address: IpAddr) -> impl Iterator<Item = &ObjectName> {
        let numbers = at(&self.pod_addresses, address);
        numbers.filter_map(|number| Some(&self.pods.get(number as usize)?.pod.name))
    }
}

/// The numbers that an index has for an address.
fn at(index: &BTreeSet<(IpAddr, u32)>, address: IpAddr) -> impl Iterator<Item = u32> {
    let range = index.range((address, u32::MIN)..=(address, u32::MAX));
    range.map(|&(_, number)| number)
}
