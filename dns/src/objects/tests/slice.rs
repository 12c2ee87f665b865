//! EndpointSlices.

use serde_json::{Value, json};

use super::*;
use crate::model::{Endpoint, Slice};

pub(super) fn tests_base(changes: &Value) -> Value {
    let base = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "a-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "a"}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080}],
        "endpoints": [{"addresses": ["10.1.0.1"]}],
    });
    merged(base, changes)
}

fn endpoint(texts: &[&str], hostname: Option<&str>, ready: bool) -> Endpoint {
    Endpoint {
        addresses: ips(texts),
        hostname: hostname.map(Arc::from),
        ready,
    }
}

#[test]
fn what_a_slice_says() {
    let reduced = read(
        Kind::Slices,
        tests_base(&json!({"ports": [{"name": "http", "port": 8080}, {"name": "any"}]})),
    );
    assert_eq!(
        reduced,
        Reduced {
            event: Event::Slice(Slice {
                name: shop("a-1"),
                service: "a".into(),
                endpoints: [endpoint(&["10.1.0.1"], None, true)].into(),
                ports: [port("http", Protocol::Tcp, 8080)].into(),
                changed: None,
            }),
            complaints: Vec::new(),
        }
    );
}

#[test]
fn which_endpoints_are_used() {
    let one = |texts, hostname, ready| vec![endpoint(texts, hostname, ready)];
    let cases = [
        (
            json!({"addresses": ["10.1.0.1", "10.1.0.2"]}),
            one(&["10.1.0.1", "10.1.0.2"], None, true),
            "",
        ),
        (
            json!({"addresses": ["10.1.0.1"], "hostname": "db-0", "conditions": {"ready": false, "serving": true}}),
            one(&["10.1.0.1"], Some("db-0"), false),
            "",
        ),
        (
            json!({"addresses": ["10.1.0.1"], "conditions": {"ready": null}}),
            one(&["10.1.0.1"], None, true),
            "",
        ),
        (
            json!({"addresses": ["10.1.0.1", "web.example.com"]}),
            one(&["10.1.0.1"], None, true),
            "endpoints: \"web.example.com\" is not an IP address",
        ),
        (
            json!({"addresses": ["fd00::1"]}),
            vec![],
            "endpoints: fd00::1 is not of the slice's addressType",
        ),
        (
            json!({"addresses": ["10.1.0.1"], "hostname": "Db.0"}),
            one(&["10.1.0.1"], None, true),
            "endpoints: the hostname \"Db.0\" is not a DNS label",
        ),
        (json!({"addresses": [], "hostname": "x"}), vec![], ""),
        (json!({}), vec![], ""),
    ];
    for (wire, endpoints, complaint) in cases {
        let reduced = read(Kind::Slices, tests_base(&json!({"endpoints": [wire]})));
        let Event::Slice(slice) = reduced.event else {
            panic!("{wire}: {:?}", reduced.event);
        };
        assert_eq!(*slice.endpoints, *endpoints, "{wire}");
        match complaint {
            "" => assert_eq!(reduced.complaints, [""; 0], "{wire}"),
            text => assert_eq!(
                reduced.complaints,
                [format!("EndpointSlice shop/a-1: {text}")],
                "{wire}"
            ),
        }
    }
}

#[test]
fn slices_without_names_are_gone_with_a_complaint() {
    let cases = [
        (
            json!({"addressType": "FQDN"}),
            "addressType \"FQDN\" has no addresses; IPv4 and IPv6 have",
        ),
        (
            json!({"metadata": {"labels": null}}),
            "label kubernetes.io/service-name is missing, so it belongs to no Service",
        ),
        (
            json!({"metadata": {"labels": {"kubernetes.io/service-name": "A b"}}}),
            "label kubernetes.io/service-name: \"A b\" is not the name of a Service",
        ),
    ];
    for (changes, complaint) in cases {
        let reduced = read(Kind::Slices, tests_base(&changes));
        assert_eq!(reduced.event, Event::SliceGone(shop("a-1")));
        assert_eq!(
            reduced.complaints,
            [format!("EndpointSlice shop/a-1: {complaint}")]
        );
    }
}
