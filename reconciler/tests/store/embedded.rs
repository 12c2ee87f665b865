//! What only a file can do to a store: be locked, newer, a stranger's, full.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use reconciler::store::embedded::{self, FILE, Options};
use reconciler::store::{Error, Range, Store};

use super::child;
use super::conformance::consistent;
use super::fixture::{self, Fixture, batch};

const PODS: &str = "/registry/pods/";
fn open(folder: &Path) -> Result<embedded::Embedded, Error> {
    embedded::open(folder, Options::default())
}

fn refused(folder: &Path) -> String {
    match open(folder) {
        Ok(_) => panic!("{} opens", folder.display()),
        Err(Error::Broken(text)) => text,
        Err(error) => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn the_file_is_private_and_taken() {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("made/here");
    let store = open(&folder).unwrap();
    let path = folder.join(FILE);
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let error = refused(&folder);
    assert!(error.contains(path.to_str().unwrap()), "{error}");
    assert!(
        error.contains("another process") && error.contains("--data"),
        "{error}"
    );
    store.close().await;
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    open(&folder).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn other_files_are_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()).unwrap());
    let path = folder.path().join(FILE);
    let table = redb::TableDefinition::<&str, u64>::new("meta");
    {
        let database = redb::Database::open(&path).unwrap();
        let txn = database.begin_write().unwrap();
        txn.open_table(table).unwrap().insert("format", 7).unwrap();
        txn.commit().unwrap();
    }
    let before = std::fs::read(&path).unwrap();
    let error = refused(folder.path());
    for named in [
        path.to_str().unwrap(),
        "format 7",
        "format 1",
        "newer",
        "--data",
    ] {
        assert!(error.contains(named), "{named}: {error}");
    }
    assert_eq!(std::fs::read(&path).unwrap().len(), before.len());

    std::fs::remove_file(&path).unwrap();
    {
        let database = redb::Database::create(&path).unwrap();
        let txn = database.begin_write().unwrap();
        let stranger = redb::TableDefinition::<u64, u64>::new("stranger");
        txn.open_table(stranger).unwrap().insert(1, 1).unwrap();
        txn.commit().unwrap();
    }
    let error = refused(folder.path());
    assert!(error.contains("not one of weft's"), "{error}");

    std::fs::write(&path, "apiVersion: v1\n".repeat(1000)).unwrap();
    let error = refused(folder.path());
    assert!(
        error.contains("damaged") && error.contains("backup"),
        "{error}"
    );
    assert_eq!(
        std::fs::read(&path).unwrap(),
        "apiVersion: v1\n".repeat(1000).into_bytes()
    );

    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    let error = refused(folder.path());
    assert!(error.contains(path.to_str().unwrap()), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_is_bounded() {
    let bounds = [
        Options {
            history_events: 50,
            ..Options::default()
        },
        Options {
            history_bytes: 50_000,
            ..Options::default()
        },
    ];
    for options in bounds {
        let mut fixture = fixture::Embedded::with(options);
        let store = fixture.store();
        let start = store.revision().await.unwrap();
        let mut slow = store.watch(PODS, start).await.unwrap();
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..10 {
            let store = fixture.store();
            writers.spawn(async move {
                for n in 0..40 {
                    let value = Bytes::from(vec![b'x'; 900]);
                    let key = format!("{PODS}w{writer}/p{n}");
                    store.create(&key, value).await.unwrap();
                }
            });
        }
        while let Some(done) = writers.join_next().await {
            done.unwrap();
        }
        let newest = store.revision().await.unwrap();
        let Err(Error::Compacted { oldest, .. }) = store.watch(PODS, start).await else {
            panic!("the whole history is there");
        };
        assert!((40..=60).contains(&(newest - oldest)), "{oldest}..{newest}");
        let mut watch = store.watch(PODS, oldest).await.unwrap();
        let kept = fixture::events(&mut watch, usize::try_from(newest - oldest).unwrap()).await;
        consistent(&kept);
        // Whoever was too slow gets what was queued, without a gap, and then is told.
        let mut last = start;
        let end = loop {
            match slow.recv().await {
                Some(Ok(events)) => {
                    for event in events {
                        assert_eq!(event.revision, last + 1);
                        last = event.revision;
                    }
                    if last == newest {
                        break None;
                    }
                }
                Some(Err(error)) => break Some(error),
                None => panic!("it ends without a word"),
            }
        };
        if let Some(end) = end {
            assert!(
                matches!(end, Error::Compacted { asked, .. } if asked == last),
                "{end:?}"
            );
        }
        fixture.reopen().await;
        let Err(Error::Compacted { oldest: again, .. }) = fixture.store().watch(PODS, start).await
        else {
            panic!("forgotten history is back");
        };
        assert_eq!(again, oldest);
    }
}

/// Fills the disk, makes room with the shell command in the environment, and goes on.
#[test]
fn fills_up() {
    let Some(folder) = child::folder() else {
        return;
    };
    let room = std::env::var(ROOM).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = open(&folder).unwrap();
        let value = Bytes::from(vec![b'x'; 20_000]);
        let mut written = Vec::new();
        let full = loop {
            let key = format!("{PODS}default/p{:05}", written.len());
            match store.create(&key, value.clone()).await {
                Ok(revision) => written.push((key, revision)),
                Err(error) => break error,
            }
            assert!(written.len() < 5000, "the disk is not small");
        };
        let Error::Full(text) = full else {
            panic!("{full:?}");
        };
        assert!(text.contains(FILE), "{text}");
        assert!(written.len() > 20, "{}", written.len());
        let check = async |written: &[(String, u64)]| {
            let range = Range {
                prefix: PODS.to_owned(),
                ..Range::default()
            };
            let found = store.list(range).await.unwrap().entries;
            let found: Vec<_> = found
                .into_iter()
                .map(|entry| (entry.key, entry.revision))
                .collect();
            assert_eq!(found, written);
            let (key, _) = &written[7];
            assert_eq!(store.get(key).await.unwrap().unwrap().value, value);
        };
        // Full again and again, and read all the while.
        for n in 0..5 {
            check(&written).await;
            let large = Bytes::from(vec![0; 1 << 20]);
            let again = store
                .create(&format!("{PODS}large/{n}"), large)
                .await
                .unwrap_err();
            assert!(matches!(again, Error::Full(_)), "{again:?}");
        }
        check(&written).await;
        let made = Command::new("sh").args(["-c", &room]).status().unwrap();
        assert!(made.success(), "{room}");
        let mut watch = store.watch(PODS, written.last().unwrap().1).await.unwrap();
        for _ in 0..20 {
            let key = format!("{PODS}default/p{:05}", written.len());
            let revision = store.create(&key, value.clone()).await.unwrap();
            assert_eq!(revision, written.last().unwrap().1 + 1);
            assert_eq!(batch(&mut watch).await[0].revision, revision);
            written.push((key, revision));
        }
        check(&written).await;
        store.close().await;
        let store = open(&folder).unwrap();
        assert_eq!(store.revision().await.unwrap(), written.last().unwrap().1);
        println!("\nfilled and emptied");
    });
}

