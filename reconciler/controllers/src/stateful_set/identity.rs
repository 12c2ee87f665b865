//! The Pod and the claims of one ordinal: their names, labels and places, which stay whoever comes and goes.

use crate::claim::NODE;
use crate::owned;
use crate::revisions::HASH;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{
    NodeSelectorRequirement, NodeSelectorTerm, PersistentVolumeClaim,
    PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use std::collections::BTreeMap;

/// The label with the Pod's name.
pub const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
/// The label with the ordinal.
pub const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// NAME-ORDINAL
pub fn pod_name(set: &StatefulSet, ordinal: i64) -> String {
    format!("{}-{ordinal}", set.name_any())
}

/// The ordinal of a Pod by its name. None: the name is none of this set's.
pub fn ordinal(set: &StatefulSet, pod: &Pod) -> Option<i64> {
    let name = pod.metadata.name.as_deref()?;
    let digits = name
        .strip_prefix(set.name_any().as_str())?
        .strip_prefix('-')?;
    let ordinal = digits.parse().ok()?;
    // No sign, no leading zero: one name an ordinal.
    (ordinal >= 0 && digits == i64::to_string(&ordinal)).then_some(ordinal)
}

/// The labels that tell an ordinal's Pod.
pub fn labels(set: &StatefulSet, ordinal: i64) -> BTreeMap<String, String> {
    BTreeMap::from([
        (POD_NAME.to_owned(), pod_name(set, ordinal)),
        (POD_INDEX.to_owned(), ordinal.to_string()),
    ])
}

/// The Pod of an ordinal, of a revision's template. `claims` are those of its namespace: a claim that has been used is
/// a folder on one node, so the Pod goes there.
pub fn pod(
    set: &StatefulSet,
    template: &PodTemplateSpec,
    revision: &str,
    ordinal: i64,
    claims: &BTreeMap<&str, &PersistentVolumeClaim>,
) -> Pod {
    let mut pod = owned::pod_of(set, template);
    let name = pod_name(set, ordinal);
    pod.metadata.name = Some(name.clone());
    let all = pod.metadata.labels.get_or_insert_default();
    all.extend(labels(set, ordinal));
    all.insert(HASH.to_owned(), revision.to_owned());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(name);
    let service = set.spec.as_ref().and_then(|spec| spec.service_name.clone());
    spec.subdomain = service.filter(|name| !name.is_empty());
    let volumes = spec.volumes.get_or_insert_default();
    for (volume, claim) in claim_names(set, ordinal) {
        volumes.retain(|other| other.name != volume);
        volumes.push(Volume {
            name: volume,
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim,
                read_only: None,
            }),
            ..Volume::default()
        });
    }
    if volumes.is_empty() {
        spec.volumes = None;
    }
    for (_, claim) in claim_names(set, ordinal) {
        let claim = claims.get(claim.as_str());
        if let Some(node) = claim.and_then(|claim| claim.annotations().get(NODE)) {
            pin(&mut pod, node);
        }
    }
    pod
}

/// Of each claim template, the name of the volume and that of the ordinal's claim.
pub fn claim_names(set: &StatefulSet, ordinal: i64) -> Vec<(String, String)> {
    templates(set)
        .map(|template| {
            let volume = template.name_any();
            let claim = format!("{volume}-{}-{ordinal}", set.name_any());
            (volume, claim)
        })
        .collect()
}

/// The claims of an ordinal as they are to be made.
pub fn claims(set: &StatefulSet, ordinal: i64) -> Vec<PersistentVolumeClaim> {
    let selector = set.spec.as_ref().map(|spec| &spec.selector);
    let selected = selector.and_then(|selector| selector.match_labels.clone());
    let names = claim_names(set, ordinal).into_iter();
    templates(set)
        .zip(names)
        .map(|(template, (_, name))| {
            let mut claim = template.clone();
            claim.status = None;
            claim.metadata.name = Some(name);
            claim.metadata.namespace = set.namespace();
            let labels = claim.metadata.labels.get_or_insert_default();
            labels.extend(selected.clone().unwrap_or_default());
            claim
        })
        .collect()
}

fn templates(set: &StatefulSet) -> impl Iterator<Item = &PersistentVolumeClaim> {
    let spec = set.spec.iter();
    spec.flat_map(|spec| spec.volume_claim_templates.iter().flatten())
}

/// Who owns a claim by `persistentVolumeClaimRetentionPolicy`, and so takes it along when it goes: nobody, the set, or
/// the Pod that is one too many (`surplus`).
pub fn claim_owner(set: &StatefulSet, surplus: Option<&Pod>) -> Option<OwnerReference> {
    let spec = set.spec.as_ref()?;
    let policy = spec.persistent_volume_claim_retention_policy.as_ref()?;
    let deletes = |when: &Option<String>| when.as_deref() == Some("Delete");
    match surplus {
        Some(pod) if deletes(&policy.when_scaled) => Some(OwnerReference {
            controller: None,
            block_owner_deletion: None,
            ..owned::reference(pod)
        }),
        _ if deletes(&policy.when_deleted) => Some(owned::reference(set)),
        _ => None,
    }
}

/// Whether the reference is one that [`claim_owner`] makes for this set: to itself, or to a Pod of its names.
pub fn is_ours(set: &StatefulSet, reference: &OwnerReference) -> bool {
    let prefix = format!("{}-", set.name_any());
    Some(&reference.uid) == set.metadata.uid.as_ref()
        || (reference.kind == "Pod"
            && reference.controller.is_none()
            && reference.name.starts_with(&prefix))
}

/// Adds a node to what the Pod requires, beside all that it requires already.
fn pin(pod: &mut Pod, node: &str) {
    let spec = pod.spec.get_or_insert_default();
    let affinity = spec.affinity.get_or_insert_default();
    let required = affinity
        .node_affinity
        .get_or_insert_default()
        .required_during_scheduling_ignored_during_execution
        .get_or_insert_default();
    // Terms are alternatives: each has to name the node. An empty one matches nothing, so it stays as it is.
    let terms = &mut required.node_selector_terms;
    if terms.is_empty() {
        terms.push(NodeSelectorTerm::default());
    } else {
        terms.retain(|term| *term != NodeSelectorTerm::default());
    }
    for term in terms {
        term.match_fields
            .get_or_insert_default()
            .push(NodeSelectorRequirement {
                key: "metadata.name".to_owned(),
                operator: "In".to_owned(),
                values: Some(vec![node.to_owned()]),
            });
    }
}
