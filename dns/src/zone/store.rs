//! The objects of the zone and what finds them: by name, by address. Small: names are shared, indexes hold numbers.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use slab::Slab;

use crate::model::{Event, Kind, ObjectName, Pod, Port, Service, Slice, Target};

/// What is known of one Service: itself, its slices, or both.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: ObjectName,
    /// The Service, if it has been told.
    pub(super) front: Option<Front>,
    /// Numbers of its slices.
    slices: Vec<u32>,
}

/// A Service without its name.
#[derive(Debug)]
pub(super) struct Front {
    pub(super) target: Target,
    pub(super) ports: Box<[Port]>,
    pub(super) publish_not_ready: bool,
    round: u32,
}

impl Front {
    /// The endpoint has names.
    pub(super) fn takes(&self, host: &Host) -> bool {
        host.ready || self.publish_not_ready
    }
}

/// An EndpointSlice.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) name: Arc<str>,
    /// Number of its entry.
    pub(super) entry: u32,
    /// Sorted.
    pub(super) hosts: Box<[Host]>,
    pub(super) ports: Box<[Port]>,
    round: u32,
}

/// One address of an endpoint. Ordered by host name, so that a host name is found quickly.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Host {
    /// The host name that was asked for; none if it is the dashed address.
    pub(super) hostname: Option<Arc<str>>,
    pub(super) address: IpAddr,
    pub(super) ready: bool,
}

