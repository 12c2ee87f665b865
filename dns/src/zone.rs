//! The zone of the cluster: what each name stands for, from the objects told so far. Pure: no I/O, no clock.
//!
//! Records are those of the Kubernetes DNS specification 1.1.0. Where it leaves room, CoreDNS is followed:
//!
//! - Endpoints of Services with a cluster IP have names too, and PTR records if they are ready.
//! - An SRV query for the name of a Service, or of an endpoint, yields all its ports, unnamed ones included.
//! - An ExternalName that looks like an IP address has no record at all: Kubernetes promises that DNS does not
//!   resolve it, and as a name it would only trouble the root servers.
//! - A headless Service without a ready endpoint does not exist (NXDOMAIN), as the specification says.
//!
//! Unlike CoreDNS, names that exist only because others are below them (`_tcp.web.default.svc.cluster.local`,
//! `96.10.in-addr.arpa`) are empty rather than missing: RFC 8020 lets resolvers take "missing" for the whole tree.
//! Namespaces are not watched, so one exists if any object in it is known; where Pods are not checked
//! ([`PodMode::Insecure`]), every namespace has Pods.

mod labels;
mod pods;
mod records;
mod reverse;
mod services;
mod store;
#[cfg(test)]
pub(crate) mod tests;

use std::net::IpAddr;

use hickory_proto::rr::rdata::{NS, SOA, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use ipnet::IpNet;

use crate::model::{Event, Kind, ObjectName, Target};
use store::Store;

/// How names of Pods by their address (`10-0-0-1.default.pod.cluster.local`) are answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PodMode {
    /// They do not exist.
    Disabled,
    /// They say what the name says, whether there is such a Pod or not.
    #[default]
    Insecure,
    /// They exist while a Pod of the namespace has the address. Needs the Pods to be watched.
    Verified,
}

/// What the zone is like.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The cluster domain (`cluster.local`).
    pub domain: Name,
    /// Time to live of records, in seconds; also of negative answers.
    pub ttl: u32,
    /// Names of Pods.
    pub pods: PodMode,
    /// Networks of the cluster (of Pods and of Services): reverse names in them are never asked of others.
    pub own_reverse: Vec<IpNet>,
    /// Addresses of `ns.dns.<zone>`, the server that the zone's NS record names.
    pub servers: Vec<IpAddr>,
}

impl Settings {
    /// Time to live without a setting, as CoreDNS has it.
    pub const DEFAULT_TTL: u32 = 5;

    /// A zone with defaults.
    pub fn new(domain: Name) -> Self {
        Self {
            domain,
            ttl: Self::DEFAULT_TTL,
            pods: PodMode::default(),
            own_reverse: Vec::new(),
            servers: Vec::new(),
        }
    }
}

/// The answer to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "made once for each question and stored nowhere"
)]
pub enum Found {
    /// Records, in an order that depends on nothing but what they say.
    Records {
        /// At least one.
        answers: Vec<Record>,
        /// Addresses of names in the answers.
        additionals: Vec<Record>,
    },
    /// The CNAME record of an ExternalName Service, to be followed.
    Alias(Record),
    /// The name exists, but has no such record.
    NoData,
    /// The name does not exist, and it is ours to say so.
    NoName,
    /// Not ours: ask others.
    Foreign,
    /// Ours, but not everything is known yet.
    Unknown,
}

/// The zone: objects in, answers out.
#[derive(Debug)]
pub struct Zone {
    settings: Settings,
    /// `svc.<zone>`, which all PTR records end in.
    services: Name,
    /// `ns.dns.<zone>`.
    server: Name,
    store: Store,
}

impl Zone {
    /// An empty zone, which knows nothing yet.
    pub fn new(mut settings: Settings) -> Self {
        settings.domain.set_fqdn(true);
        settings.domain = settings.domain.to_lowercase();
        let below = |labels: &[&str]| {
            records::below(
                labels.iter().map(|label| label.as_bytes()),
                &settings.domain,
            )
            // A domain so long that nothing fits below it has no Service either.
            .unwrap_or_else(|| settings.domain.clone())
        };
        Self {
            services: below(&["svc"]),
            server: below(&["ns", "dns"]),
            settings,
            store: Store::default(),
        }
    }

    /// Takes news in. Costs what the news say, not what the zone holds; only [`Event::Listed`] looks at all objects
    /// of its kind.
    pub fn apply(&mut self, events: Vec<Event>) {
        for event in events {
            self.store.apply(event);
        }
    }

