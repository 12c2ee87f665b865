//! A Service, reduced.

use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{self, ServiceSpec};

use super::{Complaints, has_label, parse_ip, parse_net, port_name, port_number, protocol};
use crate::model::{Family, ObjectName, Policy, Service, ServicePort};

/// Says that another proxy serves it.
const OTHER_PROXY: &str = "service.kubernetes.io/service-proxy-name";
const DEFAULT_AFFINITY: u32 = 10_800;
/// The API allows at most a day.
const LONGEST_AFFINITY: u32 = 86_400;

/// `None` when it is not proxied: headless, ExternalName, or another proxy's.
pub(super) fn reduce(
    object: &v1::Service,
    name: &ObjectName,
    said: &mut Complaints,
) -> Option<Service> {
    let spec = object.spec.as_ref()?;
    if has_label(&object.metadata, OTHER_PROXY) || spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    let cluster_ips = cluster_ips(spec, said)?;
    let external_policy = policy(
        spec.external_traffic_policy.as_deref(),
        "externalTrafficPolicy",
        said,
    );
    let balanced = spec.type_.as_deref() == Some("LoadBalancer");
    let health_check = spec.health_check_node_port.filter(|&port| port != 0);
    let (source_ranges, closed) = source_ranges(spec, said);
    let created = object.metadata.creation_timestamp.as_ref();
    Some(Service {
        name: name.clone(),
        created: created.map_or(0, |time| time.0.as_second()),
        cluster_ips,
        external_ips: addresses(
            spec.external_ips.iter().flatten().map(String::as_str),
            "spec.externalIPs",
            said,
        ),
        load_balancer_ips: if closed {
            Vec::new()
        } else {
            load_balancer_ips(object, said)
        },
        source_ranges,
        ports: ports(spec, said),
        internal_policy: policy(
            spec.internal_traffic_policy.as_deref(),
            "internalTrafficPolicy",
            said,
        ),
        external_policy,
        affinity: affinity(spec, said),
        health_check_node_port: match health_check {
            Some(number) if balanced && external_policy == Policy::Local => {
                let port = port_number(number);
                if port.is_none() {
                    said.say(format_args!(
                        "spec.healthCheckNodePort {number} is no port number"
                    ));
                }
                port
            }
            _ => None,
        },
    })
}

/// `None` for a headless Service, and for one that has not got its address yet.
fn cluster_ips(spec: &ServiceSpec, said: &mut Complaints) -> Option<Vec<IpAddr>> {
    let many: Vec<_> = spec.cluster_ips.iter().flatten().collect();
    let texts = if many.is_empty() {
        spec.cluster_ip.iter().collect()
    } else {
        many
    };
    if texts.iter().any(|text| *text == "None") {
        return None;
    }
    let texts = texts.into_iter().map(String::as_str);
    let mut ips = Vec::new();
    for ip in addresses(texts, "spec.clusterIPs", said) {
        if ips.iter().any(|&other| Family::of(other) == Family::of(ip)) {
            said.say(format_args!(
                "spec.clusterIPs: {ip} is a second one of its family"
            ));
        } else {
            ips.push(ip);
        }
    }
    (!ips.is_empty()).then_some(ips)
}

/// In order, each once. An empty text is one that is not there.
fn addresses<'a>(
    texts: impl Iterator<Item = &'a str>,
    field: &str,
    said: &mut Complaints,
) -> Vec<IpAddr> {
    let mut ips = Vec::new();
    for text in texts.filter(|text| !text.trim().is_empty()) {
        match parse_ip(text) {
            Ok(ip) if ips.contains(&ip) => {}
            Ok(ip) => ips.push(ip),
            Err(cause) => said.say(format_args!("{field}: {cause}")),
        }
    }
    ips.shrink_to_fit();
    ips
}

/// Those of mode VIP; a balancer of mode Proxy wants to see the packets itself.
fn load_balancer_ips(object: &v1::Service, said: &mut Complaints) -> Vec<IpAddr> {
    let status = object.status.as_ref();
    let ingress = status
        .and_then(|status| status.load_balancer.as_ref())
        .and_then(|balancer| balancer.ingress.as_ref());
    let texts = ingress
        .into_iter()
        .flatten()
        .filter(|ingress| matches!(ingress.ip_mode.as_deref(), None | Some("" | "VIP")))
        .filter_map(|ingress| ingress.ip.as_deref());
    addresses(texts, "status.loadBalancer.ingress", said)
}

