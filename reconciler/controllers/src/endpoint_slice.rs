//! EndpointSlices of Services with a selector: who takes part in a Service, as the proxies read it.
//!
//! For each family of a Service's addresses there are slices of at most 100 endpoints, apart for each set of resolved
//! ports (a named `targetPort` may differ from Pod to Pod). An endpoint is `ready` when its Pod is and is not on its
//! way out, or when `publishNotReadyAddresses` asks for all; `serving` and `terminating` tell the rest. `zone` and
//! hints are never written. Slices without our label `endpointslice.kubernetes.io/managed-by` are not touched, nor are
//! Services without selector or of type ExternalName.
//!
//! A change is written at once and alone: endpoints stay in the slice that has them, new ones fill what is being
//! written anyway, and no slice is rewritten to save room.

pub mod endpoint;
pub mod plan;
#[cfg(test)]
mod tests;

use crate::cluster::{Cluster, FIELD_MANAGER};
use crate::controller::{self, Again};
use crate::kept::{self, Kept};
use crate::trouble::{Tried, Trouble};
use futures_util::stream::{self, StreamExt};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::{DeleteParams, PostParams};
use kube::runtime::reflector::ObjectRef;
use plan::Change;
use std::sync::Arc;

/// Runs the controller; it does not end.
pub async fn run(cluster: Cluster) {
    cluster.services.ready().await;
    cluster.pods.ready().await;
    cluster.endpoint_slices.ready().await;
    let services = cluster.services.clone();
    let requests = stream::select_all([
        controller::related_changes(&cluster.pods, move |change| of_pod(&services, change)).boxed(),
        controller::own_changes(&cluster.services).boxed(),
        controller::related_changes(&cluster.endpoint_slices, of_slice).boxed(),
    ]);
    controller::run("endpoint slices", &cluster.services, requests, |service| {
        reconcile(&cluster, service)
    })
    .await;
}

/// The Services that select a Pod, before or after its change.
pub fn of_pod(services: &Kept<Service>, change: &kept::Change<Pod>) -> Vec<ObjectRef<Service>> {
    let Some(namespace) = change.latest().and_then(|pod| pod.namespace()) else {
        return Vec::new();
    };
    let touched =
        |service: &Arc<Service>| change.states().any(|pod| endpoint::selects(service, pod));
    let services = services.within(&namespace).into_iter().filter(touched);
    services
        .map(|service| ObjectRef::from_obj(service.as_ref()))
        .collect()
}

/// The Service of a slice of ours.
fn of_slice(change: &kept::Change<EndpointSlice>) -> Vec<ObjectRef<Service>> {
    let of = |slice: &Arc<EndpointSlice>| {
        let labels = slice.labels();
        let ours = labels
            .get(plan::MANAGED_BY)
            .is_some_and(|by| by == plan::MANAGER);
        let service = labels.get(plan::SERVICE).filter(|_| ours)?;
        Some(ObjectRef::new(service).within(&slice.namespace()?))
    };
    change.states().filter_map(of).collect()
}

async fn reconcile(cluster: &Cluster, service: Arc<Service>) -> Result<Again, Trouble> {
    let namespace = service.namespace().unwrap_or_default();
    let pods = cluster.pods.within(&namespace);
    let pods: Vec<&Pod> = pods.iter().map(Arc::as_ref).collect();
    let slices = cluster.endpoint_slices.within(&namespace);
    let slices: Vec<&EndpointSlice> = slices
        .iter()
        .map(Arc::as_ref)
        .filter(|slice| plan::is_of(slice, &service))
        .collect();
    for change in plan::plan(&service, &pods, &slices) {
        apply(cluster, &namespace, &slices, change).await?;
    }
    Ok(None)
}

async fn apply(
    cluster: &Cluster,
    namespace: &str,
    slices: &[&EndpointSlice],
    change: Change,
) -> Result<(), Trouble> {
    let api = cluster.api::<EndpointSlice>(namespace);
    let params = PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    };
    let written = match change {
        Change::Create(slice) => {
            let name = slice.metadata.generate_name.clone().unwrap_or_default();
            let made = api.create(&params, &slice).await;
            made.tried(|| format!("create EndpointSlice {namespace}/{name}"))?
        }
        Change::Update(slice) => {
            let name = slice.name_any();
            let updated = api.replace(&name, &params, &slice).await;
            updated.tried(|| format!("update EndpointSlice {namespace}/{name}"))?
        }
        Change::Delete(name) => {
            match api.delete(&name, &DeleteParams::default()).await {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                answer => {
                    answer.tried(|| format!("delete EndpointSlice {namespace}/{name}"))?;
                    let gone = slices.iter().find(|slice| slice.name_any() == name);
                    if let Some(gone) = gone {
                        cluster.endpoint_slices.seen_gone(gone).await;
                    }
                }
            }
            return Ok(());
        }
    };
    cluster.endpoint_slices.seen(&written).await;
    Ok(())
}
