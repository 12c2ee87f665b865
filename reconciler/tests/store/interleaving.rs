//! Any interleaving of writers and watchers gives each watcher the same history.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use reconciler::store::{Error, Event, Revision, Store};
use tokio::sync::watch as signal;
use tokio::task::JoinSet;

use super::conformance::consistent;
use super::fixture::{self, Fixture, PATIENCE};

/// What one task does, step by step, while the others do theirs.
#[derive(Clone, Debug)]
enum Step {
    /// Creates, changes or deletes the key of that number, as the key's state allows.
    Write { key: u8, delete: bool, size: u16 },
    /// Watches the keys below a prefix, from a revision at that part of the history, reading with pauses.
    Watch { folder: u8, from: u8, pause: u8 },
    /// Lets others go first.
    Wait { millis: u8 },
}

const KEYS: u8 = 6;

fn steps() -> impl Strategy<Value = Vec<Vec<Step>>> {
    let step = prop_oneof![
        6 => (0..KEYS, prop::bool::weighted(0.3), 0..2000_u16)
            .prop_map(|(key, delete, size)| Step::Write { key, delete, size }),
        2 => (0..4_u8, any::<u8>(), 0..3_u8)
            .prop_map(|(folder, from, pause)| Step::Watch { folder, from, pause }),
        1 => (0..4_u8).prop_map(|millis| Step::Wait { millis }),
    ];
    prop::collection::vec(prop::collection::vec(step, 1..30), 1..6)
}

/// Keys of two folders, one with a name that begins like the other's.
fn key(root: &str, key: u8) -> String {
    let folder = ["a", "a-2", "b"][usize::from(key % 3)];
    format!("{root}{folder}/{key}")
}

fn prefix(root: &str, folder: u8) -> String {
    match folder {
        0 => root.to_owned(),
        folder => format!("{root}{}/", ["a", "a-2", "b"][usize::from(folder - 1)]),
    }
}

async fn write(store: &Arc<dyn Store>, key: &str, delete: bool, size: u16) {
    let value = Bytes::from(vec![b'v'; usize::from(size)]);
    let done = match store.get(key).await.unwrap() {
        None => store.create(key, value).await,
        Some(now) if delete => store.delete(key, now.revision).await,
        Some(now) => store.update(key, value, now.revision).await,
    };
    // Another task may have been faster.
    assert!(
        matches!(done, Ok(_) | Err(Error::Exists(_) | Error::Changed { .. })),
        "{done:?}"
    );
}

type Seen = (String, Revision, Vec<Event>);

/// Watches from now on, until it has seen revision `ended`; 0 stands for "not yet known".
async fn follow(
    store: Arc<dyn Store>,
    prefix: String,
    after: Revision,
    mut ended: signal::Receiver<Revision>,
    pause: u8,
) -> Seen {
    let mut watch = store.watch(&prefix, after).await.unwrap();
    let mut seen: Vec<Event> = Vec::new();
    loop {
        let end = *ended.borrow_and_update();
        if end > 0 && seen.last().is_some_and(|event| event.revision >= end) {
            return (prefix, after, seen);
        }
        tokio::select! {
            batch = watch.recv() => {
                seen.extend(batch.expect("it goes on").expect("no error"));
                tokio::time::sleep(Duration::from_millis(pause.into())).await;
            }
            changed = ended.changed() => changed.expect("an end is told"),
            () = tokio::time::sleep(PATIENCE) => panic!("{prefix} after {after}: no more after {seen:?}"),
        }
    }
}

async fn run(store: Arc<dyn Store>, root: String, tasks: Vec<Vec<Step>>) {
    let start = store.revision().await.unwrap();
    let (end, ended) = signal::channel(0);
    let mut writers = JoinSet::new();
    let watchers = Arc::new(std::sync::Mutex::new(JoinSet::new()));
    for steps in tasks {
        let (store, root) = (Arc::clone(&store), root.clone());
        let (watchers, ended) = (Arc::clone(&watchers), ended.clone());
        writers.spawn(async move {
            for step in steps {
                match step {
                    Step::Write {
                        key: number,
                        delete,
                        size,
                    } => {
                        write(&store, &key(&root, number), delete, size).await;
                    }
                    Step::Wait { millis } => {
                        tokio::time::sleep(Duration::from_millis(millis.into())).await;
                    }
                    Step::Watch {
                        folder,
                        from,
                        pause,
                    } => {
                        let now = store.revision().await.unwrap();
                        let after = start + (now - start) * u64::from(from) / 255;
                        let (store, prefix) = (Arc::clone(&store), prefix(&root, folder));
                        let watcher = follow(store, prefix, after, ended.clone(), pause);
                        watchers.lock().unwrap().spawn(watcher);
                    }
                }
            }
        });
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    // A last change in every folder, so that every watcher knows when it has seen all.
    let mut last = Vec::new();
    for folder in 1..4 {
        let key = format!("{}end", prefix(&root, folder));
        last.push(store.create(&key, Bytes::new()).await.unwrap());
    }
    end.send_replace(last[0]);
    let (_whole, until_last) = signal::channel(last[2]);
    let whole = follow(
        Arc::clone(&store),
        root.clone(),
        start,
        until_last.clone(),
        0,
    );
    let (_, _, history) = whole.await;
    consistent(&history);
    let mut watchers = std::mem::take(&mut *watchers.lock().unwrap());
    while let Some(done) = tokio::time::timeout(PATIENCE, watchers.join_next())
        .await
        .expect("watchers end")
    {
        let (prefix, after, seen): Seen = done.unwrap();
        let upto = seen.last().map_or(0, |event| event.revision);
        let expected = history.iter().filter(|event| {
            event.key.starts_with(&prefix) && event.revision > after && event.revision <= upto
        });
        assert!(expected.eq(&seen), "{prefix} after {after} saw {seen:?}");
        assert!(upto >= last[0]);
    }
    // A watch that begins in the middle sees the rest.
    let middle = history[history.len() / 2].revision;
    let (.., rest) = follow(store, root, middle, until_last, 0).await;
    assert!(
        history
            .iter()
            .filter(|event| event.revision > middle)
            .eq(&rest)
    );
}

fn hold(cases: u32, fixture: &impl Fixture, runtime: &tokio::runtime::Runtime) {
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let number = std::cell::Cell::new(0);
    TestRunner::new(config)
        .run(&steps(), |tasks| {
            number.set(number.get() + 1);
            let root = format!("/registry/case-{}/", number.get());
            runtime.block_on(run(fixture.store(), root, tasks));
            Ok(())
        })
        .unwrap();
}

#[test]
fn in_the_embedded_store() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = runtime.enter();
    hold(40, &fixture::Embedded::start(), &runtime);
}

#[test]
fn in_etcd() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let fixture = runtime.block_on(fixture::Etcd::start());
    hold(25, &fixture, &runtime);
}
