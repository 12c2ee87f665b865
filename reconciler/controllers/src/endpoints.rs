//! Endpoints of Services with a selector: the older form of what EndpointSlices tell, for clients that still read it.
//!
//! One object of the Service's name, of the Service's first family alone, and of at most 1000 addresses. The Service
//! owns it, so it goes with the Service. Endpoints without our label `endpoints.kubernetes.io/managed-by` are not
//! touched, nor are those of Services without selector or of type ExternalName.

pub mod plan;
#[cfg(test)]
mod tests;

use crate::cluster::{Cluster, FIELD_MANAGER};
use crate::controller::{self, Again};
use crate::endpoint_slice;
use crate::kept::Change;
use crate::trouble::{Tried, Trouble};
use futures_util::stream::{self, StreamExt};
use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use kube::ResourceExt;
use kube::api::PostParams;
use kube::runtime::reflector::ObjectRef;
use std::sync::Arc;

/// Runs the controller; it does not end.
pub async fn run(cluster: Cluster) {
    cluster.services.ready().await;
    cluster.pods.ready().await;
    cluster.endpoints.ready().await;
    let services = cluster.services.clone();
    let of_pod = move |change: &Change<Pod>| endpoint_slice::of_pod(&services, change);
    let requests = stream::select_all([
        controller::related_changes(&cluster.pods, of_pod).boxed(),
        controller::own_changes(&cluster.services).boxed(),
        controller::related_changes(&cluster.endpoints, of_endpoints).boxed(),
    ]);
    controller::run("endpoints", &cluster.services, requests, |service| {
        reconcile(&cluster, service)
    })
    .await;
}

/// The Service of the same name.
fn of_endpoints(change: &Change<Endpoints>) -> Vec<ObjectRef<Service>> {
    let name = |endpoints: &Arc<Endpoints>| {
        let namespace = endpoints.namespace()?;
        Some(ObjectRef::new(&endpoints.name_any()).within(&namespace))
    };
    change.latest().and_then(name).into_iter().collect()
}

async fn reconcile(cluster: &Cluster, service: Arc<Service>) -> Result<Again, Trouble> {
    let (namespace, name) = (service.namespace().unwrap_or_default(), service.name_any());
    let pods = cluster.pods.within(&namespace);
    let pods: Vec<&Pod> = pods.iter().map(Arc::as_ref).collect();
    let was = cluster.endpoints.get(&namespace, &name);
    let Some(wanted) = plan::plan(&service, &pods, was.as_deref()) else {
        return Ok(None);
    };
    let api = cluster.api::<Endpoints>(&namespace);
    let params = PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    };
    let written = match was {
        None => api.create(&params, &wanted).await,
        Some(_) => api.replace(&name, &params, &wanted).await,
    };
    let written = written.tried(|| format!("write Endpoints {namespace}/{name}"))?;
    cluster.endpoints.seen(&written).await;
    Ok(None)
}
