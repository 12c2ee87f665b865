//! Tables of situations, and a small world in which plans are carried out: whatever happens, it comes to rest.

pub mod world;

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use proptest::prelude::*;
use serde_json::json;

use self::world::{Happening, World, pod};
use super::{Action, Failed, plan};
use crate::agent::memory::Probed;
use crate::agent::spec::{self, Restart};
use crate::runtime::ContainerState;

fn started(actions: &[Action]) -> Vec<(&str, u32)> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Start { name, attempt, .. } => Some((&**name, *attempt)),
            _ => None,
        })
        .collect()
}

#[test]
fn first_the_sandbox_then_all_containers() {
    let mut world = World::new(pod(json!({"containers": [{"name": "a"}, {"name": "b"}]})));
    assert_eq!(
        world.step(),
        [Action::MakeSandbox {
            attempt: 0,
            changed: false
        }]
    );
    assert_eq!(started(&world.step()), [("a", 0), ("b", 0)]);
    assert_eq!(world.step(), []);
}

#[test]
fn a_container_that_dies_leaves_its_neighbour_alone() {
    let mut world = World::new(pod(json!({"containers": [{"name": "a"}, {"name": "b"}]})));
    world.settle();
    world.happen(&Happening::End(0, 1));
    assert_eq!(started(&world.step()), [("a", 1)]);
    world.happen(&Happening::End(0, 1));
    // The second time it waits; so does the third, longer.
    let resting = world.plan();
    assert_eq!(resting.actions, []);
    assert_eq!(resting.wake, Some(world.now + Duration::from_secs(10)));
    assert_eq!(resting.waiting, [("a".to_owned(), 1)]);
    world.happen(&Happening::Wait(10));
    assert_eq!(started(&world.step()), [("a", 2)]);
    world.happen(&Happening::End(0, 1));
    assert_eq!(world.plan().wake, Some(world.now + Duration::from_secs(20)));
    world.happen(&Happening::Wait(20));
    world.settle();
    world.happen(&Happening::Wait(700));
    world.happen(&Happening::End(0, 1));
    assert_eq!(
        started(&world.step()),
        [("a", 4)],
        "a long good time is rewarded"
    );
    world.settle();
    let named = |name: &str| {
        world
            .containers
            .iter()
            .filter(|c| c.config.name == name)
            .count()
    };
    assert_eq!(
        (named("a"), named("b")),
        (2, 1),
        "the last that ended is kept"
    );
}

#[test]
fn a_sandbox_that_dies_takes_all_with_it_and_begins_anew() {
    let mut world = World::new(pod(json!({
        "initContainers": [{"name": "i"}], "containers": [{"name": "a"}]})));
    world.settle();
    world.happen(&Happening::End(0, 0));
    world.settle();
    world.happen(&Happening::SandboxDies);
    let actions = world.step();
    assert!(
        matches!(
            &actions[..],
            [
                Action::StopSandbox { .. },
                Action::MakeSandbox {
                    attempt: 1,
                    changed: true
                }
            ]
        ),
        "{actions:?}"
    );
    assert_eq!(
        started(&world.step()),
        [("i", 1)],
        "the init container runs again"
    );
    world.happen(&Happening::End(0, 0));
    assert_eq!(started(&world.step()), [("a", 1)]);
}

#[test]
fn what_is_never_restarted_ends_the_pod() {
    for (policy, code, over) in [
        ("Never", 0, true),
        ("Never", 1, true),
        ("OnFailure", 0, true),
        ("OnFailure", 1, false),
        ("Always", 0, false),
    ] {
        let mut world = World::new(pod(
            json!({"restartPolicy": policy, "containers": [{"name": "a"}]}),
        ));
        world.settle();
        world.happen(&Happening::End(0, code));
        let actions = world.step();
        let stops = matches!(&actions[..], [Action::StopSandbox { .. }]);
        assert_eq!(stops, over, "{policy} {code}: {actions:?}");
        assert_eq!(started(&actions).is_empty(), over);
    }
}

#[test]
fn a_failed_init_container_ends_a_pod_that_is_never_restarted() {
    let mut world = World::new(pod(json!({"restartPolicy": "Never",
        "initContainers": [{"name": "i"}], "containers": [{"name": "a"}]})));
    world.settle();
    world.happen(&Happening::End(0, 2));
    assert!(matches!(&world.step()[..], [Action::StopSandbox { .. }]));
    assert_eq!(world.step(), []);
}

