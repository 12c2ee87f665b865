//! The Node's status.

use jiff::Timestamp;
use serde_json::json;

use super::{Machine, Pressure, View, is_told, missing_labels, patch, registration, status};
use crate::agent::Config;

fn view<'a>(config: &'a Config, machine: &'a Machine, unready: Option<&'a str>) -> View<'a> {
    View {
        config,
        machine,
        pressure: Pressure::default(),
        runtime: ("weft", "0.1.0"),
        unready,
        known: None,
        now: Timestamp::UNIX_EPOCH,
    }
}

#[test]
fn a_node_as_kubelets_tell_it() {
    let mut config = Config::new("n1", vec!["192.168.66.11".parse().unwrap()], "/data");
    config.reserved.cpu = 500;
    config.reserved.memory = 1 << 20;
    let machine = Machine {
        cpus: 2,
        memory: 4 << 20,
        storage: 10240,
        ..Machine::default()
    };
    let told = serde_json::to_value(status(&view(&config, &machine, None))).unwrap();
    assert_eq!(
        told["capacity"],
        json!({"cpu": "2", "memory": "4096Ki", "ephemeral-storage": "10Ki", "pods": "110"})
    );
    assert_eq!(told["allocatable"]["cpu"], "1500m");
    assert_eq!(told["allocatable"]["memory"], "3072Ki");
    assert_eq!(
        told["addresses"],
        json!([{"type": "InternalIP", "address": "192.168.66.11"}, {"type": "Hostname", "address": "n1"}])
    );
    assert_eq!(told["nodeInfo"]["containerRuntimeVersion"], "weft://0.1.0");
    assert_eq!(told["conditions"][3]["reason"], "KubeletReady");
    let unready = serde_json::to_value(status(&view(&config, &machine, Some("no CNI")))).unwrap();
    assert_eq!(unready["conditions"][3]["status"], "False");
    assert!(
        unready["conditions"][3]["message"]
            .as_str()
            .unwrap()
            .ends_with("message:no CNI")
    );
}

#[test]
fn only_what_has_changed_is_told() {
    let config = Config::new("n1", vec!["192.168.66.11".parse().unwrap()], "/data");
    let machine = Machine::default();
    let mut node = registration(&config);
    assert!(missing_labels(&config, &node).is_none());
    let first = status(&view(&config, &machine, None));
    assert!(!is_told(&node, &first));
    node.status = Some(first);
    let mut later = view(&config, &machine, None);
    later.known = Some(&node);
    later.now = "2026-11-26T12:00:00Z".parse().unwrap();
    assert!(
        is_told(&node, &status(&later)),
        "a heartbeat alone is no change"
    );
    later.unready = Some("gone");
    assert!(!is_told(&node, &status(&later)));
    node.metadata.labels = None;
    assert!(missing_labels(&config, &node).is_some());
    assert_eq!(
        patch(&status(&view(&config, &machine, None))).unwrap()["status"]["addresses"][0]["$patch"],
        "replace"
    );
}
