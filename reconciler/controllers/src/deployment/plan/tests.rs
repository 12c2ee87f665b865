//! The steps of rollouts as `kubectl get events` shows them; and that whatever happens in whatever order, a rollout
//! keeps its bounds and ends.

mod world;

use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};
use world::World;

fn reason(world: &World) -> (String, String) {
    let status = world.deployment.status.clone().unwrap_or_default();
    let progressing = status
        .conditions
        .unwrap_or_default()
        .into_iter()
        .find(|condition| condition.type_ == "Progressing");
    progressing
        .map(|condition| (condition.status, condition.reason.unwrap_or_default()))
        .unwrap_or_default()
}

fn told(status: &str, reason: &str) -> (String, String) {
    (status.into(), reason.into())
}

fn rolling(replicas: i32, surge: Value, unavailable: Value) -> World {
    World::new(
        replicas,
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}),
    )
}

#[test]
fn a_deployment_begins_with_one_replica_set() {
    let mut world = rolling(3, json!("25%"), json!("25%"));
    world.look();
    assert_eq!(world.scaled(), ["a: 0 to 3"]);
    assert_eq!(reason(&world), told("True", "NewReplicaSetCreated"));
    let set = &world.sets[0];
    let hash = set.labels()[revision::HASH].clone();
    assert!(
        (6..=10).contains(&hash.len())
            && hash
                .bytes()
                .all(|byte| b"bcdfghjklmnpqrstvwxz2456789".contains(&byte)),
        "{hash}"
    );
    assert_eq!(set.name_any(), format!("web-{hash}"));
    assert_eq!(
        serde_json::to_value(set.as_ref()).unwrap(),
        json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {
                "name": format!("web-{hash}"), "namespace": "demo", "uid": "set-0", "generation": 1,
                "creationTimestamp": "2026-11-26T12:00:01Z",
                "labels": {"app": "x", "pod-template-hash": hash},
                "annotations": {
                    "deployment.kubernetes.io/desired-replicas": "3", "deployment.kubernetes.io/max-replicas": "4",
                    "deployment.kubernetes.io/revision": "1", "kubernetes.io/change-cause": "first"
                },
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "u",
                    "controller": true, "blockOwnerDeletion": true}]
            },
            "spec": {
                "replicas": 3,
                "selector": {"matchLabels": {"app": "x", "pod-template-hash": hash}},
                "template": {"metadata": {"labels": {"app": "x", "pod-template-hash": hash}},
                    "spec": {"containers": [{"name": "c", "image": "a"}]}}
            }
        })
    );
    assert_eq!(world.deployment.annotations()[revision::REVISION], "1");
    world.settle();
    assert_eq!(
        serde_json::to_value(world.deployment.status.as_ref().unwrap()).unwrap(),
        json!({
            "observedGeneration": 1, "replicas": 3, "updatedReplicas": 3, "readyReplicas": 3, "availableReplicas": 3,
            "terminatingReplicas": 0,
            "conditions": [
                {"type": "Available", "status": "True", "reason": "MinimumReplicasAvailable",
                    "message": "Deployment has minimum availability.",
                    "lastUpdateTime": "2026-11-26T12:00:00Z", "lastTransitionTime": "2026-11-26T12:00:00Z"},
                {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable",
                    "message": format!("ReplicaSet \"web-{hash}\" has successfully progressed."),
                    "lastUpdateTime": "2026-11-26T12:00:00Z", "lastTransitionTime": "2026-11-26T12:00:00Z"}
            ]
        })
    );
}

#[test]
fn a_new_template_replaces_pods_one_by_one() {
    let mut world = rolling(3, json!(1), json!(0));
    world.settle();
    world.scaled();
    world.template("b");
    world.settle();
    assert_eq!(
        world.scaled(),
        [
            "b: 0 to 1",
            "a: 3 to 2",
            "b: 1 to 2",
            "a: 2 to 1",
            "b: 2 to 3",
            "a: 1 to 0"
        ]
    );
    assert_eq!(reason(&world), told("True", "NewReplicaSetAvailable"));
    assert_eq!(world.deployment.annotations()[revision::REVISION], "2");
}

