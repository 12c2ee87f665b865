//! Which ReplicaSet is of the present template, how a new one is named, and the revisions by which `kubectl rollout
//! history` and `undo` find the old ones.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::limits::Limits;
use crate::owned;

/// The annotation with a ReplicaSet's or Deployment's revision.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
/// The annotation with the revisions that a ReplicaSet had before it was rolled back to.
pub const HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// The annotation with the number of Pods that the Deployment wanted when the ReplicaSet was scaled last.
pub const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// The annotation with the number of Pods that the Deployment could have had then.
pub const MOST: &str = "deployment.kubernetes.io/max-replicas";
/// The label that tells apart the Pods of one Deployment's ReplicaSets.
pub const HASH: &str = "pod-template-hash";

/// How long the list of earlier revisions may grow, in bytes.
const HISTORY_LENGTH: usize = 2000;
/// The Deployment's annotations that are not its ReplicaSets'.
const OWN: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    HISTORY,
    DESIRED,
    MOST,
    "deprecated.deployment.rollback.to",
];

/// Whether two templates describe the same Pods: equal but for the hash and for fields that are empty in one and
/// missing in the other.
pub fn same_template(one: &PodTemplateSpec, other: &PodTemplateSpec) -> bool {
    let plain = |template: &PodTemplateSpec| {
        let mut template = template.clone();
        if let Some(labels) = template
            .metadata
            .as_mut()
            .and_then(|metadata| metadata.labels.as_mut())
        {
            labels.remove(HASH);
        }
        template
    };
    let (one, other) = (plain(one), plain(other));
    let value = |template: &PodTemplateSpec| serde_json::to_value(template).map(without_empty);
    one == other || matches!((value(&one), value(&other)), (Ok(one), Ok(other)) if one == other)
}

fn without_empty(value: Value) -> Value {
    let is_empty = |value: &Value| match value {
        Value::Null => true,
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    };
    match value {
        Value::Object(fields) => {
            let fields = fields
                .into_iter()
                .map(|(key, value)| (key, without_empty(value)));
            Value::Object(fields.filter(|(_, value)| !is_empty(value)).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(without_empty).collect()),
        other => other,
    }
}

/// The revision of a ReplicaSet, 0 if it has none.
pub fn revision(set: &ReplicaSet) -> i64 {
    number(set, REVISION).unwrap_or(0)
}

/// The number in an annotation.
pub fn number(set: &ReplicaSet, annotation: &str) -> Option<i64> {
    set.annotations().get(annotation)?.parse().ok()
}

/// The ReplicaSet of the Deployment's template, which is not there yet: without Pods and annotations.
pub fn new_set(
    deployment: &Deployment,
    template: &PodTemplateSpec,
    min_ready: Option<i32>,
) -> ReplicaSet {
    let collisions = deployment
        .status
        .as_ref()
        .and_then(|status| status.collision_count)
        .unwrap_or(0);
    let hash = hash(template, collisions);
    let mut template = template.clone();
    let labels = template
        .metadata
        .get_or_insert_default()
        .labels
        .get_or_insert_default();
    labels.insert(HASH.into(), hash.clone());
    let labels = labels.clone();
    let mut selector = deployment
        .spec
        .as_ref()
        .map(|spec| spec.selector.clone())
        .unwrap_or_default();
    selector
        .match_labels
        .get_or_insert_default()
        .insert(HASH.into(), hash.clone());
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", deployment.name_any())),
            namespace: deployment.namespace(),
            labels: Some(labels),
            owner_references: Some(vec![owned::reference(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(0),
            min_ready_seconds: min_ready,
            selector,
            template: Some(template),
        }),
        status: None,
    }
}

/// Up to ten letters and digits, none of which is a vowel or looks like another.
fn hash(template: &PodTemplateSpec, collisions: i32) -> String {
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut digest = Sha256::new();
    // Its fields are written in one order and its maps are sorted, so equal templates give equal bytes.
    digest.update(serde_json::to_vec(template).unwrap_or_default());
    if collisions != 0 {
        digest.update(collisions.to_be_bytes());
    }
    let digest = digest.finalize();
    let number = digest
        .iter()
        .take(4)
        .fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
    number
        .to_string()
        .bytes()
        .map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()]))
        .collect()
}

/// Gives the ReplicaSet of the present template the newest revision and the Deployment's annotations.
pub fn annotate(set: &mut ReplicaSet, deployment: &Deployment, newest_old: i64) {
    let annotations = set.annotations_mut();
    for (key, value) in deployment.annotations() {
        if !OWN.contains(&key.as_str()) {
            annotations.insert(key.clone(), value.clone());
        }
    }
    let revision = newest_old + 1;
    let before = annotations.get(REVISION).cloned();
    if before
        .as_deref()
        .and_then(|before| before.parse().ok())
        .unwrap_or(0)
        < revision
    {
        annotations.insert(REVISION.into(), revision.to_string());
        if let Some(before) = before {
            remember(annotations, &before);
        }
    }
}

/// Adds a revision to the earlier ones. The oldest go when the list becomes too long.
fn remember(annotations: &mut BTreeMap<String, String>, revision: &str) {
    let earlier = annotations.remove(HISTORY).unwrap_or_default();
    let mut list: Vec<&str> = earlier
        .split(',')
        .filter(|revision| !revision.is_empty())
        .collect();
    list.push(revision);
    let length = |list: &[&str]| {
        list.iter()
            .map(|revision| revision.len() + 1)
            .sum::<usize>()
    };
    while length(&list) > HISTORY_LENGTH && list.len() > 1 {
        list.remove(0);
    }
    annotations.insert(HISTORY.into(), list.join(","));
}

/// Writes down for what size of the Deployment the ReplicaSet was scaled: proportions are kept from there.
pub fn note_size(set: &mut ReplicaSet, limits: Limits) {
    let annotations = set.annotations_mut();
    annotations.insert(DESIRED.into(), limits.wanted.to_string());
    annotations.insert(MOST.into(), limits.most().to_string());
}
