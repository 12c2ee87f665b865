//! The agent against a real API server. Its runtime keeps books instead of processes, so that no root is needed and
//! faults come when they shall; `real` has the real one.

mod cluster;
#[path = "../process/leaks.rs"]
mod leaks;
mod paper;
mod real;

use std::time::Duration;

use cluster::{Cluster, condition, is_ready, until};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

fn node(cluster: &Cluster) -> Api<Node> {
    Api::all(cluster.client.clone())
}

async fn node_ready(cluster: &Cluster) -> Option<String> {
    let node = node(cluster).get_opt("n1").await.unwrap()?;
    let conditions = node.status?.conditions?;
    let ready = conditions
        .into_iter()
        .find(|condition| condition.type_ == "Ready")?;
    Some(ready.status)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_node_is_registered_leased_and_ready_as_soon_as_its_network_is() {
    let cluster = Cluster::new().await;
    until(|| async { node_ready(&cluster).await.as_deref() == Some("True") }).await;
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), "kube-node-lease");
    until(|| async { leases.get_opt("n1").await.unwrap().is_some() }).await;
    let first = leases.get("n1").await.unwrap();
    let uid = node(&cluster).get("n1").await.unwrap().metadata.uid;
    let owners = first.metadata.owner_references.unwrap();
    assert_eq!(Some(&owners[0].uid), uid.as_ref());
    let renewed = |lease: Lease| lease.spec.and_then(|spec| spec.renew_time);
    let before = renewed(leases.get("n1").await.unwrap());
    until(|| async { renewed(leases.get("n1").await.unwrap()) > before }).await;

    cluster.runtime.books().unready = Some("no CNI configuration in /etc/cni/net.d".to_owned());
    cluster.runtime.tell(&node::runtime::Event::Ready);
    until(|| async { node_ready(&cluster).await.as_deref() == Some("False") }).await;
    cluster.runtime.books().unready = None;
    cluster.runtime.tell(&node::runtime::Event::Ready);
    until(|| async { node_ready(&cluster).await.as_deref() == Some("True") }).await;

    // What others write stays; what is deleted comes back.
    let theirs = json!({"metadata": {"annotations": {"theirs": "yes"}}, "spec": {"podCIDR": "10.244.1.0/24"}});
    node(&cluster)
        .patch("n1", &PatchParams::default(), &Patch::Merge(&theirs))
        .await
        .unwrap();
    cluster.runtime.books().unready = Some("away".to_owned());
    cluster.runtime.tell(&node::runtime::Event::Ready);
    until(|| async { node_ready(&cluster).await.as_deref() == Some("False") }).await;
    let now = node(&cluster).get("n1").await.unwrap();
    assert_eq!(now.metadata.annotations.unwrap()["theirs"], "yes");
    assert_eq!(now.spec.unwrap().pod_cidr.as_deref(), Some("10.244.1.0/24"));
    node(&cluster)
        .delete("n1", &DeleteParams::default())
        .await
        .unwrap();
    until(|| async {
        node(&cluster)
            .get_opt("n1")
            .await
            .unwrap()
            .is_some_and(|node| node.metadata.uid != uid)
    })
    .await;
    cluster.close(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_runs_and_leaves_nothing() {
    let cluster = Cluster::new().await;
    cluster.create("web", json!({})).await;
    let pod = cluster.running("web").await;
    let status = &pod["status"];
    assert_eq!(status["podIP"], status["podIPs"][0]["ip"]);
    assert_eq!(status["hostIP"], "127.0.0.1");
    assert_eq!(status["containerStatuses"][0]["restartCount"], 0);
    assert!(
        status["containerStatuses"][0]["containerID"]
            .as_str()
            .unwrap()
            .starts_with("paper://c")
    );
    assert!(status["startTime"].is_string());
    for kind in [
        "PodReadyToStartContainers",
        "Initialized",
        "ContainersReady",
        "PodScheduled",
    ] {
        assert_eq!(condition(&pod, kind), Some("True"), "{kind}");
    }
    cluster.event("web", "Started container c").await;
    let events = cluster.events("web").await;
    assert_eq!(
        events,
        [
            "Pulled Container image \"host\" already present on machine",
            "Created Created container: c",
            "Started Started container c",
        ]
    );
    tokio::time::sleep(Duration::from_secs(1)).await;
    let later = cluster.get("web").await;
    assert_eq!(
        later["metadata"]["resourceVersion"], pod["metadata"]["resourceVersion"],
        "what is told rests"
    );
    let entry = cluster.directory.pod("default", "web").unwrap();
    assert!(entry.running("").is_ok() && entry.live_sandbox().is_ok());
    assert!(entry.container("c", true).is_err());

    cluster.delete("web").await;
    cluster.gone("web").await;
    assert!(cluster.directory.pod("default", "web").is_err());
    cluster.event("web", "Stopping container c").await;
    cluster.close(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_pods_start_at_once() {
    let cluster = Cluster::new().await;
    let begun = std::time::Instant::now();
    for number in 0..35 {
        cluster.create(&format!("p{number}"), json!({})).await;
    }
    for number in 0..35 {
        cluster.running(&format!("p{number}")).await;
    }
    eprintln!("35 pods ready after {:?}", begun.elapsed());
    for number in 0..35 {
        cluster.delete(&format!("p{number}")).await;
    }
    for number in 0..35 {
        cluster.gone(&format!("p{number}")).await;
    }
    cluster.close(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_crashes_is_restarted_with_growing_waits() {
    let cluster = Cluster::new().await;
    cluster
        .create(
            "crash",
            json!({"containers": [
                {"name": "c", "image": "host", "command": ["exit", "3"]},
                {"name": "well", "image": "host"},
            ]}),
        )
        .await;
    let waiting = |pod: &Value| {
        let all = pod["status"]["containerStatuses"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        all.into_iter()
            .any(|status| status["state"]["waiting"]["reason"] == "CrashLoopBackOff")
    };
    let pod = cluster.until("crash", "waiting", waiting).await;
    let status = &pod["status"]["containerStatuses"][0];
    assert_eq!(status["restartCount"], 1);
    assert_eq!(status["lastState"]["terminated"]["exitCode"], 3);
    let message = status["state"]["waiting"]["message"].as_str().unwrap();
    assert!(
        message.starts_with("back-off 10s restarting failed container=c pod=crash_default("),
        "{message}"
    );
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(condition(&pod, "Ready"), Some("False"));
    assert_eq!(pod["status"]["containerStatuses"][1]["restartCount"], 0);
    cluster
        .event(
            "crash",
            "Back-off restarting failed container c in pod crash_default",
        )
        .await;
    assert!(
        cluster
            .directory
            .pod("default", "crash")
            .unwrap()
            .container("c", true)
            .is_ok()
    );
    cluster.delete("crash").await;
    cluster.gone("crash").await;
    cluster.close(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_that_are_not_restarted_end() {
    let cluster = Cluster::new().await;
    let pod = |code: &str| {
        json!({"restartPolicy": "Never", "containers": [
        {"name": "c", "image": "host", "command": ["exit", code]}]})
    };
    cluster.create("good", pod("0")).await;
    cluster.create("bad", pod("4")).await;
    let good = cluster
        .until("good", "over", |pod| pod["status"]["phase"] == "Succeeded")
        .await;
    assert_eq!(condition(&good, "Ready"), Some("False"));
    assert_eq!(
        good["status"]["containerStatuses"][0]["state"]["terminated"]["reason"],
        "Completed"
    );
    let bad = cluster
        .until("bad", "over", |pod| pod["status"]["phase"] == "Failed")
        .await;
    assert_eq!(
        bad["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"],
        4
    );
    // Their networks are given back, their containers stay for their logs.
    until(|| async {
        cluster
            .runtime
            .books()
            .sandboxes
            .iter()
            .all(|sandbox| !sandbox.ready)
    })
    .await;
    assert_eq!(cluster.runtime.books().containers.len(), 2);
    for name in ["good", "bad"] {
        cluster.delete(name).await;
        cluster.gone(name).await;
    }
    cluster.close(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn init_containers_run_in_order_and_sidecars_go_on() {
    let cluster = Cluster::new().await;
    cluster
        .create(
            "init",
            json!({"initContainers": [
                {"name": "first", "image": "host", "command": ["exit", "0"]},
                {"name": "side", "image": "host", "restartPolicy": "Always"},
                {"name": "second", "image": "host", "command": ["slow"]},
            ]}),
        )
        .await;
    let pod = cluster
        .until("init", "at its second", |pod| {
            pod["status"]["initContainerStatuses"][2]["state"]["running"].is_object()
        })
        .await;
    assert_eq!(pod["status"]["phase"], "Pending");
    assert_eq!(
        pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"],
        "PodInitializing"
    );
    assert_eq!(condition(&pod, "Initialized"), Some("False"));
    cluster.runtime.end("init", "second", 0);
    cluster.running("init").await;
    cluster.delete("init").await;
    cluster.gone("init").await;
    let stops: Vec<_> = cluster
        .runtime
        .books()
        .calls
        .iter()
        .filter(|call| call.starts_with("stop "))
        .cloned()
        .collect();
    assert_eq!(stops[..2], ["stop c", "stop side"]);
    cluster.close(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sandbox_that_dies_is_made_again_and_one_that_fails_is_tried_again() {
    let cluster = Cluster::new().await;
    cluster.runtime.books().fail_sandboxes = 1;
    cluster.create("web", json!({})).await;
    let before = cluster.running("web").await;
    cluster
        .event(
            "web",
            "FailedCreatePodSandBox Failed to create pod sandbox: plugin bridge: no more addresses",
        )
        .await;
    cluster.runtime.kill_sandbox("web");
    let after = cluster
        .until("web", "running again", |pod| {
            is_ready(pod) && pod["status"]["containerStatuses"][0]["restartCount"] == 1
        })
        .await;
    assert_ne!(before["status"]["podIP"], after["status"]["podIP"]);
    assert_eq!(after["status"]["podIPs"].as_array().unwrap().len(), 1);
    cluster
        .event(
            "web",
            "SandboxChanged Pod sandbox changed, it will be killed and re-created.",
        )
        .await;
    cluster.delete("web").await;
    cluster.gone("web").await;
    cluster.close(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_decide_readiness_and_life() {
    let cluster = Cluster::new().await;
    cluster.create("probed", json!({"containers": [{
        "name": "c", "image": "host",
        "readinessProbe": {"exec": {"command": ["ready"]}, "periodSeconds": 1},
        "livenessProbe": {"exec": {"command": ["alive"]}, "periodSeconds": 1, "failureThreshold": 1, "initialDelaySeconds": 3},
    }]})).await;
    cluster
        .event("probed", "Unhealthy Readiness probe failed: not well")
        .await;
    let pod = cluster
        .until("probed", "running", |pod| {
            pod["status"]["phase"] == "Running"
        })
        .await;
    assert_eq!(condition(&pod, "Ready"), Some("False"));
    cluster
        .runtime
        .books()
        .healthy
        .extend(["ready".to_owned(), "alive".to_owned()]);
    cluster.running("probed").await;
    cluster.runtime.books().healthy.remove("alive");
    cluster
        .until("probed", "restarted", |pod| {
            pod["status"]["containerStatuses"][0]["restartCount"].as_i64() >= Some(1)
        })
        .await;
    cluster
        .event(
            "probed",
            "Killing Container c failed liveness probe, will be restarted",
        )
        .await;
    cluster.runtime.books().healthy.insert("alive".to_owned());
    cluster.running("probed").await;
    cluster.delete("probed").await;
    cluster.gone("probed").await;
    cluster.close(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_missing_is_named_and_waited_for() {
    let cluster = Cluster::new().await;
    cluster.create("volume", json!({
        "volumes": [{"name": "v", "configMap": {"name": "late"}}],
        "containers": [{"name": "c", "image": "host", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
    })).await;
    cluster
        .create(
            "env",
            json!({"containers": [{"name": "c", "image": "host",
        "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "late", "key": "a"}}},
                {"name": "B", "value": "$(A)-$(MISSING)-$$(A)"}]}]}),
        )
        .await;
    cluster
        .create(
            "image",
            json!({"containers": [{"name": "c", "image": "missing"}]}),
        )
        .await;
    cluster
        .create(
            "name",
            json!({"containers": [{"name": "c", "image": "../evil"}]}),
        )
        .await;
    cluster
        .event(
            "volume",
            "FailedMount MountVolume.SetUp failed for volume \"v\" : configmap \"late\" not found",
        )
        .await;
    let reason = |wanted: &'static str| {
        move |pod: &Value| {
            pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == wanted
        }
    };
    cluster
        .until("env", "waiting", reason("CreateContainerConfigError"))
        .await;
    cluster
        .until("image", "waiting", reason("ErrImagePull"))
        .await;
    cluster
        .until("name", "waiting", reason("InvalidImageName"))
        .await;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "default");
    let map = |value: &str| {
        serde_json::from_value::<ConfigMap>(
            json!({"metadata": {"name": "late"}, "data": {"a": value}}),
        )
        .unwrap()
    };
    maps.create(&PostParams::default(), &map("one"))
        .await
        .unwrap();
    cluster.running("volume").await;
    cluster.running("env").await;
    let env = cluster
        .runtime
        .books()
        .containers
        .iter()
        .find(|c| c.pod.name == "env")
        .unwrap()
        .config
        .env
        .clone();
    assert!(
        env.contains(&("B".to_owned(), "one-$(MISSING)-$(A)".to_owned())),
        "{env:?}"
    );
    assert!(
        env.iter()
            .any(|(name, _)| name == "KUBERNETES_SERVICE_HOST"),
        "{env:?}"
    );
    let source = cluster
        .runtime
        .books()
        .containers
        .iter()
        .find(|c| c.pod.name == "volume")
        .unwrap()
        .config
        .mounts[0]
        .source
        .clone();
    assert_eq!(std::fs::read_to_string(source.join("a")).unwrap(), "one");
    let patch = json!({"data": {"a": null, "b": "two"}});
    maps.patch("late", &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .unwrap();
    until(|| async {
        std::fs::read_to_string(source.join("b")).is_ok_and(|text| text == "two")
            && !source.join("a").exists()
    })
    .await;
    for name in ["volume", "env", "image", "name"] {
        cluster.delete(name).await;
        cluster.gone(name).await;
    }
    cluster.close(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_outlive_agent_and_server_and_strays_are_removed() {
    let mut cluster = Cluster::new().await;
    cluster
        .create("stays", json!({"volumes": [{"name": "e", "emptyDir": {}}]}))
        .await;
    cluster.create("goes", json!({})).await;
    let before = cluster.running("stays").await;
    cluster.running("goes").await;
    cluster.stop_agent().await;
    let calls = cluster.runtime.books().calls.len();
    // Nobody is there to end it by and by.
    cluster
        .pods()
        .delete("goes", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    cluster.gone("goes").await;
    cluster.start_agent();
    until(|| async { cluster.runtime.books().sandboxes.len() == 1 }).await;
    let after = cluster.running("stays").await;
    assert_eq!(
        before["status"]["containerStatuses"],
        after["status"]["containerStatuses"]
    );
    let new_calls = cluster.runtime.books().calls[calls..].to_vec();
    assert!(
        new_calls
            .iter()
            .all(|call| call.starts_with("stop") || call.starts_with("remove")),
        "{new_calls:?}"
    );

    cluster.stop_server().await;
    cluster.runtime.end("stays", "c", 5);
    until(|| async {
        cluster
            .runtime
            .books()
            .containers
            .iter()
            .any(|c| c.config.attempt == 1)
    })
    .await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(cluster.runtime.books().sandboxes.len(), 1);
    cluster.start_server().await;
    cluster
        .until("stays", "caught up", |pod| {
            pod["status"]["containerStatuses"][0]["restartCount"] == 1
        })
        .await;
    cluster.delete("stays").await;
    cluster.gone("stays").await;
    cluster.close(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stubborn_pod_ends_when_less_time_is_given() {
    let cluster = Cluster::new().await;
    cluster
        .create(
            "stubborn",
            json!({"terminationGracePeriodSeconds": 60,
        "containers": [{"name": "c", "image": "host", "command": ["stubborn"]}]}),
        )
        .await;
    cluster.running("stubborn").await;
    cluster.delete("stubborn").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!cluster.get("stubborn").await.is_null());
    cluster
        .pods()
        .delete("stubborn", &DeleteParams::default().grace_period(1))
        .await
        .unwrap();
    cluster.gone("stubborn").await;
    cluster.close(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_does_not_run_longer_than_it_may() {
    let cluster = Cluster::new().await;
    cluster
        .create("short", json!({"activeDeadlineSeconds": 1}))
        .await;
    let pod = cluster
        .until("short", "over", |pod| pod["status"]["phase"] == "Failed")
        .await;
    assert_eq!(pod["status"]["reason"], "DeadlineExceeded");
    until(|| async {
        cluster
            .runtime
            .books()
            .sandboxes
            .iter()
            .all(|sandbox| !sandbox.ready)
    })
    .await;
    cluster.delete("short").await;
    cluster.gone("short").await;
    cluster.close(true).await;
}