#[test]
fn a_rollback_gives_the_old_replica_set_a_new_revision() {
    let mut world = rolling(1, json!(1), json!(0));
    world.settle();
    world.template("b");
    world.settle();
    world.scaled();
    // kubectl rollout undo puts the old template back, and the annotations of its ReplicaSet.
    world.template("a");
    world.settle();
    assert_eq!(world.scaled(), ["a: 0 to 1", "b: 1 to 0"]);
    assert_eq!(world.sets.len(), 2);
    let annotations = world.set("a").annotations().clone();
    assert_eq!(
        (
            annotations[revision::REVISION].as_str(),
            annotations[revision::HISTORY].as_str()
        ),
        ("3", "1")
    );
    assert_eq!(world.deployment.annotations()[revision::REVISION], "3");
    world.template("b");
    world.settle();
    world.template("a");
    world.settle();
    assert_eq!(world.set("a").annotations()[revision::HISTORY], "1,3");
}

#[test]
fn recreate_makes_new_pods_when_the_old_have_ended() {
    let mut world = World::new(2, json!({"type": "Recreate"}));
    world.settle();
    world.scaled();
    world.template("b");
    world.look();
    assert_eq!(world.scaled(), ["a: 2 to 0"]);
    world.replicate(0);
    world.tell(0);
    let lingering = [Arc::new(world.pod(0))];
    let waiting = plan(&world.deployment, &world.sets, &lingering, world.now);
    assert!(waiting.create.is_none(), "one still ends");
    world.settle();
    assert_eq!(world.scaled(), ["b: 0 to 2"]);
}

#[test]
fn a_paused_deployment_follows_its_size_and_not_its_template() {
    let mut world = rolling(4, json!(1), json!(0));
    world.settle();
    world.scaled();
    world.paused(true);
    world.template("b");
    world.scale(6);
    world.settle();
    assert_eq!(world.scaled(), ["a: 4 to 6"]);
    assert_eq!(reason(&world), told("Unknown", "DeploymentPaused"));
    world.paused(false);
    world.look();
    assert_eq!(world.scaled()[0], "b: 0 to 1");
    assert_eq!(reason(&world), told("True", "NewReplicaSetCreated"));
    world.settle();
    assert_eq!(
        (world.set("a").replicas(), world.set("b").replicas()),
        (0, 6)
    );
}

#[test]
fn a_rollout_that_is_scaled_keeps_its_proportions() {
    let mut world = rolling(10, json!(3), json!(2));
    world.settle();
    world.template("b");
    world.look();
    assert_eq!(
        (world.set("a").replicas(), world.set("b").replicas()),
        (8, 3)
    );
    // The old Pods have to go before there is room for more new ones.
    world.look();
    assert_eq!(
        (world.set("a").replicas(), world.set("b").replicas()),
        (8, 3)
    );
    world.replicate(0);
    world.tell(0);
    world.look();
    assert_eq!(
        (world.set("a").replicas(), world.set("b").replicas()),
        (8, 5),
        "13 in all; 8 are available"
    );
    world.scaled();
    world.scale(15);
    world.look();
    // 18 are allowed: 8 × 18/13 and 5 × 18/13.
    assert_eq!(world.scaled(), ["b: 5 to 7", "a: 8 to 11"]);
}

#[test]
fn a_rollout_that_stands_still_is_told_after_its_deadline() {
    let mut world = rolling(1, json!(1), json!(0));
    world.settle();
    world.template("b");
    world.look();
    let again = world.look().again.unwrap();
    assert_eq!(again.as_secs(), 601);
    world.now += again;
    world.look();
    assert_eq!(reason(&world), told("False", "ProgressDeadlineExceeded"));
    assert_eq!(world.look().again, None);
    world.settle();
    assert_eq!(
        reason(&world),
        told("True", "NewReplicaSetAvailable"),
        "late is not never"
    );
}

#[test]
fn the_history_is_kept_as_long_as_is_wanted() {
    let mut world = rolling(1, json!(1), json!(0));
    world
        .deployment
        .spec
        .as_mut()
        .unwrap()
        .revision_history_limit = Some(2);
    for image in ["a", "b", "c", "d", "e"] {
        world.template(image);
        world.settle();
    }
    let mut left: Vec<_> = world
        .sets
        .iter()
        .map(|set| revision::revision(set))
        .collect();
    left.sort_unstable();
    assert_eq!(left, [3, 4, 5]);
}

