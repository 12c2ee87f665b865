//! The own Node, reduced.

use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;

use super::{Complaints, parse_ip, parse_net};
use crate::model::NodeInfo;

const ZONE: &str = "topology.kubernetes.io/zone";
/// The autoscaler sets it before it takes the machine away (KEP-3836).
const LEAVING: &str = "ToBeDeletedByClusterAutoscaler";

pub(super) fn reduce(object: &Node, said: &mut Complaints) -> NodeInfo {
    let labels = object.metadata.labels.as_ref();
    let zone = labels.and_then(|labels| labels.get(ZONE));
    let spec = object.spec.as_ref();
    let taints = spec.and_then(|spec| spec.taints.as_ref());
    let tainted = taints
        .into_iter()
        .flatten()
        .any(|taint| taint.key == LEAVING);
    NodeInfo {
        zone: zone
            .filter(|zone| !zone.is_empty())
            .map(|zone| zone.as_str().into()),
        addresses: addresses(object, said),
        pod_cidrs: pod_cidrs(object, said),
        leaving: tainted || object.metadata.deletion_timestamp.is_some(),
    }
}

fn addresses(object: &Node, said: &mut Complaints) -> Vec<IpAddr> {
    let status = object.status.as_ref();
    let all = status.and_then(|status| status.addresses.as_ref());
    let mut ips = Vec::new();
    for wanted in ["InternalIP", "ExternalIP"] {
        for address in all.into_iter().flatten() {
            if address.type_ != wanted {
                continue;
            }
            match parse_ip(&address.address) {
                Ok(ip) if ips.contains(&ip) => {}
                Ok(ip) => ips.push(ip),
                Err(cause) => said.say(format_args!("status.addresses {wanted}: {cause}")),
            }
        }
    }
    ips
}

fn pod_cidrs(object: &Node, said: &mut Complaints) -> Vec<IpNet> {
    let Some(spec) = object.spec.as_ref() else {
        return Vec::new();
    };
    let many: Vec<_> = spec.pod_cidrs.iter().flatten().collect();
    let texts = if many.is_empty() {
        spec.pod_cidr.iter().collect()
    } else {
        many
    };
    let mut nets = Vec::new();
    for text in texts.into_iter().filter(|text| !text.is_empty()) {
        match parse_net(text) {
            Ok(net) if nets.contains(&net) => {}
            Ok(net) => nets.push(net),
            Err(cause) => said.say(format_args!("spec.podCIDRs: {cause}")),
        }
    }
    nets
}
