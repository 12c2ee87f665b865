//! News taken in.

use std::sync::Arc;

use super::held::{Entry, Front, Held, HeldPod, Host, hosts};
use super::{Namespace, Store};
use crate::model::{Event, Kind, ObjectName, Pod, Port, Service, Slice, Target};

impl Store {
    pub(in crate::zone) fn apply(&mut self, event: Event) {
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

    fn set_service(&mut self, mut service: Service) {
        if let Target::ClusterIps(ips) = &mut service.target {
            // Answers are sorted.
            ips.sort_unstable();
        }
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
        let hosts = hosts(&slice.endpoints);
        if self.is_known(&slice, &hosts) {
            return;
        }
        self.remove_slice(&slice.name);
        let entry = self.entry(&ObjectName {
            namespace: slice.name.namespace.clone(),
            name: slice.service,
        });
        let held = Held {
            name: slice.name.name.clone(),
            entry,
            hosts,
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

    /// A new list tells mostly what is known: that is only marked as told, not built again.
    fn is_known(&mut self, slice: &Slice, hosts: &[Host]) -> bool {
        let namespace = self.namespaces.get(&slice.name.namespace);
        let number = namespace.and_then(|known| known.slices.get(&slice.name.name));
        let held = number.and_then(|&number| self.slices.get_mut(number as usize));
        let Some(held) = held.filter(|held| *held.hosts == *hosts && held.ports == slice.ports)
        else {
            return false;
        };
        let entry = self.entries.get(held.entry as usize);
        let same = entry.is_some_and(|entry| entry.name.name == slice.service);
        if same {
            held.round = self.listings[Kind::Slices as usize].round;
        }
        same
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
