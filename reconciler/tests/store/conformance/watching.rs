//! Watches.

use std::collections::BTreeMap;

use bytes::Bytes;
use reconciler::store::{Error, Event, Range};
use tokio::time::timeout;

use super::super::fixture::{Fixture, PATIENCE, batch, events, silent};
use super::{PODS, WEB, bytes, create, entry, list};

pub async fn a_watch_starts_anywhere(fixture: &mut impl Fixture) {
    let store = fixture.store();
    let created = create(&store, WEB, "one").await;
    let updated = store.update(WEB, bytes("two"), created).await.unwrap();
    let mut from_start = store.watch(PODS, 0).await.unwrap();
    let mut from_past = store.watch(PODS, created).await.unwrap();
    let mut from_now = store.watch(PODS, updated).await.unwrap();
    let deleted = store.delete(WEB, updated).await.unwrap();
    let event = |revision, value: Option<&str>, before: Option<&str>| Event {
        revision,
        key: WEB.to_owned(),
        value: value.map(bytes),
        before: before.map(bytes),
    };
    let all = [
        event(created, Some("one"), None),
        event(updated, Some("two"), Some("one")),
        event(deleted, None, Some("two")),
    ];
    assert_eq!(events(&mut from_start, 3).await, all);
    assert_eq!(events(&mut from_past, 2).await, all[1..]);
    assert_eq!(events(&mut from_now, 1).await, all[2..]);
    let mut late = store.watch(PODS, 0).await.unwrap();
    assert_eq!(events(&mut late, 3).await, all);
    for watch in [&mut from_start, &mut from_past, &mut from_now, &mut late] {
        silent(watch).await;
    }
    let again = create(&store, WEB, "three").await;
    for watch in [&mut from_start, &mut from_past, &mut from_now, &mut late] {
        assert_eq!(events(watch, 1).await, [event(again, Some("three"), None)]);
    }
}

pub async fn a_watch_is_bounded_by_its_prefix(fixture: &mut impl Fixture) {
    let store = fixture.store();
    let start = store.revision().await.unwrap();
    let mut live = store.watch("/registry/pods/default/", start).await.unwrap();
    for key in [
        "/registry/pods/default-2/web",
        "/registry/pods/default",
        "/registry/pods/default0",
        WEB,
    ] {
        create(&store, key, "").await;
    }
    let mut late = store.watch("/registry/pods/default/", start).await.unwrap();
    for watch in [&mut live, &mut late] {
        assert_eq!(events(watch, 1).await[0].key, WEB);
        silent(watch).await;
    }
}

pub async fn a_watch_waits_for_the_future(fixture: &mut impl Fixture) {
    let store = fixture.store();
    let now = store.revision().await.unwrap();
    let mut watch = store.watch(PODS, now + 2).await.unwrap();
    let mut last = 0;
    for n in 0..3 {
        last = create(&store, &format!("{PODS}default/p{n}"), "").await;
    }
    assert_eq!(events(&mut watch, 1).await[0].revision, last);
}

pub async fn compacted_history_is_refused(fixture: &mut impl Fixture) {
    let store = fixture.store();
    let mut revisions = vec![create(&store, WEB, "0").await];
    for n in 1..10 {
        let last = revisions[n - 1];
        let revision = store
            .update(WEB, bytes(&n.to_string()), last)
            .await
            .unwrap();
        revisions.push(revision);
    }
    // The compacted revision itself is a deletion: what follows it must still be complete.
    let gone = store.delete(WEB, revisions[9]).await.unwrap();
    let mut open = store.watch(PODS, revisions[8]).await.unwrap();
    assert_eq!(events(&mut open, 2).await.len(), 2);
    let back = create(&store, WEB, "back").await;
    store.compact(gone).await.unwrap();
    for asked in [0, revisions[0], revisions[9]] {
        let error = match store.watch(PODS, asked).await {
            Err(error) => error,
            Ok(mut watch) => {
                let first = timeout(PATIENCE, watch.recv()).await.expect("an answer");
                first.expect("an error, not an end").expect_err("compacted")
            }
        };
        let Error::Compacted {
            asked: said,
            oldest,
        } = error
        else {
            panic!("{asked}: {error:?}");
        };
        assert_eq!((said, oldest), (asked, gone));
    }
    let range = Range {
        prefix: PODS.to_owned(),
        at: Some(revisions[3]),
        ..Range::default()
    };
    let error = store.list(range).await.unwrap_err();
    let Error::Compacted { asked, oldest } = error else {
        panic!("{error:?}");
    };
    assert_eq!((asked, oldest), (revisions[3], gone));
    // From there on everything works, and who was watching goes on.
    assert_eq!(list(&store, PODS, Some(gone)).await.entries, []);
    let mut watch = store.watch(PODS, gone).await.unwrap();
    for watch in [&mut watch, &mut open] {
        let event = events(watch, 1).await.remove(0);
        assert_eq!((event.revision, event.value), (back, Some(bytes("back"))));
        assert_eq!(event.before, None);
    }
    assert_eq!(
        store.get(WEB).await.unwrap(),
        Some(entry(WEB, "back", back))
    );
    store.compact(gone).await.expect("twice is fine");
    let error = store.compact(back + 10).await.unwrap_err();
    assert!(matches!(error, Error::Future { .. }), "{error:?}");
}

