//! `nodeSelector` and `nodeAffinity` of a Pod.
//!
//! Source: <https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/>

use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, Pod};

/// Whether a node is one of those that a Pod may be on by its `nodeSelector` and its required node affinity.
pub fn allows(pod: &Pod, node: &Node) -> bool {
    let Some(spec) = &pod.spec else { return true };
    let labels = node.metadata.labels.as_ref();
    let selected = spec
        .node_selector
        .iter()
        .flatten()
        .all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value));
    let affinity = spec
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| {
        affinity
            .required_during_scheduling_ignored_during_execution
            .as_ref()
    });
    selected
        && required.is_none_or(|selector| {
            selector
                .node_selector_terms
                .iter()
                .any(|term| matches(term, node))
        })
}

/// The weights of the preferred terms that a node matches, together.
pub fn preference(pod: &Pod, node: &Node) -> i64 {
    let affinity = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref());
    let affinity = affinity.and_then(|affinity| affinity.node_affinity.as_ref());
    affinity
        .and_then(|affinity| {
            affinity
                .preferred_during_scheduling_ignored_during_execution
                .as_ref()
        })
        .into_iter()
        .flatten()
        .filter(|term| matches(&term.preference, node))
        .map(|term| i64::from(term.weight))
        .sum()
}

/// Whether a node matches all of a term; an empty term matches none.
fn matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let labels = node.metadata.labels.as_ref();
    let label = |key: &str| {
        labels
            .and_then(|labels| labels.get(key))
            .map(String::as_str)
    };
    let field = |key: &str| {
        (key == "metadata.name").then(|| node.metadata.name.as_deref().unwrap_or_default())
    };
    expressions
        .iter()
        .all(|wanted| holds(wanted, label(&wanted.key)))
        && fields
            .iter()
            .all(|wanted| holds(wanted, field(&wanted.key)))
}

fn holds(wanted: &NodeSelectorRequirement, has: Option<&str>) -> bool {
    let values = wanted.values.as_deref().unwrap_or_default();
    let among = || has.is_some_and(|has| values.iter().any(|value| value == has));
    // The label's number, and the one to compare with.
    let numbers = || {
        let [limit] = values else { return None };
        Some((has?.parse::<i64>().ok()?, limit.parse::<i64>().ok()?))
    };
    match wanted.operator.as_str() {
        "In" => among(),
        "NotIn" => !among(),
        "Exists" => has.is_some(),
        "DoesNotExist" => has.is_none(),
        "Gt" => numbers().is_some_and(|(has, limit)| has > limit),
        "Lt" => numbers().is_some_and(|(has, limit)| has < limit),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn node() -> Node {
        serde_json::from_value(
            json!({"metadata": {"name": "n1", "labels": {"disk": "ssd", "rank": "5"}}}),
        )
        .unwrap()
    }

    fn affine(terms: &Value) -> Pod {
        serde_json::from_value(
            json!({"spec": {"containers": [], "affinity": {"nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms},
            }}}}),
        )
        .unwrap()
    }

    #[test]
    fn a_selector_wants_every_label() {
        let pod = |selector: Value| -> Pod {
            serde_json::from_value(json!({"spec": {"containers": [], "nodeSelector": selector}}))
                .unwrap()
        };
        assert!(allows(&pod(json!({})), &node()));
        assert!(allows(&pod(json!({"disk": "ssd"})), &node()));
        assert!(!allows(&pod(json!({"disk": "ssd", "x": "y"})), &node()));
    }

    #[test]
    fn terms_are_alternatives_and_a_term_wants_all() {
        let wants = |key: &str, operator: &str, values: &[&str]| json!({"key": key, "operator": operator, "values": values});
        let label = |key: &str, operator: &str, values: &[&str]| json!([{"matchExpressions": [wants(key, operator, values)]}]);
        for (terms, allowed) in [
            (label("disk", "In", &["hdd", "ssd"]), true),
            (label("disk", "NotIn", &["ssd"]), false),
            (label("none", "NotIn", &["ssd"]), true),
            (label("disk", "Exists", &[]), true),
            (label("none", "DoesNotExist", &[]), true),
            (label("rank", "Gt", &["4"]), true),
            (label("rank", "Lt", &["5"]), false),
            (label("disk", "Gt", &["4"]), false),
            (
                json!([{"matchFields": [wants("metadata.name", "In", &["n1"])]}]),
                true,
            ),
            (
                json!([{"matchFields": [wants("metadata.name", "In", &["n2"])]}]),
                false,
            ),
            (json!([{}]), false),
            (
                json!([{}, {"matchExpressions": [wants("disk", "Exists", &[])]}]),
                true,
            ),
            (
                json!([{"matchExpressions": [wants("disk", "Exists", &[]), wants("x", "Exists", &[])]}]),
                false,
            ),
        ] {
            assert_eq!(allows(&affine(&terms), &node()), allowed, "{terms}");
        }
    }
}
