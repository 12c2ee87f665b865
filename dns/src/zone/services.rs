//! Names of Services, their endpoints and their ports.

use std::net::IpAddr;

use hickory_proto::rr::rdata::{CNAME, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::store::{Entry, Front, Held, Host};
use super::{Found, Zone, labels, records};
use crate::model::{Port, Protocol, Target};

/// The label of an endpoint: its host name, else its dashed address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Label<'a> {
    Named(&'a str),
    Dashed(IpAddr),
}

impl<'a> Label<'a> {
    pub(super) fn of(host: &'a Host) -> Self {
        match &host.hostname {
            Some(name) => Self::Named(name),
            None => Self::Dashed(host.address),
        }
    }

    /// The name of the endpoint, given its Service's.
    pub(super) fn before(self, service: &Name) -> Option<Name> {
        match self {
            Self::Named(name) => records::below([name.as_bytes()], service),
            Self::Dashed(ip) => records::below([labels::dash(ip).as_bytes()], service),
        }
    }
}

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
        let Some((entry, front)) = self.store.service(namespace, service) else {
            return Found::NoName;
        };
        match &front.target {
            Target::External(target) => match rest {
                [] => self.alias(asked, target, kind),
                _ => Found::NoName,
            },
            Target::ClusterIps(ips) => {
                self.with_cluster_ips(asked, rest, kind, (entry, front, ips))
            }
            Target::Headless => self.headless(asked, rest, kind, (entry, front)),
        }
    }

    fn alias(&self, asked: &Name, target: &str, kind: RecordType) -> Found {
        let Some(target) = external(target) else {
            return Found::NoName;
        };
        let record = Record::from_rdata(
            asked.clone(),
            self.settings.ttl,
            RData::CNAME(CNAME(target)),
        );
        match kind {
            RecordType::CNAME => records::found(vec![record], Vec::new()),
            _ => Found::Alias(record),
        }
    }

    fn with_cluster_ips(
        &self,
        asked: &Name,
        rest: &[&str],
        kind: RecordType,
        (entry, front, ips): (&Entry, &Front, &[IpAddr]),
    ) -> Found {
        let ttl = self.settings.ttl;
        match *rest {
            [] if kind == RecordType::SRV => self.own_ports(asked, asked, &front.ports, ips),
            [] => records::addresses(asked, kind, ttl, ips.to_vec()),
            [label] => match label.strip_prefix('_').and_then(protocol) {
                Some(protocol) if has_named(&front.ports, protocol) => Found::NoData,
                _ => self.endpoint(asked, label, kind, (entry, front)),
            },
            [protocol, port] => {
                let Some(wanted) = Wanted::from(port, protocol) else {
                    return Found::NoName;
                };
                let ports: Vec<_> = front
                    .ports
                    .iter()
                    .filter(|port| wanted.is(port))
                    .cloned()
                    .collect();
                match (ports.is_empty(), kind) {
                    (true, _) => Found::NoName,
                    (false, RecordType::SRV) => {
                        let service = asked.trim_to(asked.iter().len() - 2);
                        self.own_ports(asked, &service, &ports, ips)
                    }
                    (false, _) => Found::NoData,
                }
            }
            _ => Found::NoName,
        }
    }

    /// SRV records that lead to the Service itself.
    fn own_ports(&self, asked: &Name, service: &Name, ports: &[Port], ips: &[IpAddr]) -> Found {
        let ttl = self.settings.ttl;
        let mut numbers: Vec<_> = ports.iter().map(|port| port.number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let weight = weight(numbers.len());
        let answers = numbers.into_iter().map(|number| {
            let data = SRV::new(0, weight, number, service.clone());
            Record::from_rdata(asked.clone(), ttl, RData::SRV(data))
        });
        let additionals = ips.iter().map(|&ip| records::address(service, ttl, ip));
        records::found(answers.collect(), additionals.collect())
    }

    fn headless(
        &self,
        asked: &Name,
        rest: &[&str],
        kind: RecordType,
        of: (&Entry, &Front),
    ) -> Found {
        let service = |labels: usize| asked.trim_to(asked.iter().len() - labels);
        match *rest {
            [] if kind == RecordType::SRV => self.endpoint_ports(asked, &service(0), None, of),
            [] => match self.addresses(of) {
                ips if ips.is_empty() => Found::NoName,
                ips => records::addresses(asked, kind, self.settings.ttl, ips),
            },
            [label] => {
                let protocol = label.strip_prefix('_').and_then(protocol);
                let has = |slice: &Held| {
                    let named = protocol.is_some_and(|protocol| has_named(&slice.ports, protocol));
                    named && slice.hosts.iter().any(|host| of.1.takes(host))
                };
                match self.store.slices_of(of.0).any(has) {
                    true => Found::NoData,
                    false => self.endpoint(asked, label, kind, of),
                }
            }
            [protocol, port] => {
                let Some(wanted) = Wanted::from(port, protocol) else {
                    return Found::NoName;
                };
                match self.endpoint_ports(asked, &service(2), Some(&wanted), of) {
                    found @ Found::Records { .. } if kind == RecordType::SRV => found,
                    Found::Records { .. } => Found::NoData,
                    _ => Found::NoName,
                }
            }
            _ => Found::NoName,
        }
    }

    /// The name of an endpoint.
    fn endpoint(&self, asked: &Name, label: &str, kind: RecordType, of: (&Entry, &Front)) -> Found {
        let spelt = labels::dashed(label);
        let mut ips = Vec::new();
        let mut slices = Vec::new();
        for slice in self.store.slices_of(of.0) {
            let named = named(slice, label);
            let plain = match spelt {
                Some(ip) => unnamed(slice, ip),
                None => &[],
            };
            let hosts = named.iter().chain(plain).filter(|host| of.1.takes(host));
            let known = ips.len();
            ips.extend(hosts.map(|host| host.address));
            if ips.len() > known {
                slices.push(slice);
            }
        }
        if ips.is_empty() {
            return Found::NoName;
        }
        if kind != RecordType::SRV {
            return records::addresses(asked, kind, self.settings.ttl, ips);
        }
        let mut ports: Vec<Port> = slices
            .iter()
            .flat_map(|slice| slice.ports.iter().cloned())
            .collect();
        ports.dedup();
        self.own_ports(asked, asked, &ports, &ips)
    }

    /// Addresses of the endpoints that count.
    fn addresses(&self, (entry, front): (&Entry, &Front)) -> Vec<IpAddr> {
        let mut ips = Vec::new();
        for slice in self.store.slices_of(entry) {
            let hosts = slice.hosts.iter();
            let hosts = hosts.filter(|host| front.takes(host));
            ips.extend(hosts.map(|host| host.address));
        }
        ips
    }

    /// SRV records that lead to the endpoints.
    fn endpoint_ports(
        &self,
        asked: &Name,
        service: &Name,
        wanted: Option<&Wanted<'_>>,
        (entry, front): (&Entry, &Front),
    ) -> Found {
        let mut targets = Vec::new();
        let mut addresses = Vec::new();
        let mut any = false;
        for slice in self.store.slices_of(entry) {
            let ports = slice
                .ports
                .iter()
                .filter(|port| wanted.is_none_or(|wanted| wanted.is(port)));
            let ports: Vec<_> = ports.map(|port| port.number).collect();
            let hosts = slice.hosts.iter();
            for host in hosts.filter(|host| front.takes(host)) {
                any = true;
                let label = Label::of(host);
                targets.extend(ports.iter().map(|&port| (label, port)));
                if !ports.is_empty() {
                    addresses.push((label, host.address));
                }
            }
        }
        if !any {
            return Found::NoName;
        }
        targets.sort_unstable();
        targets.dedup();
        addresses.sort_unstable();
        addresses.dedup();
        let (ttl, weight) = (self.settings.ttl, weight(targets.len()));
        let answers = targets.into_iter().filter_map(|(label, port)| {
            let data = SRV::new(0, weight, port, label.before(service)?);
            Some(Record::from_rdata(asked.clone(), ttl, RData::SRV(data)))
        });
        let additionals = addresses
            .into_iter()
            .filter_map(|(label, ip)| Some(records::address(&label.before(service)?, ttl, ip)));
        records::found(answers.collect(), additionals.collect())
    }
}

