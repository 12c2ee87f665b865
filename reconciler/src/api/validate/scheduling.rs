//! Where a Pod may run: taints and tolerations, affinity, spreading.

use serde_json::json;

use super::at::At;
use super::{metadata, names};
use crate::api::status::Cause;

/// What a taint does to Pods that do not tolerate it.
const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// The taints of a Node.
pub fn taints(taints: &At<'_>, causes: &mut Vec<Cause>) {
    let mut seen = Vec::new();
    for taint in taints.items() {
        let (key, value, effect) = (
            taint.field("key"),
            taint.field("value"),
            taint.field("effect"),
        );
        key.invalid_text(causes, names::qualified(key.text()));
        joined(
            &value,
            value.text(),
            &names::label_value(value.text()),
            causes,
        );
        effect.one_of(causes, EFFECTS);
        let this = (key.text().to_owned(), effect.text().to_owned());
        if seen.contains(&this) {
            let mut cause = Cause::duplicate(taint.path(), taint.value);
            cause.message += ": taints must be unique by key and effect pair";
            causes.push(cause);
        } else {
            seen.push(this);
        }
    }
}

/// The tolerations of a Pod.
pub fn tolerations(tolerations: &At<'_>, causes: &mut Vec<Cause>) {
    for toleration in tolerations.items() {
        let (key, operator) = (toleration.field("key"), toleration.field("operator"));
        let (value, effect) = (toleration.field("value"), toleration.field("effect"));
        if !key.is_empty() {
            key.invalid_text(causes, names::qualified(key.text()));
        } else if operator.text() != "Exists" {
            operator.invalid_text(
                causes,
                vec!["operator must be Exists when `key` is empty, which means \"match all values and all keys\"".to_owned()],
            );
        }
        if toleration.field("tolerationSeconds").is_set() && effect.text() != "NoExecute" {
            effect.invalid_text(
                causes,
                vec!["effect must be 'NoExecute' when `tolerationSeconds` is set".to_owned()],
            );
        }
        match operator.text() {
            "" | "Equal" => {
                joined(
                    &operator,
                    value.text(),
                    &names::label_value(value.text()),
                    causes,
                );
            }
            "Exists" if !value.is_empty() => {
                let wrong = ["value must be empty when `operator` is 'Exists'".to_owned()];
                joined(&operator, value.text(), &wrong, causes);
            }
            _ => operator.one_of_if_set(causes, &["Equal", "Exists"]),
        }
        if !effect.is_empty() {
            effect.one_of_if_set(causes, EFFECTS);
        }
    }
}

/// Reasons for one value told as one.
fn joined(at: &At<'_>, value: &str, wrong: &[String], causes: &mut Vec<Cause>) {
    if !wrong.is_empty() {
        causes.push(Cause::invalid(at.path(), &json!(value), &wrong.join(";")));
    }
}

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// What draws a Pod to nodes and other Pods, and away from them.
pub fn affinity(affinity: &At<'_>, causes: &mut Vec<Cause>) {
    let node = affinity.field("nodeAffinity");
    let required = node.field(REQUIRED);
    if required.is_set() {
        node_selector(&required, causes);
    }
    for preferred in node.field(PREFERRED).items() {
        weight(&preferred, causes);
        node_term(&preferred.field("preference"), causes);
    }
    for key in ["podAffinity", "podAntiAffinity"] {
        let pods = affinity.field(key);
        for term in pods.field(REQUIRED).items() {
            pod_term(&term, causes);
        }
        for preferred in pods.field(PREFERRED).items() {
            weight(&preferred, causes);
            pod_term(&preferred.field("podAffinityTerm"), causes);
        }
    }
}

fn weight(preferred: &At<'_>, causes: &mut Vec<Cause>) {
    let weight = preferred.field("weight");
    let number = weight.number().unwrap_or(0);
    if !(1..=100).contains(&number) {
        let path = weight.path();
        causes.push(Cause::invalid(
            path,
            &json!(number),
            "must be in the range 1-100",
        ));
    }
}

/// Terms of which one must fit a Node.
pub fn node_selector(selector: &At<'_>, causes: &mut Vec<Cause>) {
    let terms = selector.field("nodeSelectorTerms");
    if terms.count() == 0 {
        terms.required(causes, "must have at least one node selector term");
    }
    for term in terms.items() {
        node_term(&term, causes);
    }
}

fn node_term(term: &At<'_>, causes: &mut Vec<Cause>) {
    const UNKNOWN: &str = "not a valid selector operator";
    for expression in term.field("matchExpressions").items() {
        let (key, operator) = (expression.field("key"), expression.field("operator"));
        let values = expression.field("values");
        match operator.text() {
            "In" | "NotIn" if values.count() == 0 => {
                values.required(
                    causes,
                    "must be specified when `operator` is 'In' or 'NotIn'",
                );
            }
            "Exists" | "DoesNotExist" if values.count() > 0 => values.forbidden(
                causes,
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            ),
            "Gt" | "Lt" if values.count() != 1 => values.required(
                causes,
                "must be specified single value when `operator` is 'Lt' or 'Gt'",
            ),
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            _ => operator.invalid_text(causes, vec![UNKNOWN.to_owned()]),
        }
        key.invalid_text(causes, names::qualified(key.text()));
        for value in values.items() {
            value.invalid_text(causes, names::label_value(value.text()));
        }
    }
    for field in term.field("matchFields").items() {
        let (key, operator) = (field.field("key"), field.field("operator"));
        let values = field.field("values");
        match operator.text() {
            "In" | "NotIn" if values.count() != 1 => values.required(
                causes,
                "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
            ),
            "In" | "NotIn" => {}
            _ => operator.invalid_text(causes, vec![UNKNOWN.to_owned()]),
        }
        if key.text() != "metadata.name" {
            key.invalid_text(causes, vec!["not a valid field selector key".to_owned()]);
            continue;
        }
        for value in values.items() {
            value.invalid_text(causes, names::subdomain(value.text()));
        }
    }
}

fn pod_term(term: &At<'_>, causes: &mut Vec<Cause>) {
    metadata::selector(&term.field("labelSelector"), causes);
    metadata::selector(&term.field("namespaceSelector"), causes);
    for namespace in term.field("namespaces").items() {
        namespace.invalid_text(causes, names::label(namespace.text()));
    }
    let key = term.field("topologyKey");
    if key.is_empty() {
        key.required(causes, "can not be empty");
    }
    key.invalid_text(causes, names::qualified(key.text()));
}

/// How Pods are spread over parts of the cluster.
pub fn spreading(constraints: &At<'_>, causes: &mut Vec<Cause>) {
    for constraint in constraints.items() {
        let skew = constraint.field("maxSkew");
        if skew.number().unwrap_or(0) <= 0 {
            let path = skew.path();
            let value = json!(skew.number().unwrap_or(0));
            causes.push(Cause::invalid(path, &value, "must be greater than zero"));
        }
        let key = constraint.field("topologyKey");
        if key.is_empty() {
            key.required(causes, "can not be empty");
        } else {
            key.invalid_text(causes, names::qualified(key.text()));
        }
        constraint
            .field("whenUnsatisfiable")
            .one_of(causes, &["DoNotSchedule", "ScheduleAnyway"]);
        metadata::selector(&constraint.field("labelSelector"), causes);
    }
}
