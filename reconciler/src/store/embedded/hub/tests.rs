use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::*;
use crate::store::embedded::file::File;
use crate::store::embedded::writer::{self, Write};
use crate::store::embedded::{FILE, Options};

/// A store without its writer.
fn store(folder: &tempfile::TempDir) -> Store {
    let file = File::open(&folder.path().join(FILE), 1 << 20).unwrap();
    let newest = file.read(reader::state).unwrap().revision;
    let hub = Hub::new(newest);
    Arc::new(Shared { file, hub })
}

fn write(store: &Store, keys: &[&str]) -> Vec<Event> {
    let writes: Vec<_> = keys
        .iter()
        .map(|&key| Write::Create {
            key: key.to_owned(),
            value: Bytes::new(),
        })
        .collect();
    let commit = |txn| writer::commit(txn, &writes, Options::default());
    store.file.write(commit).unwrap().events
}

async fn next(watch: &mut Watch) -> Vec<Event> {
    let batch = timeout(Duration::from_secs(20), watch.recv()).await;
    batch.expect("in time").expect("a batch").expect("no error")
}

fn live(store: &Store) -> usize {
    lock(&store.hub.watchers).live.values().map(Vec::len).sum()
}

#[tokio::test]
async fn a_write_that_failed_after_it_was_written_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder);
    let mut watch = watch(&store, "/a/", 1).unwrap();
    assert_eq!(live(&store), 1);
    assert!(!settle(&store).unwrap());
    let lost = write(&store, &["/a/1", "/b/1"]);
    assert!(settle(&store).unwrap());
    assert_eq!(next(&mut watch).await, lost[..1]);
    // Once, and then the watch is live again.
    assert!(!settle(&store).unwrap());
    let more = write(&store, &["/a/2"]);
    publish(&store, &more);
    assert_eq!(next(&mut watch).await, more);
}

#[tokio::test]
async fn what_is_committed_but_not_published_comes_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder);
    let first = write(&store, &["/a/1"]);
    let mut early = watch(&store, "/a/", 1).unwrap();
    let mut late = watch(&store, "/a/", first[0].revision).unwrap();
    publish(&store, &first);
    let second = write(&store, &["/a/2"]);
    publish(&store, &second);
    let mut seen = next(&mut early).await;
    if seen.len() < 2 {
        seen.extend(next(&mut early).await);
    }
    assert_eq!(seen, [first, second.clone()].concat());
    assert_eq!(next(&mut late).await, second);
}

#[tokio::test]
async fn a_quiet_watcher_outlives_the_history_that_is_none_of_its_business() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder);
    let mut quiet = watch(&store, "/a/", 1).unwrap();
    let others = write(&store, &["/b/1", "/b/2", "/b/3"]);
    publish(&store, &others);
    let upto = others[2].revision;
    let compact = |txn| writer::commit(txn, &[Write::Compact { upto }], Options::default());
    store.file.write(compact).unwrap();
    // Never published: it has to be found in the history.
    let own = write(&store, &["/a/1"]);
    assert!(settle(&store).unwrap());
    assert_eq!(next(&mut quiet).await, own);
}

#[tokio::test]
async fn watchers_that_have_gone_are_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder);
    for _ in 0..100 {
        drop(watch(&store, "/quiet/", 1).unwrap());
    }
    assert_eq!(live(&store), 1, "those before the last");
    let kept = watch(&store, "/a/", 1).unwrap();
    publish(&store, &write(&store, &["/a/1"]));
    assert_eq!(live(&store), 1);
    drop(kept);
}
