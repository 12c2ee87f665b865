//! Networks of cluster IPs: all ServiceCIDRs together.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::runtime::watcher;
use serde_json::Value;
use source::Said;
use source::kube::{Item, Translate};

use crate::model::{Event, ObjectName};
use crate::objects;

/// The watch of them.
#[derive(Default)]
pub(super) struct Cidrs {
    nets: BTreeMap<ObjectName, Vec<IpNet>>,
    /// What a new list has named so far; while it is read, the old one counts.
    listing: Option<BTreeMap<ObjectName, Vec<IpNet>>>,
    said: Said,
}

/// One ServiceCIDR.
#[derive(Clone, Debug)]
pub(super) struct Cidr {
    name: Option<ObjectName>,
    nets: Vec<IpNet>,
    /// Texts that are no networks.
    bad: Vec<String>,
}

impl Cidrs {
    fn read(&mut self, item: Item<Self>) -> Option<(ObjectName, Vec<IpNet>)> {
        let Cidr { name, nets, bad } = item.news;
        let name = name?;
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

impl Translate for Cidrs {
    type Object = ServiceCIDR;
    type News = Cidr;
    type Event = Event;
    const OPTIONAL: bool = true;

    fn reduce(value: Value) -> Cidr {
        let mut cidr = Cidr {
            name: objects::name_of(&value),
            nets: Vec::new(),
            bad: Vec::new(),
        };
        let texts = value.pointer("/spec/cidrs").and_then(Value::as_array);
        for text in texts.into_iter().flatten() {
            match objects::parse_net(text.as_str().unwrap_or_default()) {
                Ok(net) => cidr.nets.push(net),
                Err(cause) => cidr.bad.push(format!("spec.cidrs: {cause}")),
            }
        }
        cidr
    }

    fn translate(&mut self, step: watcher::Event<Item<Self>>) -> Option<Event> {
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
                self.nets.remove(&item.news.name?);
                Some(self.event())
            }
        }
    }
}
