//! What a watch promises, on the wire: where it begins, what it tells, how it ends; and that every watcher is told the
//! same history, whoever writes meanwhile.

#[path = "api/client.rs"]
mod client;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use client::{Bed, Lines, ask, brief, get, revision};
use futures_util::future;
use kube::Client;
use proptest::prelude::*;
use proptest::test_runner::{Config as Runs, TestRunner};
use serde_json::{Value, json};
use tests::requirement;

fn configs(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/configmaps")
}

async fn namespace(client: &Client, name: &str) -> Result<()> {
    let made = ask(
        client,
        "POST",
        "/api/v1/namespaces",
        &json!({"metadata": {"name": name}}),
    )
    .await?;
    ensure!(made.code == 201, "{made:?}");
    // What each namespace has is not what these tests look at.
    let path = format!("{}/kube-root-ca.crt", configs(name));
    let gone = ask(client, "DELETE", &path, &Value::Null).await?;
    ensure!(gone.code == 200, "{gone:?}");
    Ok(())
}

/// Writes an object, new or not, with labels and some bytes of data.
async fn put(
    client: &Client,
    namespace: &str,
    name: &str,
    labels: Value,
    data: &str,
) -> Result<Value> {
    let object = json!({"metadata": {"name": name, "labels": labels}, "data": {"n": data}});
    let path = configs(namespace);
    let mut answer = ask(client, "PUT", &format!("{path}/{name}"), &object).await?;
    if answer.code == 404 {
        answer = ask(client, "POST", &path, &object).await?;
    }
    ensure!(answer.code < 300, "{answer:?}");
    answer.json()
}

async fn delete(client: &Client, namespace: &str, name: &str) -> Result<()> {
    let path = format!("{}/{name}", configs(namespace));
    let answer = ask(client, "DELETE", &path, &Value::Null).await?;
    ensure!(answer.code == 200, "{answer:?}");
    Ok(())
}

async fn starts(client: &Client) -> Result<()> {
    namespace(client, "starts").await?;
    let path = configs("starts");
    let none = json!({});
    let a = put(client, "starts", "a", none.clone(), "1").await?;
    let b = put(client, "starts", "b", none.clone(), "1").await?;
    for query in ["watch=1", "watch=true&resourceVersion=0"] {
        let mut watch = Lines::open(client, &format!("{path}?{query}")).await?;
        ensure!(watch.event().await? == json!({"type": "ADDED", "object": a}));
        ensure!(watch.event().await? == json!({"type": "ADDED", "object": b}));
    }
    let from_a = format!("{path}?watch=1&resourceVersion={}", revision(&a)?);
    let mut watch = Lines::open(client, &from_a).await?;
    ensure!(watch.event().await? == json!({"type": "ADDED", "object": b}));
    // The future is waited for.
    let ahead = revision(&b)? + 2;
    let mut future =
        Lines::open(client, &format!("{path}?watch=1&resourceVersion={ahead}")).await?;
    let mut last = b;
    for step in 2..6 {
        last = put(client, "starts", "b", none.clone(), &step.to_string()).await?;
    }
    loop {
        let event = future.event().await?;
        ensure!(revision(&event)? > ahead, "{event} is not after {ahead}");
        if revision(&event)? == revision(&last)? {
            break;
        }
    }
    // `/watch/` is the same.
    for path in [
        "/api/v1/watch/namespaces/starts/configmaps",
        "/api/v1/watch/configmaps",
    ] {
        let from = format!("{path}?resourceVersion={}", revision(&a)?);
        let mut watch = Lines::open(client, &from).await?;
        let mut event = watch.event().await?;
        // Other tests write too, elsewhere.
        while event["object"]["metadata"]["namespace"] != "starts" {
            event = watch.event().await?;
        }
        ensure!(brief(&event) == "ADDED b", "{path}: {event}");
    }
    let mut one = Lines::open(client, "/api/v1/watch/namespaces/starts/configmaps/a").await?;
    ensure!(brief(&one.event().await?) == "ADDED a");
    put(client, "starts", "b", none.clone(), "7").await?;
    put(client, "starts", "a", none.clone(), "7").await?;
    ensure!(brief(&one.event().await?) == "MODIFIED a");
    // Nothing is there, and nobody is wrong.
    let mut silent = Lines::open(
        client,
        "/api/v1/namespaces/missing/configmaps?watch=1&timeoutSeconds=1",
    )
    .await?;
    ensure!(silent.next().await?.is_none());
    for (query, code) in [
        ("watch=1&resourceVersion=x", 400),
        (
            "watch=1&sendInitialEvents=true&allowWatchBookmarks=true",
            422,
        ),
        ("watch=1&resourceVersionMatch=NotOlderThan", 422),
        ("watch=1&labelSelector=a%20in", 400),
        ("watch=1&fieldSelector=spec.x=1", 400),
        ("watch=1&timeoutSeconds=x", 400),
    ] {
        let answer = ask(client, "GET", &format!("{path}?{query}"), &Value::Null).await?;
        ensure!(answer.code == code, "{query}: {answer:?}");
        answer.reason()?;
    }
    Ok(())
}