/// The hosts of this name.
fn named<'a>(slice: &'a Held, label: &str) -> &'a [Host] {
    let less = slice
        .hosts
        .partition_point(|host| host.hostname.as_deref() < Some(label));
    let most = slice
        .hosts
        .partition_point(|host| host.hostname.as_deref() <= Some(label));
    slice.hosts.get(less..most).unwrap_or_default()
}

/// The hosts of this address that have no name.
fn unnamed(slice: &Held, ip: IpAddr) -> &[Host] {
    let key = |host: &Host| (host.hostname.is_some(), host.address);
    let less = slice.hosts.partition_point(|host| key(host) < (false, ip));
    let most = slice.hosts.partition_point(|host| key(host) <= (false, ip));
    slice.hosts.get(less..most).unwrap_or_default()
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

    fn is(&self, port: &Port) -> bool {
        port.protocol == self.protocol && *port.name == *self.name
    }
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
    ports
        .iter()
        .any(|port| port.protocol == protocol && !port.name.is_empty())
}

/// All records of an answer weigh the same.
fn weight(records: usize) -> u16 {
    u16::try_from(100 / records.max(1)).unwrap_or(100).max(1)
}

/// The name that an ExternalName Service leads to, if it is one.
fn external(text: &str) -> Option<Name> {
    let host = text.strip_suffix('.').unwrap_or(text);
    let looks_like_address = host.parse::<IpAddr>().is_ok();
    let name = || Name::from_labels(host.split('.').map(str::as_bytes)).ok();
    (!looks_like_address).then(name).flatten()
}