pub async fn every_watcher_sees_the_same_history(fixture: &mut impl Fixture) {
    const WRITERS: usize = 6;
    const ROUNDS: usize = 60;
    let start = fixture.store().revision().await.unwrap();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let store = fixture.store();
        writers.spawn(async move {
            let key = format!("{PODS}w{writer}/p");
            let mut revision = None;
            for round in 0..ROUNDS {
                let value = bytes(&round.to_string());
                revision = match revision {
                    None => Some(store.create(&key, value).await.unwrap()),
                    Some(last) if round % 5 == 4 => {
                        store.delete(&key, last).await.unwrap();
                        None
                    }
                    Some(last) => Some(store.update(&key, value, last).await.unwrap()),
                };
            }
        });
    }
    // Watchers come while the writers are at work.
    let mut watchers = Vec::new();
    for _ in 0..20 {
        let now = fixture.store().revision().await.unwrap();
        let after = fastrand::u64(start..=now);
        let watch = fixture.store().watch(PODS, after).await.unwrap();
        watchers.push((after, watch));
        tokio::time::sleep(std::time::Duration::from_millis(fastrand::u64(0..8))).await;
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    let mut whole = fixture.store().watch(PODS, start).await.unwrap();
    let history = events(&mut whole, WRITERS * ROUNDS).await;
    consistent(&history);
    for (after, mut watch) in watchers {
        let expected: Vec<_> = history
            .iter()
            .filter(|event| event.revision > after)
            .collect();
        let seen = events(&mut watch, expected.len()).await;
        assert_eq!(seen.iter().collect::<Vec<_>>(), expected, "after {after}");
        silent(&mut watch).await;
    }
}

/// In order, and each change begins where the one before it ended.
pub fn consistent(history: &[Event]) {
    let mut now: BTreeMap<&str, &Bytes> = BTreeMap::new();
    for pair in history.windows(2) {
        assert!(pair[0].revision < pair[1].revision, "{pair:?}");
    }
    for event in history {
        let before = match &event.value {
            Some(value) => now.insert(&event.key, value),
            None => now.remove(event.key.as_str()),
        };
        assert_eq!(before, event.before.as_ref(), "{event:?}");
    }
}

pub async fn a_slow_watcher_misses_nothing(fixture: &mut impl Fixture) {
    const CHANGES: usize = 600;
    let store = fixture.store();
    let mut revision = create(&store, WEB, "0").await;
    let mut watch = store.watch(PODS, revision).await.unwrap();
    for n in 1..=CHANGES {
        revision = store
            .update(WEB, bytes(&n.to_string()), revision)
            .await
            .unwrap();
    }
    let mut seen = Vec::new();
    while seen.len() < CHANGES {
        seen.extend(batch(&mut watch).await);
        // New changes come while the old ones are read.
        if seen.len() % 100 < 3 {
            revision = store
                .update(WEB, bytes("meanwhile"), revision)
                .await
                .unwrap();
        }
    }
    for (n, event) in seen.iter().take(CHANGES).enumerate() {
        assert_eq!(event.value, Some(bytes(&(n + 1).to_string())));
    }
    let end = store.delete(WEB, revision).await.unwrap();
    while seen.last().map(|event| event.revision) != Some(end) {
        seen.extend(batch(&mut watch).await);
    }
    for pair in seen.windows(2) {
        assert!(pair[0].revision < pair[1].revision, "{pair:?}");
        assert_eq!(pair[0].value, pair[1].before);
    }
}
