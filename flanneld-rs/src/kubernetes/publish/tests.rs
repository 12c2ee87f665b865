use super::*;
use crate::lease::BackendData;

fn names() -> Annotations {
    Annotations::with_prefix("flannel.alpha.coreos.com").unwrap()
}

fn attrs() -> LeaseAttrs {
    LeaseAttrs {
        public_ip: Some([192, 168, 66, 11].into()),
        public_ipv6: None,
        backend_type: "vxlan".to_owned(),
        backend_data: BackendData::read(r#"{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}"#).ok(),
        backend_v6_data: None,
    }
}

fn node(annotations: &[(&str, &str)]) -> Node {
    let all: BTreeMap<String, &str> = annotations
        .iter()
        .map(|(last, value)| (names().name(last), *value))
        .collect();
    serde_json::from_value(json!({"metadata": {"name": "n1", "annotations": all}})).unwrap()
}

/// The patch of a node with these annotations.
fn plan(present: &[(&str, &str)], attrs: &LeaseAttrs) -> String {
    let annotations = annotations(&names(), &node(present), attrs).unwrap();
    patch(&annotations, None).to_string()
}

const PUBLISHED: [(&str, &str); 4] = [
    ("backend-data", r#"{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}"#),
    ("backend-type", "vxlan"),
    ("kube-subnet-manager", "true"),
    ("public-ip", "192.168.66.11"),
];

#[test]
fn a_new_node_gets_all_and_a_finished_one_nothing() {
    let all = r#"{"metadata":{"annotations":{"flannel.alpha.coreos.com/backend-data":"{\"VNI\":1,\"VtepMAC\":\"c6:d2:32:6f:8f:44\"}","flannel.alpha.coreos.com/backend-type":"vxlan","flannel.alpha.coreos.com/kube-subnet-manager":"true","flannel.alpha.coreos.com/public-ip":"192.168.66.11"}}}"#;
    assert_eq!(plan(&[], &attrs()), all);
    assert_eq!(plan(&PUBLISHED, &attrs()), "{}");
}

#[test]
fn only_what_differs_is_patched_and_what_is_true_no_more_removed() {
    let mut present = PUBLISHED.to_vec();
    present[3].1 = "192.168.66.99";
    present.push(("public-ipv6", "fd66::b"));
    present.push(("node-public-ip", "192.168.66.11"));
    let patch = r#"{"metadata":{"annotations":{"flannel.alpha.coreos.com/public-ip":"192.168.66.11","flannel.alpha.coreos.com/public-ipv6":null}}}"#;
    assert_eq!(plan(&present, &attrs()), patch);
}

#[test]
fn an_empty_type_is_written_too() {
    let attrs = LeaseAttrs {
        backend_type: String::new(),
        ..attrs()
    };
    let patch = r#"{"metadata":{"annotations":{"flannel.alpha.coreos.com/backend-type":""}}}"#;
    assert_eq!(plan(&PUBLISHED, &attrs), patch);
    let without: Vec<_> = [PUBLISHED[0], PUBLISHED[2], PUBLISHED[3]].to_vec();
    assert_eq!(plan(&without, &attrs), patch);
}

#[test]
fn the_operators_address_is_published_in_place_of_ours() {
    let mut present = PUBLISHED.to_vec();
    present.push(("public-ip-overwrite", "203.0.113.7"));
    present.push(("public-ipv6-overwrite", "2001:db8::7"));
    let patch =
        r#"{"metadata":{"annotations":{"flannel.alpha.coreos.com/public-ip":"203.0.113.7"}}}"#;
    assert_eq!(plan(&present, &attrs()), patch);
    present[3].1 = "203.0.113.7";
    assert_eq!(plan(&present, &attrs()), "{}");
    present[4].1 = "somewhere";
    let error = annotations(&names(), &node(&present), &attrs()).unwrap_err();
    assert!(
        error.contains("public-ip-overwrite: \"somewhere\""),
        "{error}"
    );
}

#[test]
fn the_condition_is_flannels() {
    let patch = patch(&BTreeMap::new(), Some("2026-11-26T12:00:00Z"));
    let text = r#"{"status":{"conditions":[{"lastHeartbeatTime":"2026-11-26T12:00:00Z","lastTransitionTime":"2026-11-26T12:00:00Z","message":"Flannel is running on this node","reason":"FlannelIsUp","status":"False","type":"NetworkUnavailable"}]}}"#;
    assert_eq!(patch.to_string(), text);
}
