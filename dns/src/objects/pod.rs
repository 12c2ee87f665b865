//! A Pod, reduced.

use serde::Deserialize;

use super::{Complaints, addresses};
use crate::model::{Event, ObjectName, Pod};

#[derive(Deserialize)]
pub(super) struct Wire {
    spec: Option<Spec>,
    status: Option<Status>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    host_network: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<PodIp>>,
}

#[derive(Deserialize)]
struct PodIp {
    ip: Option<String>,
}

/// `PodGone` when it has no address of its own: not yet, no more (it has ended), or its node's.
pub(super) fn reduce(object: Wire, name: &ObjectName, said: &mut Complaints) -> Event {
    let status = object.status.unwrap_or_default();
    let on_host = object
        .spec
        .and_then(|spec| spec.host_network)
        .unwrap_or(false);
    let ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    if on_host || ended {
        return Event::PodGone(name.clone());
    }
    let many = status
        .pod_ips
        .iter()
        .flatten()
        .filter_map(|item| item.ip.as_ref());
    let ips = addresses(status.pod_ip.iter().chain(many), "status.podIPs", said);
    match ips.is_empty() {
        true => Event::PodGone(name.clone()),
        false => Event::Pod(Pod {
            name: name.clone(),
            ips: ips.into(),
        }),
    }
}
