//! A Service, reduced.

use std::net::IpAddr;
use std::sync::Arc;

use serde::Deserialize;

use super::{Complaints, WirePort, addresses, is_label, ports};
use crate::model::{Event, ObjectName, Service, Target};

#[derive(Deserialize)]
pub(super) struct Wire {
    spec: Option<Spec>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    r#type: Option<String>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Option<Vec<String>>,
    external_name: Option<String>,
    publish_not_ready_addresses: Option<bool>,
    ports: Option<Vec<WirePort>>,
}

/// `ServiceGone` when it has no name: without an address of its own, though not headless.
pub(super) fn reduce(object: Wire, name: &ObjectName, said: &mut Complaints) -> Event {
    let spec = object.spec.unwrap_or_default();
    // Its name is a label of DNS names; a name of the object with dots could not be told from an endpoint's.
    let target = match is_label(&name.name) {
        true => target(&spec, said),
        false => {
            said.say("metadata.name is not a DNS label, so it has no records");
            None
        }
    };
    match target {
        Some(target) => Event::Service(Service {
            name: name.clone(),
            target,
            ports: ports(spec.ports, "spec.ports", said),
            publish_not_ready: spec.publish_not_ready_addresses.unwrap_or(false),
        }),
        None => Event::ServiceGone(name.clone()),
    }
}

fn target(spec: &Spec, said: &mut Complaints) -> Option<Target> {
    if spec.r#type.as_deref() == Some("ExternalName") {
        return external(spec.external_name.as_deref().unwrap_or_default(), said);
    }
    let many = spec.cluster_ips.as_deref().unwrap_or_default();
    let texts = match many {
        [] => spec.cluster_ip.as_slice(),
        _ => many,
    };
    if texts.iter().any(|text| text == "None") {
        return Some(Target::Headless);
    }
    if texts.iter().all(String::is_empty) {
        said.say(
            "spec.clusterIP is missing, so it has no records; for a headless Service write None",
        );
        return None;
    }
    let ips = addresses(texts, "spec.clusterIPs", said);
    (!ips.is_empty()).then(|| Target::ClusterIps(ips.into()))
}

/// Host names as the API takes them; also with capitals and underscores, which DNS itself takes.
fn external(text: &str, said: &mut Complaints) -> Option<Target> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let host = text.strip_suffix('.').unwrap_or(text);
    let is_host = host.len() <= 253
        && host
            .split('.')
            .all(|label| (1..=63).contains(&label.len()) && label.bytes().all(plain));
    if host.parse::<IpAddr>().is_ok() {
        said.say(format_args!(
            "spec.externalName {text:?} looks like an IP address, so it has no records; \
             use a headless Service with an EndpointSlice"
        ));
    } else if !is_host {
        said.say(format_args!(
            "spec.externalName {text:?} is not a host name"
        ));
        return None;
    }
    Some(Target::External(Arc::from(text)))
}
