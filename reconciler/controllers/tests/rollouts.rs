//! Deployments, ReplicaSets and ReplicationControllers against a real API server.

#[path = "rollouts/bed.rs"]
mod bed;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bed::{BROKEN, Bed};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

const REVISION: &str = "deployment.kubernetes.io/revision";

fn template(app: &str, image: &str) -> Value {
    json!({"metadata": {"labels": {"app": app}}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

fn deployment(name: &str, replicas: i32, image: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {
        "replicas": replicas,
        "selector": {"matchLabels": {"app": name}},
        "template": template(name, image),
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
    }})
}

/// As `kubectl rollout status` decides it.
fn is_rolled_out(deployment: &Deployment) -> bool {
    let status = deployment.status.clone().unwrap_or_default();
    let wanted = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1);
    status.observed_generation == deployment.metadata.generation
        && status.updated_replicas.unwrap_or(0) == wanted
        && status.replicas.unwrap_or(0) == wanted
        && status.available_replicas.unwrap_or(0) == wanted
}

fn condition(deployment: &Deployment, type_: &str) -> (String, String) {
    let conditions = deployment
        .status
        .as_ref()
        .and_then(|status| status.conditions.clone())
        .unwrap_or_default();
    let found = conditions
        .into_iter()
        .find(|condition| condition.type_ == type_);
    found
        .map(|condition| (condition.status, condition.reason.unwrap_or_default()))
        .unwrap_or_default()
}