    /// All Services and EndpointSlices have been told once, by the API or by a snapshot.
    pub fn is_complete(&self) -> bool {
        self.store.is_listed(Kind::Services) && self.store.is_listed(Kind::Slices)
    }

    /// What the name stands for. Owners of records are spelt as asked.
    pub fn resolve(&self, asked: &Name, kind: RecordType) -> Found {
        match labels::below(asked, &self.settings.domain) {
            Some(depth) => self.inside(asked, depth, kind),
            None => self.reverse(asked, kind),
        }
    }

    /// A name `depth` labels below the domain.
    fn inside(&self, asked: &Name, depth: usize, kind: RecordType) -> Found {
        let mut lower = labels::Lower::default();
        // From the domain outwards; past five labels nothing exists.
        let mut labels = [""; 5];
        if depth > labels.len() || !lower.read(asked.iter().take(depth), &mut labels) {
            return Found::NoName;
        }
        match labels[..depth] {
            [] => self.apex(asked, kind),
            ["dns-version"] => records::of_type(kind, RecordType::TXT, || {
                let text = RData::TXT(TXT::new(vec![SCHEMA.to_owned()]));
                vec![Record::from_rdata(asked.clone(), SCHEMA_TTL, text)]
            }),
            ["dns" | "svc" | "pod"] => Found::NoData,
            ["dns", "ns"] => records::addresses(
                asked,
                kind,
                self.settings.ttl,
                self.settings.servers.iter().copied(),
            ),
            ["svc", ..] if !self.is_complete() => Found::Unknown,
            ["svc", ref rest @ ..] => self.service(asked, rest, kind),
            ["pod", ref rest @ ..] => self.pod_form(asked, rest, kind),
            _ => Found::NoName,
        }
    }

    fn apex(&self, asked: &Name, kind: RecordType) -> Found {
        let mut additionals = Vec::new();
        let data = match kind {
            RecordType::SOA => self.start_of_authority(),
            RecordType::NS => {
                let servers = self.settings.servers.iter();
                additionals.extend(
                    servers.map(|&ip| records::address(&self.server, self.settings.ttl, ip)),
                );
                RData::NS(NS(self.server.clone()))
            }
            _ => return Found::NoData,
        };
        Found::Records {
            answers: vec![Record::from_rdata(asked.clone(), self.settings.ttl, data)],
            additionals,
        }
    }

    /// The SOA record of the zone, for negative answers below the domain.
    pub fn soa(&self) -> Record {
        Record::from_rdata(
            self.settings.domain.clone(),
            self.settings.ttl,
            self.start_of_authority(),
        )
    }

    /// The SOA record for a negative answer about this name: of the zone, or of the part of the reverse tree that is
    /// the cluster's own.
    pub fn soa_for(&self, asked: &Name) -> Record {
        match labels::below(asked, &self.settings.domain) {
            Some(_) => self.soa(),
            None => Record::from_rdata(
                self.reverse_apex(asked),
                self.settings.ttl,
                self.start_of_authority(),
            ),
        }
    }

    /// Times as CoreDNS states them, for secondaries that do not exist. RFC 2308: the last one is how long a negative
    /// answer is kept.
    fn start_of_authority(&self) -> RData {
        let hostmaster = records::below([b"hostmaster".as_slice()], &self.settings.domain);
        RData::SOA(SOA::new(
            self.server.clone(),
            hostmaster.unwrap_or_else(|| self.settings.domain.clone()),
            self.store.serial(),
            7200,
            1800,
            86_400,
            self.settings.ttl,
        ))
    }

    /// The Pod that has this address.
    pub fn pod(&self, address: IpAddr) -> Option<&ObjectName> {
        self.store.pods_at(address).next()
    }

    /// Whether there is such a headless Service; none if there is no such Service.
    pub fn is_headless(&self, namespace: &str, service: &str) -> Option<bool> {
        let namespace = self.store.namespace(namespace)?;
        let (_, front) = self.store.service(namespace, service)?;
        Some(front.target == Target::Headless)
    }

    /// All that is known, as news that make a zone of the same answers.
    pub fn told(&self) -> impl Iterator<Item = Event> {
        self.store.told()
    }

    /// Numbers of Services, EndpointSlices and Pods.
    pub fn counts(&self) -> [usize; 3] {
        self.store.counts()
    }
}

/// The version of the specification.
const SCHEMA: &str = "1.1.0";
/// As the specification's example and CoreDNS have it, in seconds.
const SCHEMA_TTL: u32 = 28_800;