#[test]
fn probes_end_containers() {
    let mut world = World::new(pod(json!({"containers": [{"name": "a"}]})));
    world.settle();
    let id = world.containers[0].id.clone();
    let failed = |startup, liveness| Probed {
        startup,
        liveness,
        readiness: None,
    };
    for (probed, probe) in [
        (failed(None, Some(false)), Failed::Liveness),
        (failed(Some(false), None), Failed::Startup),
    ] {
        world.memory.probed.insert(id.clone(), probed);
        let actions = world.plan().actions;
        assert_eq!(
            actions,
            [Action::Kill {
                id: id.clone(),
                name: "a".to_owned(),
                probe
            }]
        );
    }
}

#[test]
fn a_deadline_ends_the_pod_and_is_waited_for() {
    let mut world = World::new(pod(
        json!({"activeDeadlineSeconds": 30, "containers": [{"name": "a"}]}),
    ));
    world.memory.seen = Some(world.now);
    world.settle();
    assert_eq!(
        world.plan().wake,
        Some(world.memory.seen.unwrap() + Duration::from_secs(30))
    );
    world.happen(&Happening::Wait(30));
    assert!(matches!(
        &world.step()[..],
        [Action::Fail {
            reason: "DeadlineExceeded",
            ..
        }]
    ));
    assert!(matches!(&world.step()[..], [Action::StopSandbox { .. }]));
    assert_eq!(world.step(), []);
}

#[test]
fn a_new_agent_counts_on_from_what_the_api_says() {
    let mut pod = pod(json!({"containers": [{"name": "a"}]}));
    pod.status = serde_json::from_value(json!({"containerStatuses": [
        {"name": "a", "restartCount": 4, "containerID": "weft://gone", "image": "", "imageID": "", "ready": false}]}))
    .unwrap();
    let mut world = World::new(pod);
    world.step();
    assert_eq!(started(&world.step()), [("a", 5)]);
}

#[test]
fn a_pod_that_is_over_in_the_api_stays_over() {
    let mut pod = pod(json!({"containers": [{"name": "a"}]}));
    pod.status = serde_json::from_value(json!({"phase": "Failed"})).unwrap();
    assert_eq!(World::new(pod).step(), []);
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        4 => (0..4_usize, 0..2).prop_map(|(which, code)| Happening::End(which, code)),
        1 => Just(Happening::SandboxDies),
        2 => (0..400_u64).prop_map(Happening::Wait),
        4 => Just(Happening::Step),
        1 => (0..4_usize).prop_map(Happening::ProbeFails),
        1 => Just(Happening::NewAgent),
    ]
}

fn any_pod() -> impl Strategy<Value = Pod> {
    (
        prop_oneof![Just("Always"), Just("OnFailure"), Just("Never")],
        proptest::collection::vec(any::<bool>(), 0..3),
        1..3_usize,
    )
        .prop_map(|(policy, init, regular)| {
            let init: Vec<_> = init
                .into_iter()
                .enumerate()
                .map(|(number, side)| {
                    let name = format!("i{number}");
                    if side {
                        json!({"name": name, "restartPolicy": "Always"})
                    } else {
                        json!({"name": name})
                    }
                })
                .collect();
            let regular: Vec<_> = (0..regular)
                .map(|number| json!({"name": format!("r{number}")}))
                .collect();
            pod(json!({"restartPolicy": policy, "initContainers": init, "containers": regular}))
        })
}

proptest! {
    #[test]
    fn whatever_happens_it_comes_to_rest(pod in any_pod(), happenings in proptest::collection::vec(happening(), 0..40)) {
        let mut world = World::new(pod);
        for happening in &happenings {
            world.happen(happening);
            world.check();
        }
        // From now on init containers succeed and the rest runs.
        for _ in 0..12 {
            world.settle();
            world.finish_init();
            world.happen(&Happening::Wait(301));
            world.check();
        }
        let last = world.plan();
        prop_assert_eq!(&last.actions, &[], "at rest");
        let over = super::is_finished(&world.view());
        let live = world.sandboxes.iter().filter(|sandbox| sandbox.ready).count();
        prop_assert_eq!(live, usize::from(!over));
        for container in spec::containers(&world.pod) {
            let runs = world.view().named(&container.name).first()
                .is_some_and(|newest| newest.state == ContainerState::Running);
            if spec::restart(&world.pod) == Restart::Always {
                prop_assert!(runs, "{} runs", container.name);
            }
            if over {
                prop_assert!(!runs);
            }
        }
    }
}

#[test]
fn plans_depend_on_nothing_but_the_view() {
    let mut world = World::new(pod(json!({"containers": [{"name": "a"}]})));
    world.settle();
    assert_eq!(plan(&world.view()), plan(&world.view()));
    assert_ne!(world.now, Timestamp::UNIX_EPOCH);
}