async fn tells(client: &Client) -> Result<()> {
    namespace(client, "tells").await?;
    let path = configs("tells");
    let red = json!({"colour": "red"});
    let blue = json!({"colour": "blue"});
    let start = revision(&get(client, &path).await?)?;
    let of = |query: &str| format!("{path}?watch=1&resourceVersion={start}&{query}");
    let mut all = Lines::open(client, &of("")).await?;
    let mut reds = Lines::open(client, &of("labelSelector=colour%3Dred")).await?;
    let mut named = Lines::open(client, &of("fieldSelector=metadata.name%3Db")).await?;
    put(client, "tells", "a", red.clone(), "1").await?;
    put(client, "tells", "a", red.clone(), "2").await?;
    let left = put(client, "tells", "a", blue.clone(), "3").await?;
    put(client, "tells", "a", red.clone(), "4").await?;
    put(client, "tells", "b", blue, "1").await?;
    let before = get(client, &format!("{path}/a")).await?;
    delete(client, "tells", "a").await?;
    let after = put(client, "tells", "end", red, "1").await?;
    let mut seen = Vec::new();
    for wanted in [
        "ADDED a",
        "MODIFIED a",
        "MODIFIED a",
        "MODIFIED a",
        "ADDED b",
        "DELETED a",
        "ADDED end",
    ] {
        let event = all.event().await?;
        ensure!(brief(&event) == wanted, "{event} is not {wanted}");
        seen.push(event);
    }
    let mut revisions = seen.iter().map(revision).collect::<Result<Vec<_>>>()?;
    revisions.dedup();
    ensure!(
        revisions.len() == 7 && revisions.is_sorted(),
        "{revisions:?}"
    );
    // The deletion is an event of its own, and shows the object as it was.
    let deleted = &seen[5]["object"];
    ensure!(revision(deleted)? > revision(&before)? && revision(deleted)? < revision(&after)?);
    ensure!(
        deleted["data"] == before["data"]
            && deleted["metadata"]["uid"] == before["metadata"]["uid"]
    );
    for wanted in [
        "ADDED a",
        "MODIFIED a",
        "DELETED a",
        "ADDED a",
        "DELETED a",
        "ADDED end",
    ] {
        let event = reds.event().await?;
        ensure!(brief(&event) == wanted, "reds: {event} is not {wanted}");
        if event["type"] == "DELETED" && event["object"]["data"]["n"] == "2" {
            // It left: the state that was selected, at the revision of the change.
            ensure!(revision(&event)? == revision(&left)?);
        }
    }
    ensure!(brief(&named.event().await?) == "ADDED b");

    // Forms.
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let mut rows = Lines::open_with(client, &of(""), table).await?;
    let first = rows.event().await?;
    ensure!(first["object"]["kind"] == "Table" && first["object"]["columnDefinitions"].is_array());
    ensure!(first["object"]["rows"][0]["cells"][0] == "a");
    ensure!(first["object"]["rows"][0]["object"]["kind"] == "PartialObjectMetadata");
    let second = rows.event().await?;
    ensure!(
        second["object"]
            .get("columnDefinitions")
            .is_none_or(Value::is_null),
        "{second}"
    );
    let partial = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
    let mut partials = Lines::open_with(client, &of(""), partial).await?;
    let event = partials.event().await?;
    ensure!(
        event["object"]["kind"] == "PartialObjectMetadata" && event["object"].get("data").is_none()
    );
    ensure!(event["object"]["metadata"]["labels"]["colour"] == "red");
    let media = [("accept", "application/yaml")];
    let refused = client::ask_with(client, "GET", &of(""), &media, "").await?;
    ensure!(refused.code == 406, "{refused:?}");
    Ok(())
}

