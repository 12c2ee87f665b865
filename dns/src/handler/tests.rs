//! Packets in, packets out; upstreams are real servers on loopback.

use std::net::Ipv4Addr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::{DNSClass, Name, RData, Record};
use prometheus::Registry;

use super::*;
use crate::forward;
use crate::model::{
    Endpoint, Event, Kind, ObjectName, Pod, Port, Protocol, Service, Slice, Target,
};
use crate::zone;

mod fuzz;
mod rules;
mod told;
mod upstream;

/// The client of most tests; the zone knows it as Pod `shop/cart`.
const CLIENT: &str = "10.244.0.7:40000";

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn object(namespace: &str, name: &str) -> ObjectName {
    ObjectName {
        namespace: namespace.into(),
        name: name.into(),
    }
}

fn service(namespace: &str, name: &str, target: Target) -> Event {
    let ports = [Port {
        name: "http".into(),
        protocol: Protocol::Tcp,
        number: 80,
    }]
    .into();
    Event::Service(Service {
        name: object(namespace, name),
        target,
        ports,
        publish_not_ready: false,
    })
}

fn external(name: &str, target: &str) -> Event {
    service("shop", name, Target::External(target.into()))
}

/// A zone with: `shop/web` (10.96.0.20), headless `shop/many` of 100 endpoints, `shop/three` of three, aliases, and the client's Pod.
fn zone() -> Zone {
    let mut zone = Zone::new(zone::Settings::new(name("cluster.local.")));
    let slice = |name: &str, count: u8| {
        Event::Slice(Slice {
            name: object("shop", &format!("{name}-1")),
            service: name.into(),
            endpoints: (1..=count)
                .map(|n| Endpoint {
                    addresses: [IpAddr::from([10, 244, 1, n])].into(),
                    hostname: None,
                    ready: true,
                })
                .collect(),
            ports: [Port {
                name: "http".into(),
                protocol: Protocol::Tcp,
                number: 80,
            }]
            .into(),
            changed: None,
        })
    };
    zone.apply(vec![
        Event::Restarted(Kind::Services),
        Event::Restarted(Kind::Slices),
        Event::Restarted(Kind::Pods),
        service(
            "shop",
            "web",
            Target::ClusterIps([IpAddr::from([10, 96, 0, 20])].into()),
        ),
        service(
            "other",
            "far",
            Target::ClusterIps([IpAddr::from([10, 96, 0, 21])].into()),
        ),
        service("shop", "many", Target::Headless),
        service("shop", "three", Target::Headless),
        slice("many", 100),
        slice("three", 3),
        external("alias", "web.shop.svc.cluster.local"),
        external("alias2", "alias.shop.svc.cluster.local"),
        external("ring", "gnir.shop.svc.cluster.local"),
        external("gnir", "ring.shop.svc.cluster.local"),
        external("self", "self.shop.svc.cluster.local"),
        external("nowhere", "missing.shop.svc.cluster.local"),
        external("out", "www.example.com"),
        external("lost", "nothing.example.com"),
        external("down", "broken.example.com"),
        Event::Pod(Pod {
            name: object("shop", "cart"),
            ips: [IpAddr::from([10, 244, 0, 7])].into(),
        }),
        Event::Listed(Kind::Services),
        Event::Listed(Kind::Slices),
        Event::Listed(Kind::Pods),
    ]);
    zone
}

struct Bench {
    handler: Arc<Handler>,
    server: Arc<Server>,
    registry: Registry,
}

fn settings() -> Settings {
    Settings {
        recursive: true,
        search: None,
        limits: limits::Settings::default(),
        query_log: false,
    }
}

impl Bench {
    fn new(zone: Zone, upstreams: Vec<SocketAddr>, settings: Settings) -> Self {
        let registry = Registry::new();
        let forward = Forward::new(
            forward::Settings {
                upstreams,
                ..forward::Settings::default()
            },
            &registry,
        )
        .unwrap();
        let metrics = Arc::new(Metrics::new(&registry, &name("cluster.local.")).unwrap());
        let server = Arc::new(metrics.server("10.96.0.10:53".parse().unwrap()));
        let handler = Handler::new(Arc::new(RwLock::new(zone)), forward, metrics, settings);
        Self {
            handler,
            server,
            registry,
        }
    }

    /// Without upstreams.
    fn alone() -> Self {
        Self::new(zone(), Vec::new(), settings())
    }

    fn begin(&self, packet: &[u8], client: &str, transport: Transport, out: &mut Vec<u8>) -> Step {
        let origin = Origin {
            client: client.parse().unwrap(),
            transport,
            server: &self.server,
        };
        self.handler.begin(packet, origin, Instant::now(), out)
    }

    /// The answer to a packet that memory answers; none if it gets none.
    fn answer_bytes(&self, packet: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        match self.begin(packet, CLIENT, transport, &mut out) {
            Step::Answered => Some(out),
            Step::Silence => None,
            Step::Pending(_) => panic!("would ask others"),
        }
    }

    fn answer(&self, query: &Message) -> Message {
        Message::from_vec(
            &self
                .answer_bytes(&query.to_vec().unwrap(), Transport::Udp)
                .unwrap(),
        )
        .unwrap()
    }

    fn ask(&self, text: &str, record_type: RecordType) -> Message {
        self.answer(&query(text, record_type))
    }

    /// The answer to a packet, from wherever.
    async fn finish(&self, query: &Message, client: &str) -> Message {
        let mut out = Vec::new();
        match self.begin(&query.to_vec().unwrap(), client, Transport::Udp, &mut out) {
            Step::Answered => {}
            Step::Silence => panic!("no answer"),
            Step::Pending(pending) => self.handler.finish(pending, &mut out).await,
        }
        Message::from_vec(&out).unwrap()
    }

    fn scrape(&self) -> String {
        prometheus::TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap()
    }
}

fn query(text: &str, record_type: RecordType) -> Message {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.queries.push(Query::query(name(text), record_type));
    message
}

fn edns(payload: u16) -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(payload);
    edns
}

/// Owner, type and data of records, one string each.
fn lines(records: &[Record]) -> Vec<String> {
    records
        .iter()
        .map(|record| format!("{} {} {}", record.name, record.record_type(), record.data))
        .collect()
}

/// The code of the extended error in an answer (RFC 8914).
fn reason(answer: &Message) -> Option<u16> {
    match answer.edns.as_ref()?.option(15u16.into())? {
        EdnsOption::Unknown(_, data) => data.first_chunk().map(|code| u16::from_be_bytes(*code)),
        _ => None,
    }
}
