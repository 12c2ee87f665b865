//! Where the folders of claims are: a Pod that uses one goes to its node.
//!
//! A claim's node is in its annotation; before that is written, where a Pod that uses the claim is.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};

use crate::claim::NODE;

/// Namespace and name.
type Key = (String, String);

/// All claims, and the nodes of those that have one.
#[derive(Debug, Default)]
pub struct Homes {
    claims: BTreeMap<Key, Claim>,
}

#[derive(Debug)]
struct Claim {
    node: Option<String>,
    deleting: bool,
}

/// The names of the claims that a Pod uses.
fn used(pod: &Pod) -> impl Iterator<Item = &str> {
    let volumes = pod
        .spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(|volume| Some(volume.persistent_volume_claim.as_ref()?.claim_name.as_str()))
}

fn key(pod: &Pod, claim: &str) -> Key {
    (
        pod.metadata.namespace.clone().unwrap_or_default(),
        claim.to_owned(),
    )
}

impl Homes {
    /// What the claims themselves say.
    pub fn of(claims: &[Arc<PersistentVolumeClaim>]) -> Self {
        let entry = |claim: &Arc<PersistentVolumeClaim>| {
            let metadata = &claim.metadata;
            let text = |field: &Option<String>| field.clone().unwrap_or_default();
            let annotations = metadata.annotations.as_ref();
            let known = Claim {
                node: annotations.and_then(|all| all.get(NODE)).cloned(),
                deleting: metadata.deletion_timestamp.is_some(),
            };
            ((text(&metadata.namespace), text(&metadata.name)), known)
        };
        Self {
            claims: claims.iter().map(entry).collect(),
        }
    }

    /// A Pod is on a node: so are its claims that were nowhere.
    pub fn settle(&mut self, pod: &Pod, node: &str) {
        for name in used(pod) {
            if let Some(claim) = self.claims.get_mut(&key(pod, name)) {
                claim.node.get_or_insert_with(|| node.to_owned());
            }
        }
    }

    /// The nodes that a Pod's claims are on.
    ///
    /// # Errors
    /// A claim that it cannot have, as Kubernetes words it.
    pub fn nodes(&self, pod: &Pod) -> Result<Vec<String>, String> {
        let mut nodes = Vec::new();
        for name in used(pod) {
            match self.claims.get(&key(pod, name)) {
                None => return Err(format!("persistentvolumeclaim {name:?} not found")),
                Some(claim) if claim.deleting => {
                    return Err(format!("persistentvolumeclaim {name:?} is being deleted"));
                }
                Some(claim) => nodes.extend(claim.node.clone()),
            }
        }
        Ok(nodes)
    }
}
