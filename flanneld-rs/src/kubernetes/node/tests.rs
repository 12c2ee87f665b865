use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn names() -> Annotations {
    Annotations::with_prefix("flannel.alpha.coreos.com").unwrap()
}

fn config(families: &str) -> NetworkConfig {
    let (v4, v6) = (families.contains('4'), families.contains('6'));
    let text = json!({
        "EnableIPv4": v4,
        "EnableIPv6": v6,
        "Network": "10.5.0.0/16",
        "IPv6Network": "fd05::/48",
        "Backend": {"Type": "vxlan"},
    });
    NetworkConfig::parse(&text.to_string()).unwrap()
}

fn node(cidrs: &[&str], annotations: Value) -> Node {
    let value = json!({
        "metadata": {"name": "n1", "resourceVersion": "7", "annotations": annotations},
        "spec": {"podCIDR": cidrs.first(), "podCIDRs": cidrs},
    });
    serde_json::from_value(value).unwrap()
}

/// As a kube-apiserver sends it.
#[test]
fn of_a_whole_node_only_what_concerns_us_is_kept() {
    let text = r#"{
      "kind": "Node", "apiVersion": "v1",
      "metadata": {
        "name": "n1", "uid": "a1050901-2c89-4286-a669-40fffe716e47", "resourceVersion": "2493",
        "labels": {"kubernetes.io/hostname": "n1"},
        "annotations": {
          "node.alpha.kubernetes.io/ttl": "0",
          "flannel.alpha.coreos.com/backend-data": "{\"VNI\":1,\"VtepMAC\":\"c6:d2:32:6f:8f:44\"}",
          "flannel.alpha.coreos.com/backend-type": "vxlan",
          "flannel.alpha.coreos.com/kube-subnet-manager": "true",
          "flannel.alpha.coreos.com/public-ip": "192.168.64.3"
        },
        "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:metadata": {}}}]
      },
      "spec": {"podCIDR": "10.5.1.0/24", "podCIDRs": ["10.5.1.0/24", "fd05:0:0:1::/64"], "taints": []},
      "status": {
        "capacity": {"cpu": "8"},
        "conditions": [
          {"type": "Ready", "status": "True", "reason": "KubeletReady"},
          {"type": "NetworkUnavailable", "status": "False", "reason": "FlannelIsUp",
           "lastHeartbeatTime": "2026-11-21T06:31:14Z", "lastTransitionTime": "2026-11-21T06:31:14Z",
           "message": "Flannel is running on this node"}
        ],
        "images": [{"names": ["a", "b"], "sizeBytes": 1}]
      }
    }"#;
    let node: Node = serde_json::from_str(text).unwrap();
    assert_eq!((node.name(), node.revision()), ("n1", Some("2493")));
    assert!(node.is_up);
    assert_eq!(node.annotations.len(), 4);
    let lease = node.lease(&names(), &config("46")).unwrap().unwrap();
    assert_eq!(lease.subnet.to_string(), "10.5.1.0/24 and fd05:0:0:1::/64");
    assert_eq!(
        lease.attrs.to_json(),
        r#"{"PublicIP":"192.168.64.3","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}}"#
    );
}

#[test]
fn a_node_that_says_nothing_is_no_peer() {
    for text in [
        r#"{"metadata":{"name":"n"}}"#,
        r#"{"metadata":{"name":"n","annotations":null},"spec":{"podCIDRs":null},"status":{"conditions":null}}"#,
        r#"{"metadata":{"name":"n","annotations":{"flannel.alpha.coreos.com/kube-subnet-manager":"false"}},"spec":{}}"#,
    ] {
        let node: Node = serde_json::from_str(text).unwrap();
        assert_eq!(node.lease(&names(), &config("4")), None, "{text}");
        assert!(!node.is_up);
    }
}

#[test]
fn the_condition_of_somebody_else_is_not_ours() {
    for (status, reason) in [("True", "FlannelIsUp"), ("False", "RouteCreated")] {
        let value = json!({"status": {"conditions": [
            {"type": "NetworkUnavailable", "status": status, "reason": reason}
        ]}});
        let node: Node = serde_json::from_value(value).unwrap();
        assert!(!node.is_up, "{status} {reason}");
    }
}

#[test]
fn the_subnet_is_that_of_the_networks_families() {
    let dual = node(&["10.5.1.7/24", "fd05:0:0:1::/64"], json!({}));
    let subnet = |families| dual.subnet(&config(families)).unwrap().to_string();
    assert_eq!(subnet("4"), "10.5.1.0/24");
    assert_eq!(subnet("6"), "fd05:0:0:1::/64");
    assert_eq!(subnet("46"), "10.5.1.0/24 and fd05:0:0:1::/64");
    // Of any length: the controller manager decides, not SubnetLen.
    let wide = node(&["10.5.16.0/20"], json!({}));
    assert_eq!(
        wide.subnet(&config("4")).unwrap().to_string(),
        "10.5.16.0/20"
    );
}

