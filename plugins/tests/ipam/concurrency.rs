//! Many ADDs at once.

use crate::harness::{Call, Which, reference_or_skip};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;

fn config(dir: &Path) -> Value {
    json!({"cniVersion": "1.0.0", "name": "net",
        "ipam": {"subnet": "10.1.0.0/24", "dataDir": dir.to_str().unwrap()}})
}

/// Starts `count` ADDs at the same time and gives the addresses.
fn add_many(
    count: usize,
    config: &Value,
    which: impl Fn(usize) -> Which<'static> + Sync,
) -> Vec<String> {
    let barrier = std::sync::Barrier::new(count);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count)
            .map(|n| {
                let (barrier, which) = (&barrier, &which);
                scope.spawn(move || {
                    let call = Call::new("host-local", "ADD", &format!("c{n}"));
                    barrier.wait();
                    let done = call.run(which(n), config);
                    assert!(done.succeeded, "{}", done.stdout);
                    done.json()["ips"][0]["address"]
                        .as_str()
                        .unwrap()
                        .to_owned()
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    })
}

#[test]
fn fifty_adds_at_once_get_fifty_addresses() {
    let dir = tempfile::tempdir().unwrap();
    let given = add_many(50, &config(dir.path()), |_| Which::Ours);
    let distinct: BTreeSet<_> = given.iter().collect();
    assert_eq!(distinct.len(), 50);
    // The lock makes them one after the other: no address is passed over.
    assert!(given.contains(&"10.1.0.51/24".to_owned()), "{given:?}");
}

#[test]
fn ours_and_the_references_adds_at_once_share_the_range() {
    let Some(reference) = reference_or_skip("host-local") else {
        return;
    };
    let reference: &'static Path = Box::leak(reference.into_boxed_path());
    let dir = tempfile::tempdir().unwrap();
    let given = add_many(40, &config(dir.path()), |n| match n % 2 {
        0 => Which::Ours,
        _ => Which::Reference(reference),
    });
    assert_eq!(given.iter().collect::<BTreeSet<_>>().len(), 40);
}

#[test]
fn dels_among_adds_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    add_many(10, &config, |_| Which::Ours);
    std::thread::scope(|scope| {
        for n in 0..10 {
            let config = &config;
            scope.spawn(move || {
                let run = |verb, id: String| {
                    let done = Call::new("host-local", verb, &id).run(Which::Ours, config);
                    assert!(done.succeeded, "{verb} {id}: {}", done.stdout);
                };
                run("DEL", format!("c{n}"));
                run("ADD", format!("d{n}"));
                run("DEL", format!("c{n}"));
            });
        }
    });
    let held: BTreeSet<String> = std::fs::read_dir(dir.path().join("net"))
        .unwrap()
        .map(|e| e.unwrap())
        .filter(|e| e.file_name().to_str().unwrap().starts_with("10."))
        .map(|e| std::fs::read_to_string(e.path()).unwrap())
        .collect();
    let wanted: BTreeSet<String> = (0..10).map(|n| format!("d{n}\r\neth0")).collect();
    assert_eq!(held, wanted);
}
