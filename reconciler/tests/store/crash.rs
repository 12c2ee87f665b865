//! The embedded store after a crash: killed in the middle of writes, and its file torn.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reconciler::store::embedded::{self, FILE, Options};
use reconciler::store::{Error, Range, Store};

use super::child;
use super::fixture::{PATIENCE, batch};

const PODS: &str = "/registry/pods/";

fn open(folder: &Path) -> Result<embedded::Embedded, Error> {
    embedded::open(folder, Options::default())
}

/// Writes until it is killed, and prints every write that was acknowledged.
#[test]
fn writes_until_killed() {
    let Some(folder) = child::folder() else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = std::sync::Arc::new(open(&folder).unwrap());
        println!();
        let mut writers: tokio::task::JoinSet<()> = tokio::task::JoinSet::new();
        for writer in 0..16 {
            let store = std::sync::Arc::clone(&store);
            writers.spawn(async move {
                let key = format!("{PODS}w{writer}/p");
                let mut last = store.get(&key).await.unwrap().map(|entry| entry.revision);
                loop {
                    let value = format!("{:?} {}", last, "x".repeat(fastrand::usize(0..6000)));
                    let value = Bytes::from(value);
                    let written = match last {
                        None => store.create(&key, value.clone()).await.unwrap(),
                        Some(last) => store.update(&key, value.clone(), last).await.unwrap(),
                    };
                    last = Some(written);
                    println!("wrote {key} {written} {}", value.len());
                    if fastrand::u8(..) < 30 {
                        let gone = store.delete(&key, written).await.unwrap();
                        println!("wrote {key} {gone} gone");
                        last = None;
                    }
                }
            });
        }
        let failed = writers.join_next().await;
        panic!("a writer has ended: {failed:?}");
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let mut newest = 0;
    for round in 0..8_u64 {
        let mut writer = child::command("crash::writes_until_killed", folder.path())
            .spawn()
            .unwrap();
        let pid = Pid::from_raw(i32::try_from(writer.id()).unwrap());
        let lines = BufReader::new(writer.stdout.take().unwrap()).lines();
        let (begun, begins) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            let mut acknowledged = Vec::new();
            for line in lines.map_while(Result::ok) {
                // The last line may be cut off: only whole ones have all four words and a known end.
                let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
                if let [verb, key, revision, size] = words.as_slice()
                    && verb == "wrote"
                {
                    acknowledged.push((
                        revision.parse::<u64>().unwrap(),
                        key.clone(),
                        size.clone(),
                    ));
                    // The other side listens only once.
                    let _ = begun.send(());
                }
            }
            acknowledged
        });
        begins.recv_timeout(PATIENCE).expect("a first write");
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..400))).await;
        kill(pid, Signal::SIGKILL).unwrap();
        writer.wait().unwrap();
        let mut acknowledged = reader.join().unwrap();
        acknowledged.sort_unstable();

        let store = open(folder.path()).unwrap();
        let now = store.revision().await.unwrap();
        let last = acknowledged.last().map_or(0, |(revision, ..)| *revision);
        assert!(now >= last.max(newest), "{now} after {last}, {newest}");
        let mut history = Vec::new();
        let mut watch = store.watch(PODS, newest).await.unwrap();
        while history
            .last()
            .map_or(newest.max(1), |event: &reconciler::store::Event| {
                event.revision
            })
            < now
        {
            history.extend(batch(&mut watch).await);
        }
        for (revision, key, size) in acknowledged {
            let event = history.iter().find(|event| event.revision == revision);
            let event = event.unwrap_or_else(|| panic!("revision {revision} is lost"));
            let kept = event
                .value
                .as_ref()
                .map_or("gone".to_owned(), |value| value.len().to_string());
            // A number cut off by the kill is the beginning of the right one.
            assert!(
                event.key == key && kept.starts_with(&size),
                "{revision} {key} {size}: {kept}"
            );
        }
        // The table of objects says what the history says.
        let range = Range {
            prefix: PODS.to_owned(),
            ..Range::default()
        };
        for entry in store.list(range).await.unwrap().entries {
            if entry.revision > newest {
                let event = history
                    .iter()
                    .find(|event| event.revision == entry.revision)
                    .unwrap();
                assert_eq!(event.value.as_ref(), Some(&entry.value));
            }
        }
        newest = store
            .create(&format!("{PODS}round/{round}"), Bytes::new())
            .await
            .unwrap();
        assert!(newest > now);
        store.close().await;
    }
}

/// A file as a crash leaves it: never closed.
async fn unclosed(folder: &Path) -> Vec<u8> {
    let store = open(folder).unwrap();
    for n in 0..300 {
        let value = Bytes::from(vec![u8::try_from(n % 251).unwrap(); 700]);
        store
            .create(&format!("{PODS}default/p{n:03}"), value)
            .await
            .unwrap();
    }
    std::fs::read(folder.join(FILE)).unwrap()
}

/// Opens a damaged file: either it is refused in words, or everything in it can be read.
async fn examine(folder: &Path, damage: &str) -> bool {
    let store = match open(folder) {
        Ok(store) => store,
        Err(Error::Broken(text)) => {
            assert!(
                text.contains(FILE) && text.contains("backup"),
                "{damage}: {text}"
            );
            return false;
        }
        Err(error) => panic!("{damage}: {error:?}"),
    };
    let range = Range {
        prefix: PODS.to_owned(),
        ..Range::default()
    };
    let page = store.list(range).await.unwrap();
    for entry in &page.entries {
        let n: usize = entry.key[entry.key.len() - 3..].parse().unwrap();
        let whole = vec![u8::try_from(n % 251).unwrap(); 700];
        assert!(entry.value == whole, "{damage}: {} is damaged", entry.key);
    }
    let next = store.create(&format!("{PODS}new/999"), Bytes::new()).await;
    next.unwrap_or_else(|error| panic!("{damage}: {error}"));
    store.close().await;
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_file_is_repaired_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let whole = unclosed(folder.path()).await;
    let path = folder.path().join(FILE);
    let damaged = tempfile::tempdir().unwrap();
    let copy = damaged.path().join(FILE);
    drop(path);
    std::fs::write(&copy, &whole).unwrap();
    assert!(
        examine(damaged.path(), "none").await,
        "a crash alone is repaired"
    );
    let mut random = fastrand::Rng::with_seed(5);
    let mut refused = 0;
    for _ in 0..40 {
        let length = random.usize(1..whole.len());
        std::fs::write(&copy, &whole[..length]).unwrap();
        refused += u32::from(!examine(damaged.path(), &format!("cut to {length}")).await);
    }
    assert!(refused > 20, "{refused}");
    for _ in 0..120 {
        let mut bytes = whole.clone();
        let at = random.usize(..bytes.len());
        let end = (at + random.usize(1..5000)).min(bytes.len());
        random.fill(&mut bytes[at..end]);
        std::fs::write(&copy, &bytes).unwrap();
        examine(damaged.path(), &format!("noise in {at}..{end}")).await;
    }
    for _ in 0..120 {
        // The header is where it hurts.
        let mut bytes = whole.clone();
        let at = random.usize(..512);
        bytes[at] ^= 1 << random.u8(..8);
        std::fs::write(&copy, &bytes).unwrap();
        examine(damaged.path(), &format!("a bit of byte {at}")).await;
    }
}
