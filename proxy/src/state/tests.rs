//! The rules as tables, and properties of any sequence of events.

mod choice;
mod clash;
mod life;
mod properties;

use super::*;
use crate::model::{
    Endpoint, LocalDetector, NodePortAddresses, Policy, Protocol, Service, ServicePort, Slice,
    SliceEndpoint, SlicePort,
};

const FAMILIES: [Family; 2] = Family::ALL;

/// A node `n1` that serves both families.
fn sites() -> [Site; 2] {
    FAMILIES.map(|family| Site {
        family,
        node: "n1".into(),
        masquerade_all: false,
        masquerade_mark: 0x4000,
        local: LocalDetector::None,
        node_port_addresses: NodePortAddresses::All,
        service_cidrs: Vec::new(),
        affinity_by_hash: false,
        localhost_node_ports: false,
        conntrack_liberal: false,
    })
}

fn state() -> State {
    State::new(sites())
}

fn has(service: Service) -> Event {
    Event::Service(Arc::new(service))
}

fn has_slice(slice: Slice) -> Event {
    Event::Slice(Arc::new(slice))
}

/// The one port of all Services here.
fn port(service: &str) -> PortName {
    PortName {
        service: ObjectName::new("shop", service),
        port: "http".into(),
        protocol: Protocol::Tcp,
    }
}

fn service(name: &str, ips: &[&str]) -> Service {
    Service {
        name: ObjectName::new("shop", name),
        created: 0,
        cluster_ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        source_ranges: Vec::new(),
        ports: vec![ServicePort {
            name: "http".into(),
            protocol: Protocol::Tcp,
            port: 80,
            node_port: None,
        }],
        internal_policy: Policy::Cluster,
        external_policy: Policy::Cluster,
        affinity: None,
        health_check_node_port: None,
    }
}

/// One endpoint in a few words: an address, then any of `unready`, `drains` (serving, terminating,
/// not ready), `gone` (terminating, not serving), `on=NODE`, `node=HINT`, `zone=HINT`.
fn endpoint(words: &str) -> SliceEndpoint {
    let mut words = words.split_whitespace();
    let mut endpoint = SliceEndpoint {
        address: words.next().unwrap().parse().unwrap(),
        ready: true,
        serving: true,
        terminating: false,
        node: None,
        zone_hints: Box::default(),
        node_hints: Box::default(),
    };
    let (mut zone_hints, mut node_hints) = (Vec::new(), Vec::new());
    for word in words {
        match word.split_once('=').unwrap_or((word, "")) {
            ("unready", _) => (endpoint.ready, endpoint.serving) = (false, false),
            ("drains", _) => (endpoint.ready, endpoint.terminating) = (false, true),
            ("gone", _) => {
                (endpoint.ready, endpoint.serving, endpoint.terminating) = (false, false, true);
            }
            ("ready+terminating", _) => endpoint.terminating = true,
            ("on", node) => endpoint.node = Some(node.into()),
            ("node", hint) => node_hints.push(hint.into()),
            ("zone", hint) => zone_hints.push(hint.into()),
            _ => panic!("{word}"),
        }
    }
    endpoint.zone_hints = zone_hints.into();
    endpoint.node_hints = node_hints.into();
    endpoint
}

fn slice(name: &str, of: &str, endpoints: &[&str]) -> Slice {
    let endpoints: Vec<_> = endpoints.iter().map(|words| endpoint(words)).collect();
    let first = endpoints
        .first()
        .map(|endpoint| Family::of(endpoint.address));
    Slice {
        name: ObjectName::new("shop", name),
        service: ObjectName::new("shop", of),
        family: first.unwrap_or(Family::V4),
        ports: vec![SlicePort {
            name: "http".into(),
            protocol: Protocol::Tcp,
            port: 8080,
        }],
        endpoints,
        triggered: None,
    }
}

/// Endpoints as `address:port`, with `!` behind those of this node.
fn shown(endpoints: &[Endpoint]) -> Vec<String> {
    let show = |one: &Endpoint| {
        let mark = if one.local { "!" } else { "" };
        format!("{}:{}{mark}", one.ip, one.port)
    };
    endpoints.iter().map(show).collect()
}

/// A front as `kind address:port`.
fn shown_fronts(state: &State, family: Family, service: &str) -> Vec<String> {
    let Some(balancer) = state.wanted(family).unwrap().balancers.get(&port(service)) else {
        return vec!["none".to_owned()];
    };
    let fronts = balancer.fronts.iter().map(|front| match front.ip {
        Some(ip) => format!("{:?} {ip}:{}", front.kind, front.port),
        None => format!("{:?} {}", front.kind, front.port),
    });
    fronts.collect()
}