/// Set for `fills_up`: what makes room.
const ROOM: &str = "WEFT_TEST_ROOM";

/// Runs `fills_up` behind a shell script, which gets the program and its arguments.
fn fill_up(folder: &Path, script: &str, room: &str) {
    let inner = child::command("embedded::fills_up", folder);
    let output = Command::new("sh")
        .args(["-c", script])
        .arg(inner.get_program())
        .args(inner.get_args())
        .env(child::FOLDER, folder)
        .env(ROOM, room)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("filled and emptied"), "{text}\n{errors}");
}

#[test]
fn a_file_at_its_limit_is_full() {
    let folder = tempfile::tempdir().unwrap();
    // Blocks of 512 bytes.
    let script = r#"trap "" XFSZ; ulimit -S -f 12000; exec "$0" "$@""#;
    fill_up(
        folder.path(),
        script,
        "prlimit --pid $PPID --fsize=unlimited",
    );
}

#[test]
fn a_full_disk_is_full() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().display();
    // A small file system of its own, gone with the process.
    let script = format!(
        r#"exec unshare --map-root-user --mount sh -c 'mount -t tmpfs -o size=12m none {at} &&
        head -c 6000000 /dev/zero >{at}/ballast && exec "$0" "$@"' "$0" "$@""#
    );
    fill_up(folder.path(), &script, &format!("rm {at}/ballast"));
}
