//! Pods.

use serde_json::json;

use super::*;
use crate::model::Pod;

#[test]
fn which_pods_have_addresses() {
    let cases = [
        (
            json!({"status": {"podIP": "10.1.0.1", "podIPs": [{"ip": "10.1.0.1"}, {"ip": "fd00::1"}]}}),
            vec!["10.1.0.1", "fd00::1"],
        ),
        (
            json!({"status": {"podIP": "10.1.0.1", "phase": "Running"}}),
            vec!["10.1.0.1"],
        ),
        (
            json!({"status": {"podIPs": [{"ip": "10.1.0.1"}, {}], "phase": "Pending"}}),
            vec!["10.1.0.1"],
        ),
        (
            json!({"status": {"podIP": "10.1.0.1", "phase": "Succeeded"}}),
            vec![],
        ),
        (
            json!({"status": {"podIP": "10.1.0.1", "phase": "Failed"}}),
            vec![],
        ),
        (
            json!({"spec": {"hostNetwork": true}, "status": {"podIP": "10.1.0.1"}}),
            vec![],
        ),
        (json!({"status": {"podIP": ""}}), vec![]),
        (json!({}), vec![]),
    ];
    for (changes, addresses) in cases {
        let value = merged(
            json!({"metadata": {"name": "p", "namespace": "shop"}}),
            &changes,
        );
        let expected = match addresses[..] {
            [] => Event::PodGone(shop("p")),
            _ => Event::Pod(Pod {
                name: shop("p"),
                ips: ips(&addresses),
            }),
        };
        assert_eq!(
            read(Kind::Pods, value),
            Reduced {
                event: expected,
                complaints: Vec::new()
            },
            "{changes}"
        );
    }
}
