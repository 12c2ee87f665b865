//! kube-rs uses the API server as it uses any other: every verb, watchers, stores, a controller; on both stores.

#[path = "api/client.rs"]
mod client;

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use client::{Bed, SOON, code, config, get};
use futures_util::{StreamExt, TryStreamExt, future};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, Secret};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{
    DeleteParams, EvictParams, ListParams, Patch, PatchParams, PostParams, Preconditions,
    WatchEvent, WatchParams,
};
use kube::core::params::VersionMatch;
use kube::discovery::Discovery;
use kube::runtime::controller::{Action, Controller};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tests::requirement;

fn parse<T: serde::de::DeserializeOwned>(value: Value) -> Result<T> {
    Ok(serde_json::from_value(value)?)
}

async fn namespace(client: &Client, name: &str) -> Result<Api<ConfigMap>> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let value = parse(json!({"metadata": {"name": name}}))?;
    namespaces.create(&PostParams::default(), &value).await?;
    Ok(Api::namespaced(client.clone(), name))
}

fn pod(name: &str) -> Result<Pod> {
    parse(json!({
        "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "nginx"}]},
    }))
}

async fn verbs(client: &Client) -> Result<()> {
    let configs = namespace(client, "verbs").await?;
    let post = PostParams::default();
    let made = configs.create(&post, &config("a", 1)).await?;
    ensure!(made.metadata.uid.is_some() && made.metadata.creation_timestamp.is_some());
    ensure!(configs.get("a").await? == made);
    ensure!(code(configs.create(&post, &config("a", 1)).await)? == 409);
    ensure!(code(configs.get("nothing").await)? == 404);
    ensure!(configs.get_opt("nothing").await?.is_none());
    let mut next = made.clone();
    next.data = Some(BTreeMap::from([("n".into(), "2".into())]));
    let replaced = configs.replace("a", &post, &next).await?;
    ensure!(replaced.data == next.data);
    ensure!(replaced.resource_version() != made.resource_version());
    ensure!(code(configs.replace("a", &post, &next).await)? == 409);
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    configs.create(&dry, &config("dry", 1)).await?;
    ensure!(configs.get_opt("dry").await?.is_none());

    let patch = PatchParams::default();
    let of =
        |made: &ConfigMap, key: &str| made.data.as_ref().and_then(|data| data.get(key).cloned());
    let change = json!({"data": {"n": null, "merge": "m"}});
    let made = configs.patch("a", &patch, &Patch::Merge(&change)).await?;
    ensure!(of(&made, "n").is_none() && of(&made, "merge").as_deref() == Some("m"));
    let change = json!({"metadata": {"labels": {"k": "v"}}, "data": {"strategic": "s"}});
    let made = configs
        .patch("a", &patch, &Patch::Strategic(&change))
        .await?;
    ensure!(made.labels().get("k").is_some_and(|value| value == "v"));
    ensure!(of(&made, "merge").is_some() && of(&made, "strategic").is_some());
    let change = json!([{"op": "test", "path": "/data/merge", "value": "m"}, {"op": "remove", "path": "/data/merge"}]);
    let media = [("content-type", "application/json-patch+json")];
    let path = "/api/v1/namespaces/verbs/configmaps/a";
    let answer = client::ask_with(client, "PATCH", path, &media, change.to_string()).await?;
    ensure!(answer.code == 200 && answer.json()?["data"].get("merge").is_none());
    let answer = client::ask_with(client, "PATCH", path, &media, change.to_string()).await?;
    ensure!((answer.code, answer.reason()?.as_str()) == (422, "Invalid"));

    let mut mine = config("applied", "mine");
    let apply = |manager: &str| PatchParams::apply(manager);
    let made = configs
        .patch("applied", &apply("me"), &Patch::Apply(&mine))
        .await?;
    ensure!(
        made.managed_fields()
            .iter()
            .any(|entry| entry.manager.as_deref() == Some("me"))
    );
    mine.data = Some(BTreeMap::from([("n".into(), "yours".into())]));
    ensure!(
        code(
            configs
                .patch("applied", &apply("you"), &Patch::Apply(&mine))
                .await
        )? == 409
    );
    let forced = configs
        .patch("applied", &apply("you").force(), &Patch::Apply(&mine))
        .await?;
    ensure!(of(&forced, "n").as_deref() == Some("yours"));

    let uid = |uid: &str| DeleteParams {
        preconditions: Some(Preconditions {
            uid: Some(uid.to_owned()),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    ensure!(code(configs.delete("a", &uid("other")).await)? == 409);
    let own = configs.get("a").await?.uid().context("no uid")?;
    let gone = configs.delete("a", &uid(&own)).await?;
    ensure!(gone.right().is_some_and(|status| status.is_success()));
    ensure!(code(configs.delete("a", &DeleteParams::default()).await)? == 404);
    Ok(())
}

async fn lists(client: &Client) -> Result<()> {
    let configs = namespace(client, "lists").await?;
    for index in 0..25 {
        let mut config = config(&format!("c{index:02}"), index);
        config
            .labels_mut()
            .insert("odd".into(), (index % 2 == 1).to_string());
        configs.create(&PostParams::default(), &config).await?;
    }
    let mut names = Vec::new();
    let mut parameters = ListParams::default().limit(10);
    let mut versions = BTreeSet::new();
    for page in 0.. {
        let list = configs.list(&parameters).await?;
        versions.insert(list.metadata.resource_version.clone());
        names.extend(list.items.iter().map(ResourceExt::name_any));
        // What is written while the pages are read is not in them.
        configs
            .create(&PostParams::default(), &config(&format!("x{page}"), page))
            .await?;
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters = parameters.continue_token(&token),
            None => break,
        }
        ensure!(list.metadata.remaining_item_count == Some(26 - 10 * (page + 1)));
    }
    // Each namespace has one of its own: kube-root-ca.crt.
    ensure!(names.len() == 26 && names.is_sorted(), "{names:?}");
    ensure!(
        versions.len() == 1,
        "the pages show different states: {versions:?}"
    );
    let odd = configs
        .list(&ListParams::default().labels("odd=true"))
        .await?;
    ensure!(odd.items.len() == 12);
    let one = configs
        .list(&ListParams::default().fields("metadata.name=c03"))
        .await?;
    ensure!(one.items.len() == 1);
    let newest = configs.list(&ListParams::default()).await?;
    let version = newest
        .metadata
        .resource_version
        .context("no resourceVersion")?;
    let exact = ListParams::default()
        .at(&version)
        .matching(VersionMatch::Exact);
    configs
        .create(&PostParams::default(), &config("later", 1))
        .await?;
    ensure!(configs.list(&exact).await?.items.len() == newest.items.len());
    ensure!(
        configs
            .list_metadata(&ListParams::default().limit(3))
            .await?
            .items
            .len()
            == 3
    );

    let gone = configs
        .delete_collection(
            &DeleteParams::default(),
            &ListParams::default().labels("odd=true"),
        )
        .await?;
    ensure!(gone.left().is_some_and(|list| list.items.len() == 12));
    ensure!(
        configs
            .list(&ListParams::default().labels("odd"))
            .await?
            .items
            .len()
            == 13
    );
    Ok(())
}

async fn watches(client: &Client) -> Result<()> {
    let configs = namespace(client, "watches").await?;
    let list = configs.list(&ListParams::default()).await?;
    let version = list
        .metadata
        .resource_version
        .context("no resourceVersion")?;
    let mut events = pin!(
        configs
            .watch(&WatchParams::default().timeout(60), &version)
            .await?
            .boxed()
    );
    let made = configs
        .create(&PostParams::default(), &config("w", 1))
        .await?;
    let mut next = made.clone();
    next.data = None;
    configs.replace("w", &PostParams::default(), &next).await?;
    configs.delete("w", &DeleteParams::default()).await?;
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let event = tokio::time::timeout(SOON, events.try_next()).await??;
        seen.push(match event.context("the watch ended")? {
            WatchEvent::Added(_) => "added",
            WatchEvent::Modified(_) => "modified",
            WatchEvent::Deleted(_) => "deleted",
            WatchEvent::Bookmark(_) => continue,
            WatchEvent::Error(status) => anyhow::bail!("{status:?}"),
        });
    }
    ensure!(seen == ["added", "modified", "deleted"]);
    let mut initial = pin!(
        configs
            .watch(&WatchParams::default().initial_events().timeout(60), "0")
            .await?
            .boxed()
    );
    let mut names = Vec::new();
    loop {
        let event = tokio::time::timeout(SOON, initial.try_next()).await??;
        match event.context("the watch ended")? {
            WatchEvent::Added(object) => names.push(object.name_any()),
            WatchEvent::Bookmark(mark) => {
                ensure!(
                    mark.metadata
                        .annotations
                        .contains_key("k8s.io/initial-events-end")
                );
                break;
            }
            other => anyhow::bail!("{other:?}"),
        }
    }
    ensure!(names == ["kube-root-ca.crt"]);
    Ok(())
}

async fn subresources(client: &Client) -> Result<()> {
    namespace(client, "sub").await?;
    let nodes: Api<Node> = Api::all(client.clone());
    nodes
        .create(
            &PostParams::default(),
            &parse(json!({"metadata": {"name": "sub-n1"}}))?,
        )
        .await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "sub");
    pods.create(&PostParams::default(), &pod("p")?).await?;
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"},
        "target": {"kind": "Node", "name": "sub-n1"}});
    let path = "/api/v1/namespaces/sub/pods/p/binding";
    ensure!(client::ask(client, "POST", path, &binding).await?.code == 201);
    ensure!(client::ask(client, "POST", path, &binding).await?.code == 409);
    let running = json!({"status": {"phase": "Running",
        "conditions": [{"type": "Ready", "status": "True"}, {"type": "PodScheduled", "status": "True"}]}});
    let waiting = tokio::spawn(await_condition(
        pods.clone(),
        "p",
        conditions::is_pod_running(),
    ));
    let made = pods
        .patch_status("p", &PatchParams::default(), &Patch::Merge(&running))
        .await?;
    ensure!(
        made.spec
            .as_ref()
            .and_then(|spec| spec.node_name.as_deref())
            == Some("sub-n1")
    );
    tokio::time::timeout(SOON, waiting).await???;
    let mut status = made.clone();
    status.spec = None;
    if let Some(status) = &mut status.status {
        status.message = Some("hello".into());
    }
    let made = pods
        .replace_status("p", &PostParams::default(), &status)
        .await?;
    ensure!(
        made.spec.is_some()
            && made.status.and_then(|status| status.message).as_deref() == Some("hello")
    );

    let budgets: Api<PodDisruptionBudget> = Api::namespaced(client.clone(), "sub");
    let budget = parse(json!({"metadata": {"name": "b"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}}))?;
    budgets.create(&PostParams::default(), &budget).await?;
    ensure!(code(pods.evict("p", &EvictParams::default()).await)? == 429);
    budgets.delete("b", &DeleteParams::default()).await?;
    let uid = made.metadata.uid.context("no uid")?;
    pods.evict("p", &EvictParams::default()).await?;
    let leaving = pods.get("p").await?;
    ensure!(leaving.metadata.deletion_timestamp.is_some());
    let waiting = tokio::spawn({
        let pods = pods.clone();
        async move { await_condition(pods, "p", conditions::is_deleted(&uid)).await }
    });
    pods.delete("p", &DeleteParams::default().grace_period(0))
        .await?;
    tokio::time::timeout(SOON, waiting).await???;

    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "sub");
    let deployment = parse(json!({"metadata": {"name": "d"}, "spec": {
        "selector": {"matchLabels": {"app": "d"}},
        "template": {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "c", "image": "nginx"}]}},
    }}))?;
    deployments
        .create(&PostParams::default(), &deployment)
        .await?;
    let mut scale = deployments.get_scale("d").await?;
    ensure!(scale.spec.as_ref().and_then(|spec| spec.replicas) == Some(1));
    let five = json!({"spec": {"replicas": 5}});
    deployments
        .patch_scale("d", &PatchParams::default(), &Patch::Merge(&five))
        .await?;
    ensure!(
        code(
            deployments
                .replace_scale("d", &PostParams::default(), &scale)
                .await
        )? == 409
    );
    scale = deployments.get_scale("d").await?;
    if let Some(spec) = &mut scale.spec {
        spec.replicas = Some(7);
    }
    deployments
        .replace_scale("d", &PostParams::default(), &scale)
        .await?;
    let spec = deployments.get("d").await?.spec.context("no spec")?;
    ensure!(spec.replicas == Some(7));
    Ok(())
}

