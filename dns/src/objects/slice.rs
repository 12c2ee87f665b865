//! An EndpointSlice, reduced.

use std::sync::Arc;
use std::time::SystemTime;

use serde::Deserialize;

use super::{Complaints, Metadata, WirePort, addresses, is_label, ports};
use crate::model::{self, Event, ObjectName, Slice};

/// Written by the controller of slices; RFC 3339.
const CHANGED: &str = "endpoints.kubernetes.io/last-change-trigger-time";
const SERVICE: &str = "kubernetes.io/service-name";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Wire {
    metadata: Metadata,
    address_type: String,
    endpoints: Option<Vec<Endpoint>>,
    ports: Option<Vec<WirePort>>,
}

#[derive(Deserialize)]
struct Endpoint {
    addresses: Option<Vec<String>>,
    hostname: Option<String>,
    conditions: Option<Conditions>,
}

#[derive(Deserialize)]
struct Conditions {
    ready: Option<bool>,
}

/// `SliceGone` when it has no names: of no Service, or of no addresses.
pub(super) fn reduce(object: Wire, name: &ObjectName, said: &mut Complaints) -> Event {
    let gone = Event::SliceGone(name.clone());
    let v4 = match object.address_type.as_str() {
        "IPv4" => true,
        "IPv6" => false,
        other => {
            said.say(format_args!(
                "addressType {other:?} has no addresses; IPv4 and IPv6 have"
            ));
            return gone;
        }
    };
    let label = object
        .metadata
        .labels
        .as_ref()
        .and_then(|labels| labels.get(SERVICE));
    let service = match label.and_then(Option::as_deref) {
        Some(service) if is_label(service) => service,
        Some(service) => {
            said.say(format_args!(
                "label {SERVICE}: {service:?} is not the name of a Service"
            ));
            return gone;
        }
        None => {
            said.say(format_args!(
                "label {SERVICE} is missing, so it belongs to no Service"
            ));
            return gone;
        }
    };
    let endpoints = object.endpoints.into_iter().flatten();
    let endpoints = endpoints.filter_map(|endpoint| reduce_endpoint(endpoint, v4, said));
    Event::Slice(Slice {
        name: name.clone(),
        service: Arc::from(service),
        endpoints: endpoints.collect(),
        ports: ports(object.ports, "ports", said),
        changed: changed(&object.metadata),
    })
}

fn changed(metadata: &Metadata) -> Option<SystemTime> {
    let annotations = metadata.annotations.as_ref()?;
    let time = annotations.get(CHANGED)?.as_deref()?;
    Some(time.parse::<jiff::Timestamp>().ok()?.into())
}

fn reduce_endpoint(endpoint: Endpoint, v4: bool, said: &mut Complaints) -> Option<model::Endpoint> {
    let mut ips = addresses(endpoint.addresses.iter().flatten(), "endpoints", said);
    ips.retain(|ip| {
        if ip.is_ipv4() != v4 {
            said.say(format_args!(
                "endpoints: {ip} is not of the slice's addressType"
            ));
        }
        ip.is_ipv4() == v4
    });
    let hostname = endpoint.hostname.filter(|text| !text.is_empty());
    let bad = hostname.as_deref().filter(|text| !is_label(text));
    if let Some(bad) = bad {
        said.say(format_args!(
            "endpoints: the hostname {bad:?} is not a DNS label"
        ));
    }
    let hostname = hostname.filter(|text| is_label(text)).map(Arc::from);
    (!ips.is_empty()).then(|| model::Endpoint {
        addresses: ips.into(),
        hostname,
        ready: endpoint
            .conditions
            .and_then(|conditions| conditions.ready)
            .unwrap_or(true),
    })
}
