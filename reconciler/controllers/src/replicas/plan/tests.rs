//! How many Pods are made, which are deleted, what is told; and that any order of events ends with as many as wanted.

use super::*;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::ReplicationController;
use proptest::prelude::*;
use serde_json::{Value, json};

const NOW: &str = "2026-11-26T12:00:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn set(replicas: i32, min_ready: i32) -> ReplicaSet {
    let template =
        json!({"metadata": {"labels": {"app": "x", "tier": "web"}}, "spec": {"containers": []}});
    let spec = json!({"replicas": replicas, "minReadySeconds": min_ready, "selector": {"matchLabels": {"app": "x"}}, "template": template});
    let metadata = json!({"name": "web", "namespace": "demo", "uid": "u", "generation": 3});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
}

/// A running Pod that became ready at `since`, with the changes of `with` merged over it.
fn pod(name: &str, since: &str, with: Value) -> Arc<Pod> {
    let mut value = json!({
        "metadata": {"name": name, "uid": name, "namespace": "demo", "labels": {"app": "x", "tier": "web"}, "creationTimestamp": since},
        "spec": {"nodeName": "n1", "containers": []},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": since}]}
    });
    merge(&mut value, with);
    Arc::new(serde_json::from_value(value).unwrap())
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

fn names(pods: &[Arc<Pod>]) -> Vec<String> {
    pods.iter().map(|pod| pod.name_any()).collect()
}

#[test]
fn the_pods_whose_loss_hurts_least_go_first() {
    let old = "2026-11-20T12:00:00Z";
    let unready = json!({"status": {"conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": old}]}});
    let pods = vec![
        pod("old", old, json!({})),
        pod(
            "dear",
            old,
            json!({"metadata": {"annotations": {rank::DELETION_COST: "10"}}}),
        ),
        pod(
            "cheap",
            old,
            json!({"metadata": {"annotations": {rank::DELETION_COST: "-5"}}}),
        ),
        pod("young", "2026-11-26T11:59:00Z", json!({})),
        pod("crowded", old, json!({"spec": {"nodeName": "n2"}})),
        pod(
            "restarted",
            old,
            json!({"status": {"containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 3}]}}),
        ),
        pod("unready", old, unready),
        pod(
            "pending",
            old,
            json!({"status": {"phase": "Pending", "conditions": null}}),
        ),
        pod(
            "unbound",
            old,
            json!({"spec": {"nodeName": null}, "status": {"phase": "Pending", "conditions": null}}),
        ),
    ];
    let mut related = pods.clone();
    related.extend((0..9).map(|n| {
        pod(
            &format!("other{n}"),
            old,
            json!({"spec": {"nodeName": "n2"}}),
        )
    }));
    let plan = plan(&set(0, 0), &pods, &related, now());
    assert_eq!(
        names(&plan.delete),
        [
            "unbound",
            "pending",
            "unready",
            "cheap",
            "crowded",
            "young",
            "restarted",
            "old",
            "dear"
        ]
    );
    assert_eq!(plan.create, 0);
}

#[test]
fn ended_and_ending_pods_are_replaced_and_not_counted() {
    let since = "2026-11-26T11:00:00Z";
    let pods = [
        pod(
            "runs",
            since,
            json!({"metadata": {"labels": {"tier": "other"}}}),
        ),
        pod(
            "failed",
            since,
            json!({"status": {"phase": "Failed", "conditions": null}}),
        ),
        pod(
            "ends",
            since,
            json!({"metadata": {"deletionTimestamp": NOW}}),
        ),
        pod(
            "starts",
            since,
            json!({"status": {"phase": "Pending", "conditions": null}}),
        ),
    ];
    let plan = plan(&set(5, 0), &pods, &pods, now());
    assert_eq!((plan.create, plan.delete.len()), (3, 0));
    let told = set(5, 0).with_status(plan.status).unwrap();
    assert_eq!(
        serde_json::to_value(told.status).unwrap(),
        json!({"replicas": 2, "fullyLabeledReplicas": 1, "readyReplicas": 1, "availableReplicas": 1,
               "terminatingReplicas": 1, "observedGeneration": 3})
    );
}

#[test]
fn a_pod_counts_as_available_after_min_ready_seconds() {
    let pods = [
        pod("a", "2026-11-26T11:59:30Z", json!({})),
        pod("b", "2026-11-26T11:59:55Z", json!({})),
    ];
    let plan = plan(&set(2, 30), &pods, &pods, now());
    assert_eq!((plan.status.ready, plan.status.available), (2, 1));
    assert_eq!(plan.again, Some(Duration::from_secs(25)));
}

#[test]
fn one_that_is_being_deleted_makes_and_deletes_nothing() {
    let mut set = set(3, 0);
    set.metadata.deletion_timestamp = Some(Time(now()));
    assert_eq!(plan(&set, &[], &[], now()).create, 0);
    set.spec.as_mut().unwrap().replicas = Some(0);
    let pods = [pod("a", NOW, json!({}))];
    assert!(plan(&set, &pods, &pods, now()).delete.is_empty());
}

#[test]
fn a_failure_is_told_until_a_try_has_none() {
    let failure = |message: &str| {
        Some(Failure {
            reason: "FailedCreate",
            message: message.into(),
        })
    };
    let first = with_failure(Status::default(), failure("no"), now());
    assert_eq!(
        (
            first.conditions[0].reason.as_str(),
            first.conditions[0].message.as_str()
        ),
        ("FailedCreate", "no")
    );
    let second = with_failure(
        first.clone(),
        failure("still no"),
        now() + Duration::from_secs(9),
    );
    assert_eq!(second, first, "it would be written again and again");
    assert_eq!(with_failure(second, None, now()).conditions, []);
}

#[test]
fn a_replication_controller_is_told_the_same() {
    let spec = json!({"replicas": 2, "selector": {"app": "x"}, "template": {"metadata": {"labels": {"app": "x"}}}});
    let controller: ReplicationController =
        serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "demo", "uid": "u", "generation": 1}, "spec": spec})).unwrap();
    let pods = [pod("a", "2026-11-26T11:00:00Z", json!({}))];
    let plan = plan(&controller, &pods, &pods, now());
    assert_eq!(plan.create, 1);
    let told = controller.with_status(plan.status.clone()).unwrap();
    assert_eq!(
        serde_json::to_value(&told.status).unwrap(),
        json!({"replicas": 1, "fullyLabeledReplicas": 1, "readyReplicas": 1, "availableReplicas": 1, "observedGeneration": 1})
    );
    assert!(
        told.with_status(plan.status).is_none(),
        "nothing has changed"
    );
}

