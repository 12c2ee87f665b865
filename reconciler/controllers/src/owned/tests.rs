//! Who adopts and who releases.

use super::*;

fn pod(name: &str, app: &str, owner: Option<&str>) -> Arc<Pod> {
    let owner = owner.map(|uid| json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": uid, "controller": true}]));
    let metadata = json!({"name": name, "namespace": "demo", "labels": {"app": app}, "ownerReferences": owner});
    Arc::new(serde_json::from_value(json!({"metadata": metadata})).unwrap())
}

fn names(pods: &[Arc<Pod>]) -> Vec<String> {
    pods.iter().map(|pod| pod.name_any()).collect()
}

#[test]
fn orphans_that_match_are_adopted_and_strays_released() {
    let mut owner = ObjectMeta {
        uid: Some("u".into()),
        namespace: Some("demo".into()),
        ..ObjectMeta::default()
    };
    let selector: Selector = [("app", "x")].into_iter().collect();
    let mut ending = pod("ending", "x", None).as_ref().clone();
    ending.metadata.deletion_timestamp =
        serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
    let mut elsewhere = pod("elsewhere", "x", None).as_ref().clone();
    elsewhere.metadata.namespace = Some("other".into());
    let pods = vec![
        pod("mine", "x", Some("u")),
        pod("stray", "y", Some("u")),
        pod("orphan", "x", None),
        pod("another's", "x", Some("v")),
        pod("unrelated", "y", None),
        Arc::new(ending),
        Arc::new(elsewhere),
    ];
    let claim = plan_claim(&owner, Some(&selector), pods.clone());
    assert_eq!(
        (
            names(&claim.owned),
            names(&claim.adopt),
            names(&claim.release)
        ),
        (
            vec!["mine".into()],
            vec!["orphan".into()],
            vec!["stray".into()]
        )
    );
    owner.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
    let claim = plan_claim(&owner, Some(&selector), pods);
    assert_eq!(
        (
            names(&claim.owned),
            names(&claim.adopt),
            names(&claim.release)
        ),
        (vec!["mine".into()], vec![], vec![])
    );
}

#[test]
fn an_empty_selector_selects_nothing() {
    assert!(selector(None).unwrap().is_none());
    assert!(selector(Some(&LabelSelector::default())).unwrap().is_none());
    assert!(!selects(
        Some(&LabelSelector::default()),
        pod("a", "x", None).as_ref()
    ));
    let unknown =
        serde_json::from_value(json!({"matchExpressions": [{"key": "a", "operator": "Like"}]}))
            .unwrap();
    assert!(selector(Some(&unknown)).is_err());
}
