//! Which nodes a DaemonSet wants its Pod on, and that Pod.

use crate::owned;
use crate::placement::{affinity, taints};
use crate::revisions::HASH;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{
    Affinity, Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec,
    Toleration,
};

/// The annotation that older clients count templates by.
pub const GENERATION: &str = "deprecated.daemonset.template.generation";
/// The label of Pods that says the same.
pub const POD_GENERATION: &str = "pod-template-generation";

/// What a node is to a DaemonSet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It is to have a Pod.
    Run,
    /// A Pod that is there stays; none comes: a taint NoSchedule keeps new ones off.
    Stay,
    /// No Pod may be there: it is not selected, or a taint NoExecute drives Pods away.
    Never,
}

/// What the node is to a DaemonSet with this Pod. `pod` is as [`pod`] makes it, but for the node.
pub fn fit(pod: &Pod, node: &Node) -> Fit {
    if !affinity::allows(pod, node) {
        return Fit::Never;
    }
    let tolerations = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.tolerations.as_deref())
        .unwrap_or_default();
    let taints = taints::of(node);
    if taints::untolerated(&taints, tolerations, &[taints::NO_EXECUTE]).is_some() {
        Fit::Never
    } else if taints::untolerated(&taints, tolerations, &[taints::NO_SCHEDULE]).is_some() {
        Fit::Stay
    } else {
        Fit::Run
    }
}

/// The Pod of the DaemonSet's template, as it is on whichever node, with the hash of its revision.
pub fn pod(set: &DaemonSet, hash: &str) -> Pod {
    let template = set.spec.as_ref().map(|spec| spec.template.clone());
    let mut pod = owned::pod_of(set, &template.unwrap_or_default());
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(HASH.to_owned(), hash.to_owned());
    let generation = set.metadata.annotations.as_ref();
    if let Some(generation) = generation.and_then(|notes| notes.get(GENERATION)) {
        labels.insert(POD_GENERATION.to_owned(), generation.clone());
    }
    tolerate(pod.spec.get_or_insert_default());
    pod
}

/// The Pod for one node. The node is named at once, so that no scheduler is needed; the affinity says the same in the
/// way of Kubernetes' own DaemonSets, for those who read that.
pub fn place(mut pod: Pod, node: &str) -> Pod {
    let spec = pod.spec.get_or_insert_default();
    spec.node_name = Some(node.to_owned());
    let affinity: &mut Affinity = spec.affinity.get_or_insert_default();
    let this_node = NodeSelectorTerm {
        match_fields: Some(vec![NodeSelectorRequirement {
            key: "metadata.name".to_owned(),
            operator: "In".to_owned(),
            values: Some(vec![node.to_owned()]),
        }]),
        match_expressions: None,
    };
    affinity
        .node_affinity
        .get_or_insert_default()
        .required_during_scheduling_ignored_during_execution = Some(NodeSelector {
        node_selector_terms: vec![this_node],
    });
    pod
}

/// Daemons are needed most where something is wrong.
fn tolerate(spec: &mut PodSpec) {
    let mut wanted = vec![
        (taints::NOT_READY, taints::NO_EXECUTE),
        (taints::UNREACHABLE, taints::NO_EXECUTE),
        ("node.kubernetes.io/disk-pressure", taints::NO_SCHEDULE),
        ("node.kubernetes.io/memory-pressure", taints::NO_SCHEDULE),
        ("node.kubernetes.io/pid-pressure", taints::NO_SCHEDULE),
        (taints::UNSCHEDULABLE, taints::NO_SCHEDULE),
    ];
    if spec.host_network == Some(true) {
        wanted.push((
            "node.kubernetes.io/network-unavailable",
            taints::NO_SCHEDULE,
        ));
    }
    let tolerations = spec.tolerations.get_or_insert_default();
    for (key, effect) in wanted {
        let toleration = Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Toleration::default()
        };
        let same = |other: &Toleration| {
            (&other.key, &other.effect) == (&toleration.key, &toleration.effect)
        };
        tolerations.retain(|other| !same(other));
        tolerations.push(toleration);
    }
}
