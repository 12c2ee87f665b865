//! Endpoints, EndpointSlices, IngressClasses, NetworkPolicies, and Events.

use serde_json::{Value, json};

use super::fields::{child, items, make, unset, word_default};
use crate::api::object::{self, Object};

/// An Endpoints object.
pub fn endpoints(endpoints: &mut Object) {
    for subset in items(endpoints, "subsets") {
        for port in items(subset, "ports") {
            word_default(port, "protocol", "TCP");
        }
    }
}

/// An EndpointSlice.
pub fn endpoint_slice(slice: &mut Object) {
    for endpoint in items(slice, "endpoints") {
        make(endpoint, "conditions");
    }
    for port in items(slice, "ports") {
        object::default(port, "name", "");
        object::default(port, "protocol", "TCP");
    }
}

/// An IngressClass.
pub fn ingress_class(class: &mut Object) {
    if let Some(parameters) = make(class, "spec").and_then(|spec| child(spec, "parameters")) {
        object::default(parameters, "scope", "Cluster");
    }
}

/// A NetworkPolicy.
pub fn policy(policy: &mut Object) {
    let Some(spec) = make(policy, "spec") else {
        return;
    };
    make(spec, "podSelector");
    for direction in ["ingress", "egress"] {
        for rule in items(spec, direction) {
            for port in items(rule, "ports") {
                object::default(port, "protocol", "TCP");
            }
        }
    }
    if unset(spec, "policyTypes") {
        let mut types = vec!["Ingress"];
        if !unset(spec, "egress") {
            types.push("Egress");
        }
        spec.insert("policyTypes".to_owned(), json!(types));
    }
}

/// An Event: times and reporters have no omitted form.
pub fn event(event: &mut Object, group: &str) {
    event.entry("eventTime").or_insert(Value::Null);
    if group.is_empty() {
        make(event, "involvedObject");
        make(event, "source");
        for key in ["firstTimestamp", "lastTimestamp"] {
            event.entry(key).or_insert(Value::Null);
        }
        for key in ["reportingComponent", "reportingInstance"] {
            object::default(event, key, "");
        }
    } else {
        make(event, "regarding");
        make(event, "deprecatedSource");
        for key in ["deprecatedFirstTimestamp", "deprecatedLastTimestamp"] {
            event.entry(key).or_insert(Value::Null);
        }
    }
}
