use super::identity;
use super::plan::{Observed, Plan, Reason, plan};
use crate::claim;
use crate::revisions::{self, HASH, Newest};
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const NOW: &str = "2026-01-01T01:00:00Z";

fn set(more: Value) -> StatefulSet {
    let mut set = json!({
        "metadata": {"name": "web", "namespace": "demo", "uid": "s"},
        "spec": {"replicas": 3, "serviceName": "peers", "selector": {"matchLabels": {"app": "x"}},
            "template": {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "new"}]}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Gi"}}}}]},
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        set["spec"][key] = value.clone();
    }
    serde_json::from_value(set).unwrap()
}

fn revision(set: &StatefulSet, image: &str) -> ControllerRevision {
    let mut template = set.spec.as_ref().unwrap().template.clone();
    template.spec.as_mut().unwrap().containers[0].image = Some(image.to_owned());
    match revisions::newest(set, &template, &[], "hash") {
        Newest::Create(revision) => revision,
        other => panic!("{other:?}"),
    }
}

/// The Pod of an ordinal, of the template with this image.
fn pod(
    set: &StatefulSet,
    ordinal: i64,
    image: &str,
    phase: &str,
    ready: bool,
    leaving: bool,
) -> Arc<Pod> {
    let mut pod = json!({
        "metadata": {"name": identity::pod_name(set, ordinal), "namespace": "demo", "uid": format!("u{ordinal}"),
            "labels": {"app": "x", HASH: revision(set, image).name_any()}},
        "spec": {"nodeName": "n1", "containers": []},
        "status": {"phase": phase, "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" },
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
    });
    let labels = pod["metadata"]["labels"].as_object_mut().unwrap();
    labels.extend(
        identity::labels(set, ordinal)
            .into_iter()
            .map(|(key, value)| (key, json!(value))),
    );
    if leaving {
        pod["metadata"]["deletionTimestamp"] = json!(NOW);
    }
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn well(set: &StatefulSet, ordinal: i64, image: &str) -> Arc<Pod> {
    pod(set, ordinal, image, "Running", true, false)
}

fn planned(set: &StatefulSet, pods: &[Arc<Pod>], claims: &[Arc<PersistentVolumeClaim>]) -> Plan {
    plan(&Observed {
        set,
        pods,
        claims,
        current: &revision(set, "old"),
        update: &revision(set, "new"),
        now: NOW.parse().unwrap(),
    })
}

fn made(plan: &Plan) -> Vec<String> {
    plan.create.iter().map(|pod| pod.name_any()).collect()
}

fn gone(plan: &Plan) -> Vec<(&str, Reason)> {
    plan.delete
        .iter()
        .map(|(name, reason)| (name.as_str(), *reason))
        .collect()
}

#[test]
fn an_ordinals_pod_has_its_name_host_claim_and_place() {
    let set = set(json!({}));
    let mut claim = identity::claims(&set, 0).remove(0);
    claim
        .annotations_mut()
        .insert(claim::NODE.to_owned(), "n7".to_owned());
    let plan = planned(&set, &[], &[Arc::new(claim)]);
    let golden = json!([{
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "web-0", "generateName": "web-", "namespace": "demo",
            "labels": {"app": "x", "statefulset.kubernetes.io/pod-name": "web-0", "apps.kubernetes.io/pod-index": "0",
                "controller-revision-hash": revision(&set, "new").name_any()},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": "s",
                "controller": true, "blockOwnerDeletion": true}],
        },
        "spec": {
            "hostname": "web-0", "subdomain": "peers",
            "containers": [{"name": "c", "image": "new"}],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data-web-0"}}],
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n7"]}]}]}}},
        },
    }]);
    assert_eq!(json!(plan.create), golden);
    assert!(plan.claims.is_empty());
    let claims = planned(&set, &[], &[]).claims;
    assert_eq!(
        (
            claims[0].name_any().as_str(),
            claims[0].labels()["app"].as_str()
        ),
        ("data-web-0", "x")
    );
}

#[test]
fn names_that_are_no_ordinals_are_no_pods_of_the_set() {
    let set = set(json!({}));
    for (name, ordinal) in [
        ("web-0", Some(0)),
        ("web-12", Some(12)),
        ("web-01", None),
        ("web--1", None),
        ("web-x", None),
        ("web", None),
        ("webx-1", None),
        ("web-+1", None),
    ] {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        assert_eq!(identity::ordinal(&set, &pod), ordinal, "{name}");
    }
}