async fn ends(client: &Client) -> Result<()> {
    namespace(client, "ends").await?;
    let path = configs("ends");
    let a = put(client, "ends", "a", json!({}), "1").await?;
    // A list as a watch.
    let begun = Instant::now();
    let streaming =
        "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = Lines::open(client, &format!("{path}?{streaming}&timeoutSeconds=2")).await?;
    ensure!(watch.event().await? == json!({"type": "ADDED", "object": a}));
    let mark = watch.event().await?;
    ensure!(
        mark["type"] == "BOOKMARK" && mark["object"]["kind"] == "ConfigMap",
        "{mark}"
    );
    ensure!(mark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"] == "true");
    ensure!(revision(&mark)? >= revision(&a)?);
    let b = put(client, "ends", "b", json!({}), "1").await?;
    ensure!(watch.event().await? == json!({"type": "ADDED", "object": b}));
    // The end comes with a bookmark, from which a client goes on.
    let last = watch.event().await?;
    ensure!(last["type"] == "BOOKMARK" && last["object"]["metadata"].get("annotations").is_none());
    ensure!(revision(&last)? >= revision(&b)?);
    ensure!(watch.next().await?.is_none());
    ensure!(begun.elapsed() >= Duration::from_secs(2) && begun.elapsed() < Duration::from_secs(12));
    let c = put(client, "ends", "c", json!({}), "1").await?;
    let on = format!(
        "{path}?watch=1&resourceVersion={}&timeoutSeconds=1",
        revision(&last)?
    );
    let mut on = Lines::open(client, &on).await?;
    ensure!(on.event().await? == json!({"type": "ADDED", "object": c}));
    // Nobody asked for bookmarks.
    ensure!(on.next().await?.is_none());
    Ok(())
}

/// A client that does not read for a while misses nothing, though the server has forgotten the changes meanwhile.
async fn slow(client: &Client) -> Result<()> {
    namespace(client, "slow").await?;
    let path = configs("slow");
    let start = revision(&get(client, &path).await?)?;
    let mut watch = Lines::open(client, &format!("{path}?watch=1&resourceVersion={start}")).await?;
    // What lies between it and the server is full at once; then more is changed than the server keeps for anybody.
    let data = "x".repeat(150_000);
    let writers = (0..8).map(|writer| {
        let (client, data) = (client.clone(), data.clone());
        tokio::spawn(async move {
            for step in 0..220 {
                let data = if step < 10 { &data } else { "" };
                let labels = json!({"step": step.to_string()});
                put(&client, "slow", &format!("w{writer}"), labels, data).await?;
            }
            Ok::<_, anyhow::Error>(())
        })
    });
    for done in future::join_all(writers).await {
        done??;
    }
    let mut steps = BTreeMap::<String, i64>::new();
    for seen in 0..8 * 220 {
        let event = watch
            .event()
            .await
            .with_context(|| format!("after {seen} events"))?;
        let name = event["object"]["metadata"]["name"]
            .as_str()
            .unwrap_or_default();
        let step: i64 = event["object"]["metadata"]["labels"]["step"]
            .as_str()
            .unwrap_or_default()
            .parse()?;
        let before = steps.insert(name.to_owned(), step).unwrap_or(-1);
        ensure!(step == before + 1, "{name}: {step} follows {before}");
    }
    Ok(())
}

/// A watch from before what is kept: one ERROR event, and the end.
async fn expired(client: &Client, path: &str, from: u64) -> Result<()> {
    let mut watch = Lines::open(client, &format!("{path}?watch=1&resourceVersion={from}")).await?;
    let event = watch.event().await?;
    let status = &event["object"];
    ensure!(
        event["type"] == "ERROR" && status["kind"] == "Status",
        "{event}"
    );
    ensure!(
        status["code"] == 410 && status["reason"] == "Expired",
        "{event}"
    );
    let text = format!("too old resource version: {from} (");
    ensure!(
        status["message"]
            .as_str()
            .is_some_and(|message| message.starts_with(&text)),
        "{event}"
    );
    ensure!(watch.next().await?.is_none());
    Ok(())
}

/// What one watcher was told, briefly.
type Told = Vec<(u64, String, Value)>;

/// Reads a watch up to the object `end`.
async fn read_to_end(mut watch: Lines) -> Result<Told> {
    let mut told = Vec::new();
    loop {
        let event = watch.event().await?;
        if event["type"] == "BOOKMARK" {
            continue;
        }
        let end = brief(&event) == "ADDED end";
        told.push((
            revision(&event)?,
            brief(&event),
            event["object"]["data"]["n"].clone(),
        ));
        if end {
            return Ok(told);
        }
    }
}

/// One run of writers and watchers.
#[derive(Clone, Debug)]
struct Plan {
    /// Of each writer: which object, and what is done to it.
    writers: Vec<Vec<(u8, bool)>>,
    /// Of each watcher: after how many writes it begins, and how far back among them.
    watchers: Vec<(usize, prop::sample::Index)>,
}

fn plans() -> impl Strategy<Value = Plan> {
    let writer = prop::collection::vec((0..4u8, prop::bool::weighted(0.3)), 1..20);
    let watcher = (0..40usize, any::<prop::sample::Index>());
    (
        prop::collection::vec(writer, 1..6),
        prop::collection::vec(watcher, 1..6),
    )
        .prop_map(|(writers, watchers)| Plan { writers, watchers })
}

async fn history(client: Client, place: String, plan: Plan) -> Result<()> {
    namespace(&client, &place).await?;
    let path = configs(&place);
    let start = revision(&get(&client, &path).await?)?;
    // Revisions as writers hear of them.
    let heard = Arc::new(Mutex::new(vec![start]));
    let read = {
        let heard = Arc::clone(&heard);
        move || heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    };
    let total: usize = plan.writers.iter().map(Vec::len).sum();
    let watchers = plan.watchers.into_iter().map(|(after, back)| {
        let (client, path, read) = (client.clone(), path.clone(), read.clone());
        tokio::spawn(async move {
            while read().len() <= after.min(total / 2) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let heard = read();
            let from = heard[back.index(heard.len())];
            let watch =
                Lines::open(&client, &format!("{path}?watch=1&resourceVersion={from}")).await?;
            Ok::<_, anyhow::Error>((from, read_to_end(watch).await?))
        })
    });
    let watchers: Vec<_> = watchers.collect();
    let writers = plan.writers.into_iter().enumerate().map(|(writer, steps)| {
        let (client, path, heard) = (client.clone(), path.clone(), Arc::clone(&heard));
        tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            for (step, (object, delete)) in steps.into_iter().enumerate() {
                let (name, text) = (format!("o{object}"), format!("{writer}.{step}"));
                let one = format!("{path}/{name}");
                let body = json!({"metadata": {"name": name}, "data": {"n": text}});
                let mut answer = match delete {
                    true => ask(&client, "DELETE", &one, &Value::Null).await?,
                    false => ask(&client, "PUT", &one, &body).await?,
                };
                if answer.code == 404 && !delete {
                    answer = ask(&client, "POST", &path, &body).await?;
                }
                let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
                let last = heard.last().copied().unwrap_or_default();
                match (answer.code, delete) {
                    (200 | 201, false) => {
                        let revision = revision(&answer.json()?)?;
                        acknowledged.push((revision, name, text));
                        heard.push(revision);
                    }
                    // Others were quicker.
                    (200, true) | (404 | 409, _) => heard.push(last),
                    _ => anyhow::bail!("{answer:?}"),
                }
            }
            Ok(acknowledged)
        })
    });
    let writers: Vec<_> = writers.collect();
    let mut acknowledged = Vec::new();
    for done in future::join_all(writers).await {
        acknowledged.extend(done??);
    }
    put(&client, &place, "end", json!({}), "").await?;
    let whole = Lines::open(&client, &format!("{path}?watch=1&resourceVersion={start}")).await?;
    let whole = read_to_end(whole).await?;
    ensure!(
        whole
            .iter()
            .map(|(revision, _, _)| revision)
            .is_sorted_by(|a, b| a < b),
        "{whole:?}"
    );
    // What was acknowledged is in it, and each object comes, changes and goes in turn.
    for (revision, name, text) in &acknowledged {
        let found = whole.iter().find(|(at, _, _)| at == revision);
        let (_, what, data) =
            found.with_context(|| format!("nobody is told of revision {revision}"))?;
        ensure!(
            what.ends_with(name.as_str()) && data == text,
            "{what} {data} is not {name} {text}"
        );
    }
    let mut there = BTreeMap::new();
    for (_, what, _) in &whole {
        let (what, name) = what.split_once(' ').context("no name")?;
        let was = there.insert(name, what != "DELETED").unwrap_or(false);
        ensure!(
            (what == "ADDED") != was,
            "{name} is {what}, and was there: {was}"
        );
    }
    for watcher in watchers {
        let (from, told) = watcher.await??;
        let wanted: Told = whole
            .iter()
            .filter(|(revision, _, _)| *revision > from)
            .cloned()
            .collect();
        ensure!(told == wanted, "from {from}: {told:?}\nis not {wanted:?}");
    }
    Ok(())
}