/// The ranges, and whether the load balancer's addresses have to stay closed because nothing of
/// what was asked for can be read. A prefix of length zero admits its whole family, so no range of
/// that family is kept.
fn source_ranges(spec: &ServiceSpec, said: &mut Complaints) -> (Vec<IpNet>, bool) {
    let texts = spec.load_balancer_source_ranges.iter().flatten();
    let mut ranges: Vec<IpNet> = Vec::new();
    let mut bad = false;
    for text in texts.filter(|text| !text.trim().is_empty()) {
        match parse_net(text) {
            Ok(net) => ranges.push(net),
            Err(cause) => {
                bad = true;
                said.say(format_args!("spec.loadBalancerSourceRanges: {cause}"));
            }
        }
    }
    let closed = bad && ranges.is_empty();
    if closed {
        said.say(
            "spec.loadBalancerSourceRanges has no readable range: the load balancer's addresses stay closed",
        );
    }
    for family in Family::ALL {
        let mut of_family = ranges.iter().filter(|net| Family::of_net(net) == family);
        if of_family.any(|net| net.prefix_len() == 0) {
            ranges.retain(|net| Family::of_net(net) != family);
        }
    }
    ranges.sort_unstable();
    ranges.dedup();
    (ranges, closed)
}

fn ports(spec: &ServiceSpec, said: &mut Complaints) -> Vec<ServicePort> {
    let mut ports: Vec<ServicePort> = Vec::new();
    for port in spec.ports.iter().flatten() {
        let Some(name) = port_name(port.name.as_deref()) else {
            let name = port.name.as_deref().unwrap_or_default();
            said.say(format_args!(
                "spec.ports: the name {name:?} is not a DNS label"
            ));
            continue;
        };
        let Some(protocol) = protocol(port.protocol.as_deref()) else {
            let word = port.protocol.as_deref().unwrap_or_default();
            said.say(format_args!(
                "spec.ports {name:?}: unknown protocol {word:?}"
            ));
            continue;
        };
        let Some(number) = port_number(port.port) else {
            said.say(format_args!(
                "spec.ports {name:?}: {} is no port number",
                port.port
            ));
            continue;
        };
        if ports
            .iter()
            .any(|other| other.name == name && other.protocol == protocol)
        {
            said.say(format_args!(
                "spec.ports {name:?}: a second {protocol} port of this name"
            ));
            continue;
        }
        let node_port = port.node_port.filter(|&number| number != 0);
        if let Some(bad) = node_port.filter(|&number| port_number(number).is_none()) {
            said.say(format_args!("spec.ports {name:?}: {bad} is no node port"));
        }
        ports.push(ServicePort {
            name,
            protocol,
            port: number,
            node_port: node_port.and_then(port_number),
        });
    }
    ports.shrink_to_fit();
    ports
}

fn policy(text: Option<&str>, field: &str, said: &mut Complaints) -> Policy {
    match text {
        None | Some("" | "Cluster") => Policy::Cluster,
        Some("Local") => Policy::Local,
        Some(other) => {
            said.say(format_args!(
                "spec.{field}: unknown value {other:?}, taken as Cluster"
            ));
            Policy::Cluster
        }
    }
}

fn affinity(spec: &ServiceSpec, said: &mut Complaints) -> Option<u32> {
    match spec.session_affinity.as_deref() {
        None | Some("" | "None") => return None,
        Some("ClientIP") => {}
        Some(other) => {
            said.say(format_args!(
                "spec.sessionAffinity: unknown value {other:?}, taken as None"
            ));
            return None;
        }
    }
    let config = spec.session_affinity_config.as_ref();
    let seconds = config
        .and_then(|config| config.client_ip.as_ref())
        .and_then(|client| client.timeout_seconds);
    let Some(seconds) = seconds else {
        return Some(DEFAULT_AFFINITY);
    };
    let usable = u32::try_from(seconds).ok();
    let usable = usable.filter(|seconds| (1..=LONGEST_AFFINITY).contains(seconds));
    if usable.is_none() {
        said.say(format_args!(
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds: {seconds} is not in 1–{LONGEST_AFFINITY}, taken as {DEFAULT_AFFINITY}"
        ));
    }
    usable.or(Some(DEFAULT_AFFINITY))
}