#[derive(Debug)]
struct HeldPod {
    pod: Pod,
    round: u32,
}

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
    pub(super) fn apply(&mut self, event: Event) {
        self.serial = self.serial.wrapping_add(1);
        match event {
            Event::Service(service) => self.set_service(service),
            Event::ServiceGone(name) => self.remove_service(&name),
            Event::Slice(slice) => self.set_slice(slice),
            Event::SliceGone(name) => self.remove_slice(&name),
            Event::Pod(pod) => self.set_pod(pod),
            Event::PodGone(name) => self.remove_pod(&name),
            Event::Restarted(kind) => {
                let round = &mut self.listings[kind as usize].round;
                *round = round.wrapping_add(1);
            }
            Event::Listed(kind) => {
                self.listings[kind as usize].whole = true;
                self.sweep(kind);
            }
        }
    }

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

    /// Nothing is held, in no index either.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let indexes = [&self.fronts, &self.hosts, &self.pod_addresses];
        self.namespaces.is_empty()
            && self.entries.is_empty()
            && self.slices.is_empty()
            && self.pods.is_empty()
            && indexes.iter().all(|index| index.is_empty())
            && self.port_names.is_empty()
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

    fn set_service(&mut self, service: Service) {
        let number = self.entry(&service.name);
        self.forget_fronts(number);
        if let Target::ClusterIps(ips) = &service.target {
            self.fronts.extend(ips.iter().map(|&ip| (ip, number)));
        }
        let front = Front {
            target: service.target,
            ports: self.shared(service.ports),
            publish_not_ready: service.publish_not_ready,
            round: self.listings[Kind::Services as usize].round,
        };
        self.entries[number as usize].front = Some(front);
    }

    fn remove_service(&mut self, name: &ObjectName) {
        let namespace = self.namespaces.get(&name.namespace);
        let Some(&number) = namespace.and_then(|known| known.entries.get(&name.name)) else {
            return;
        };
        self.forget_fronts(number);
        self.entries[number as usize].front = None;
        self.drop_if_empty(number);
    }

    fn forget_fronts(&mut self, number: u32) {
        if let Some(Front {
            target: Target::ClusterIps(ips),
            ..
        }) = &self.entries[number as usize].front
        {
            for ip in ips {
                self.fronts.remove(&(*ip, number));
            }
        }
    }

    fn set_slice(&mut self, slice: Slice) {
        self.remove_slice(&slice.name);
        let entry = self.entry(&ObjectName {
            namespace: slice.name.namespace.clone(),
            name: slice.service,
        });
        let held = Held {
            name: slice.name.name.clone(),
            entry,
            hosts: hosts(&slice.endpoints),
            ports: self.shared(slice.ports),
            round: self.listings[Kind::Slices as usize].round,
        };
        let number = self.slices.vacant_key() as u32;
        self.hosts
            .extend(held.hosts.iter().map(|host| (host.address, number)));
        self.slices.insert(held);
        self.entries[entry as usize].slices.push(number);
        let namespace = self.namespaces.entry(slice.name.namespace).or_default();
        namespace.slices.insert(slice.name.name, number);
    }

    fn remove_slice(&mut self, name: &ObjectName) {
        let namespace = self.namespaces.get_mut(&name.namespace);
        let Some(number) = namespace.and_then(|known| known.slices.remove(&name.name)) else {
            return;
        };
        let held = self.slices.remove(number as usize);
        for host in &held.hosts {
            self.hosts.remove(&(host.address, number));
        }
        self.entries[held.entry as usize]
            .slices
            .retain(|&other| other != number);
        self.drop_if_empty(held.entry);
    }

    fn set_pod(&mut self, pod: Pod) {
        self.remove_pod(&pod.name);
        let number = self.pods.vacant_key() as u32;
        self.pod_addresses
            .extend(pod.ips.iter().map(|&ip| (ip, number)));
        let (namespace, known) = self.namespace_of(&pod.name.namespace);
        known.pods.insert(pod.name.name.clone(), number);
        let round = self.listings[Kind::Pods as usize].round;
        let name = ObjectName {
            namespace,
            ..pod.name
        };
        self.pods.insert(HeldPod {
            pod: Pod { name, ..pod },
            round,
        });
    }

    fn remove_pod(&mut self, name: &ObjectName) {
        let namespace = self.namespaces.get_mut(&name.namespace);
        let Some(number) = namespace.and_then(|known| known.pods.remove(&name.name)) else {
            return;
        };
        let held = self.pods.remove(number as usize);
        for ip in held.pod.ips {
            self.pod_addresses.remove(&(ip, number));
        }
        self.drop_namespace_if_empty(&name.namespace);
    }

    /// Removes what the list that is whole now has not told.
    fn sweep(&mut self, kind: Kind) {
        let round = self.listings[kind as usize].round;
        match kind {
            Kind::Services => {
                let old = self.entries.iter().filter(|(_, entry)| {
                    entry
                        .front
                        .as_ref()
                        .is_some_and(|front| front.round != round)
                });
                let old: Vec<_> = old.map(|(_, entry)| entry.name.clone()).collect();
                old.iter().for_each(|name| self.remove_service(name));
            }
            Kind::Slices => {
                let old = self.slices.iter().filter(|(_, slice)| slice.round != round);
                let old: Vec<_> = old
                    .map(|(_, slice)| ObjectName {
                        namespace: self.entries[slice.entry as usize].name.namespace.clone(),
                        name: slice.name.clone(),
                    })
                    .collect();
                old.iter().for_each(|name| self.remove_slice(name));
            }
            Kind::Pods => {
                let old = self.pods.iter().filter(|(_, held)| held.round != round);
                let old: Vec<_> = old.map(|(_, held)| held.pod.name.clone()).collect();
                old.iter().for_each(|name| self.remove_pod(name));
            }
        }
        self.port_names.retain(|name| Arc::strong_count(name) > 1);
    }

    /// The number of the entry of a Service, which is made if there is none.
    fn entry(&mut self, name: &ObjectName) -> u32 {
        let vacant = self.entries.vacant_key() as u32;
        let (namespace, known) = self.namespace_of(&name.namespace);
        if let Some(&number) = known.entries.get(&name.name) {
            return number;
        }
        known.entries.insert(name.name.clone(), vacant);
        self.entries.insert(Entry {
            name: ObjectName {
                namespace,
                name: name.name.clone(),
            },
            front: None,
            slices: Vec::new(),
        });
        vacant
    }

    /// A namespace, made if it is new, and its name as all share it.
    fn namespace_of(&mut self, name: &Arc<str>) -> (Arc<str>, &mut Namespace) {
        let shared = match self.namespaces.get_key_value(name) {
            Some((known, _)) => known.clone(),
            None => name.clone(),
        };
        let namespace = self.namespaces.entry(shared.clone()).or_default();
        (shared, namespace)
    }

    fn drop_if_empty(&mut self, number: u32) {
        let entry = &self.entries[number as usize];
        if entry.front.is_some() || !entry.slices.is_empty() {
            return;
        }
        let name = self.entries.remove(number as usize).name;
        if let Some(namespace) = self.namespaces.get_mut(&name.namespace) {
            namespace.entries.remove(&name.name);
        }
        self.drop_namespace_if_empty(&name.namespace);
    }

    fn drop_namespace_if_empty(&mut self, name: &Arc<str>) {
        let empty = |known: &Namespace| {
            known.entries.is_empty() && known.slices.is_empty() && known.pods.is_empty()
        };
        if self.namespaces.get(name).is_some_and(empty) {
            self.namespaces.remove(name);
        }
    }

    /// The ports with names that all share.
    fn shared(&mut self, mut ports: Box<[Port]>) -> Box<[Port]> {
        for port in &mut ports {
            match self.port_names.get(&port.name) {
                Some(known) => port.name = known.clone(),
                None => {
                    self.port_names.insert(port.name.clone());
                }
            }
        }
        ports
    }
}

/// The numbers that an index has for an address.
fn at(index: &BTreeSet<(IpAddr, u32)>, address: IpAddr) -> impl Iterator<Item = u32> {
    let range = index.range((address, u32::MIN)..=(address, u32::MAX));
    range.map(|&(_, number)| number)
}

fn hosts(endpoints: &[crate::model::Endpoint]) -> Box<[Host]> {
    let hosts = endpoints.iter().flat_map(|endpoint| {
        endpoint.addresses.iter().map(|&address| Host {
            hostname: endpoint
                .hostname
                .clone()
                .filter(|name| **name != *super::labels::dash(address)),
            address,
            ready: endpoint.ready,
        })
    });
    let mut hosts: Vec<_> = hosts.collect();
    hosts.sort_unstable();
    hosts.dedup();
    hosts.into()
}
