//! A zone as the specification has it, made the slow way: every record of every object, in one map. The real one is
//! held against it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use hickory_proto::rr::Name;

use super::*;
use crate::model::{Endpoint, ObjectName, Pod, Port, Protocol, Service, Slice, Target};

/// Objects as the news leave them.
#[derive(Clone, Debug, Default)]
pub(super) struct Objects {
    pub(super) services: BTreeMap<ObjectName, Service>,
    pub(super) slices: BTreeMap<ObjectName, Slice>,
    pub(super) pods: BTreeMap<ObjectName, Pod>,
    pub(super) listed: BTreeSet<Kind>,
    /// What a list that is being read has told so far.
    told: BTreeMap<Kind, BTreeSet<ObjectName>>,
}

impl Objects {
    pub(super) fn after(events: &[Event]) -> Self {
        let mut objects = Self::default();
        for event in events.iter().cloned() {
            objects.apply(event);
        }
        objects
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Service(service) => {
                self.tell(Kind::Services, &service.name);
                self.services.insert(service.name.clone(), service);
            }
            Event::Slice(slice) => {
                self.tell(Kind::Slices, &slice.name);
                self.slices.insert(slice.name.clone(), slice);
            }
            Event::Pod(pod) => {
                self.tell(Kind::Pods, &pod.name);
                self.pods.insert(pod.name.clone(), pod);
            }
            Event::ServiceGone(name) => drop(self.services.remove(&name)),
            Event::SliceGone(name) => drop(self.slices.remove(&name)),
            Event::PodGone(name) => drop(self.pods.remove(&name)),
            Event::Restarted(kind) => drop(self.told.insert(kind, BTreeSet::new())),
            Event::Listed(kind) => {
                self.listed.insert(kind);
                if let Some(told) = self.told.get(&kind) {
                    match kind {
                        Kind::Services => self.services.retain(|name, _| told.contains(name)),
                        Kind::Slices => self.slices.retain(|name, _| told.contains(name)),
                        Kind::Pods => self.pods.retain(|name, _| told.contains(name)),
                    }
                }
            }
        }
    }

    fn tell(&mut self, kind: Kind, name: &ObjectName) {
        self.told.entry(kind).or_default().insert(name.clone());
    }

    /// News that make them.
    pub(super) fn events(&self) -> Vec<Event> {
        let services = self.services.values().cloned().map(Event::Service);
        let slices = self.slices.values().cloned().map(Event::Slice);
        let pods = self.pods.values().cloned().map(Event::Pod);
        let listed = self.listed.iter().copied().map(Event::Listed);
        services.chain(slices).chain(pods).chain(listed).collect()
    }

    /// The endpoints of a Service that count, with the ports of their slices: label, address, ports.
    fn endpoints(&self, service: &Service) -> Vec<(String, IpAddr, &[Port])> {
        let mut endpoints = Vec::new();
        for slice in self.slices.values() {
            let belongs = slice.name.namespace == service.name.namespace
                && slice.service == service.name.name;
            let counts = |endpoint: &&Endpoint| endpoint.ready || service.publish_not_ready;
            for endpoint in slice.endpoints.iter().filter(counts).filter(|_| belongs) {
                for &ip in &endpoint.addresses {
                    let dashed = ip.to_string().replace(['.', ':'], "-");
                    let label = endpoint.hostname.as_deref().map_or(dashed, str::to_owned);
                    endpoints.push((label, ip, &*slice.ports));
                }
            }
        }
        endpoints
    }

    /// All records below `svc.<zone>` and in the reverse trees: by name and type what they say.
    pub(super) fn records(&self) -> BTreeMap<(String, RecordType), BTreeSet<String>> {
        let mut records = Records::default();
        for service in self.services.values() {
            let name = format!(
                "{}.{}.svc.cluster.local.",
                service.name.name, service.name.namespace
            );
            let endpoints = self.endpoints(service);
            match &service.target {
                Target::External(target) if target.parse::<IpAddr>().is_ok() => {}
                Target::External(target) => {
                    let target = format!("{}.", target.trim_end_matches('.'));
                    records.add(&name, RecordType::CNAME, target);
                }
                Target::ClusterIps(ips) => {
                    for ip in ips {
                        records.add_address(&name, *ip);
                        records.add(&arpa(*ip), RecordType::PTR, name.clone());
                    }
                    for port in &service.ports {
                        records.add_port(&name, port, &name);
                    }
                }
                Target::Headless => {
                    for (label, ip, ports) in &endpoints {
                        records.add_address(&name, *ip);
                        for port in *ports {
                            records.add_port(&name, port, &format!("{label}.{name}"));
                        }
                    }
                }
            }
            if matches!(service.target, Target::External(_)) {
                continue;
            }
            for (label, ip, ports) in endpoints {
                let endpoint = format!("{label}.{name}");
                records.add_address(&endpoint, ip);
                for port in ports {
                    records.add(
                        &endpoint,
                        RecordType::SRV,
                        format!("{} {endpoint}", port.number),
                    );
                }
            }
        }
        let fronts: BTreeSet<_> = records
            .0
            .keys()
            .filter(|key| key.1 == RecordType::PTR)
            .cloned()
            .collect();
        for service in self
            .services
            .values()
            .filter(|service| !matches!(service.target, Target::External(_)))
        {
            let name = format!(
                "{}.{}.svc.cluster.local.",
                service.name.name, service.name.namespace
            );
            for (label, ip, _) in self.endpoints(service) {
                if !fronts.contains(&(arpa(ip), RecordType::PTR)) {
                    records.add(&arpa(ip), RecordType::PTR, format!("{label}.{name}"));
                }
            }
        }
        records.0
    }

    /// The namespaces that have something.
    pub(super) fn namespaces(&self) -> BTreeSet<String> {
        let names = self
            .services
            .keys()
            .chain(self.slices.keys())
            .chain(self.pods.keys());
        names
            .map(|name| format!("{}.svc.cluster.local.", name.namespace))
            .collect()
    }
}

#[derive(Default)]
struct Records(BTreeMap<(String, RecordType), BTreeSet<String>>);

impl Records {
    fn add(&mut self, name: &str, kind: RecordType, data: String) {
        self.0
            .entry((name.to_owned(), kind))
            .or_default()
            .insert(data);
    }

    fn add_address(&mut self, name: &str, ip: IpAddr) {
        let kind = if ip.is_ipv4() {
            RecordType::A
        } else {
            RecordType::AAAA
        };
        self.add(name, kind, ip.to_string());
    }

    fn add_port(&mut self, service: &str, port: &Port, target: &str) {
        let data = format!("{} {target}", port.number);
        self.add(service, RecordType::SRV, data.clone());
        let protocol = match port.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        };
        if !port.name.is_empty() {
            self.add(
                &format!("_{}._{protocol}.{service}", port.name),
                RecordType::SRV,
                data,
            );
        }
    }
}

/// The reverse name of an address.
pub(super) fn arpa(ip: IpAddr) -> String {
    Name::from(ip).to_ascii()
}