#[test]
fn a_pod_cidr_that_cannot_be_used_is_named() {
    for (cidrs, families, why) in [
        (&[][..], "4", "it has no podCIDR"),
        (
            &["fd05::/64"],
            "4",
            "it has no IPv4 podCIDR, and the network is 10.5.0.0/16",
        ),
        (
            &["10.5.1.0/24"],
            "46",
            "it has no IPv6 podCIDR, and the network is fd05::/48",
        ),
        (
            &["10.244.1.0/24"],
            "4",
            "its podCIDR 10.244.1.0/24 is not part of the network 10.5.0.0/16",
        ),
        (
            &["10.0.0.0/8"],
            "4",
            "its podCIDR 10.0.0.0/8 is not part of the network 10.5.0.0/16",
        ),
        (
            &["10.5.1.0"],
            "4",
            "its podCIDR \"10.5.1.0\" is not a network in CIDR form",
        ),
        (
            &["10.5.1.0/32"],
            "4",
            "its podCIDR 10.5.1.0/32 has no room for a node's Pods",
        ),
        (
            &["0.0.0.0/0"],
            "4",
            "its podCIDR 0.0.0.0/0 has no room for a node's Pods",
        ),
        (
            &["10.5.1.0/24", "10.5.2.0/24", "fd05::/64"],
            "4",
            "it has 3 podCIDRs, more than two",
        ),
    ] {
        let node = node(cidrs, json!({}));
        assert_eq!(node.subnet(&config(families)).unwrap_err(), why);
    }
    let value = json!({"metadata": {"name": "n"}, "spec": {"podCIDR": "10.5.1.0/24"}});
    let old: Node = serde_json::from_value(value).unwrap();
    assert_eq!(old.subnet(&config("4")).unwrap().to_string(), "10.5.1.0/24");
}

#[test]
fn an_annotation_that_cannot_be_read_is_named() {
    for (last, text, why) in [
        (
            names::PUBLIC_IP,
            "fd66::b",
            "\"fd66::b\" is not an address of its family",
        ),
        (
            names::PUBLIC_IPV6,
            "10.0.0.1",
            "\"10.0.0.1\" is not an address of its family",
        ),
        (names::BACKEND_DATA, "{\"VNI\":", "EOF while parsing"),
    ] {
        let annotations = json!({
            names().name(names::MANAGED): "true",
            names().name(last): text,
        });
        let node = node(&["10.5.1.0/24"], annotations);
        let error = node.lease(&names(), &config("4")).unwrap().unwrap_err();
        let start = format!("annotation flannel.alpha.coreos.com/{last}: ");
        assert!(error.starts_with(&start) && error.contains(why), "{error}");
    }
}

#[test]
fn null_and_empty_data_are_none() {
    for text in ["null", ""] {
        let annotations = json!({
            names().name(names::MANAGED): "true",
            names().name(names::BACKEND_TYPE): "host-gw",
            names().name(names::BACKEND_DATA): text,
            names().name(names::PUBLIC_IP): "0.0.0.0",
        });
        let lease = node(&["10.5.1.0/24"], annotations).lease(&names(), &config("4"));
        let attrs = lease.unwrap().unwrap().attrs;
        assert_eq!((attrs.backend_data, attrs.public_ip), (None, None));
        assert_eq!(attrs.backend_type, "host-gw");
    }
}

fn any_data() -> impl Strategy<Value = Option<BackendData>> {
    proptest::option::of("[ -~\u{80}-\u{2fff}]{0,12}")
        .prop_map(|text| text.map(|text| BackendData::new(&json!({"VNI": 1, "Text": text}))))
}

proptest! {
    /// What is published is what peers read, whatever the backend announces.
    #[test]
    fn annotations_carry_a_lease(
        ips in (proptest::option::of(1..u32::MAX), proptest::option::of(1..u128::MAX)),
        kind in "vxlan|host-gw|extension|",
        data in any_data(),
        data_v6 in any_data(),
        third in 0u8..=255,
    ) {
        let attrs = LeaseAttrs {
            public_ip: ips.0.map(Into::into),
            public_ipv6: ips.1.map(Into::into),
            backend_type: kind,
            backend_data: data,
            backend_v6_data: data_v6,
        };
        let wanted = names().wanted(&attrs);
        let cidr = format!("10.5.{third}.0/24");
        let node = node(&[&cidr], json!(
            wanted.into_iter().filter_map(|(name, value)| Some((name, value?))).collect::<BTreeMap<_, _>>()
        ));
        let lease = node.lease(&names(), &config("4")).unwrap().unwrap();
        prop_assert_eq!(lease.subnet.to_string(), cidr);
        // A family without an address is not published, for vxlan one without data neither.
        let mut seen = attrs;
        let needs_data = seen.backend_type == "vxlan";
        if seen.public_ip.is_none() || needs_data && seen.backend_data.is_none() {
            (seen.public_ip, seen.backend_data) = (None, None);
        }
        if seen.public_ipv6.is_none() || needs_data && seen.backend_v6_data.is_none() {
            (seen.public_ipv6, seen.backend_v6_data) = (None, None);
        }
        prop_assert_eq!(lease.attrs, seen);
    }

    /// No text in a Node makes reading it panic, and a lease that is read lies inside the network.
    #[test]
    fn any_text_is_read_or_refused(
        cidrs in proptest::collection::vec("[0-9a-f.:/]{0,20}|10\\.5\\.[0-9]{1,3}\\.0/[0-9]{1,2}", 0..4),
        ip in ".{0,20}",
        data in ".{0,40}",
    ) {
        let cidrs: Vec<&str> = cidrs.iter().map(String::as_str).collect();
        let annotations = json!({
            names().name(names::MANAGED): "true",
            names().name(names::PUBLIC_IP): ip,
            names().name(names::BACKEND_DATA): data,
        });
        let config = config("46");
        if let Some(Ok(lease)) = node(&cidrs, annotations).lease(&names(), &config) {
            for (net, network) in lease.subnet.nets().zip(config.networks()) {
                prop_assert!(network.contains(&net));
            }
        }
    }
}
