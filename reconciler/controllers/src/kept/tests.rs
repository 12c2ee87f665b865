//! What a watch says is kept, told once and in order, and waited for.

use super::*;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

fn object(name: &str, uid: &str, revision: u64) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.into()),
            namespace: Some("demo".into()),
            uid: Some(uid.into()),
            resource_version: Some(revision.to_string()),
            ..ObjectMeta::default()
        },
        ..ConfigMap::default()
    }
}

/// Each change in short: uid and revision before, and after.
async fn told(
    changes: &mut (impl Stream<Item = Change<ConfigMap>> + Unpin),
    count: usize,
) -> Vec<String> {
    let short = |state: Option<Arc<ConfigMap>>| {
        state.map_or("-".into(), |state| {
            format!(
                "{}@{}",
                state.uid().unwrap_or_default(),
                state.resource_version().unwrap_or_default()
            )
        })
    };
    let changes = changes
        .take(count)
        .map(|change| format!("{} > {}", short(change.old), short(change.new)));
    changes.collect().await
}

#[tokio::test]
async fn a_list_after_a_broken_watch_tells_what_happened_meanwhile() {
    let (kept, mut writer) = Kept::<ConfigMap>::empty();
    let mut changes = Box::pin(kept.changes());
    let list = |writer: &mut Writer<ConfigMap>, objects: Vec<ConfigMap>| {
        kept.take(writer, watcher::Event::Init);
        for object in objects {
            kept.take(writer, watcher::Event::InitApply(object));
        }
        kept.take(writer, watcher::Event::InitDone);
    };
    list(
        &mut writer,
        vec![
            object("a", "1", 1),
            object("b", "2", 2),
            object("c", "3", 3),
            object("d", "4", 4),
        ],
    );
    let mut first = told(&mut changes, 4).await;
    first.sort();
    assert_eq!(first, ["- > 1@1", "- > 2@2", "- > 3@3", "- > 4@4"]);
    list(
        &mut writer,
        vec![
            object("a", "1", 1),
            object("b", "2", 7),
            object("c", "9", 8),
        ],
    );
    assert_eq!(
        told(&mut changes, 4).await,
        ["2@2 > 2@7", "3@3 > -", "- > 9@8", "4@4 > -"]
    );
    kept.take(&mut writer, watcher::Event::Apply(object("a", "1", 10)));
    kept.take(&mut writer, watcher::Event::Delete(object("a", "1", 11)));
    assert_eq!(told(&mut changes, 2).await, ["1@1 > 1@10", "1@11 > -"]);
    assert!(kept.get("demo", "a").is_none());
    assert_eq!(
        told(&mut Box::pin(kept.changes()), 2).await.len(),
        2,
        "a late listener is told what is kept"
    );
}

/// Whether a wait is over, however long it may go on else.
async fn over(wait: impl Future<Output = ()>) -> bool {
    tokio::time::timeout(PATIENCE * 10, wait).await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn a_write_is_seen_once_it_has_come_back_and_not_before() {
    let (kept, mut writer) = Kept::<ConfigMap>::empty();
    kept.take(&mut writer, watcher::Event::Apply(object("a", "1", 5)));
    assert!(over(kept.seen(&object("a", "1", 5))).await);
    let written = object("b", "2", 6);
    assert!(!over(kept.seen(&written)).await);
    let ((), ()) = tokio::join!(kept.seen(&written), async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        kept.take(&mut writer, watcher::Event::Apply(object("b", "2", 6)));
    });
    // Another object's later event shows as much: events come in the order of revisions.
    kept.take(&mut writer, watcher::Event::Apply(object("c", "3", 9)));
    assert!(over(kept.seen(&object("d", "4", 8))).await);
}

#[tokio::test(start_paused = true)]
async fn a_deletion_is_seen_when_the_object_is_gone_or_replaced() {
    let (kept, mut writer) = Kept::<ConfigMap>::empty();
    kept.take(&mut writer, watcher::Event::Apply(object("a", "1", 5)));
    assert!(!over(kept.seen_gone(&object("a", "1", 5))).await);
    kept.take(&mut writer, watcher::Event::Apply(object("a", "2", 7)));
    assert!(over(kept.seen_gone(&object("a", "1", 5))).await);
    kept.take(&mut writer, watcher::Event::Delete(object("a", "2", 8)));
    assert!(over(kept.seen_gone(&object("a", "2", 7))).await);
}

#[tokio::test(start_paused = true)]
async fn what_was_written_and_deleted_behind_a_broken_watch_is_not_waited_for() {
    let (kept, mut writer) = Kept::<ConfigMap>::empty();
    kept.take(&mut writer, watcher::Event::Init);
    let written = object("a", "1", 9);
    tokio::join!(kept.seen(&written), async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        // This list was asked for before the write: it says nothing about it.
        kept.take(&mut writer, watcher::Event::InitDone);
        assert!(!over(kept.seen(&written)).await);
        kept.take(&mut writer, watcher::Event::Init);
        kept.take(&mut writer, watcher::Event::InitDone);
    });
}

#[tokio::test]
async fn the_first_list_wakes_all_that_wait_for_it() {
    let (kept, mut writer) = Kept::<ConfigMap>::empty();
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let kept = kept.clone();
        waiting.spawn(async move { kept.ready().await });
    }
    tokio::task::yield_now().await;
    kept.take(&mut writer, watcher::Event::Init);
    kept.take(&mut writer, watcher::Event::InitDone);
    let all = tokio::time::timeout(Duration::from_secs(10), waiting.join_all());
    assert!(all.await.is_ok());
}
