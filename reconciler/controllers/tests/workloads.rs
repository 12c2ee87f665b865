//! DaemonSets, StatefulSets, Jobs and the slices of Services, against a real API server.

#[path = "workloads/bed.rs"]
mod bed;

use anyhow::{Result, ensure};
use bed::{Bed, PLAY};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Endpoints, Node, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

fn template(app: &str, play: &str, restart: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": app}, "annotations": {PLAY: play}},
        "spec": {
            "restartPolicy": restart,
            "containers": [{"name": "c", "image": "i", "ports": [{"name": "http", "containerPort": 8080}]}],
        },
    })
}

async fn slices(bed: &Bed, service: &str) -> Result<Vec<EndpointSlice>> {
    let params = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
    Ok(bed.api::<EndpointSlice>().list(&params).await?.items)
}

fn ready_count(slices: &[EndpointSlice]) -> usize {
    let endpoints = slices
        .iter()
        .flat_map(|slice| slice.endpoints.iter().flatten());
    endpoints
        .filter(|endpoint| endpoint.conditions.as_ref().and_then(|c| c.ready) == Some(true))
        .count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_services_slices_follow_its_pods_at_once() -> Result<()> {
    let bed = Bed::start(&["n1"]).await?;
    bed.create::<Service>(json!({"metadata": {"name": "web"}, "spec": {
        "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]}}))
        .await?;
    let mut times = Vec::new();
    for number in 0..20 {
        let name = format!("web-{number}");
        let mut pod = template("web", "wait", "Always");
        pod["metadata"]["name"] = json!(name);
        bed.create::<Pod>(pod).await?;
        bed.until::<Pod>(&name, |pod| controllers::pod::phase(pod) == "Running")
            .await?;
        let ready = json!({"metadata": {"annotations": {PLAY: "run"}}, "status": {
            "conditions": [{"type": "Ready", "status": "True"}]}});
        let params = PatchParams::default();
        let begun = Instant::now();
        bed.api::<Pod>()
            .patch_status(&name, &params, &Patch::Merge(ready))
            .await?;
        while ready_count(&slices(&bed, "web").await?) != number + 1 {
            ensure!(
                begun.elapsed() < Duration::from_secs(10),
                "{name} is in no slice"
            );
        }
        times.push(begun.elapsed());
    }
    times.sort();
    println!(
        "Pod ready to slice written and listed: median {:?}, longest {:?}",
        times[10], times[19]
    );
    // Far above the promise, which the benchmark checks: here eight builds may share the machine.
    ensure!(times[10] < Duration::from_secs(2), "{times:?}");
    let all = slices(&bed, "web").await?;
    ensure!(all.len() == 1, "{all:#?}");
    let slice = &all[0];
    ensure!(slice.name_any().starts_with("web-") && slice.owner_references()[0].kind == "Service");
    let ports = slice.ports.clone().unwrap_or_default();
    ensure!(ports.len() == 1 && ports[0].port == Some(8080), "{ports:?}");

    let endpoints = bed
        .until::<Endpoints>("web", |endpoints| {
            let subsets = endpoints.subsets.as_deref().unwrap_or_default();
            subsets.len() == 1
                && subsets[0]
                    .addresses
                    .as_ref()
                    .is_some_and(|all| all.len() == 20)
        })
        .await?;
    ensure!(
        endpoints
            .annotations()
            .contains_key("endpoints.kubernetes.io/last-change-trigger-time")
    );

    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_set_follows_nodes_and_rolls_out() -> Result<()> {
    let bed = Bed::start(&["n1", "n2", "n3"]).await?;
    let nodes: Api<Node> = Api::all(bed.client.clone());
    bed.create::<DaemonSet>(json!({"metadata": {"name": "ds"}, "spec": {
        "selector": {"matchLabels": {"app": "ds"}}, "template": template("ds", "run", "Always")}}))
        .await?;
    let is = |wanted: i32, updated: i32| {
        move |set: &DaemonSet| {
            let status = set.status.clone().unwrap_or_default();
            status.desired_number_scheduled == wanted
                && status.number_available == Some(wanted)
                && status.updated_number_scheduled == Some(updated)
                && status.observed_generation == set.metadata.generation
        }
    };
    bed.until("ds", is(3, 3)).await?;
    bed.add_node("n4").await?;
    bed.until("ds", is(4, 4)).await?;
    let taints = json!({"spec": {"taints": [{"key": "x", "effect": "NoExecute"}]}});
    nodes
        .patch("n1", &PatchParams::default(), &Patch::Merge(taints))
        .await?;
    bed.until("ds", is(3, 3)).await?;
    nodes.delete("n4", &DeleteParams::default()).await?;
    bed.until("ds", is(2, 2)).await?;

    let patch = json!({"spec": {"template": {"metadata": {"annotations": {"v": "2"}}}}});
    bed.merge::<DaemonSet>("ds", patch).await?;
    bed.until("ds", is(2, 2)).await?;
    let pods = bed.pods("app=ds").await?;
    let on: BTreeSet<_> = pods.values().filter_map(controllers::pod::node).collect();
    ensure!(
        pods.len() == 2 && on == BTreeSet::from(["n2", "n3"]),
        "{on:?}"
    );
    ensure!(pods.values().all(|pod| pod.annotations()["v"] == "2"));
    let revisions = bed
        .api::<ControllerRevision>()
        .list(&ListParams::default())
        .await?
        .items;
    let mut numbers: Vec<i64> = revisions.iter().map(|revision| revision.revision).collect();
    numbers.sort_unstable();
    ensure!(numbers == [1, 2], "{numbers:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stateful_set_keeps_names_places_and_claims() -> Result<()> {
    let bed = Bed::start(&["n1", "n2", "n3"]).await?;
    bed.create::<StatefulSet>(json!({"metadata": {"name": "web"}, "spec": {
        "replicas": 3, "serviceName": "web",
        "selector": {"matchLabels": {"app": "web"}}, "template": template("web", "run", "Always"),
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]}}))
        .await?;
    let is = |replicas: i32| {
        move |set: &StatefulSet| {
            let status = set.status.clone().unwrap_or_default();
            status.replicas == replicas
                && status.ready_replicas.unwrap_or(0) == replicas
                && status.updated_replicas.unwrap_or(0) == replicas
                && status.current_revision == status.update_revision
                && status.observed_generation == set.metadata.generation
        }
    };
    bed.until("web", is(3)).await?;
    let claim = bed
        .until::<PersistentVolumeClaim>("data-web-1", |claim| {
            let phase = claim
                .status
                .as_ref()
                .and_then(|status| status.phase.clone());
            phase.as_deref() == Some("Bound")
        })
        .await?;
    let before = bed.api::<Pod>().get("web-1").await?;
    let node = controllers::pod::node(&before)
        .unwrap_or_default()
        .to_owned();
    ensure!(
        claim.annotations().get(controllers::claim::NODE) == Some(&node),
        "{claim:#?}"
    );
    let spec = before.spec.clone().unwrap_or_default();
    ensure!(spec.hostname.as_deref() == Some("web-1") && spec.subdomain.as_deref() == Some("web"));
    ensure!(before.labels()["apps.kubernetes.io/pod-index"] == "1");

    bed.api::<Pod>()
        .delete("web-1", &DeleteParams::default())
        .await?;
    let after = bed
        .until::<Pod>("web-1", |pod| {
            pod.uid() != before.uid() && controllers::pod::is_ready(pod)
        })
        .await?;
    ensure!(controllers::pod::node(&after) == Some(node.as_str()));

    let patch = json!({"spec": {"template": {"metadata": {"annotations": {"v": "2"}}}}});
    bed.merge::<StatefulSet>("web", patch).await?;
    bed.until("web", is(3)).await?;
    let pods = bed.pods("app=web").await?;
    ensure!(pods.values().all(|pod| pod.annotations()["v"] == "2"));
    bed.merge::<StatefulSet>("web", json!({"spec": {"replicas": 1}}))
        .await?;
    bed.until("web", is(1)).await?;
    ensure!(bed.pods("app=web").await?.keys().eq(["web-0"]));
    let claims = bed
        .api::<PersistentVolumeClaim>()
        .list(&ListParams::default())
        .await?;
    ensure!(claims.items.len() == 3);
    Ok(())
}

fn job(name: &str, play: &str, spec: Value) -> Value {
    let mut job = json!({"metadata": {"name": name}, "spec": spec});
    job["spec"]["template"] = template(name, play, "Never");
    job
}

fn ended(name: &'static str, reason: &'static str) -> impl Fn(&Job) -> bool {
    move |job: &Job| {
        let conditions = job
            .status
            .iter()
            .flat_map(|status| status.conditions.iter().flatten());
        conditions
            .filter(|condition| condition.status == "True" && condition.type_ == name)
            .any(|condition| condition.reason.as_deref() == Some(reason))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_end_when_they_should_and_count_each_pod_once() -> Result<()> {
    let bed = Bed::start(&["n1", "n2"]).await?;
    let complete = ended("Complete", "CompletionsReached");

    bed.create::<Job>(job(
        "many",
        "succeed",
        json!({"completions": 5, "parallelism": 2}),
    ))
    .await?;
    let done = bed
        .until("many", &complete)
        .await?
        .status
        .unwrap_or_default();
    ensure!(
        done.succeeded == Some(5) && done.completion_time.is_some(),
        "{done:?}"
    );
    ensure!(done.uncounted_terminated_pods.unwrap_or_default() == Default::default());
    let pods = bed.pods("app=many").await?;
    ensure!(pods.len() == 5 && pods.values().all(|pod| pod.finalizers().is_empty()));

    let spec = json!({"completions": 3, "parallelism": 3, "completionMode": "Indexed"});
    bed.create::<Job>(job("indexed", "succeed", spec)).await?;
    let done = bed
        .until("indexed", &complete)
        .await?
        .status
        .unwrap_or_default();
    ensure!(done.completed_indexes.as_deref() == Some("0-2") && done.succeeded == Some(3));

    bed.create::<Job>(job("bad", "fail", json!({"backoffLimit": 0})))
        .await?;
    let failed = bed
        .until("bad", ended("Failed", "BackoffLimitExceeded"))
        .await?;
    ensure!(failed.status.unwrap_or_default().failed == Some(1));

    // A work queue: one worker says that there is no more to do, the others are stopped.
    let spec = json!({"parallelism": 3, "completions": null});
    bed.create::<Job>(job("queue", "run", spec)).await?;
    bed.until::<Job>("queue", |job| {
        job.status.as_ref().is_some_and(|s| s.ready == Some(3))
    })
    .await?;
    let pods = bed.pods("app=queue").await?;
    let first = pods.keys().next().cloned().unwrap_or_default();
    bed.merge::<Pod>(
        &first,
        json!({"metadata": {"annotations": {PLAY: "succeed"}}}),
    )
    .await?;
    let done = bed
        .until("queue", &complete)
        .await?
        .status
        .unwrap_or_default();
    ensure!(
        done.succeeded == Some(1) && done.failed.unwrap_or(0) == 0,
        "{done:?}"
    );
    ensure!(bed.pods("app=queue").await?.keys().eq([&first]));

    bed.create::<Job>(job("late", "run", json!({"activeDeadlineSeconds": 1})))
        .await?;
    bed.until("late", ended("Failed", "DeadlineExceeded"))
        .await?;

    bed.create::<Job>(job("paused", "run", json!({"suspend": true})))
        .await?;
    bed.until("paused", ended("Suspended", "JobSuspended"))
        .await?;
    ensure!(bed.pods("app=paused").await?.is_empty());
    bed.merge::<Job>("paused", json!({"spec": {"suspend": false}}))
        .await?;
    bed.until::<Job>("paused", |job| {
        job.status.as_ref().is_some_and(|s| s.ready == Some(1))
    })
    .await?;

    // Gone soon after its end; its Pods are free to go too.
    let spec = json!({"ttlSecondsAfterFinished": 0});
    bed.create::<Job>(job("brief", "succeed", spec)).await?;
    let begun = Instant::now();
    tokio::time::sleep(Duration::from_millis(50)).await;
    while bed.api::<Job>().get_opt("brief").await?.is_some() {
        ensure!(begun.elapsed() < Duration::from_secs(20), "the Job stays");
    }
    Ok(())
}
