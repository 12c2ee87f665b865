//! Steps of a watch as our own events.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::runtime::watcher;

use super::item::{Item, Wire};
use crate::model::{Event, Kind, ObjectName};
use crate::objects::{Reduced, Unusable};
use crate::source::said::Said;

/// Translates the steps of the watch of one kind.
pub(super) trait Translate<K: Wire> {
    /// What a step says, if anything; complaints go to the log.
    fn translate(&mut self, step: watcher::Event<Item<K>>) -> Option<Event>;
}

/// Services, slices and the own Node.
pub(super) struct Objects {
    kind: Kind,
    said: Said,
}

impl Objects {
    pub(super) fn new(kind: Kind) -> Self {
        Self {
            kind,
            said: Said::default(),
        }
    }

    fn complain(&mut self, name: Option<&ObjectName>, lines: Vec<String>) {
        let subject = name.map_or_else(|| "nameless".to_owned(), ToString::to_string);
        for line in self.said.news(&subject, lines) {
            tracing::warn!("{line}");
        }
    }

    fn gone(&self, name: ObjectName) -> Option<Event> {
        match self.kind {
            Kind::Services => Some(Event::ServiceGone(name)),
            Kind::Slices => Some(Event::SliceGone(name)),
            Kind::Node => Some(Event::Node(None)),
        }
    }
}

impl<K: Wire<News = Result<Reduced, Unusable>>> Translate<K> for Objects {
    fn translate(&mut self, step: watcher::Event<Item<K>>) -> Option<Event> {
        match step {
            watcher::Event::Init => Some(Event::Restarted(self.kind)),
            watcher::Event::InitDone => Some(Event::Listed(self.kind)),
            watcher::Event::Apply(item) | watcher::Event::InitApply(item) => match item.news {
                Ok(reduced) => {
                    self.complain(item.name.as_ref(), reduced.complaints);
                    Some(reduced.event)
                }
                Err(unusable) => {
                    self.complain(item.name.as_ref(), vec![unusable.to_string()]);
                    None
                }
            },
            watcher::Event::Delete(item) => {
                let name = item.name?;
                self.complain(Some(&name), Vec::new());
                self.gone(name)
            }
        }
    }
}

/// Networks of cluster IPs: all ServiceCIDRs together.
#[derive(Default)]
pub(super) struct Cidrs {
    nets: BTreeMap<ObjectName, Vec<IpNet>>,
    /// What a new list has named so far; while it is read, the old one counts.
    listing: Option<BTreeMap<ObjectName, Vec<IpNet>>>,
    said: Said,
}

impl Cidrs {
    fn read(&mut self, item: Item<ServiceCIDR>) -> Option<(ObjectName, Vec<IpNet>)> {
        let name = item.name?;
        let (nets, bad) = item.news;
        for line in self.said.news(&name.name, bad) {
            tracing::warn!("ServiceCIDR {}: {line}", name.name);
        }
        Some((name, nets))
    }

    fn event(&self) -> Event {
        let nets: BTreeSet<_> = self.nets.values().flatten().copied().collect();
        Event::ServiceCidrs(nets.into_iter().collect())
    }
}

impl Translate<ServiceCIDR> for Cidrs {
    fn translate(&mut self, step: watcher::Event<Item<ServiceCIDR>>) -> Option<Event> {
        match step {
            watcher::Event::Init => {
                self.listing = Some(BTreeMap::new());
                None
            }
            watcher::Event::InitApply(item) => {
                let read = self.read(item);
                self.listing.get_or_insert_default().extend(read);
                None
            }
            watcher::Event::InitDone => {
                self.nets = self.listing.take()?;
                Some(self.event())
            }
            watcher::Event::Apply(item) => {
                let read = self.read(item);
                self.nets.extend(read);
                Some(self.event())
            }
            watcher::Event::Delete(item) => {
                self.nets.remove(&item.name?);
                Some(self.event())
            }
        }
    }
}
