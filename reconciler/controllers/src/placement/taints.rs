//! Taints of nodes and the tolerations of Pods.
//!
//! Source: <https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/>

use k8s_openapi::api::core::v1::{Node, Taint, Toleration};

/// Its kubelet says that it is not ready.
pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
/// Nothing is heard from it.
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// `kubectl cordon`
pub const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// The node is off and stays so: its Pods need not be waited for.
pub const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
/// No Pod comes.
pub const NO_SCHEDULE: &str = "NoSchedule";
/// No Pod comes, and those that are there go.
pub const NO_EXECUTE: &str = "NoExecute";
/// Pods rather go elsewhere.
pub const PREFER_NO_SCHEDULE: &str = "PreferNoSchedule";

/// Whether a toleration is about a taint, and allows it.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let (effect, key, value) = (
        text(&toleration.effect),
        text(&toleration.key),
        text(&toleration.value),
    );
    if !effect.is_empty() && effect != taint.effect {
        return false;
    }
    if !key.is_empty() && key != taint.key {
        return false;
    }
    let taint_value = taint.value.as_deref().unwrap_or_default();
    let numbers = || Some((taint_value.parse::<i64>().ok()?, value.parse::<i64>().ok()?));
    match toleration.operator.as_deref().unwrap_or_default() {
        "" | "Equal" => value == taint_value && !key.is_empty(),
        "Exists" => true,
        "Lt" => numbers().is_some_and(|(taint, limit)| taint < limit),
        "Gt" => numbers().is_some_and(|(taint, limit)| taint > limit),
        _ => false,
    }
}

/// The first of the taints with these effects that no toleration allows.
pub fn untolerated<'a>(
    taints: &'a [Taint],
    tolerations: &[Toleration],
    effects: &[&str],
) -> Option<&'a Taint> {
    taints
        .iter()
        .filter(|taint| effects.contains(&taint.effect.as_str()))
        .find(|taint| {
            !tolerations
                .iter()
                .any(|toleration| tolerates(toleration, taint))
        })
}

/// The taints of a node, with those that follow from the rest of it and that nobody has written yet: it is cordoned,
/// or not ready.
pub fn of(node: &Node) -> Vec<Taint> {
    let spec = node.spec.as_ref();
    let mut taints = spec
        .and_then(|spec| spec.taints.clone())
        .unwrap_or_default();
    let mut imply = |key: &str| {
        if !taints
            .iter()
            .any(|taint| taint.key == key && taint.effect == NO_SCHEDULE)
        {
            taints.push(Taint {
                key: key.to_owned(),
                effect: NO_SCHEDULE.to_owned(),
                ..Taint::default()
            });
        }
    };
    if spec.and_then(|spec| spec.unschedulable) == Some(true) {
        imply(UNSCHEDULABLE);
    }
    match ready(node) {
        "True" => {}
        "False" => imply(NOT_READY),
        _ => imply(UNREACHABLE),
    }
    taints
}

/// The status of a node's condition Ready: `True`, `False`, `Unknown`; `Unknown` without one.
pub fn ready(node: &Node) -> &str {
    let status = node.status.as_ref();
    let mut conditions = status
        .into_iter()
        .flat_map(|status| status.conditions.iter().flatten());
    conditions
        .find(|condition| condition.type_ == "Ready")
        .map_or("Unknown", |condition| condition.status.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn toleration(value: serde_json::Value) -> Toleration {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_toleration_matches_by_key_value_and_effect() {
        let taint = Taint {
            key: "disk".into(),
            value: Some("slow".into()),
            effect: NO_SCHEDULE.into(),
            time_added: None,
        };
        for (written, allowed) in [
            (json!({"key": "disk", "operator": "Exists"}), true),
            (json!({"operator": "Exists"}), true),
            (json!({"key": "disk", "value": "slow"}), true),
            (
                json!({"key": "disk", "operator": "Equal", "value": "slow", "effect": "NoSchedule"}),
                true,
            ),
            (
                json!({"key": "disk", "value": "slow", "effect": "NoExecute"}),
                false,
            ),
            (json!({"key": "disk", "value": "fast"}), false),
            (json!({"key": "disk"}), false),
            (json!({"key": "other", "operator": "Exists"}), false),
            (json!({"key": "disk", "operator": "Nonsense"}), false),
        ] {
            assert_eq!(
                tolerates(&toleration(written.clone()), &taint),
                allowed,
                "{written}"
            );
        }
    }

    #[test]
    fn a_node_that_is_not_ready_has_the_taint_before_it_is_written() {
        let node = |ready: &str, unschedulable: bool| -> Node {
            serde_json::from_value(json!({
                "spec": {"unschedulable": unschedulable},
                "status": {"conditions": [{"type": "Ready", "status": ready}]},
            }))
            .unwrap()
        };
        assert!(of(&node("True", false)).is_empty());
        assert_eq!(of(&node("False", false))[0].key, NOT_READY);
        assert_eq!(of(&node("Unknown", false))[0].key, UNREACHABLE);
        assert_eq!(of(&Node::default())[0].key, UNREACHABLE);
        assert_eq!(of(&node("True", true))[0].key, UNSCHEDULABLE);
    }
}