fn said(status: &str, reason: &str) -> (String, String) {
    (status.into(), reason.into())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollout_keeps_its_pods_and_rolls_back() -> Result<()> {
    let bed = Bed::start().await?;
    bed.create::<Deployment>(deployment("web", 3, "a")).await?;
    let first = bed.until("web", is_rolled_out).await?;
    ensure!(first.annotations()[REVISION] == "1");
    bed.until("web", |web: &Deployment| {
        condition(web, "Progressing") == said("True", "NewReplicaSetAvailable")
    })
    .await?;
    ensure!(condition(&first, "Available") == said("True", "MinimumReplicasAvailable"));

    bed.count_anew();
    let image = |image: &str| json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}});
    bed.merge::<Deployment>("web", image("b")).await?;
    let second = bed.until("web", is_rolled_out).await?;
    ensure!(second.annotations()[REVISION] == "2");
    let (fewest, most, ever) = bed.counted();
    ensure!(
        (fewest, ever) == (3, 6) && most <= 4,
        "{fewest} to {most} at a time, {ever} in all"
    );

    // What kubectl rollout undo sends.
    let undo = json!([
        {"op": "replace", "path": "/spec/template", "value": first.spec.clone().unwrap_or_default().template},
        {"op": "replace", "path": "/metadata/annotations", "value": {REVISION: "2"}},
    ]);
    let undo = Patch::Json::<()>(serde_json::from_value(undo)?);
    bed.api::<Deployment>()
        .patch("web", &PatchParams::default(), &undo)
        .await?;
    let third = bed
        .until("web", |web| {
            is_rolled_out(web) && web.annotations()[REVISION] == "3"
        })
        .await?;
    ensure!(third.spec.unwrap_or_default().template == first.spec.unwrap_or_default().template);
    let sets = bed
        .api::<ReplicaSet>()
        .list(&ListParams::default())
        .await?
        .items;
    let mut revisions: Vec<_> = sets
        .iter()
        .map(|set| set.annotations()[REVISION].clone())
        .collect();
    revisions.sort();
    ensure!(revisions == ["2", "3"], "{revisions:?}");
    let (fewest, most, ever) = bed.counted();
    ensure!(
        (fewest, ever) == (3, 9) && most <= 4,
        "{fewest} to {most} at a time, {ever} in all"
    );

    let hash = |image: &str| {
        let is = |set: &&ReplicaSet| {
            serde_json::to_string(set)
                .is_ok_and(|text| text.contains(&format!("\"image\":\"{image}\"")))
        };
        sets.iter()
            .find(is)
            .map(ResourceExt::name_any)
            .unwrap_or_default()
    };
    let (a, b) = (hash("a"), hash("b"));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let told = bed.told("ScalingReplicaSet").await?;
    let expected = [
        format!("Scaled up replica set {a} from 0 to 3"),
        format!("Scaled up replica set {b} from 0 to 1"),
        format!("Scaled down replica set {a} from 3 to 2"),
        format!("Scaled up replica set {b} from 1 to 2"),
        format!("Scaled down replica set {a} from 2 to 1"),
        format!("Scaled up replica set {b} from 2 to 3"),
        format!("Scaled down replica set {a} from 1 to 0"),
    ];
    ensure!(told.starts_with(&expected), "{told:#?}");
    let made = bed.told("SuccessfulCreate").await?;
    ensure!(
        made.len() == 9
            && made
                .iter()
                .all(|message| message.starts_with("Created pod: web-")),
        "{made:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_are_adopted_released_and_replaced() -> Result<()> {
    let bed = Bed::start().await?;
    let mut orphan = template("old", "a");
    orphan["metadata"]["name"] = json!("orphan");
    bed.create::<Pod>(orphan).await?;
    let spec = json!({"replicas": 2, "selector": {"app": "old"}, "template": template("old", "a")});
    bed.create::<ReplicationController>(json!({"metadata": {"name": "old"}, "spec": spec}))
        .await?;
    let ready = |count: i32| {
        move |old: &ReplicationController| {
            let status = old.status.clone().unwrap_or_default();
            status.ready_replicas.unwrap_or(0) == count && status.replicas == count
        }
    };
    bed.until("old", ready(2)).await?;
    let adopted = bed.api::<Pod>().get("orphan").await?;
    ensure!(adopted.owner_references().len() == 1 && adopted.owner_references()[0].name == "old");
    ensure!(bed.counted().2 == 2, "the orphan is one of two");

    bed.merge::<Pod>(
        "orphan",
        json!({"metadata": {"labels": {"app": "debugged"}}}),
    )
    .await?;
    bed.until("orphan", |pod: &Pod| pod.owner_references().is_empty())
        .await?;
    bed.until("old", |old: &ReplicationController| {
        ready(2)(old) && bed.counted().2 == 3
    })
    .await?;

    let pods = bed
        .api::<Pod>()
        .list(&ListParams::default().labels("app=old"))
        .await?
        .items;
    bed.api::<Pod>()
        .delete(&pods[0].name_any(), &DeleteParams::default())
        .await?;
    bed.until("old", |old: &ReplicationController| {
        ready(2)(old) && bed.counted().2 == 4
    })
    .await?;
    bed.merge::<ReplicationController>("old", json!({"spec": {"replicas": 0}}))
        .await?;
    bed.until("old", ready(0)).await?;
    ensure!(
        bed.api::<Pod>().get_opt("orphan").await?.is_some(),
        "it is nobody's"
    );
    ensure!(bed.counted().2 == 4, "none was made twice");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_away_finds_its_controllers_at_work() -> Result<()> {
    let mut bed = Bed::start().await?;
    bed.create::<Deployment>(deployment("web", 2, "a")).await?;
    bed.until("web", is_rolled_out).await?;
    bed.stop_server().await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    bed.start_server().await?;
    let begun = Instant::now();
    bed.merge::<Deployment>("web", json!({"spec": {"replicas": 5}}))
        .await?;
    bed.until("web", is_rolled_out).await?;
    println!("after the server's return: {:?}", begun.elapsed());
    bed.until("web", |_: &Deployment| bed.counted().2 >= 5)
        .await?;
    ensure!(bed.counted().2 == 5, "none was made twice");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_pods_are_a_hundred() -> Result<()> {
    let bed = Bed::start().await?;
    let begun = Instant::now();
    bed.create::<Deployment>(deployment("many", 100, "a"))
        .await?;
    bed.until("many", is_rolled_out).await?;
    println!("100 Pods: {:?}", begun.elapsed());
    ensure!(bed.counted().2 == 100);
    bed.merge::<Deployment>("many", json!({"spec": {"replicas": 0}}))
        .await?;
    bed.until("many", is_rolled_out).await?;
    println!("and gone: {:?}", begun.elapsed());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_image_stops_the_rollout_and_not_the_service() -> Result<()> {
    let bed = Bed::start().await?;
    let mut web = deployment("web", 2, "a");
    web["spec"]["progressDeadlineSeconds"] = json!(2);
    bed.create::<Deployment>(web).await?;
    bed.until("web", is_rolled_out).await?;
    bed.count_anew();
    let broken =
        json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": BROKEN}]}}}});
    bed.merge::<Deployment>("web", broken).await?;
    let late = said("False", "ProgressDeadlineExceeded");
    let stuck = bed
        .until("web", |web| condition(web, "Progressing") == late)
        .await?;
    let status = stuck.status.unwrap_or_default();
    ensure!(
        (status.updated_replicas, status.available_replicas) == (Some(1), Some(2)),
        "{status:?}"
    );
    let (fewest, most, _) = bed.counted();
    ensure!((fewest, most) == (2, 3), "{fewest} to {most}");
    Ok(())
}
