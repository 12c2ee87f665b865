//! PersistentVolumeClaims that are local folders: bound when their first Pod is placed, and then to that node.
//!
//! There are no PersistentVolumes here: the node's agent keeps a folder for each claim, and the claim is the only
//! object. So a claim waits, as with `WaitForFirstConsumer`, until a Pod that uses it has a node. Then the node is
//! written into its annotation [`NODE`], and its status becomes Bound with the size that it asks for; nobody keeps a
//! folder to that size. Pods that come later are sent to that node by the scheduler. To give up a folder whose node is gone for good, remove the annotation or the claim.
//!
//! Claims with `volumeName` are somebody else's and left alone.

use crate::cluster::{Cluster, FIELD_MANAGER};
use crate::controller::{self, Again};
use crate::kept::Change;
use crate::trouble::{Tried, Trouble};
use crate::{pod, status_write};
use futures_util::stream::{self, StreamExt};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimStatus, Pod};
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use kube::runtime::reflector::ObjectRef;
use serde_json::json;
use std::sync::Arc;

/// The annotation with the name of the node that has the folder.
pub const NODE: &str = "weft.io/node";

/// What is to be written of a claim.
#[derive(Clone, Debug, PartialEq)]
pub struct Binding {
    /// The node that gets it, if it has none.
    pub node: Option<String>,
    /// Its status.
    pub status: PersistentVolumeClaimStatus,
}

/// Runs the controller; it does not end.
pub async fn run(cluster: Cluster) {
    cluster.claims.ready().await;
    cluster.pods.ready().await;
    let requests = stream::select_all([
        controller::own_changes(&cluster.claims).boxed(),
        controller::related_changes(&cluster.pods, of_pod).boxed(),
    ]);
    controller::run("claims", &cluster.claims, requests, |claim| {
        reconcile(&cluster, claim)
    })
    .await;
}

/// The claims of a Pod that has just been placed.
fn of_pod(change: &Change<Pod>) -> Vec<ObjectRef<PersistentVolumeClaim>> {
    let Some(new) = &change.new else {
        return Vec::new();
    };
    let before = change.old.as_ref().and_then(|old| pod::node(old));
    if pod::node(new) == before {
        return Vec::new();
    }
    let namespace = new.namespace().unwrap_or_default();
    uses(new)
        .map(|claim| ObjectRef::new(claim).within(&namespace))
        .collect()
}

/// The names of the claims that a Pod mounts.
fn uses(pod: &Pod) -> impl Iterator<Item = &str> {
    let volumes = pod
        .spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(|volume| Some(volume.persistent_volume_claim.as_ref()?.claim_name.as_str()))
}

/// What is to be written, if a Pod that uses the claim has a node. `pods` are those of the claim's namespace.
pub fn plan(claim: &PersistentVolumeClaim, pods: &[Arc<Pod>]) -> Option<Binding> {
    let spec = claim.spec.as_ref()?;
    let foreign = spec
        .volume_name
        .as_ref()
        .is_some_and(|name| !name.is_empty());
    if foreign || claim.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let name = claim.metadata.name.as_deref()?;
    let mut node = None;
    if !claim.annotations().contains_key(NODE) {
        let users = pods
            .iter()
            .filter(|pod| pod.metadata.namespace == claim.metadata.namespace)
            .filter(|pod| !pod::has_ended(pod) && uses(pod).any(|used| used == name))
            .filter(|pod| pod::node(pod).is_some());
        let oldest = users.min_by_key(|pod| {
            let made = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
            (made, pod.metadata.name.clone())
        })?;
        node = pod::node(oldest).map(str::to_owned);
    }
    let requests = spec
        .resources
        .as_ref()
        .and_then(|resources| resources.requests.clone());
    Some(Binding {
        node,
        status: PersistentVolumeClaimStatus {
            phase: Some("Bound".to_owned()),
            access_modes: spec.access_modes.clone(),
            capacity: requests,
            ..claim.status.clone().unwrap_or_default()
        },
    })
}

async fn reconcile(cluster: &Cluster, claim: Arc<PersistentVolumeClaim>) -> Result<Again, Trouble> {
    let namespace = claim.namespace().unwrap_or_default();
    let Some(binding) = plan(&claim, &cluster.pods.within(&namespace)) else {
        return Ok(None);
    };
    if let Some(node) = binding.node {
        let name = claim.name_any();
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        // With the revision that was read: two Pods must not each get a node.
        let patch = json!({"metadata": {
            "resourceVersion": claim.resource_version(),
            "annotations": {NODE: node},
        }});
        let api = cluster.api::<PersistentVolumeClaim>(&namespace);
        let written = api.patch(&name, &params, &Patch::Merge(patch)).await;
        let written = written.tried(|| format!("pin PersistentVolumeClaim {namespace}/{name}"))?;
        cluster.claims.seen(&written).await;
    }
    let status = &claim.status;
    status_write::write(
        cluster,
        &cluster.claims,
        claim.as_ref(),
        status,
        &binding.status,
    )
    .await?;
    Ok(None)
}
