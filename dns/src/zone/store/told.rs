//! All that is known, as news again: what a snapshot keeps.

use super::Store;
use super::held::{Entry, Front, Held, Host};
use crate::model::{Endpoint, Event, Kind, ObjectName, Service, Slice};

impl Store {
    /// News that make a store of the same answers; with [`Event::Listed`] for the kinds whose list has been whole.
    pub(in crate::zone) fn told(&self) -> impl Iterator<Item = Event> {
        let entries = self.entries.iter();
        let services = entries.filter_map(|(_, entry)| Some(service(entry, entry.front.as_ref()?)));
        let slices = self.slices.iter();
        let slices = slices.filter_map(|(_, held)| {
            let entry = self.entries.get(held.entry as usize)?;
            Some(slice(entry, held))
        });
        let pods = self
            .pods
            .iter()
            .map(|(_, held)| Event::Pod(held.pod.clone()));
        let kinds = [Kind::Services, Kind::Slices, Kind::Pods].into_iter();
        let listed = kinds.filter(|&kind| self.is_listed(kind));
        services
            .chain(slices)
            .chain(pods)
            .chain(listed.map(Event::Listed))
    }
}

fn service(entry: &Entry, front: &Front) -> Event {
    Event::Service(Service {
        name: entry.name.clone(),
        target: front.target.clone(),
        ports: front.ports.clone(),
        publish_not_ready: front.publish_not_ready,
    })
}

fn slice(entry: &Entry, held: &Held) -> Event {
    let endpoint = |host: &Host| Endpoint {
        addresses: [host.address].into(),
        hostname: host.hostname.clone(),
        ready: host.ready,
    };
    Event::Slice(Slice {
        name: ObjectName {
            namespace: entry.name.namespace.clone(),
            name: held.name.clone(),
        },
        service: entry.name.name.clone(),
        endpoints: held.hosts.iter().map(endpoint).collect(),
        ports: held.ports.clone(),
        changed: None,
    })
}
