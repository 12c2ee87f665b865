//! Scheduling, the life of nodes, garbage collection and the end of namespaces, against a real API server.

#[path = "life/bed.rs"]
mod bed;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bed::{Bed, GRACE, pod, until, until_gone};
use k8s_openapi::api::core::v1::{ConfigMap, Event, Namespace, Node, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;

fn is_bound(pod: &Pod) -> bool {
    controllers::pod::node(pod).is_some()
}

async fn events(bed: &Bed, namespace: &str, reason: &str) -> Result<Vec<Event>> {
    let params = ListParams::default().fields(&format!("reason={reason}"));
    Ok(bed.within::<Event>(namespace).list(&params).await?.items)
}

/// Waits for an event with this reason and message.
async fn told(bed: &Bed, namespace: &str, reason: &str, message: &str) -> Result<Event> {
    let begun = Instant::now();
    loop {
        let all = events(bed, namespace, reason).await?;
        if let Some(event) = all
            .iter()
            .find(|event| event.message.as_deref() == Some(message))
        {
            return Ok(event.clone());
        }
        ensure!(
            begun.elapsed() < Duration::from_secs(60),
            "no {reason} {message:?} among {all:#?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_pods_are_bound_at_once_and_spread() -> Result<()> {
    let bed = Bed::start(&["n1", "n2", "n3"]).await?;
    let begun = Instant::now();
    let creating = (0..100).map(|number| {
        let pods = bed.api::<Pod>();
        async move {
            let pod = serde_json::from_value(pod(&format!("p{number:02}"), "100m"))?;
            pods.create(&PostParams::default(), &pod).await?;
            anyhow::Ok(())
        }
    });
    futures_util::future::try_join_all(creating).await?;
    let created = begun.elapsed();
    let pods = loop {
        let pods = bed.api::<Pod>().list(&ListParams::default()).await?.items;
        if pods.iter().all(is_bound) {
            break pods;
        }
        ensure!(
            begun.elapsed() < Duration::from_secs(90),
            "some Pods are never bound"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let bound = begun.elapsed();
    println!(
        "100 Pods: created in {created:?}, all bound {:?} later",
        bound - created
    );
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for pod in &pods {
        *counts
            .entry(controllers::pod::node(pod).unwrap())
            .or_default() += 1;
    }
    ensure!(
        counts.values().all(|count| (33..=34).contains(count)),
        "{counts:?}"
    );
    let node = controllers::pod::node(&pods[0]).unwrap();
    let message = format!(
        "Successfully assigned default/{} to {node}",
        pods[0].name_any()
    );
    told(&bed, "default", "Scheduled", &message).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_without_room_says_why_and_is_placed_when_there_is() -> Result<()> {
    let bed = Bed::start(&["n1"]).await?;
    bed.create_pod("first", "3").await?;
    until(&bed.api::<Pod>(), "first", is_bound).await?;
    bed.create_pod("second", "2").await?;
    bed.create_pod("third", "2").await?;
    let message = "0/1 nodes are available: 1 Insufficient cpu.";
    let waits = |pod: &Pod| {
        controllers::pod::condition(pod, "PodScheduled").is_some_and(|condition| {
            condition.status == "False"
                && condition.reason.as_deref() == Some("Unschedulable")
                && condition.message.as_deref() == Some(message)
        })
    };
    until(&bed.api(), "second", waits).await?;
    until(&bed.api(), "third", waits).await?;
    told(&bed, "default", "FailedScheduling", message).await?;
    // One ends: one of them has room.
    bed.api::<Pod>()
        .delete("first", &DeleteParams::default())
        .await?;
    until(&bed.api(), "second", is_bound).await?;
    until(&bed.api(), "third", is_bound).await?;
    bed.create_pod("fourth", "2").await?;
    until(&bed.api(), "fourth", waits).await?;
    bed.add_node("n2", "2").await?;
    let fourth = until(&bed.api(), "fourth", is_bound).await?;
    ensure!(controllers::pod::node(&fourth) == Some("n2"));
    let scheduled = controllers::pod::condition(&fourth, "PodScheduled").context("a condition")?;
    ensure!(
        scheduled.status == "True" && scheduled.message.is_none(),
        "{scheduled:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_node_is_left_and_cleared_when_it_is_back() -> Result<()> {
    let bed = Bed::start(&["n1", "n2"]).await?;
    let mut short = pod("short", "1");
    short["spec"]["nodeName"] = json!("n2");
    short["spec"]["tolerations"] = json!([{"key": "node.kubernetes.io/unreachable", "operator": "Exists",
        "effect": "NoExecute", "tolerationSeconds": 2}]);
    let mut long = short.clone();
    long["metadata"]["name"] = json!("long");
    long["spec"]["tolerations"][0]["tolerationSeconds"] = json!(600);
    bed.create::<Pod>(short).await?;
    bed.create::<Pod>(long).await?;
    until(&bed.api(), "short", controllers::pod::is_ready).await?;
    until(&bed.api(), "long", controllers::pod::is_ready).await?;

    bed.stop("n2");
    let taints = |node: &Node| {
        let taints = node
            .spec
            .iter()
            .flat_map(|spec| spec.taints.iter().flatten());
        taints
            .map(|taint| format!("{}:{}", taint.key, taint.effect))
            .collect::<Vec<_>>()
    };
    let ready = |node: &Node| controllers::placement::taints::ready(node).to_owned();
    let both = [
        "node.kubernetes.io/unreachable:NoSchedule".to_owned(),
        "node.kubernetes.io/unreachable:NoExecute".to_owned(),
    ];
    until(&bed.nodes(), "n2", |node| {
        ready(node) == "Unknown" && taints(node) == both
    })
    .await?;
    let silent = bed.silence("n2");
    println!("lost after {silent:?}");
    ensure!(silent >= GRACE, "lost after {silent:?}");
    until(&bed.api::<Pod>(), "long", |pod| {
        !controllers::pod::is_ready(pod)
    })
    .await?;
    told(
        &bed,
        "default",
        "NodeNotReady",
        "Node n2 status is now: NodeNotReady",
    )
    .await?;
    told(&bed, "default", "NodeNotReady", "Node is not ready").await?;
    let short = until(&bed.api::<Pod>(), "short", controllers::pod::is_terminating).await?;
    let target = controllers::pod::condition(&short, "DisruptionTarget").context("a condition")?;
    ensure!(target.reason.as_deref() == Some("DeletionByTaintManager"));
    told(
        &bed,
        "default",
        "TaintManagerEviction",
        "Marking for deletion Pod default/short",
    )
    .await?;
    ensure!(
        bed.silence("n2") >= GRACE + Duration::from_secs(2),
        "evicted too early"
    );

    bed.resume("n2").await?;
    until(&bed.nodes(), "n2", |node| taints(node).is_empty()).await?;
    ensure!(!controllers::pod::is_terminating(
        &bed.api::<Pod>().get("long").await?
    ));

    // When no node is heard nobody is evicted.
    bed.stop("n1");
    bed.stop("n2");
    let only = [both[0].clone()];
    for name in ["n1", "n2"] {
        until(&bed.nodes(), name, |node| {
            ready(node) == "Unknown" && taints(node) == only
        })
        .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_have_parts_and_pods_of_a_deleted_node_go() -> Result<()> {
    let bed = Bed::start(&["n1", "n2", "n3"]).await?;
    let part = |node: Node| node.spec.and_then(|spec| spec.pod_cidr).unwrap_or_default();
    let mut parts = BTreeSet::new();
    for name in ["n1", "n2", "n3"] {
        parts.insert(part(bed.nodes().get(name).await?));
    }
    let wanted = ["10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24"].map(str::to_owned);
    ensure!(parts == BTreeSet::from(wanted), "{parts:?}");

    let mut there = pod("there", "1");
    there["spec"]["nodeName"] = json!("n2");
    bed.create::<Pod>(there).await?;
    until(&bed.api(), "there", controllers::pod::is_ready).await?;
    let freed = part(bed.nodes().get("n2").await?);
    bed.stop("n2");
    bed.nodes().delete("n2", &DeleteParams::default()).await?;
    until_gone(&bed.api::<Pod>(), "there").await?;
    told(
        &bed,
        "default",
        "RemovingNode",
        "Node n2 event: Removing Node n2 from Controller",
    )
    .await?;
    bed.add_node("n4", "4").await?;
    ensure!(part(bed.nodes().get("n4").await?) == freed);
    Ok(())
}

fn owned(name: &str, owners: &[&ConfigMap]) -> serde_json::Value {
    let owners = owners.iter().map(|owner| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "name": owner.name_any(), "uid": owner.uid(),
            "blockOwnerDeletion": true})
    });
    json!({"metadata": {"name": name, "ownerReferences": owners.collect::<Vec<_>>()}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_lost_its_owners_goes() -> Result<()> {
    let bed = Bed::start(&[]).await?;
    let maps = bed.api::<ConfigMap>();
    let a: ConfigMap = bed.create(owned("a", &[])).await?;
    let b: ConfigMap = bed.create(owned("b", &[])).await?;
    let of_a: ConfigMap = bed.create(owned("of-a", &[&a])).await?;
    bed.create::<ConfigMap>(owned("of-of-a", &[&of_a])).await?;
    bed.create::<ConfigMap>(owned("of-both", &[&a, &b])).await?;
    let nobody = json!({"metadata": {"name": "of-nobody", "ownerReferences": [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": "a", "uid": "another"},
    ]}});
    bed.create::<ConfigMap>(nobody).await?;
    until_gone(&maps, "of-nobody").await?;
    let begun = Instant::now();
    maps.delete("a", &DeleteParams::background()).await?;
    until_gone(&maps, "of-a").await?;
    until_gone(&maps, "of-of-a").await?;
    println!("two levels went in {:?}", begun.elapsed());
    let both = until(&maps, "of-both", |map| map.owner_references().len() == 1).await?;
    ensure!(both.owner_references()[0].name == "b");

    // Orphans live on.
    maps.delete("b", &DeleteParams::orphan()).await?;
    until_gone(&maps, "b").await?;
    until(&maps, "of-both", |map| map.owner_references().is_empty()).await?;

    // In the foreground the owner goes last.
    let c: ConfigMap = bed.create(owned("c", &[])).await?;
    let mut held = owned("of-c", &[&c]);
    held["metadata"]["finalizers"] = json!(["test/held"]);
    bed.create::<ConfigMap>(held).await?;
    maps.delete("c", &DeleteParams::foreground()).await?;
    until(&maps, "of-c", |map| {
        map.metadata.deletion_timestamp.is_some()
    })
    .await?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let c = maps.get("c").await?;
    ensure!(c.finalizers() == ["foregroundDeletion"], "{c:?}");
    let release = json!({"metadata": {"finalizers": null}});
    maps.patch("of-c", &PatchParams::default(), &Patch::Merge(release))
        .await?;
    until_gone(&maps, "of-c").await?;
    until_gone(&maps, "c").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_ends_with_all_that_is_in_it() -> Result<()> {
    let bed = Bed::start(&["n1"]).await?;
    let namespaces: Api<Namespace> = Api::all(bed.client.clone());
    let demo = serde_json::from_value(json!({"metadata": {"name": "demo"}}))?;
    namespaces.create(&PostParams::default(), &demo).await?;
    let pods = bed.within::<Pod>("demo");
    pods.create(
        &PostParams::default(),
        &serde_json::from_value(pod("p", "1"))?,
    )
    .await?;
    until(&pods, "p", controllers::pod::is_ready).await?;
    let maps = bed.within::<ConfigMap>("demo");
    let held = json!({"metadata": {"name": "held", "finalizers": ["test/held"]}});
    maps.create(&PostParams::default(), &serde_json::from_value(held)?)
        .await?;
    namespaces.delete("demo", &DeleteParams::default()).await?;
    until_gone(&pods, "p").await?;
    let says = |namespace: &Namespace, kind: &str, message: &str| {
        let status = namespace.status.clone().unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        let mut conditions = conditions
            .into_iter()
            .filter(|condition| condition.status == "True");
        conditions.any(|had| had.type_ == kind && had.message.as_deref() == Some(message))
    };
    until(&namespaces, "demo", |namespace| {
        says(
            namespace,
            "NamespaceContentRemaining",
            "Some resources are remaining: configmaps. has 1 resource instances",
        ) && says(
            namespace,
            "NamespaceFinalizersRemaining",
            "Some content in the namespace has finalizers remaining: test/held in 1 resource instances",
        )
    })
    .await?;
    let release = json!({"metadata": {"finalizers": null}});
    maps.patch("held", &PatchParams::default(), &Patch::Merge(release))
        .await?;
    until_gone(&namespaces, "demo").await?;

    // An empty one goes at once.
    let empty = serde_json::from_value(json!({"metadata": {"name": "empty"}}))?;
    namespaces.create(&PostParams::default(), &empty).await?;
    let begun = Instant::now();
    namespaces.delete("empty", &DeleteParams::default()).await?;
    until_gone(&namespaces, "empty").await?;
    println!("an empty namespace went in {:?}", begun.elapsed());
    Ok(())
}
