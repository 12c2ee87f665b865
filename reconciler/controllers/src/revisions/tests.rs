use super::{HASH, Newest, data, expired, newest, template};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::json;
use std::sync::Arc;

fn set() -> DaemonSet {
    serde_json::from_value(
        json!({"metadata": {"name": "ds", "namespace": "demo", "uid": "d",
        "annotations": {"kubernetes.io/change-cause": "why"}}}),
    )
    .unwrap()
}

fn of(image: &str) -> PodTemplateSpec {
    serde_json::from_value(json!({"metadata": {"labels": {"app": "x"}},
        "spec": {"containers": [{"name": "c", "image": image}]}}))
    .unwrap()
}

fn made(newest: Newest) -> ControllerRevision {
    match newest {
        Newest::Create(revision) | Newest::Raise(revision) | Newest::Is(revision) => revision,
    }
}

#[test]
fn a_revision_holds_the_patch_that_leads_back_to_its_template() {
    let revision = made(newest(&set(), &of("a"), &[], HASH));
    assert_eq!(
        json!(revision.data),
        json!({"spec": {"template": {"$patch": "replace", "metadata": {"labels": {"app": "x"}},
            "spec": {"containers": [{"name": "c", "image": "a"}]}}}})
    );
    assert_eq!(template(&revision), Some(of("a")));
    let metadata = revision.metadata;
    let hash = metadata.labels.as_ref().unwrap()[HASH].clone();
    assert_eq!(metadata.name, Some(format!("ds-{hash}")));
    assert_eq!(
        metadata.annotations.unwrap()["kubernetes.io/change-cause"],
        "why"
    );
}

#[test]
fn a_template_that_comes_back_gets_a_new_number() {
    let first = Arc::new(made(newest(&set(), &of("a"), &[], HASH)));
    let second = Arc::new(made(newest(
        &set(),
        &of("b"),
        std::slice::from_ref(&first),
        HASH,
    )));
    assert_eq!((first.revision, second.revision), (1, 2));
    let known = [first.clone(), second.clone()];
    assert_eq!(
        newest(&set(), &of("b"), &known, HASH),
        Newest::Is(second.as_ref().clone())
    );
    let Newest::Raise(raised) = newest(&set(), &of("a"), &known, HASH) else {
        panic!("the old revision is not used again");
    };
    assert_eq!(
        (raised.revision, raised.metadata.name.clone()),
        (3, first.metadata.name.clone())
    );
    assert_eq!(data(&of("a")), json!(raised.data));
}

#[test]
fn the_history_keeps_what_is_in_use_and_the_newest_of_the_rest() {
    let revision = |number: i64| {
        let made = json!({"metadata": {"name": format!("r{number}")}, "revision": number});
        Arc::new(serde_json::from_value::<ControllerRevision>(made).unwrap())
    };
    let known: Vec<_> = [4, 2, 1, 3, 5].map(revision).to_vec();
    let live = ["r5".to_owned(), "r1".to_owned()].into();
    assert_eq!(expired(&known, &live, 1), ["r2", "r3"]);
    assert!(expired(&known, &live, 10).is_empty());
}
