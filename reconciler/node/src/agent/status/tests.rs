//! Statuses as clients see them.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Value, json};

use super::{Host, own, status};
use crate::agent::memory::{Probed, Trouble};
use crate::agent::plan::tests::world::{Happening, World, pod};
use crate::runtime::ContainerState;

const IPS: [std::net::IpAddr; 1] = [std::net::IpAddr::V4(std::net::Ipv4Addr::new(
    192, 168, 66, 11,
))];

fn told(world: &World, last: bool) -> PodStatus {
    let host = Host {
        ips: &IPS,
        runtime: "weft",
    };
    status(&world.view(), host, last)
}

fn value(world: &World) -> Value {
    serde_json::to_value(told(world, false)).unwrap()
}

/// `Ready=False ContainersNotReady containers with unready status: [a]`
fn conditions(status: &Value) -> Vec<String> {
    let all = status["conditions"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    all.iter()
        .map(|one| {
            let line = format!(
                "{}={} {} {}",
                text(&one["type"]),
                text(&one["status"]),
                text(&one["reason"]),
                text(&one["message"])
            );
            line.trim_end().to_owned()
        })
        .collect()
}

#[test]
fn a_life() {
    let mut world = World::new(pod(json!({"containers": [{"name": "a", "image": "host"}]})));
    world.memory.seen = Some(world.now);
    let before = value(&world);
    assert_eq!(before["phase"], "Pending");
    assert_eq!(before["startTime"], "2026-11-26T12:00:00Z");
    assert_eq!(
        before["containerStatuses"][0]["state"],
        json!({"waiting": {"reason": "ContainerCreating"}})
    );
    assert_eq!(
        conditions(&before),
        [
            "PodReadyToStartContainers=False",
            "Initialized=True",
            "Ready=False ContainersNotReady containers with unready status: [a]",
            "ContainersReady=False ContainersNotReady containers with unready status: [a]",
            "PodScheduled=True",
        ]
    );
    world.settle();
    let running = value(&world);
    assert_eq!(running["phase"], "Running");
    assert_eq!(running["podIP"], "10.244.1.2");
    assert_eq!(running["hostIP"], "192.168.66.11");
    assert_eq!(
        running["containerStatuses"][0],
        json!({
            "name": "a", "image": "host", "imageID": "", "containerID": "weft://c2", "ready": true, "started": true,
            "restartCount": 0, "lastState": {}, "state": {"running": {"startedAt": "2026-11-26T12:00:00Z"}},
        })
    );
    assert!(
        conditions(&running)
            .iter()
            .all(|line| line.ends_with("=True")),
        "{running:#}"
    );
    world.happen(&Happening::End(0, 1));
    world.settle();
    world.happen(&Happening::End(0, 1));
    let crashed = value(&world);
    assert_eq!(crashed["phase"], "Running");
    let container = &crashed["containerStatuses"][0];
    assert_eq!(
        container["state"]["waiting"],
        json!({"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container=a pod=web_default(u1)"})
    );
    assert_eq!(container["lastState"]["terminated"]["exitCode"], 1);
    assert_eq!(
        (&container["restartCount"], &container["ready"]),
        (&json!(1), &json!(false))
    );
}

#[test]
fn times_of_conditions_change_only_with_their_truth() {
    let mut world = World::new(pod(json!({"containers": [{"name": "a"}]})));
    world.settle();
    world.pod.status = Some(told(&world, false));
    let before = world.now;
    world.happen(&Happening::Wait(60));
    assert_eq!(
        told(&world, false),
        own(world.pod.status.as_ref().unwrap()),
        "nothing has happened"
    );
    world.happen(&Happening::End(0, 1));
    let after = value(&world);
    let time = |kind: &str| -> Timestamp {
        let all = after["conditions"].as_array().unwrap();
        let one = all.iter().find(|one| one["type"] == kind).unwrap();
        one["lastTransitionTime"].as_str().unwrap().parse().unwrap()
    };
    assert_eq!(time("Ready"), world.now);
    assert_eq!(time("Initialized"), before);
}

#[test]
fn an_end() {
    for (code, phase, reason) in [(0, "Succeeded", "PodCompleted"), (7, "Failed", "PodFailed")] {
        let mut world = World::new(pod(
            json!({"restartPolicy": "Never", "containers": [{"name": "a"}]}),
        ));
        world.settle();
        world.pod.status = Some(told(&world, false));
        world.happen(&Happening::End(0, code));
        world.settle();
        world
            .sandboxes
            .iter_mut()
            .for_each(|sandbox| sandbox.ips.clear());
        let over = value(&world);
        assert_eq!(over["phase"], phase);
        assert_eq!(over["podIP"], "10.244.1.2", "where it was stays");
        assert_eq!(
            over["containerStatuses"][0]["state"]["terminated"]["exitCode"],
            code
        );
        assert!(
            conditions(&over).contains(&format!("Ready=False {reason}")),
            "{over:#}"
        );
        // Whatever becomes of the runtime, over is over.
        world.pod.status = Some(told(&world, false));
        world.containers.clear();
        world.sandboxes.clear();
        assert_eq!(
            value(&world)["containerStatuses"],
            over["containerStatuses"]
        );
    }
}

#[test]
fn a_deleted_pod_is_over_when_its_containers_are() {
    let mut world = World::new(pod(json!({"containers": [{"name": "a"}]})));
    world.settle();
    world.happen(&Happening::End(0, 0));
    assert_eq!(told(&world, true).phase.as_deref(), Some("Succeeded"));
}

#[test]
fn init_containers_come_first() {
    let mut world = World::new(pod(json!({
        "initContainers": [{"name": "i"}, {"name": "j"}], "containers": [{"name": "a"}]})));
    world.settle();
    let status = value(&world);
    assert_eq!(status["phase"], "Pending");
    assert!(status["initContainerStatuses"][0]["state"]["running"].is_object());
    assert_eq!(
        status["initContainerStatuses"][1]["state"]["waiting"]["reason"],
        "PodInitializing"
    );
    assert_eq!(
        status["containerStatuses"][0]["state"]["waiting"]["reason"],
        "PodInitializing"
    );
    assert!(
        conditions(&status).contains(
            &"Initialized=False ContainersNotInitialized containers with incomplete status: [i j]"
                .to_owned()
        )
    );
}

#[test]
fn readiness_is_what_probes_and_gates_say() {
    let mut world = World::new(pod(json!({
        "readinessGates": [{"conditionType": "gate"}],
        "containers": [{"name": "a", "readinessProbe": {"exec": {"command": ["x"]}}, "startupProbe": {"exec": {"command": ["x"]}}}]})));
    world.settle();
    let id = world.containers[0].id.clone();
    let status = |world: &World| value(world)["containerStatuses"][0].clone();
    assert_eq!(
        (&status(&world)["ready"], &status(&world)["started"]),
        (&json!(false), &json!(false))
    );
    let probed = |startup, readiness| Probed {
        startup,
        readiness,
        liveness: None,
    };
    world
        .memory
        .probed
        .insert(id.clone(), probed(Some(true), None));
    assert_eq!(
        (&status(&world)["ready"], &status(&world)["started"]),
        (&json!(false), &json!(true))
    );
    world
        .memory
        .probed
        .insert(id, probed(Some(true), Some(true)));
    assert_eq!(status(&world)["ready"], true);
    let lines = conditions(&value(&world));
    assert!(lines.contains(&"ContainersReady=True".to_owned()));
    let missing = "Ready=False ReadinessGatesNotReady corresponding condition of pod readiness gate \"gate\" does not exist.";
    assert!(lines.contains(&missing.to_owned()), "{lines:?}");
    world.pod.status =
        serde_json::from_value(json!({"conditions": [{"type": "gate", "status": "True"}]}))
            .unwrap();
    assert!(conditions(&value(&world)).contains(&"Ready=True".to_owned()));
}

#[test]
fn troubles_are_told() {
    let mut world = World::new(pod(json!({"containers": [{"name": "a"}]})));
    world.step();
    let trouble = Trouble {
        reason: "ErrImagePull".to_owned(),
        message: "no such image".to_owned(),
        failed: world.now,
        retry: world.now,
        delay: std::time::Duration::ZERO,
    };
    world.memory.troubles.insert("a".to_owned(), trouble);
    let state = &value(&world)["containerStatuses"][0]["state"];
    assert_eq!(
        *state,
        json!({"waiting": {"reason": "ErrImagePull", "message": "no such image"}})
    );
    world.happen(&Happening::Wait(2));
    let state = &value(&world)["containerStatuses"][0]["state"]["waiting"];
    assert_eq!(state["reason"], "ImagePullBackOff");
}

#[test]
fn an_unknown_end_is_said_to_be_one() {
    let mut world = World::new(pod(
        json!({"restartPolicy": "Never", "containers": [{"name": "a"}]}),
    ));
    world.settle();
    world.containers[0].state = ContainerState::Unknown;
    let status = value(&world);
    assert_eq!(status["phase"], "Failed");
    let ended = &status["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(
        (&ended["reason"], &ended["exitCode"]),
        (&json!("ContainerStatusUnknown"), &json!(137))
    );
}

#[test]
fn what_is_over_keeps_its_address_and_waits_for_nothing() {
    let spec = json!({"restartPolicy": "Never", "containers": [{"name": "a", "image": "host"}]});
    let mut world = World::new(pod(spec.clone()));
    world.settle();
    world.memory.ips = vec!["10.244.0.2".parse().unwrap()];
    world.happen(&Happening::End(0, 0));
    world.settle();
    for sandbox in &mut world.sandboxes {
        sandbox.ips.clear();
    }
    // The API has never been told of it.
    let ended = value(&world);
    assert_eq!(ended["phase"], "Succeeded");
    assert_eq!(ended["podIP"], "10.244.0.2");
    assert_eq!(ended["podIPs"], json!([{"ip": "10.244.0.2"}]));

    let mut world = World::new(pod(spec));
    world.memory.failure = Some(("DeadlineExceeded".to_owned(), "too long".to_owned()));
    let failed = value(&world);
    assert_eq!(failed["phase"], "Failed");
    let state = &failed["containerStatuses"][0]["state"];
    assert_eq!(state["terminated"]["reason"], "ContainerStatusUnknown");
    assert_eq!(state["terminated"]["exitCode"], 137);
}
