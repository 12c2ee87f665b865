//! Arbitrary news about few objects, so that they meet each other often.

use std::net::IpAddr;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::select;

use crate::model::{
    Endpoint, Event, Kind, ObjectName, Pod, Port, Protocol, Service, Slice, Target,
};

pub(crate) const NAMESPACES: [&str; 2] = ["shop", "lab"];
pub(crate) const SERVICES: [&str; 3] = ["web", "db", "10-0-0-1"];
pub(crate) const HOSTNAMES: [&str; 3] = ["db-0", "db-1", "10-0-0-1"];
pub(crate) const PORTS: [&str; 3] = ["http", "dns", ""];
pub(crate) const ENDPOINTS: [&str; 5] = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1", "fd00::"];
pub(crate) const CLUSTER_IPS: [&str; 3] = ["10.96.0.1", "10.96.0.2", "fd00:96::1"];
pub(crate) const PROTOCOLS: [(&str, Protocol); 3] = [
    ("_tcp", Protocol::Tcp),
    ("_udp", Protocol::Udp),
    ("_sctp", Protocol::Sctp),
];
const EXTERNALS: [&str; 3] = [
    "www.example.com",
    "web.shop.svc.cluster.local.",
    "203.0.113.9",
];

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn object_name(names: &'static [&'static str]) -> impl Strategy<Value = ObjectName> {
    let words = (select(&NAMESPACES[..]), select(names));
    words.prop_map(|(namespace, name)| ObjectName {
        namespace: namespace.into(),
        name: name.into(),
    })
}

fn kind() -> impl Strategy<Value = Kind> {
    select(vec![Kind::Services, Kind::Slices, Kind::Pods])
}

fn ports() -> impl Strategy<Value = Box<[Port]>> {
    let port = (select(&PORTS[..]), select(&PROTOCOLS[..]), 1..3_u16);
    let port = port.prop_map(|(name, (_, protocol), number)| Port {
        name: name.into(),
        protocol,
        number,
    });
    prop::collection::vec(port, 0..3).prop_map(Into::into)
}

fn service() -> impl Strategy<Value = Service> {
    let ips = prop::sample::subsequence(&CLUSTER_IPS[..], 1..=2);
    let ips = ips.prop_map(|ips| Target::ClusterIps(ips.into_iter().map(ip).collect()));
    let external = select(&EXTERNALS[..]).prop_map(|name| Target::External(name.into()));
    let target = prop_oneof![3 => ips, 4 => Just(Target::Headless), 1 => external];
    let parts = (object_name(&SERVICES), target, ports(), any::<bool>());
    parts.prop_map(|(name, target, ports, publish_not_ready)| Service {
        name,
        target,
        ports,
        publish_not_ready,
    })
}

fn slice() -> impl Strategy<Value = Slice> {
    let endpoint = (
        prop::sample::subsequence(&ENDPOINTS[..], 1..3),
        prop::option::of(select(&HOSTNAMES[..])),
        any::<bool>(),
    );
    let endpoint = endpoint.prop_map(|(ips, hostname, ready)| Endpoint {
        addresses: ips.into_iter().map(ip).collect(),
        hostname: hostname.map(Arc::from),
        ready,
    });
    let endpoints = prop::collection::vec(endpoint, 0..4);
    let parts = (
        object_name(&["s1", "s2", "s3"]),
        select(&SERVICES[..]),
        endpoints,
        ports(),
    );
    parts.prop_map(|(name, service, endpoints, ports)| Slice {
        name,
        service: service.into(),
        endpoints: endpoints.into(),
        ports,
        changed: None,
    })
}

fn pod() -> impl Strategy<Value = Pod> {
    let parts = (
        object_name(&["p1", "p2"]),
        prop::sample::subsequence(&ENDPOINTS[..], 1..3),
    );
    parts.prop_map(|(name, ips)| Pod {
        name,
        ips: ips.into_iter().map(ip).collect(),
    })
}

/// Any piece of news.
pub(crate) fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => service().prop_map(Event::Service),
        8 => slice().prop_map(Event::Slice),
        2 => pod().prop_map(Event::Pod),
        2 => object_name(&SERVICES).prop_map(Event::ServiceGone),
        2 => object_name(&["s1", "s2", "s3"]).prop_map(Event::SliceGone),
        1 => object_name(&["p1", "p2"]).prop_map(Event::PodGone),
        1 => kind().prop_map(Event::Restarted),
        1 => kind().prop_map(Event::Listed),
    ]
}
