//! From Pods to what the runtime is given.

use std::collections::BTreeMap;

use serde_json::json;

use super::{Names, container, sandbox};
use crate::agent::plan::tests::world::pod;
use crate::agent::{quantity, spec};
use crate::runtime::Image;

#[test]
fn sandboxes() {
    let pod = pod(json!({"containers": [
        {"name": "a", "ports": [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 81}], "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}}},
        {"name": "b", "resources": {"limits": {"cpu": "1"}}}]}));
    let config = sandbox(&pod, 3, Names::default());
    assert_eq!(config.attempt, 3);
    assert_eq!(config.port_mappings.len(), 1);
    assert_eq!(
        (
            config.port_mappings[0].host_port,
            &*config.port_mappings[0].protocol
        ),
        (8080, "tcp")
    );
    assert_eq!(
        (config.limits.cpu, config.limits.memory),
        (1500, 0),
        "one container has no limit of memory"
    );
}

#[test]
fn containers() {
    let pod = pod(
        json!({"securityContext": {"runAsUser": 1000, "fsGroup": 7}, "containers": [{
        "name": "a", "image": "host", "command": ["$(X)", "$(Y)"], "securityContext": {"runAsGroup": 5, "runAsNonRoot": true}}]}),
    );
    let spec = &spec::containers(&pod)[0];
    let variables = BTreeMap::from([("X".to_owned(), "x".to_owned())]);
    let config = container(&pod, spec, 0, Image::default(), variables, Vec::new()).unwrap();
    assert_eq!(config.command, ["x", "$(Y)"]);
    let security = config.security;
    assert_eq!(
        (security.user, security.group, security.groups),
        (Some(1000), Some(5), vec![7])
    );
    assert_eq!(config.termination_message_path, "/dev/termination-log");
}

#[test]
fn nobody_runs_as_root_who_must_not() {
    let pod =
        pod(json!({"securityContext": {"runAsNonRoot": true}, "containers": [{"name": "a"}]}));
    let spec = &spec::containers(&pod)[0];
    let refused =
        container(&pod, spec, 0, Image::default(), BTreeMap::new(), Vec::new()).unwrap_err();
    assert!(refused.contains("runAsNonRoot"), "{refused}");
}

#[test]
fn quantities() {
    for (text, value) in [
        ("1", Some(1000)),
        ("500m", Some(500)),
        ("1Ki", Some(1_024_000)),
        ("1.5Gi", Some(1_610_612_736_000)),
        ("2e3", Some(2_000_000)),
        ("1E", Some(1_000_000_000_000_000_000_000)),
        ("1n", Some(1)),
        ("100u", Some(1)),
        ("", None),
        ("x", None),
        ("-1", None),
        ("1Qi", None),
        (".", None),
    ] {
        assert_eq!(quantity::thousandths(text), value, "{text}");
    }
}
