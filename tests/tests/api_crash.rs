//! What was acknowledged is there: after kill -9 in the middle of writes, and after SIGTERM.

#[path = "api/client.rs"]
mod client;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use client::{Bed, Lines, SOON, ask, get, revision};
use futures_util::{StreamExt, future};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::ListParams;
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tests::{ApiServer, requirement};

const PATH: &str = "/api/v1/namespaces/default/configmaps";

/// What a writer knows of its object: that it is there with an entry and a revision, or not.
type Known = Option<(String, u64)>;

/// What one writer has heard, and what it had asked for when the server went.
#[derive(Clone, Debug, Default)]
struct Notes {
    /// By name, of what was acknowledged last.
    known: BTreeMap<String, Known>,
    /// Acknowledged revisions of creates and updates in their order.
    revisions: Vec<u64>,
    /// Name and entry; no entry is a delete.
    asked: Option<(String, Option<String>)>,
}

/// Writes its own objects until the server has gone; `round` makes entries new.
async fn write(client: Client, writer: usize, round: usize, mut notes: Notes) -> Result<Notes> {
    for step in 0.. {
        let name = format!("w{writer}-{}", fastrand::u8(0..5));
        let one = format!("{PATH}/{name}");
        let there = notes.known.get(&name).cloned().flatten().is_some();
        let text = format!("{round}.{step}");
        let object = json!({"metadata": {"name": name}, "data": {"n": text}});
        let delete = there && fastrand::u8(0..4) == 0;
        notes.asked = Some((name.clone(), (!delete).then(|| text.clone())));
        let answer = match (there, delete) {
            (_, true) => ask(&client, "DELETE", &one, &Value::Null).await,
            (true, false) => ask(&client, "PUT", &one, &object).await,
            (false, false) => ask(&client, "POST", PATH, &object).await,
        };
        let Ok(answer) = answer else {
            return Ok(notes);
        };
        if answer.code == 503 {
            return Ok(notes);
        }
        ensure!(answer.code < 300, "{answer:?}");
        let known = if delete {
            None
        } else {
            let revision = revision(&answer.json()?)?;
            notes.revisions.push(revision);
            Some((text, revision))
        };
        notes.known.insert(name, known);
        notes.asked = None;
    }
    Ok(notes)
}

/// Compares what is there with what a writer knows, and learns what became of its last request.
async fn check(client: &Client, notes: &mut Notes) -> Result<()> {
    ensure!(
        notes.revisions.is_sorted_by(|a, b| a < b),
        "{:?}",
        notes.revisions
    );
    if let Some((name, _)) = &notes.asked {
        // Acknowledged or not, it has been.
        notes.known.entry(name.clone()).or_insert(None);
    }
    for (name, known) in &mut notes.known {
        let answer = ask(client, "GET", &format!("{PATH}/{name}"), &Value::Null).await?;
        let now: Known = match answer.code {
            404 => None,
            200 => {
                let object = answer.json()?;
                let text = object["data"]["n"].as_str().unwrap_or_default();
                Some((text.to_owned(), revision(&object)?))
            }
            _ => anyhow::bail!("{answer:?}"),
        };
        if now == *known {
            continue;
        }
        let text = now.as_ref().map(|(text, _)| text.clone());
        let asked = notes.asked == Some((name.clone(), text));
        ensure!(
            asked,
            "{name} is {now:?}; acknowledged was {known:?}, asked {:?}",
            notes.asked
        );
        if let (Some((_, now)), Some((_, known))) = (&now, &known) {
            ensure!(now > known, "revision {now} came after {known}");
        }
        *known = now;
    }
    notes.asked = None;
    Ok(())
}

/// The history has every acknowledged revision, in order.
async fn history(client: &Client, start: u64, notes: &[Notes]) -> Result<()> {
    let mut watch = Lines::open(client, &format!("{PATH}?watch=1&resourceVersion={start}")).await?;
    let end = ask(
        client,
        "POST",
        PATH,
        &json!({"metadata": {"generateName": "end-"}}),
    )
    .await?;
    let end = revision(&end.json()?)?;
    let mut told = Vec::new();
    while told.last() != Some(&end) {
        told.push(revision(&watch.event().await?)?);
    }
    ensure!(told.is_sorted_by(|a, b| a < b));
    for revision in notes.iter().flat_map(|notes| &notes.revisions) {
        ensure!(
            told.binary_search(revision).is_ok(),
            "nobody is told of revision {revision}"
        );
    }
    Ok(())
}