#[test]
fn templates_are_compared_without_hash_and_empty_fields() {
    let template = |value: Value| {
        serde_json::from_value::<k8s_openapi::api::core::v1::PodTemplateSpec>(value).unwrap()
    };
    let plain = template(
        json!({"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "a"}]}}),
    );
    let other = template(json!({
        "metadata": {"labels": {"app": "x", "pod-template-hash": "h"}, "annotations": {}},
        "spec": {"containers": [{"name": "c", "image": "a", "resources": {}}], "volumes": []}
    }));
    assert!(revision::same_template(&plain, &other));
    let image = template(
        json!({"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "b"}]}}),
    );
    assert!(!revision::same_template(&plain, &image));
}

/// What can happen meanwhile.
#[derive(Clone, Debug)]
enum Event {
    Scale(i32),
    Template(u8),
    Paused(bool),
    /// A ReplicaSet's Pods follow its wish.
    Replicate(usize),
    /// A ReplicaSet's status follows its Pods.
    Tell(usize),
    /// One Pod of a ReplicaSet becomes available.
    Ready(usize),
    /// The controller looks.
    Look,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        1 => (0..7).prop_map(Event::Scale),
        1 => (0..4_u8).prop_map(Event::Template),
        1 => any::<bool>().prop_map(Event::Paused),
        5 => any::<usize>().prop_map(Event::Replicate),
        5 => any::<usize>().prop_map(Event::Tell),
        5 => any::<usize>().prop_map(Event::Ready),
        6 => Just(Event::Look),
    ];
    prop::collection::vec(event, 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn any_order_of_events_keeps_the_bounds_and_ends(surge in 0..3, unavailable in 0..3, recreate in prop::bool::weighted(0.2), events in events()) {
        let mut world = if recreate { World::new(3, json!({"type": "Recreate"})) } else { rolling(3, json!(surge), json!(unavailable)) };
        // Whoever scales a Deployment down wants fewer Pods: their share is taken from all, available or not.
        let mut scaled = false;
        for event in events {
            let at = |at: usize, world: &World| (!world.sets.is_empty()).then(|| at % world.sets.len());
            match event {
                Event::Scale(replicas) => { world.scale(replicas); scaled = true; }
                Event::Template(image) => world.template(&char::from(b'a' + image).to_string()),
                Event::Paused(paused) => world.paused(paused),
                Event::Replicate(set) => if let Some(set) = at(set, &world) { world.replicate(set) },
                Event::Tell(set) => if let Some(set) = at(set, &world) { world.tell(set) },
                Event::Ready(set) => if let Some(set) = at(set, &world) { world.ready(set) },
                Event::Look => {
                    let limits = limits::limits(&world.deployment);
                    let (wanted, available) = (world.wanted(), world.available());
                    world.look();
                    prop_assert!(world.wanted() <= limits.most().max(wanted), "too many: {} of {limits:?}", world.wanted());
                    if !recreate && !scaled {
                        prop_assert!(world.available() >= limits.fewest().min(available), "too few: {} of {available}, {limits:?}", world.available());
                    }
                    scaled = false;
                }
            }
        }
        world.paused(false);
        world.settle();
        let wanted = limits::limits(&world.deployment).wanted;
        let image = world.image();
        for set in &world.sets {
            let expected = if world::image_of(set) == image { wanted } else { 0 };
            prop_assert_eq!(set.replicas(), expected);
        }
        let status = world.deployment.status.clone().unwrap_or_default();
        prop_assert_eq!(status.updated_replicas.unwrap_or(0), wanted);
        prop_assert_eq!(status.available_replicas.unwrap_or(0), wanted);
        prop_assert_eq!(reason(&world), told("True", "NewReplicaSetAvailable"));
        let revisions: std::collections::BTreeSet<_> = world.sets.iter().map(|set| revision::revision(set)).collect();
        prop_assert_eq!(revisions.len(), world.sets.len(), "each its own revision");
    }
}
