//! What a store must do, whichever it is.

mod watching;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use reconciler::store::{Entry, Error, Page, Range, Revision, Store};
use tokio::time::timeout;

use super::fixture::{Fixture, PATIENCE, events};

pub use self::watching::*;

const WEB: &str = "/registry/pods/default/web";
const PODS: &str = "/registry/pods/";

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn entry(key: &str, value: &str, revision: Revision) -> Entry {
    let (key, value) = (key.to_owned(), bytes(value));
    Entry {
        key,
        value,
        revision,
    }
}

async fn create(store: &Arc<dyn Store>, key: &str, value: &str) -> Revision {
    store.create(key, bytes(value)).await.expect(key)
}

async fn list(store: &Arc<dyn Store>, prefix: &str, at: Option<Revision>) -> Page {
    let range = Range {
        prefix: prefix.to_owned(),
        at,
        ..Range::default()
    };
    store.list(range).await.expect(prefix)
}

fn keys(page: &Page) -> Vec<&str> {
    page.entries
        .iter()
        .map(|entry| entry.key.as_str())
        .collect()
}

pub async fn writes_compare_and_swap(fixture: &mut impl Fixture) {
    let store = fixture.store();
    let empty = store.revision().await.unwrap();
    assert!(empty > 0, "0 is before everything");
    assert_eq!(store.get(WEB).await.unwrap(), None);

    let first = create(&store, WEB, "one").await;
    assert!(first > empty);
    assert_eq!(store.revision().await.unwrap(), first);
    assert_eq!(
        store.get(WEB).await.unwrap(),
        Some(entry(WEB, "one", first))
    );
    let again = store.create(WEB, bytes("other")).await.unwrap_err();
    assert!(
        matches!(&again, Error::Exists(key) if key == WEB),
        "{again:?}"
    );

    let second = store.update(WEB, bytes("two"), first).await.unwrap();
    assert!(second > first);
    for stale in [0, first, second + 1] {
        let error = store.update(WEB, bytes("three"), stale).await.unwrap_err();
        let Error::Changed { key, now } = error else {
            panic!("{stale}: {error:?}");
        };
        assert_eq!((key.as_str(), now), (WEB, Some(entry(WEB, "two", second))));
    }
    let missing = store.update("/registry/pods/default/none", bytes(""), second);
    let missing = missing.await.unwrap_err();
    assert!(
        matches!(missing, Error::Changed { now: None, .. }),
        "{missing:?}"
    );
    // What failed has changed nothing, the revision included.
    assert_eq!(store.revision().await.unwrap(), second);
    // Bytes as they are: empty, no UTF-8, large.
    let odd = store.update(WEB, Bytes::new(), second).await.unwrap();
    assert_eq!(store.get(WEB).await.unwrap().unwrap().value, Bytes::new());
    let large = Bytes::from(vec![0xff; 1 << 20]);
    store.update(WEB, large.clone(), odd).await.unwrap();
    assert_eq!(store.get(WEB).await.unwrap().unwrap().value, large);
}

pub async fn deletes_compare_and_swap(fixture: &mut impl Fixture) {
    let store = fixture.store();
    let first = create(&store, WEB, "one").await;
    let second = store.update(WEB, bytes("two"), first).await.unwrap();
    let stale = store.delete(WEB, first).await.unwrap_err();
    let Error::Changed { now, .. } = stale else {
        panic!("{stale:?}");
    };
    assert_eq!(now, Some(entry(WEB, "two", second)));
    let gone = store.delete(WEB, second).await.unwrap();
    assert!(gone > second);
    assert_eq!(store.get(WEB).await.unwrap(), None);
    let twice = store.delete(WEB, second).await.unwrap_err();
    assert!(
        matches!(twice, Error::Changed { now: None, .. }),
        "{twice:?}"
    );
    assert!(create(&store, WEB, "three").await > gone);
}

pub async fn a_list_is_a_prefix_in_order(fixture: &mut impl Fixture) {
    let store = fixture.store();
    let names = [
        "/registry/pods/default/web",
        "/registry/pods/default/web-2",
        "/registry/pods/default-2/web",
        "/registry/pods/a/z",
        "/registry/podsets/default/web",
        "/registry/pod/default/web",
        "/registry/pods0",
    ];
    for name in names {
        create(&store, name, name).await;
    }
    let page = list(&store, PODS, None).await;
    let expected = [
        "/registry/pods/a/z",
        "/registry/pods/default-2/web",
        WEB,
        "/registry/pods/default/web-2",
    ];
    assert_eq!(keys(&page), expected);
    assert_eq!(
        (page.revision, page.remaining),
        (store.revision().await.unwrap(), 0)
    );
    let page = list(&store, "/registry/pods/default/", None).await;
    assert_eq!(keys(&page), [WEB, "/registry/pods/default/web-2"]);
    for entry in &page.entries {
        assert_eq!(store.get(&entry.key).await.unwrap().as_ref(), Some(entry));
    }
    assert_eq!(list(&store, "/registry/nodes/", None).await.entries, []);
}