/// What can happen to the Pods and the wish meanwhile.
#[derive(Clone, Debug)]
enum Event {
    Scale(i32),
    Runs(usize),
    Fails(usize),
    Ends(usize),
    Gone(usize),
    /// The controller looks: at what is, or at what was before the last event.
    Look {
        late: bool,
    },
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        (0..8).prop_map(Event::Scale),
        any::<usize>().prop_map(Event::Runs),
        any::<usize>().prop_map(Event::Fails),
        any::<usize>().prop_map(Event::Ends),
        any::<usize>().prop_map(Event::Gone),
        any::<bool>().prop_map(|late| Event::Look { late }),
    ];
    prop::collection::vec(event, 0..60)
}

fn change(pods: &mut [Arc<Pod>], at: usize, with: Value) {
    if !pods.is_empty() {
        let at = at % pods.len();
        let mut value = serde_json::to_value(pods[at].as_ref()).unwrap();
        merge(&mut value, with);
        pods[at] = Arc::new(serde_json::from_value(value).unwrap());
    }
}

/// Carries out what the controller plans from `seen`, and says how much that was.
fn look(set: &ReplicaSet, seen: &[Arc<Pod>], pods: &mut Vec<Arc<Pod>>, made: &mut usize) -> usize {
    let plan = plan(set, seen, seen, now());
    for gone in &plan.delete {
        for at in 0..pods.len() {
            if pods[at].uid() == gone.uid() {
                change(pods, at, json!({"metadata": {"deletionTimestamp": NOW}}));
            }
        }
    }
    for _ in 0..plan.create {
        *made += 1;
        pods.push(pod(
            &format!("p{made}"),
            NOW,
            json!({"status": {"phase": "Pending", "conditions": null}}),
        ));
    }
    plan.create + plan.delete.len()
}

proptest! {
    #[test]
    fn any_order_of_events_ends_with_as_many_as_wanted(events in events()) {
        let mut set = set(3, 0);
        let (mut pods, mut before, mut made) = (Vec::new(), Vec::new(), 0);
        for event in events {
            let last = pods.clone();
            match event {
                Event::Scale(replicas) => set.spec.as_mut().unwrap().replicas = Some(replicas),
                Event::Runs(at) => change(&mut pods, at, json!({"status": {"phase": "Running"}})),
                Event::Fails(at) => change(&mut pods, at, json!({"status": {"phase": "Failed"}})),
                Event::Ends(at) => change(&mut pods, at, json!({"metadata": {"deletionTimestamp": NOW}})),
                Event::Gone(at) if !pods.is_empty() => { pods.remove(at % pods.len()); }
                Event::Gone(_) => {}
                Event::Look { late } => {
                    let seen = if late { before.clone() } else { pods.clone() };
                    look(&set, &seen, &mut pods, &mut made);
                    // Its own writes have come back before it looks again.
                    before = pods.clone();
                    continue;
                }
            }
            before = last;
        }
        let seen = pods.clone();
        look(&set, &seen, &mut pods, &mut made);
        let active = pods.iter().filter(|pod| pod::is_active(pod)).count();
        prop_assert_eq!(active, set.replicas() as usize);
        let seen = pods.clone();
        prop_assert_eq!(look(&set, &seen, &mut pods, &mut made), 0, "it is done, so nothing is left to do");
    }
}
