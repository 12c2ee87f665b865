use super::backoff::Backoff;
use super::daemon;
use super::plan::{Observed, Plan, Reason, plan};
use crate::revisions::HASH;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const NOW: &str = "2026-01-01T01:00:00Z";

fn set(strategy: Value) -> DaemonSet {
    serde_json::from_value(json!({
        "metadata": {"name": "ds", "namespace": "demo", "uid": "d", "generation": 1},
        "spec": {"selector": {"matchLabels": {"app": "x"}}, "updateStrategy": strategy,
            "template": {"metadata": {"labels": {"app": "x"}},
                "spec": {"containers": [{"name": "c", "image": "i"}], "nodeSelector": {"pool": "a"}}}},
    }))
    .unwrap()
}

fn node(name: &str, pool: &str, taint: Option<&str>) -> Arc<Node> {
    let taints: Vec<Value> = taint
        .iter()
        .map(|effect| json!({"key": "x", "effect": effect}))
        .collect();
    let node = json!({"metadata": {"name": name, "labels": {"pool": pool}}, "spec": {"taints": taints},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    Arc::new(serde_json::from_value(node).unwrap())
}

fn pod(name: &str, node: &str, hash: &str, phase: &str, ready: bool, leaving: bool) -> Arc<Pod> {
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "demo", "labels": {"app": "x", HASH: hash}},
        "spec": {"nodeName": node, "containers": []},
        "status": {"phase": phase, "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" },
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
    });
    if leaving {
        pod["metadata"]["deletionTimestamp"] = json!(NOW);
    }
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn planned(set: &DaemonSet, nodes: &[Arc<Node>], pods: &[Arc<Pod>], backoff: &Backoff) -> Plan {
    plan(&Observed {
        set,
        nodes,
        pods,
        wanted: &daemon::pod(set, "new"),
        backoff,
        now: NOW.parse().unwrap(),
    })
}

fn names(list: &[&str]) -> BTreeSet<String> {
    list.iter().map(|&name| name.to_owned()).collect()
}

#[test]
fn each_matching_node_gets_one_and_no_other() {
    let nodes = [
        node("n1", "a", None),
        node("n2", "b", None),
        node("n3", "a", Some("NoSchedule")),
        node("n4", "a", Some("NoExecute")),
        node("n5", "a", Some("NoExecute")),
        node("n6", "a", Some("NoSchedule")),
    ];
    let pods = [
        pod("on-4", "n4", "new", "Running", true, false),
        pod("on-6", "n6", "new", "Running", true, false),
        pod("on-2", "n2", "new", "Running", true, false),
        pod("lost", "gone", "new", "Running", true, false),
    ];
    let plan = planned(&set(json!({})), &nodes, &pods, &Backoff::default());
    assert_eq!(plan.create, names(&["n1"]));
    let wanted = [
        ("lost", Reason::NoNode),
        ("on-2", Reason::Surplus),
        ("on-4", Reason::Surplus),
    ];
    assert_eq!(
        plan.delete,
        wanted
            .map(|(name, reason)| (name.to_owned(), reason))
            .into()
    );
    assert_eq!(
        (
            plan.status.desired_number_scheduled,
            plan.status.number_misscheduled
        ),
        (1, 3)
    );
}

#[test]
fn the_pod_is_placed_and_tolerates_trouble() {
    let placed = daemon::place(daemon::pod(&set(json!({})), "h"), "n1");
    let spec = json!(placed.spec.unwrap());
    assert_eq!(spec["nodeName"], "n1");
    assert_eq!(
        spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"],
        json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}])
    );
    let tolerations: Vec<String> = spec["tolerations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            format!(
                "{}:{}",
                one["key"].as_str().unwrap(),
                one["effect"].as_str().unwrap()
            )
        })
        .collect();
    assert_eq!(
        tolerations,
        [
            "node.kubernetes.io/not-ready:NoExecute",
            "node.kubernetes.io/unreachable:NoExecute",
            "node.kubernetes.io/disk-pressure:NoSchedule",
            "node.kubernetes.io/memory-pressure:NoSchedule",
            "node.kubernetes.io/pid-pressure:NoSchedule",
            "node.kubernetes.io/unschedulable:NoSchedule",
        ]
    );
}

#[test]
fn failed_pods_go_at_once_and_then_with_pauses() {
    let nodes = [node("n1", "a", None)];
    let pods = [pod("p", "n1", "new", "Failed", false, false)];
    let set = set(json!({}));
    let mut backoff = Backoff::default();
    let first = planned(&set, &nodes, &pods, &backoff);
    assert_eq!(first.delete, [("p".to_owned(), Reason::Failed)].into());
    assert!(
        first.create.is_empty(),
        "the next comes when this one is gone"
    );
    let now: Timestamp = NOW.parse().unwrap();
    backoff.note(&set, "n1", now);
    backoff.note(&set, "n1", now);
    let second = planned(&set, &nodes, &pods, &backoff);
    assert!(second.delete.is_empty());
    assert_eq!(second.again, Some(std::time::Duration::from_secs(2)));
    assert_eq!(
        backoff.wait(&set, "n1", now + SignedDuration::from_secs(2)),
        None
    );
}

