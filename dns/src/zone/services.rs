//! Names of Services, of their endpoints and of their ports.

mod endpoints;

use std::net::IpAddr;

use hickory_proto::rr::rdata::{CNAME, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::store::{Entry, Front};
use super::{Found, Zone, records};
use crate::model::{Port, Protocol, Target};
pub(super) use endpoints::Label;
use endpoints::Which;

impl Zone {
    /// A name below `svc.<zone>`; `rest` from there outwards.
    pub(super) fn service(&self, asked: &Name, rest: &[&str], kind: RecordType) -> Found {
        let [namespace, rest @ ..] = rest else {
            return Found::NoData;
        };
        let Some(namespace) = self.store.namespace(namespace) else {
            return Found::NoName;
        };
        let [service, rest @ ..] = rest else {
            return Found::NoData;
        };
        match self.store.service(namespace, service) {
            Some((entry, front)) => Question {
                zone: self,
                entry,
                front,
                asked,
                kind,
            }
            .answer(rest),
            None => Found::NoName,
        }
    }
}

/// A question about the name of a Service, or one below it.
struct Question<'a> {
    zone: &'a Zone,
    entry: &'a Entry,
    front: &'a Front,
    asked: &'a Name,
    kind: RecordType,
}

/// What SRV records lead to.
#[derive(Default)]
struct Leads<'a> {
    targets: Vec<(Label<'a>, u16)>,
    addresses: Vec<(Label<'a>, IpAddr)>,
}

impl Question<'_> {
    /// `rest` are the labels from the Service's outwards.
    fn answer(&self, rest: &[&str]) -> Found {
        match (&self.front.target, rest) {
            (Target::External(target), []) => self.alias(target),
            (Target::External(_), _) => Found::NoName,
            (Target::ClusterIps(ips), []) => match self.kind {
                RecordType::SRV => self.ports(0, self.own_ports(ips, None)),
                _ => records::few_addresses(self.asked, self.kind, self.ttl(), ips),
            },
            (Target::Headless, []) => self.endpoints(0, &Which::All),
            (target, [label]) => match label.strip_prefix('_').and_then(protocol) {
                Some(protocol) if self.has_ports(target, protocol) => Found::NoData,
                _ => self.endpoints(1, &Which::named(label)),
            },
            (target, [protocol, port]) => match Wanted::from(port, protocol) {
                Some(wanted) => self.port(target, &wanted),
                None => Found::NoName,
            },
            _ => Found::NoName,
        }
    }

    fn alias(&self, target: &str) -> Found {
        let Some(target) = external(target) else {
            return Found::NoName;
        };
        let data = RData::CNAME(CNAME(target));
        let record = Record::from_rdata(self.asked.clone(), self.ttl(), data);
        match self.kind {
            RecordType::CNAME => records::found(vec![record], Vec::new()),
            _ => Found::Alias(record),
        }
    }

    /// The name of a port.
    fn port(&self, target: &Target, wanted: &Wanted<'_>) -> Found {
        let leads = match target {
            Target::ClusterIps(ips) => self.own_ports(ips, Some(wanted)),
            _ => self.endpoint_ports(&Which::All, Some(wanted)),
        };
        match (leads.targets.is_empty(), self.kind) {
            (true, _) => Found::NoName,
            (false, RecordType::SRV) => self.ports(2, leads),
            (false, _) => Found::NoData,
        }
    }

    /// There are names of ports of this protocol.
    fn has_ports(&self, target: &Target, protocol: Protocol) -> bool {
        match target {
            Target::ClusterIps(_) => has_named(&self.front.ports, protocol),
            _ => self.zone.store.slices_of(self.entry).any(|slice| {
                let taken = slice.hosts.iter().any(|host| self.front.takes(host));
                taken && has_named(&slice.ports, protocol)
            }),
        }
    }

    fn own_ports(&self, ips: &[IpAddr], wanted: Option<&Wanted<'_>>) -> Leads<'static> {
        let ports = self
            .front
            .ports
            .iter()
            .filter(|port| is_wanted(port, wanted));
        Leads {
            targets: ports.map(|port| (Label::Service, port.number)).collect(),
            addresses: ips.iter().map(|&ip| (Label::Service, ip)).collect(),
        }
    }

    /// SRV records; the name of the Service is the one asked for without its first labels, `below` many.
    fn ports(&self, below: usize, leads: Leads<'_>) -> Found {
        let Leads {
            mut targets,
            mut addresses,
        } = leads;
        targets.sort_unstable();
        targets.dedup();
        addresses.sort_unstable();
        addresses.dedup();
        // All weigh the same.
        let weight = u16::try_from(100 / targets.len().max(1))
            .unwrap_or(100)
            .max(1);
        let service = self.service(below);
        let answers = targets.into_iter().filter_map(|(label, port)| {
            let data = SRV::new(0, weight, port, label.before(&service)?);
            let data = RData::SRV(data);
            Some(Record::from_rdata(self.asked.clone(), self.ttl(), data))
        });
        let answers: Vec<_> = answers.collect();
        if answers.is_empty() {
            return Found::NoData;
        }
        let additionals = addresses.into_iter().filter_map(|(label, ip)| {
            Some(records::address(&label.before(&service)?, self.ttl(), ip))
        });
        records::found(answers, additionals.collect())
    }

    /// The name asked for without its first labels.
    fn service(&self, below: usize) -> Name {
        self.asked
            .trim_to(self.asked.iter().len().saturating_sub(below))
    }

    fn ttl(&self) -> u32 {
        self.zone.settings.ttl
    }
}

/// The port that an SRV query is for.
struct Wanted<'a> {
    name: &'a str,
    protocol: Protocol,
}

impl<'a> Wanted<'a> {
    /// From `_http` and `_tcp`.
    fn from(port: &'a str, protocol: &str) -> Option<Self> {
        let name = port.strip_prefix('_').filter(|name| !name.is_empty())?;
        let protocol = self::protocol(protocol.strip_prefix('_')?)?;
        Some(Self { name, protocol })
    }
}

fn is_wanted(port: &Port, wanted: Option<&Wanted<'_>>) -> bool {
    wanted.is_none_or(|wanted| port.protocol == wanted.protocol && *port.name == *wanted.name)
}

fn protocol(text: &str) -> Option<Protocol> {
    match text {
        "tcp" => Some(Protocol::Tcp),
        "udp" => Some(Protocol::Udp),
        "sctp" => Some(Protocol::Sctp),
        _ => None,
    }
}

fn has_named(ports: &[Port], protocol: Protocol) -> bool {
    let mut ports = ports.iter();
    ports.any(|port| port.protocol == protocol && !port.name.is_empty())
}

/// The name that an ExternalName Service leads to, if it is one.
fn external(text: &str) -> Option<Name> {
    let host = text.strip_suffix('.').unwrap_or(text);
    let looks_like_address = host.parse::<IpAddr>().is_ok();
    let name = || Name::from_labels(host.split('.').map(str::as_bytes)).ok();
    (!looks_like_address).then(name).flatten()
}