#[test]
fn ordered_sets_take_one_step_and_parallel_ones_all() {
    let ordered = set(json!({}));
    assert_eq!(made(&planned(&ordered, &[], &[])), ["web-0"]);
    let waiting = [pod(&ordered, 0, "new", "Running", false, false)];
    assert_eq!(
        made(&planned(&ordered, &waiting, &[])),
        Vec::<String>::new()
    );
    assert_eq!(
        made(&planned(&ordered, &[well(&ordered, 0, "new")], &[])),
        ["web-1"]
    );
    let parallel = set(json!({"podManagementPolicy": "Parallel"}));
    assert_eq!(
        made(&planned(&parallel, &[], &[])),
        ["web-0", "web-1", "web-2"]
    );

    let many: Vec<_> = (0..6)
        .map(|ordinal| well(&ordered, ordinal, "new"))
        .collect();
    assert_eq!(
        gone(&planned(&ordered, &many, &[])),
        [("web-5", Reason::Surplus)]
    );
    let all = [
        ("web-5", Reason::Surplus),
        ("web-4", Reason::Surplus),
        ("web-3", Reason::Surplus),
    ];
    assert_eq!(gone(&planned(&parallel, &many, &[])), all);
    let mut leaving = many.clone();
    leaving[5] = pod(&ordered, 5, "new", "Running", true, true);
    assert_eq!(gone(&planned(&ordered, &leaving, &[])), []);
}

#[test]
fn ordinals_may_begin_elsewhere() {
    let set = set(json!({"ordinals": {"start": 5}, "podManagementPolicy": "Parallel"}));
    let plan = planned(&set, &[well(&set, 0, "new")], &[]);
    assert_eq!(made(&plan), ["web-5", "web-6", "web-7"]);
    assert_eq!(gone(&plan), [("web-0", Reason::Surplus)]);
}

#[test]
fn pods_that_have_ended_are_replaced_when_they_are_gone() {
    let set = set(json!({}));
    for (phase, reason) in [("Failed", Reason::Failed), ("Succeeded", Reason::Ended)] {
        let plan = planned(&set, &[pod(&set, 0, "new", phase, false, false)], &[]);
        assert_eq!(
            (gone(&plan), made(&plan).len()),
            (vec![("web-0", reason)], 0)
        );
        let plan = planned(&set, &[pod(&set, 0, "new", phase, false, true)], &[]);
        assert_eq!((gone(&plan).len(), made(&plan).len()), (0, 0));
    }
}

#[test]
fn an_update_goes_down_to_its_partition() {
    let rolling = set(json!({}));
    let old: Vec<_> = (0..3)
        .map(|ordinal| well(&rolling, ordinal, "old"))
        .collect();
    assert_eq!(
        gone(&planned(&rolling, &old, &[])),
        [("web-2", Reason::Old)]
    );
    let mut next = old.clone();
    next[2] = pod(&rolling, 2, "new", "Running", false, false);
    assert_eq!(
        gone(&planned(&rolling, &next, &[])),
        [],
        "waits for the one above"
    );
    next[2] = well(&rolling, 2, "new");
    assert_eq!(
        gone(&planned(&rolling, &next, &[])),
        [("web-1", Reason::Old)]
    );

    let part = set(json!({"updateStrategy": {"rollingUpdate": {"partition": 2}}}));
    let plan = planned(&part, &next, &[]);
    assert_eq!(gone(&plan), []);
    assert_eq!(
        plan.status.current_revision,
        Some(revision(&part, "old").name_any())
    );
    let below = planned(&part, &[well(&part, 0, "old")], &[]);
    assert_eq!(
        below.create[0].labels()[HASH],
        revision(&part, "old").name_any()
    );
    let on_delete = set(json!({"updateStrategy": {"type": "OnDelete"}}));
    assert_eq!(gone(&planned(&on_delete, &old, &[])), []);

    let done: Vec<_> = (0..3)
        .map(|ordinal| well(&rolling, ordinal, "new"))
        .collect();
    let status = planned(&rolling, &done, &[]).status;
    assert_eq!(status.current_revision, status.update_revision);
    assert_eq!(
        (status.current_replicas, status.updated_replicas),
        (Some(3), Some(3))
    );
}