async fn crashes(mut bed: Bed, rounds: usize) -> Result<()> {
    let client = bed.client().await?;
    let start = revision(&get(&client, PATH).await?)?;
    let configs: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    let mut stores = Vec::new();
    for config in [
        watcher::Config::default(),
        watcher::Config::default().streaming_lists(),
    ] {
        let (reader, writer) = reflector::store::<ConfigMap>();
        let stream = reflector(writer, watcher(configs.clone(), config).default_backoff());
        stores.push((reader, tokio::spawn(stream.for_each(|_| future::ready(())))));
    }
    let mut all = vec![Notes::default(); 6];
    for round in 0..rounds {
        let tasks: Vec<_> = all
            .drain(..)
            .enumerate()
            .map(|(writer, notes)| tokio::spawn(write(client.clone(), writer, round, notes)))
            .collect();
        tokio::time::sleep(Duration::from_millis(fastrand::u64(300..1200))).await;
        bed.server.kill()?;
        for task in tasks {
            all.push(tokio::time::timeout(SOON, task).await???);
        }
        bed.server.resume()?;
        for notes in &mut all {
            check(&client, notes)
                .await
                .with_context(|| format!("round {round}"))?;
        }
        history(&client, start, &all)
            .await
            .with_context(|| format!("round {round}"))?;
    }
    let writes: usize = all.iter().map(|notes| notes.revisions.len()).sum();
    ensure!(writes > 50, "only {writes} writes");
    let mut fresh = configs.list(&ListParams::default()).await?.items;
    fresh.sort_by_key(ResourceExt::name_any);
    let limit = Instant::now() + SOON;
    for (reader, task) in stores {
        loop {
            let mut held: Vec<ConfigMap> =
                reader.state().iter().map(|one| (**one).clone()).collect();
            held.sort_by_key(ResourceExt::name_any);
            if held == fresh {
                break;
            }
            ensure!(
                Instant::now() < limit,
                "a store holds {} objects, not the {}",
                held.len(),
                fresh.len()
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        task.abort();
    }
    ensure!(!bed.server.log()?.contains("panicked"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_crashes_of_the_embedded_store() -> Result<()> {
    crashes(Bed::embedded()?, 6).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_crashes_over_etcd() -> Result<()> {
    if !requirement::has_programs(&["etcd", "etcdctl"]) {
        return Ok(());
    }
    crashes(Bed::etcd()?, 3).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn told_to_end_it_ends_watches_and_finishes_writes() -> Result<()> {
    let mut server = ApiServer::start(&[])?;
    let client = client::client(&server.kubeconfig()).await?;
    let start = revision(&get(&client, PATH).await?)?;
    let stopping = Arc::new(AtomicBool::new(false));
    let watches: Vec<_> = (0..10)
        .map(|number| {
            let (client, stopping) = (client.clone(), Arc::clone(&stopping));
            // One that has nothing to tell is among them.
            let kind = if number == 0 { "secrets" } else { "configmaps" };
            tokio::spawn(async move {
                let path = format!(
                    "/api/v1/{kind}?watch=1&resourceVersion={start}&allowWatchBookmarks=true"
                );
                let mut watch = Lines::open(&client, &path).await?;
                let mut last = start;
                // Whatever comes comes whole, and then the end.
                while let Some(event) = watch.next().await? {
                    let now = revision(&event)?;
                    ensure!(now >= last, "{now} after {last}");
                    last = now;
                }
                ensure!(stopping.load(Ordering::SeqCst), "the watch ended by itself");
                Ok::<_, anyhow::Error>(last)
            })
        })
        .collect();
    let writers: Vec<_> = (0..6)
        .map(|writer| tokio::spawn(write(client.clone(), writer, 0, Notes::default())))
        .collect();
    tokio::time::sleep(Duration::from_millis(800)).await;
    stopping.store(true, Ordering::SeqCst);
    let begun = Instant::now();
    let status = tokio::task::spawn_blocking(move || server.stop().map(|status| (status, server)));
    let (status, mut server) = status.await??;
    ensure!(status.code() == Some(0), "{status}");
    ensure!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
    for watch in watches {
        tokio::time::timeout(SOON, watch)
            .await?
            .context("a watcher")??;
    }
    let mut all = Vec::new();
    for writer in writers {
        all.push(tokio::time::timeout(SOON, writer).await???);
    }
    server.resume()?;
    for notes in &mut all {
        check(&client, notes).await?;
    }
    history(&client, start, &all).await?;
    let log = server.log()?;
    ensure!(
        !log.contains("panicked") && !log.contains("cut off"),
        "{log}"
    );
    Ok(())
}