/// Concurrent writers change objects while stores follow; at the end each store is what a fresh list shows.
async fn storm(client: &Client, config_of_watcher: watcher::Config, place: &str) -> Result<()> {
    let configs = namespace(client, place).await?;
    let (reader, writer) = reflector::store::<ConfigMap>();
    let stream = reflector(
        writer,
        watcher(configs.clone(), config_of_watcher).default_backoff(),
    );
    let following = tokio::spawn(stream.for_each(|_| future::ready(())));
    let writers = (0..6).map(|writer| {
        let configs = configs.clone();
        tokio::spawn(async move {
            for step in 0..60 {
                let name = format!("s{}", fastrand::u8(0..12));
                let done = match fastrand::u8(0..4) {
                    0 => configs
                        .create(&PostParams::default(), &config(&name, step))
                        .await
                        .map(drop),
                    1 => configs
                        .delete(&name, &DeleteParams::default())
                        .await
                        .map(drop),
                    _ => {
                        let change = json!({"data": {format!("w{writer}"): step.to_string()}});
                        let change = Patch::Merge(change);
                        configs
                            .patch(&name, &PatchParams::default(), &change)
                            .await
                            .map(drop)
                    }
                };
                match done {
                    Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => {}
                    other => other?,
                }
            }
            Ok::<_, anyhow::Error>(())
        })
    });
    for done in future::join_all(writers).await {
        done??;
    }
    let mut fresh = configs.list(&ListParams::default()).await?.items;
    fresh.sort_by_key(ResourceExt::name_any);
    let end = tokio::time::Instant::now() + SOON;
    loop {
        let mut held: Vec<ConfigMap> = reader.state().iter().map(|one| (**one).clone()).collect();
        held.sort_by_key(ResourceExt::name_any);
        if held == fresh {
            break;
        }
        if tokio::time::Instant::now() > end {
            let brief = |all: &[ConfigMap]| -> Vec<_> {
                all.iter()
                    .map(|one| (one.name_any(), one.resource_version()))
                    .collect()
            };
            anyhow::bail!(
                "the store holds {:?}, not {:?}",
                brief(&held),
                brief(&fresh)
            );
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    following.abort();
    Ok(())
}

/// A controller marks every object, those that are there and those that come.
async fn controller(client: &Client) -> Result<()> {
    namespace(client, "controlled").await?;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), "controlled");
    let secret = |name: String| {
        parse::<Secret>(json!({"metadata": {"name": name}, "stringData": {"k": "v"}}))
    };
    for index in 0..10 {
        secrets
            .create(&PostParams::default(), &secret(format!("early{index}"))?)
            .await?;
    }
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let running = Controller::new(secrets.clone(), watcher::Config::default())
        .graceful_shutdown_on(async {
            // Ends when told, and when the test is gone.
            let _ = ended.await;
        })
        .run(
            async |secret: Arc<Secret>, secrets: Arc<Api<Secret>>| {
                if !secret.labels().contains_key("seen") {
                    let change = json!({"metadata": {"labels": {"seen": "yes"}}});
                    secrets
                        .patch(
                            &secret.name_any(),
                            &PatchParams::default(),
                            &Patch::Merge(change),
                        )
                        .await?;
                }
                Ok::<_, kube::Error>(Action::await_change())
            },
            |_, _, _| Action::requeue(Duration::from_millis(200)),
            Arc::new(secrets.clone()),
        )
        .for_each(|_| future::ready(()));
    let running = tokio::spawn(running);
    for index in 0..10 {
        secrets
            .create(&PostParams::default(), &secret(format!("late{index}"))?)
            .await?;
    }
    let deadline = tokio::time::Instant::now() + SOON;
    loop {
        let seen = secrets
            .list(&ListParams::default().labels("seen=yes"))
            .await?
            .items
            .len();
        if seen == 20 {
            break;
        }
        ensure!(
            tokio::time::Instant::now() < deadline,
            "the controller has seen {seen} of 20"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(end);
    tokio::time::timeout(SOON, running).await??;
    Ok(())
}

async fn discovery(client: &Client) -> Result<()> {
    for found in [
        Discovery::new(client.clone()).run().await?,
        Discovery::new(client.clone()).run_aggregated().await?,
    ] {
        for (group, kind, plural, namespaced) in [
            ("", "Pod", "pods", true),
            ("", "Node", "nodes", false),
            ("apps", "Deployment", "deployments", true),
            ("discovery.k8s.io", "EndpointSlice", "endpointslices", true),
            (
                "policy",
                "PodDisruptionBudget",
                "poddisruptionbudgets",
                true,
            ),
        ] {
            let group = found
                .get(group)
                .with_context(|| format!("no group {group:?}"))?;
            let (resource, abilities) = group
                .recommended_kind(kind)
                .with_context(|| format!("no kind {kind}"))?;
            ensure!(resource.plural == plural);
            ensure!((abilities.scope == kube::discovery::Scope::Namespaced) == namespaced);
            ensure!(abilities.supports_operation("watch"), "{kind}");
        }
    }
    let version = client.apiserver_version().await?;
    ensure!(version.major == "1", "{version:?}");
    ensure!(get(client, "/api").await?["versions"] == json!(["v1"]));
    Ok(())
}

async fn everything(bed: Bed) -> Result<()> {
    let client = bed.client().await?;
    tokio::try_join!(
        async { verbs(&client).await.context("verbs") },
        async { lists(&client).await.context("lists") },
        async { watches(&client).await.context("watches") },
        async { subresources(&client).await.context("subresources") },
        async { controller(&client).await.context("controller") },
        async { discovery(&client).await.context("discovery") },
        async {
            storm(&client, watcher::Config::default(), "storm")
                .await
                .context("list and watch")
        },
        async {
            let streaming = watcher::Config::default().streaming_lists();
            storm(&client, streaming, "stream")
                .await
                .context("streaming lists")
        },
    )?;
    ensure!(!bed.server.log()?.contains("panicked"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kube_on_the_embedded_store() -> Result<()> {
    everything(Bed::embedded()?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kube_on_etcd() -> Result<()> {
    if !requirement::has_programs(&["etcd", "etcdctl"]) {
        return Ok(());
    }
    everything(Bed::etcd()?).await
}