#[test]
fn a_rollout_removes_as_many_as_may_be_missing() {
    let nodes: Vec<_> = (0..4).map(|n| node(&format!("n{n}"), "a", None)).collect();
    let old = |n: usize, ready: bool| {
        pod(
            &format!("p{n}"),
            &format!("n{n}"),
            "old",
            "Running",
            ready,
            false,
        )
    };
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 2}});
    let pods = [old(0, true), old(1, true), old(2, true), old(3, true)];
    assert_eq!(
        planned(&set(strategy.clone()), &nodes, &pods, &Backoff::default())
            .delete
            .len(),
        2
    );
    // One that is not available counts, and goes first.
    let pods = [old(0, true), old(1, true), old(2, true), old(3, false)];
    let plan = planned(&set(strategy), &nodes, &pods, &Backoff::default());
    assert_eq!(
        plan.delete.keys().cloned().collect::<BTreeSet<_>>(),
        names(&["p0", "p3"])
    );
    let on_delete = set(json!({"type": "OnDelete"}));
    assert!(
        planned(&on_delete, &nodes, &pods, &Backoff::default())
            .delete
            .is_empty()
    );
}

#[test]
fn a_surge_brings_the_new_before_the_old_goes() {
    let nodes = [node("n1", "a", None), node("n2", "a", None)];
    let strategy = json!({"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}});
    let old = [
        pod("o1", "n1", "old", "Running", true, false),
        pod("o2", "n2", "old", "Running", true, false),
    ];
    let first = planned(&set(strategy.clone()), &nodes, &old, &Backoff::default());
    assert_eq!((first.create, first.delete.len()), (names(&["n1"]), 0));
    let waiting = [
        old[0].clone(),
        old[1].clone(),
        pod("new1", "n1", "new", "Running", false, false),
    ];
    let second = planned(
        &set(strategy.clone()),
        &nodes,
        &waiting,
        &Backoff::default(),
    );
    assert_eq!((second.create.len(), second.delete.len()), (0, 0));
    let ready = [
        old[0].clone(),
        old[1].clone(),
        pod("new1", "n1", "new", "Running", true, false),
    ];
    let third = planned(&set(strategy), &nodes, &ready, &Backoff::default());
    assert_eq!((third.create, third.delete.len()), (names(&["n2"]), 1));
    assert!(third.delete.contains_key("o1"));
}

/// A small cluster: node → Pods there, (is new, is leaving, is ready).
type World = BTreeMap<String, (Arc<Node>, Vec<(String, bool, bool, bool)>)>;

fn pods_of(world: &World) -> Vec<Arc<Pod>> {
    let of = |(node, (_, pods)): (&String, &(Arc<Node>, Vec<_>))| -> Vec<Arc<Pod>> {
        let one = |(name, new, leaving, ready): &(String, bool, bool, bool)| {
            pod(
                name,
                node,
                if *new { "new" } else { "old" },
                "Running",
                *ready,
                *leaving,
            )
        };
        pods.iter().map(one).collect()
    };
    world.iter().flat_map(of).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever is there at first, and in whichever order agents act, each wanted node ends with one new Pod, and
    /// without a surge no node ever has two that stay but at the beginning.
    #[test]
    fn every_beginning_ends_in_one_new_pod_a_node(
        beginning in prop::collection::vec((0..3_u8, prop::collection::vec((any::<bool>(), any::<bool>()), 0..3)), 1..6),
        surge in 0..2_i32,
        order in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let strategy = json!({"rollingUpdate": {"maxUnavailable": 1 - surge, "maxSurge": surge}});
        let set = set(strategy);
        let mut made = 0;
        let mut world = World::new();
        for (number, (kind, pods)) in beginning.iter().enumerate() {
            let name = format!("n{number}");
            let pool = if *kind == 2 { "b" } else { "a" };
            let mut here = Vec::new();
            for (new, ready) in pods {
                made += 1;
                here.push((format!("p{made:03}"), *new, false, *ready));
            }
            world.insert(name.clone(), (node(&name, pool, None), here));
        }
        let nodes: Vec<_> = world.values().map(|(node, _)| node.clone()).collect();
        // First by chance, then each in turn.
        for step in order.into_iter().chain(0..=120) {
            let pods = pods_of(&world);
            let plan = planned(&set, &nodes, &pods, &Backoff::default());
            for node in &plan.create {
                let here = &mut world.get_mut(node).unwrap().1;
                prop_assert!(surge == 1 || here.is_empty(), "a second Pod on {}", node);
                prop_assert!(here.iter().filter(|one| one.1 && !one.2).count() == 0, "a second new Pod on {}", node);
                made += 1;
                here.push((format!("p{made:03}"), true, false, false));
            }
            for (_, pods) in world.values_mut() {
                for one in pods.iter_mut() {
                    one.2 |= plan.delete.contains_key(&one.0);
                }
            }
            // One agent does one thing.
            let which = usize::from(step) % world.len();
            let (_, pods) = world.values_mut().nth(which).unwrap();
            if let Some(leaving) = pods.iter().position(|one| one.2) {
                pods.remove(leaving);
            } else if let Some(one) = pods.iter_mut().find(|one| !one.3) {
                one.3 = true;
            }
        }
        for (name, (node, pods)) in &world {
            let wanted = usize::from(node.metadata.labels.as_ref().unwrap()["pool"] == "a");
            prop_assert_eq!(pods.len(), wanted, "{}: {:?}", name, pods);
            prop_assert!(pods.iter().all(|one| one.1 && !one.2));
        }
    }
}