pub async fn pages_show_one_revision(fixture: &mut impl Fixture) {
    let store = fixture.store();
    create(&store, "/registry/nodes/before", "").await;
    let mut written = Vec::new();
    for n in 0..25 {
        let key = format!("{PODS}default/p{n:02}");
        let revision = create(&store, &key, "old").await;
        written.push(entry(&key, "old", revision));
    }
    create(&store, "/registry/services/behind", "").await;
    let at = store.revision().await.unwrap();
    let mut range = Range {
        prefix: PODS.to_owned(),
        limit: Some(10),
        ..Range::default()
    };
    let mut seen = Vec::new();
    for remaining in [15, 5, 0] {
        let page = store.list(range.clone()).await.unwrap();
        assert_eq!((page.revision, page.remaining), (at, remaining));
        range.after = page.entries.last().map(|entry| entry.key.clone());
        range.at = Some(page.revision);
        seen.extend(page.entries);
        // Changes behind, within and before the page.
        let n = seen.len();
        if n < 25 {
            let next = &written[n];
            store.delete(&next.key, next.revision).await.unwrap();
            let last = &written[24];
            let now = store.get(&last.key).await.unwrap().unwrap();
            store
                .update(&last.key, bytes("new"), now.revision)
                .await
                .unwrap();
            create(&store, &format!("{PODS}default/p{n:02}-new"), "new").await;
        }
    }
    assert_eq!(seen, written);
    range.limit = Some(0);
    range.after = None;
    let none = store.list(range).await.unwrap();
    assert_eq!((none.entries.len(), none.remaining), (0, 25));
}

pub async fn a_list_of_the_past_shows_the_past(fixture: &mut impl Fixture) {
    let store = fixture.store();
    let mut now: BTreeMap<String, Entry> = BTreeMap::new();
    let mut past = vec![(store.revision().await.unwrap(), now.clone())];
    // Every key is created, changed, deleted and created again, in turns.
    for round in 0..40_u32 {
        let key = format!("{PODS}default/p{}", round % 7);
        let value = format!("round {round}");
        let revision = match now.get(&key).cloned() {
            Some(entry) if round % 3 == 0 => {
                now.remove(&key);
                store.delete(&key, entry.revision).await.unwrap()
            }
            Some(entry) => store
                .update(&key, bytes(&value), entry.revision)
                .await
                .unwrap(),
            None => create(&store, &key, &value).await,
        };
        if store.get(&key).await.unwrap().is_some() {
            now.insert(key.clone(), entry(&key, &value, revision));
        }
        create(&store, &format!("/registry/nodes/n{round}"), "").await;
        past.push((revision, now.clone()));
    }
    for (at, then) in past {
        let page = list(&store, PODS, Some(at)).await;
        assert_eq!(page.revision, at);
        assert_eq!(
            page.entries,
            then.into_values().collect::<Vec<_>>(),
            "at {at}"
        );
    }
    let newest = store.revision().await.unwrap();
    let range = Range {
        prefix: PODS.to_owned(),
        at: Some(newest + 5),
        ..Range::default()
    };
    let error = store.list(range).await.unwrap_err();
    let Error::Future {
        asked,
        newest: said,
    } = error
    else {
        panic!("{error:?}");
    };
    assert_eq!((asked, said), (newest + 5, newest));
}

pub async fn one_of_many_writers_wins(fixture: &mut impl Fixture) {
    let store = fixture.store();
    let mut revision = None;
    for round in 0..20_u32 {
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..8_u32 {
            let store = fixture.store();
            writers.spawn(async move {
                let value = bytes(&format!("{round} by {writer}"));
                let done = match revision {
                    None => store.create(WEB, value.clone()).await,
                    Some(revision) => store.update(WEB, value.clone(), revision).await,
                };
                (value, done)
            });
        }
        let mut winner = None;
        let mut told = Vec::new();
        while let Some(done) = writers.join_next().await {
            match done.unwrap() {
                (value, Ok(new)) => assert_eq!(winner.replace((value, new)), None, "two winners"),
                (_, Err(Error::Exists(_))) => assert_eq!(revision, None),
                (_, Err(Error::Changed { now, .. })) => told.push(now),
                (_, Err(error)) => panic!("{error}"),
            }
        }
        let (value, new) = winner.expect("a winner");
        let now = store.get(WEB).await.unwrap().unwrap();
        assert_eq!((&now.value, now.revision), (&value, new));
        // The losers of a round see the winner's value.
        assert!(
            told.iter().all(|told| told.as_ref() == Some(&now)),
            "{told:?}"
        );
        revision = Some(new);
    }
}

pub async fn all_is_there_after_a_restart(fixture: &mut impl Fixture) {
    let store = fixture.store();
    let start = store.revision().await.unwrap();
    let first = create(&store, WEB, "one").await;
    let second = store.update(WEB, bytes("two"), first).await.unwrap();
    fixture.reopen().await;
    let store = fixture.store();
    assert_eq!(store.revision().await.unwrap(), second);
    assert_eq!(
        store.get(WEB).await.unwrap(),
        Some(entry(WEB, "two", second))
    );
    assert_eq!(
        list(&store, PODS, Some(first)).await.entries,
        [entry(WEB, "one", first)]
    );
    let mut watch = store.watch(PODS, start).await.unwrap();
    let third = store.delete(WEB, second).await.unwrap();
    assert!(third > second);
    let seen: Vec<_> = events(&mut watch, 3)
        .await
        .iter()
        .map(|event| event.revision)
        .collect();
    assert_eq!(seen, [first, second, third]);
}

pub async fn a_closed_store_says_so(fixture: &mut impl Fixture) {
    let store = fixture.store();
    let revision = create(&store, WEB, "one").await;
    let mut watch = store.watch(PODS, revision).await.unwrap();
    store.close().await;
    let end = timeout(PATIENCE, watch.recv())
        .await
        .expect("the watch ends");
    assert!(end.is_none(), "{end:?}");
    let errors = [
        store.get(WEB).await.unwrap_err(),
        store.create(WEB, bytes("")).await.unwrap_err(),
        store.delete(WEB, revision).await.unwrap_err(),
        store.list(Range::default()).await.unwrap_err(),
        store.watch(PODS, 0).await.unwrap_err(),
        store.revision().await.unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, Error::Away(_)), "{error:?}");
    }
    store.close().await;
}
