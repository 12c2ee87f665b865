//! From a Service and its Pods to its Endpoints.

use crate::endpoint_slice::endpoint::{self, Family};
use crate::endpoint_slice::plan::{HEADLESS, TRIGGERED};
use crate::{owned, pod};
use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;

/// The most addresses that Endpoints have.
pub const CAPACITY: usize = 1000;
/// Who writes Endpoints.
pub const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
/// Ours, the same as in Kubernetes.
pub const MANAGER: &str = "endpoint-controller";
/// On Endpoints that do not have all addresses; the value is `truncated`.
pub const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";

/// The Endpoints to be written. None: they are as they should be, or not ours.
pub fn plan(service: &Service, pods: &[&Pod], was: Option<&Endpoints>) -> Option<Endpoints> {
    if !endpoint::is_ours(service) || service.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let manager = was.map(|was| was.metadata.labels.as_ref()?.get(MANAGED_BY));
    if manager.is_some_and(|manager| manager.is_none_or(|manager| manager != MANAGER)) {
        return None;
    }
    let mut pods: Vec<&Pod> = pods.to_vec();
    pods.retain(|pod| endpoint::selects(service, pod));
    pods.sort_by_key(|pod| pod::name(pod));
    let (subsets, truncated) = subsets(service, &pods);

    let mut metadata = was.map_or_else(
        || ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            ..ObjectMeta::default()
        },
        |was| was.metadata.clone(),
    );
    metadata.managed_fields = None;
    metadata.owner_references = Some(vec![owned::reference(service)]);
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels.remove(HEADLESS);
    if endpoint::is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    metadata.labels = Some(labels);
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.remove(OVER_CAPACITY);
    if truncated {
        annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
    }
    let mut new = Endpoints {
        metadata,
        subsets: (!subsets.is_empty()).then_some(subsets),
    };
    if was.is_some_and(|was| same(was, &new)) {
        return None;
    }
    if let Some(at) = endpoint::changed_at(service, &pods) {
        let annotations = new.metadata.annotations.get_or_insert_default();
        annotations.insert(TRIGGERED.to_owned(), at.to_string());
    }
    Some(new)
}

fn same(was: &Endpoints, new: &Endpoints) -> bool {
    let subsets = |endpoints: &Endpoints| endpoints.subsets.clone().unwrap_or_default();
    let annotations =
        |endpoints: &Endpoints| endpoints.metadata.annotations.clone().unwrap_or_default();
    subsets(was) == subsets(new)
        && was.metadata.labels == new.metadata.labels
        && was.metadata.owner_references == new.metadata.owner_references
        && annotations(was) == annotations(new)
}

/// Addresses that have the same ports are one subset. Ready ones count first when there are too many.
fn subsets(service: &Service, pods: &[&Pod]) -> (Vec<EndpointSubset>, bool) {
    let family = endpoint::families(service)
        .first()
        .copied()
        .unwrap_or(Family::V4);
    let everyone = endpoint::publishes_not_ready(service);
    let mut found = Vec::new();
    for pod in pods
        .iter()
        .filter(|pod| everyone || !pod::is_terminating(pod))
    {
        if pod::has_ended(pod) {
            continue;
        }
        if let Some(address) = address(service, pod, family) {
            let ready = everyone || pod::is_ready(pod);
            found.push((!ready, address, ports(service, pod)));
        }
    }
    found.sort_by_key(|(not_ready, ..)| *not_ready);
    let truncated = found.len() > CAPACITY;
    found.truncate(CAPACITY);
    let mut subsets = BTreeMap::<String, EndpointSubset>::new();
    for (not_ready, address, ports) in found {
        // A headless Service may have no ports; a Service whose named port the Pod has not has none there.
        if ports.is_empty() && !endpoint::is_headless(service) {
            continue;
        }
        let subset = subsets.entry(format!("{ports:?}")).or_default();
        let list = if not_ready {
            &mut subset.not_ready_addresses
        } else {
            &mut subset.addresses
        };
        list.get_or_insert_default().push(address);
        subset.ports = (!ports.is_empty()).then_some(ports);
    }
    (subsets.into_values().collect(), truncated)
}

fn address(service: &Service, pod: &Pod, family: Family) -> Option<EndpointAddress> {
    Some(EndpointAddress {
        hostname: endpoint::hostname(service, pod),
        ip: family.address(pod)?,
        node_name: pod::node(pod).map(str::to_owned),
        target_ref: Some(endpoint::reference(pod)),
    })
}

fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let mut ports: Vec<EndpointPort> = endpoint::ports(service, pod)
        .into_iter()
        .map(|port| EndpointPort {
            app_protocol: port.app_protocol,
            name: port.name.filter(|name| !name.is_empty()),
            port: port.port.unwrap_or_default(),
            protocol: port.protocol,
        })
        .collect();
    ports.sort_by(|a, b| a.name.cmp(&b.name));
    ports
}