/// Runs plans until one fails; then a smaller one that fails too is looked for.
fn histories(client: &Client, cases: u32, mark: &str) -> Result<()> {
    let runtime = tokio::runtime::Handle::current();
    let count = std::cell::Cell::new(0);
    let mut runner = TestRunner::new(Runs {
        cases,
        max_shrink_iters: 20,
        failure_persistence: None,
        ..Runs::default()
    });
    let run = runner.run(&plans(), |plan| {
        count.set(count.get() + 1);
        let place = format!("history-{mark}-{}", count.get());
        let done = runtime.block_on(history(client.clone(), place, plan));
        done.map_err(|error| TestCaseError::fail(format!("{error:#}")))
    });
    run.map_err(|error| anyhow::anyhow!("{error}"))
}

async fn everything(bed: &Bed, cases: u32) -> Result<()> {
    let client = bed.client().await?;
    tokio::try_join!(
        async { starts(&client).await.context("starts") },
        async { tells(&client).await.context("tells") },
        async { ends(&client).await.context("ends") },
    )?;
    slow(&client).await.context("slow")?;
    tokio::task::spawn_blocking(move || histories(&client, cases, "one")).await??;
    ensure!(!bed.server.log()?.contains("panicked"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_on_the_embedded_store() -> Result<()> {
    let bed = Bed::embedded()?;
    everything(&bed, 20).await?;
    // More than the store's history holds.
    let client = bed.client().await?;
    namespace(&client, "much").await?;
    let first = put(&client, "much", "m", json!({}), "").await?;
    let data = "x".repeat(1_000_000);
    for _ in 0..36 {
        put(
            &client,
            "much",
            "m",
            json!({"step": fastrand::u32(..).to_string()}),
            &data,
        )
        .await?;
    }
    expired(&client, &configs("much"), revision(&first)?).await?;
    expired(&client, "/api/v1/configmaps", 1).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_on_etcd() -> Result<()> {
    if !requirement::has_programs(&["etcd", "etcdctl"]) {
        return Ok(());
    }
    let mut bed = Bed::etcd()?;
    everything(&bed, 10).await?;
    let client = bed.client().await?;
    namespace(&client, "old").await?;
    let first = put(&client, "old", "a", json!({}), "1").await?;
    put(&client, "old", "a", json!({}), "2").await?;
    bed.etcd.as_ref().context("no etcd")?.compact()?;
    // The server that saw the changes still knows them; one that starts now does not.
    let path = configs("old");
    let known = format!("{path}?watch=1&resourceVersion={}", revision(&first)?);
    ensure!(brief(&Lines::open(&client, &known).await?.event().await?) == "MODIFIED a");
    ensure!(bed.server.stop()?.success());
    bed.server.resume()?;
    let client = bed.client().await?;
    expired(&client, &path, revision(&first)?).await
}
