//! An EndpointSlice, reduced.

use std::sync::Arc;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::jiff::Timestamp;

use super::{Complaints, has_label, is_name, parse_ip, port_name, port_number, protocol};
use crate::model::{Family, ObjectName, Slice, SliceEndpoint, SlicePort};

const HEADLESS: &str = "service.kubernetes.io/headless";
const SERVICE: &str = "kubernetes.io/service-name";
const TRIGGERED: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// `None` when it does not count: of a headless Service, of no Service, or without addresses.
pub(super) fn reduce(
    object: &EndpointSlice,
    name: &ObjectName,
    said: &mut Complaints,
) -> Option<Slice> {
    let family = match object.address_type.as_str() {
        "IPv4" => Family::V4,
        "IPv6" => Family::V6,
        "FQDN" => return None,
        other => {
            said.say(format_args!("addressType: unknown value {other:?}"));
            return None;
        }
    };
    if has_label(&object.metadata, HEADLESS) {
        return None;
    }
    let service = object.metadata.labels.as_ref()?.get(SERVICE)?;
    if !is_name(service, 253) {
        said.say(format_args!("label {SERVICE}: {service:?} is not a name"));
        return None;
    }
    let annotations = object.metadata.annotations.as_ref();
    let triggered = annotations
        .and_then(|annotations| annotations.get(TRIGGERED))
        .and_then(|text| match text.parse::<Timestamp>() {
            Ok(time) => Some(time.as_millisecond()),
            Err(_) => {
                said.say(format_args!(
                    "annotation {TRIGGERED}: {text:?} is not a time"
                ));
                None
            }
        });
    let ports = ports(object, said);
    let endpoints = object.endpoints.iter().flatten();
    let mut endpoints: Vec<_> = endpoints
        .filter_map(|endpoint| self::endpoint(endpoint, family, said))
        .collect();
    // In order they are quickly merged with those of other slices.
    endpoints.sort_by_key(|endpoint| endpoint.address);
    endpoints.shrink_to_fit();
    Some(Slice {
        name: name.clone(),
        service: ObjectName {
            namespace: name.namespace.clone(),
            name: service.as_str().into(),
        },
        family,
        ports,
        endpoints,
        triggered,
    })
}

fn ports(object: &EndpointSlice, said: &mut Complaints) -> Vec<SlicePort> {
    let mut ports = Vec::new();
    for port in object.ports.iter().flatten() {
        // No number means every port, which is for consumers other than a proxy.
        let Some(number) = port.port.filter(|&number| number != 0) else {
            continue;
        };
        let Some(name) = port_name(port.name.as_deref()) else {
            let name = port.name.as_deref().unwrap_or_default();
            said.say(format_args!("ports: the name {name:?} is not a DNS label"));
            continue;
        };
        let Some(protocol) = protocol(port.protocol.as_deref()) else {
            let word = port.protocol.as_deref().unwrap_or_default();
            said.say(format_args!("ports {name:?}: unknown protocol {word:?}"));
            continue;
        };
        let Some(port) = port_number(number) else {
            said.say(format_args!("ports {name:?}: {number} is no port number"));
            continue;
        };
        let port = SlicePort {
            name,
            protocol,
            port,
        };
        if !ports.contains(&port) {
            ports.push(port);
        }
    }
    ports.shrink_to_fit();
    ports
}

fn endpoint(endpoint: &Endpoint, family: Family, said: &mut Complaints) -> Option<SliceEndpoint> {
    let Some(text) = endpoint.addresses.first() else {
        said.say("endpoints: one has no address");
        return None;
    };
    let address = match parse_ip(text) {
        Ok(address) if Family::of(address) == family => address,
        Ok(address) => {
            said.say(format_args!(
                "endpoints: {address} is not {}",
                family.label()
            ));
            return None;
        }
        Err(cause) => {
            said.say(format_args!("endpoints: {cause}"));
            return None;
        }
    };
    let conditions = endpoint.conditions.as_ref();
    let condition = |value: Option<bool>, absent: bool| value.unwrap_or(absent);
    let hints = endpoint.hints.as_ref();
    let zones = hints.and_then(|hints| hints.for_zones.as_ref());
    let nodes = hints.and_then(|hints| hints.for_nodes.as_ref());
    Some(SliceEndpoint {
        address,
        ready: condition(conditions.and_then(|all| all.ready), true),
        serving: condition(conditions.and_then(|all| all.serving), true),
        terminating: condition(conditions.and_then(|all| all.terminating), false),
        node: endpoint.node_name.as_deref().map(Arc::from),
        zone_hints: names(zones.into_iter().flatten().map(|zone| &zone.name)),
        node_hints: names(nodes.into_iter().flatten().map(|node| &node.name)),
    })
}

fn names<'a>(names: impl Iterator<Item = &'a String>) -> Box<[Arc<str>]> {
    names.map(|name| name.as_str().into()).collect()
}
