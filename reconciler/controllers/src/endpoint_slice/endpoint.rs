//! A Pod as the endpoint of a Service: its address, its ports, its conditions.

use crate::pod;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::net::IpAddr;

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// `IPv4`
    V4,
    /// `IPv6`
    V6,
}

impl Family {
    /// As `ipFamilies` and `addressType` name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    /// The Pod's address of this family.
    pub fn address(self, pod: &Pod) -> Option<String> {
        let status = pod.status.as_ref()?;
        let several = status.pod_ips.iter().flatten().map(|ip| &ip.ip);
        several
            .chain(&status.pod_ip)
            .find(|text| match text.parse() {
                Ok(IpAddr::V4(_)) => self == Self::V4,
                Ok(IpAddr::V6(_)) => self == Self::V6,
                Err(_) => false,
            })
            .cloned()
    }
}

/// The families of a Service, the first being its main one. What does not say them has IPv4.
pub fn families(service: &Service) -> Vec<Family> {
    let spec = service.spec.as_ref();
    let named: Vec<Family> = spec
        .and_then(|spec| spec.ip_families.as_ref())
        .into_iter()
        .flatten()
        .filter_map(|name| match name.as_str() {
            "IPv4" => Some(Family::V4),
            "IPv6" => Some(Family::V6),
            _ => None,
        })
        .collect();
    if named.is_empty() {
        let v6 = spec
            .and_then(|spec| spec.cluster_ip.as_ref())
            .is_some_and(|ip| ip.contains(':'));
        return vec![if v6 { Family::V6 } else { Family::V4 }];
    }
    named
}

/// Whether the Service has endpoints of ours: it selects Pods, and is no alias of a name.
pub fn is_ours(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| {
        spec.type_.as_deref() != Some("ExternalName")
            && spec.selector.as_ref().is_some_and(|keys| !keys.is_empty())
    })
}

/// Whether the Service has no address of its own.
pub fn is_headless(service: &Service) -> bool {
    service
        .spec
        .as_ref()
        .is_some_and(|spec| spec.cluster_ip.as_deref() == Some("None"))
}

/// Whether the Service's selector matches the Pod's labels.
pub fn selects(service: &Service, pod: &Pod) -> bool {
    let Some(selector) = service
        .spec
        .as_ref()
        .and_then(|spec| spec.selector.as_ref())
    else {
        return false;
    };
    !selector.is_empty()
        && selector.iter().all(|(key, value)| {
            let labels = pod.metadata.labels.as_ref();
            labels.and_then(|labels| labels.get(key)) == Some(value)
        })
}

/// Whether the Service wants Pods that are not ready too.
pub fn publishes_not_ready(service: &Service) -> bool {
    service
        .spec
        .as_ref()
        .is_some_and(|spec| spec.publish_not_ready_addresses == Some(true))
}

/// The endpoint of a Pod that the Service selects. None: it has ended, or has no address of the family yet.
pub fn endpoint(service: &Service, pod: &Pod, family: Family) -> Option<Endpoint> {
    if pod::has_ended(pod) {
        return None;
    }
    let address = family.address(pod)?;
    let serving = pod::is_ready(pod);
    let terminating = pod::is_terminating(pod);
    Some(Endpoint {
        addresses: vec![address],
        conditions: Some(EndpointConditions {
            ready: Some(publishes_not_ready(service) || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: hostname(service, pod),
        node_name: pod::node(pod).map(str::to_owned),
        target_ref: Some(reference(pod)),
        ..Endpoint::default()
    })
}

/// The Pod's name within the Service, when the Pod has asked for one there.
pub fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let hostname = spec.hostname.as_ref().filter(|name| !name.is_empty())?;
    let here = spec.subdomain.is_some() && spec.subdomain == service.metadata.name;
    here.then(|| hostname.clone())
}

/// A reference to the Pod as endpoints carry it.
pub fn reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// The Service's ports as this Pod has them. A named port that the Pod does not have is left out.
pub fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    service
        .spec
        .iter()
        .flat_map(|spec| spec.ports.iter().flatten())
        .filter_map(|port| {
            Some(EndpointPort {
                app_protocol: port.app_protocol.clone(),
                name: Some(port.name.clone().unwrap_or_default()),
                port: Some(target(port, pod)?),
                protocol: Some(protocol(port.protocol.as_ref()).to_owned()),
            })
        })
        .collect()
}

/// The number of a Service's port at this Pod.
pub fn target(port: &ServicePort, pod: &Pod) -> Option<i32> {
    let name = match &port.target_port {
        None | Some(IntOrString::Int(0)) => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) if name.is_empty() => return Some(port.port),
        Some(IntOrString::String(name)) => name,
    };
    if let Ok(number) = name.parse() {
        return Some(number);
    }
    let spec = pod.spec.as_ref()?;
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars =
        sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let of = |container: &Container| {
        let ports = container.ports.iter().flatten();
        ports
            .filter(|own| own.name.as_ref() == Some(name))
            .find(|own| protocol(own.protocol.as_ref()) == protocol(port.protocol.as_ref()))
            .map(|own| own.container_port)
    };
    spec.containers.iter().chain(sidecars).find_map(of)
}

fn protocol(name: Option<&String>) -> &str {
    name.map_or("TCP", String::as_str)
}

/// When the newest of what the endpoints tell has happened: the Service was made, a Pod became ready or unready, or its
/// deletion began. It is what `endpoints.kubernetes.io/last-change-trigger-time` says.
pub fn changed_at(service: &Service, pods: &[&Pod]) -> Option<Timestamp> {
    let made = service.metadata.creation_timestamp.as_ref();
    let of_pod = |pod: &&Pod| {
        let ready = pod::condition(pod, "Ready")
            .and_then(|condition| condition.last_transition_time.clone());
        let seen = [ready, pod.metadata.deletion_timestamp.clone()];
        seen.into_iter().flatten().map(|time| time.0).max()
    };
    let pods = pods.iter().filter_map(of_pod);
    pods.chain(made.map(|time| time.0)).max()
}
