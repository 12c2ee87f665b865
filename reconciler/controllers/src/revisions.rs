//! The history of a DaemonSet's or StatefulSet's template, as ControllerRevisions that `kubectl rollout history` and
//! `undo` read.
//!
//! A revision is named NAME-HASH and holds `{"spec":{"template":{…,"$patch":"replace"}}}`, a strategic merge patch. A
//! template that comes back gets its old revision with a new, highest number, as it does in Kubernetes.

use crate::cluster::{Cluster, FIELD_MANAGER};
use crate::kept::Kind;
use crate::owned;
use crate::trouble::{Tried, Trouble};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::api::{DeleteParams, PostParams};
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The label of Pods, and of a DaemonSet's revisions, that says which template they have.
pub const HASH: &str = "controller-revision-hash";
/// Letters of which no word is made, and no two look alike.
const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
/// `kubectl apply`'s own copy of the object, of no use in a history.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What is to become of a set's newest revision.
#[derive(Clone, Debug, PartialEq)]
pub enum Newest {
    /// It is there.
    Is(ControllerRevision),
    /// It is to be made.
    Create(ControllerRevision),
    /// The template has had it before: it is to get this number.
    Raise(ControllerRevision),
}

/// The patch that leads to the template.
pub fn data(template: &PodTemplateSpec) -> Value {
    let mut template = json!(template);
    if let Some(fields) = template.as_object_mut() {
        fields.insert("$patch".to_owned(), json!("replace"));
    }
    json!({"spec": {"template": template}})
}

/// The template that a revision holds.
pub fn template(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.as_ref()?.0.pointer("/spec/template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

/// Ten letters for a template.
pub fn hash(data: &Value) -> String {
    let digest = Sha256::digest(data.to_string());
    digest
        .iter()
        .take(10)
        .map(|&byte| char::from(LETTERS[usize::from(byte) % LETTERS.len()]))
        .collect()
}

/// The revision of `template` among `known`, all of this owner. `hash_label` is where the owner's kind has the hash.
pub fn newest<O: Resource<DynamicType = ()>>(
    owner: &O,
    template: &PodTemplateSpec,
    known: &[Arc<ControllerRevision>],
    hash_label: &str,
) -> Newest {
    let data = data(template);
    let highest = known.iter().map(|revision| revision.revision).max();
    let same = known
        .iter()
        .filter(|revision| revision.data.as_ref().is_some_and(|has| has.0 == data))
        .max_by_key(|revision| revision.revision);
    if let Some(same) = same {
        if Some(same.revision) == highest {
            return Newest::Is(same.as_ref().clone());
        }
        let mut raised = same.as_ref().clone();
        raised.revision = highest.unwrap_or_default() + 1;
        return Newest::Raise(raised);
    }
    let hash = hash(&data);
    let labels = template
        .metadata
        .as_ref()
        .and_then(|metadata| metadata.labels.clone());
    let mut labels = labels.unwrap_or_default();
    labels.insert(hash_label.to_owned(), hash.clone());
    let mut annotations = owner.annotations().clone();
    annotations.remove(LAST_APPLIED);
    Newest::Create(ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", owner.name_any())),
            namespace: owner.namespace(),
            labels: Some(labels),
            annotations: (!annotations.is_empty()).then_some(annotations),
            owner_references: Some(vec![owned::reference(owner)]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(data)),
        revision: highest.unwrap_or_default() + 1,
    })
}

/// The names of those that no Pod and no status names (`live`) any more and that `limit` does not keep, oldest first.
pub fn expired(
    known: &[Arc<ControllerRevision>],
    live: &BTreeSet<String>,
    limit: i32,
) -> Vec<String> {
    let mut dead: Vec<_> = known
        .iter()
        .filter(|revision| !live.contains(&revision.name_any()))
        .collect();
    dead.sort_by_key(|revision| (revision.revision, revision.name_any()));
    let keep = usize::try_from(limit).unwrap_or_default();
    let surplus = dead.len().saturating_sub(keep);
    dead.iter()
        .take(surplus)
        .map(|revision| revision.name_any())
        .collect()
}

/// Carries out what [`newest`] says, and returns the revision as it now is.
///
/// # Errors
/// The server refuses it; among others when a stranger's revision has the name.
pub async fn write<O>(
    cluster: &Cluster,
    owner: &O,
    newest: Newest,
) -> Result<ControllerRevision, Trouble>
where
    O: Kind + Resource<Scope = NamespaceResourceScope>,
{
    let namespace = owner.namespace().unwrap_or_default();
    let api = cluster.api::<ControllerRevision>(&namespace);
    let params = PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    };
    let (verb, revision) = match newest {
        Newest::Is(revision) => return Ok(revision),
        Newest::Create(revision) => ("create", revision),
        Newest::Raise(revision) => ("update", revision),
    };
    let name = revision.name_any();
    let written = match verb {
        "create" => api.create(&params, &revision).await,
        _ => api.replace(&name, &params, &revision).await,
    };
    let written = written.tried(|| format!("{verb} ControllerRevision {namespace}/{name}"))?;
    cluster.revisions.seen(&written).await;
    Ok(written)
}

/// Deletes revisions by name.
///
/// # Errors
/// The server refuses it. One that is gone is no error.
pub async fn delete(cluster: &Cluster, namespace: &str, names: &[String]) -> Result<(), Trouble> {
    let api = cluster.api::<ControllerRevision>(namespace);
    for name in names {
        match api.delete(name, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            answer => {
                _ = answer.tried(|| format!("delete ControllerRevision {namespace}/{name}"))?
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