#[test]
fn claims_belong_to_whom_the_policy_says() {
    let policy = |deleted: &str, scaled: &str| {
        let policy = json!({"whenDeleted": deleted, "whenScaled": scaled});
        let set = set(json!({"replicas": 1, "persistentVolumeClaimRetentionPolicy": policy}));
        let claims: Vec<_> = (0..2)
            .map(|o| Arc::new(identity::claims(&set, o).remove(0)))
            .collect();
        let pods = [well(&set, 0, "new"), well(&set, 1, "new")];
        let own = planned(&set, &pods, &claims).own.into_iter();
        own.map(|(name, owners)| format!("{name} {}", owners[0].kind))
            .collect::<Vec<_>>()
    };
    assert_eq!(policy("Retain", "Retain"), Vec::<String>::new());
    assert_eq!(
        policy("Delete", "Retain"),
        ["data-web-0 StatefulSet", "data-web-1 StatefulSet"]
    );
    assert_eq!(policy("Retain", "Delete"), ["data-web-1 Pod"]);
    assert_eq!(
        policy("Delete", "Delete"),
        ["data-web-0 StatefulSet", "data-web-1 Pod"]
    );
}

#[test]
fn a_claim_is_bound_to_the_node_of_its_first_pod() {
    let set = set(json!({}));
    let mut claim = identity::claims(&set, 0).remove(0);
    let mut user = identity::pod(
        &set,
        &set.spec.as_ref().unwrap().template,
        "r",
        0,
        &BTreeMap::new(),
    );
    assert_eq!(
        claim::plan(&claim, &[Arc::new(user.clone())]),
        None,
        "not before the Pod has a node"
    );
    user.spec.as_mut().unwrap().node_name = Some("n2".to_owned());
    let binding = claim::plan(&claim, &[Arc::new(user)]).unwrap();
    assert_eq!(binding.node.as_deref(), Some("n2"));
    assert_eq!(
        json!(binding.status),
        json!({"phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}})
    );
    claim
        .annotations_mut()
        .insert(claim::NODE.to_owned(), "n2".to_owned());
    assert_eq!(
        claim::plan(&claim, &[]).unwrap().node,
        None,
        "a claim keeps its node"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// From any beginning, in any order of what agents do, all wanted ordinals end well and of the new template, and
    /// an ordinal never gets a Pod while it has one.
    #[test]
    fn every_beginning_ends_with_all_ordinals_new(
        beginning in prop::collection::btree_map(0..6_i64, (any::<bool>(), 0..4_u8), 0..6),
        replicas in 0..4_i64,
        parallel in any::<bool>(),
        order in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let policy = if parallel { "Parallel" } else { "OrderedReady" };
        let set = set(json!({"replicas": replicas, "podManagementPolicy": policy}));
        // ordinal → is new, phase: 0 fresh, 1 ready, 2 failed; leaving
        let mut world: BTreeMap<i64, (bool, u8, bool)> = beginning
            .into_iter()
            .map(|(ordinal, (new, state))| (ordinal, (new, state.min(2), state == 3)))
            .collect();
        for step in order.into_iter().chain(0..=120) {
            let pods: Vec<_> = world.iter().map(|(ordinal, (new, state, leaving))| {
                let phase = if *state == 2 { "Failed" } else { "Running" };
                pod(&set, *ordinal, if *new { "new" } else { "old" }, phase, *state == 1, *leaving)
            }).collect();
            let plan = planned(&set, &pods, &[]);
            prop_assert!(parallel || plan.create.len() + plan.delete.len() <= 1, "{:?}", plan);
            for created in &plan.create {
                let ordinal = identity::ordinal(&set, created).unwrap();
                prop_assert!(world.insert(ordinal, (true, 0, false)).is_none(), "two of ordinal {}", ordinal);
            }
            let names: BTreeSet<&String> = plan.delete.iter().map(|(name, _)| name).collect();
            for (ordinal, one) in &mut world {
                one.2 |= names.contains(&identity::pod_name(&set, *ordinal));
            }
            let which = world.keys().nth(usize::from(step) % world.len().max(1)).copied();
            if let Some(which) = which {
                match &mut world.get_mut(&which).unwrap() {
                    (_, _, true) => _ = world.remove(&which),
                    (_, state @ 0, _) => *state = 1,
                    _ => {}
                }
            }
        }
        let wanted: BTreeMap<_, _> = (0..replicas).map(|ordinal| (ordinal, (true, 1, false))).collect();
        prop_assert_eq!(world, wanted);
    }
}
