//! Names, labels, annotations, owners, finalizers; and selectors of labels.

use serde_json::{Value, json};

use super::at::At;
use super::names;
use crate::api::kinds::{Kind, NameRule};
use crate::api::object;
use crate::api::status::Cause;

/// Annotations may have so many bytes together.
const ANNOTATIONS: usize = 256 * 1024;

/// The metadata of a new object.
pub fn create(kind: &Kind, root: &At<'_>, causes: &mut Vec<Cause>) {
    let metadata = root.field("metadata");
    let rule = match kind.name {
        NameRule::Subdomain => names::subdomain,
        NameRule::Label => names::label,
    };
    let prefix = metadata.field("generateName");
    if !prefix.is_empty() {
        // It may end in what may not end a name.
        let text = prefix.text();
        let example = match text.strip_suffix('-') {
            Some(rest) => format!("{rest}a"),
            None => text.to_owned(),
        };
        prefix.invalid_text(causes, rule(&example));
    }
    let name = metadata.field("name");
    if name.is_empty() {
        name.required(causes, "name or generateName is required");
    } else {
        name.invalid_text(causes, rule(name.text()));
    }
    let namespace = metadata.field("namespace");
    if !kind.namespaced() {
        if !namespace.is_empty() {
            namespace.forbidden(causes, "not allowed on this type");
        }
    } else if namespace.is_empty() {
        namespace.required(causes, "");
    } else {
        namespace.invalid_text(causes, names::label(namespace.text()));
    }
    always(&metadata, causes);
}

/// The metadata of an object that is changed. What may never change (name, namespace, uid, times) is seen to elsewhere.
pub fn update(new: &At<'_>, old: &At<'_>, causes: &mut Vec<Cause>) {
    let metadata = new.field("metadata");
    if object::deleting(old.value) {
        let before = object::list(old.value, &["metadata", "finalizers"]);
        let finalizers = metadata.field("finalizers");
        let mut added: Vec<_> = finalizers
            .items()
            .filter(|name| !before.contains(name.value))
            .map(|name| name.text())
            .collect();
        added.sort_unstable();
        added.dedup();
        if !added.is_empty() {
            finalizers.forbidden(
                causes,
                &format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                    added.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
                ),
            );
        }
    }
    always(&metadata, causes);
}

fn always(metadata: &At<'_>, causes: &mut Vec<Cause>) {
    metadata.field("generation").non_negative(causes);
    labels(&metadata.field("labels"), causes);
    annotations(&metadata.field("annotations"), causes);
    owners(&metadata.field("ownerReferences"), causes);
    finalizers(&metadata.field("finalizers"), causes);
}

/// Labels: of an object, or that a selector asks for.
pub fn labels(labels: &At<'_>, causes: &mut Vec<Cause>) {
    for (key, value) in labels.entries() {
        for wrong in names::qualified(key) {
            causes.push(Cause::invalid(labels.path(), &json!(key), &wrong));
        }
        for wrong in names::label_value(value.text()) {
            causes.push(Cause::invalid(labels.path(), value.value, &wrong));
        }
    }
}

/// Annotations.
pub fn annotations(annotations: &At<'_>, causes: &mut Vec<Cause>) {
    let mut size = 0;
    for (key, value) in annotations.entries() {
        size += key.len() + value.text().len();
        for wrong in names::qualified(&key.to_lowercase()) {
            causes.push(Cause::invalid(annotations.path(), &json!(key), &wrong));
        }
    }
    if size > ANNOTATIONS {
        causes.push(Cause::too_long(annotations.path(), ANNOTATIONS));
    }
}

fn owners(owners: &At<'_>, causes: &mut Vec<Cause>) {
    let mut controller: Option<String> = None;
    for owner in owners.items() {
        let version = owner.field("apiVersion");
        let mut wrong = |key: &str, what: &str| {
            let value = owner.value.get(key).unwrap_or(&Value::Null);
            let value = json!(value.as_str().unwrap_or_default());
            causes.push(Cause::invalid(
                format!("{}.{key}", owners.path()),
                &value,
                what,
            ));
        };
        if version.text().rsplit('/').next() == Some("") {
            wrong("apiVersion", "version must not be empty");
        }
        for key in ["kind", "name", "uid"] {
            if owner.field(key).is_empty() {
                wrong(key, "must not be empty");
            }
        }
        if version.text() == "v1" && owner.field("kind").text() == "Event" {
            causes.push(Cause::invalid(
                owners.path(),
                owner.value,
                "/v1, Kind=Event is disallowed from being an owner",
            ));
        }
        if owner.field("controller").is_true() {
            let this = format!(
                "{}/{}",
                owner.field("kind").text(),
                owner.field("name").text()
            );
            match &controller {
                Some(first) => owners.invalid(
                    causes,
                    &format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                    ),
                ),
                None => controller = Some(this),
            }
        }
    }
}

fn finalizers(finalizers: &At<'_>, causes: &mut Vec<Cause>) {
    const ORPHAN: &str = "orphan";
    const FOREGROUND: &str = "foregroundDeletion";
    for finalizer in finalizers.items() {
        for wrong in names::qualified(finalizer.text()) {
            causes.push(Cause::invalid(finalizers.path(), finalizer.value, &wrong));
        }
    }
    let has = |name| finalizers.items().any(|finalizer| finalizer.text() == name);
    if has(ORPHAN) && has(FOREGROUND) {
        finalizers.invalid(
            causes,
            &format!("finalizer {ORPHAN} and {FOREGROUND} cannot be both set"),
        );
    }
}

/// A selector of labels: `{"matchLabels":{…},"matchExpressions":[…]}`.
pub fn selector(selector: &At<'_>, causes: &mut Vec<Cause>) {
    labels(&selector.field("matchLabels"), causes);
    for expression in selector.field("matchExpressions").items() {
        let (operator, values) = (expression.field("operator"), expression.field("values"));
        match operator.text() {
            "In" | "NotIn" => {
                if values.is_empty() {
                    values.required(
                        causes,
                        "must be specified when `operator` is 'In' or 'NotIn'",
                    );
                }
            }
            "Exists" | "DoesNotExist" => {
                if !values.is_empty() {
                    values.forbidden(
                        causes,
                        "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                    );
                }
            }
            _ => operator.invalid_text(causes, vec!["not a valid selector operator".to_owned()]),
        }
        let key = expression.field("key");
        key.invalid_text(causes, names::qualified(key.text()));
        for value in values.items() {
            value.invalid_text(causes, names::label_value(value.text()));
        }
    }
}

/// Whether a selector selects an object with those labels. An empty one selects everything.
pub fn selects(selector: &Value, labels: &Value) -> bool {
    let root = At::root(selector);
    let label = |key: &str| labels.get(key).and_then(Value::as_str);
    let (wanted, expressions) = (root.field("matchLabels"), root.field("matchExpressions"));
    wanted
        .entries()
        .all(|(key, value)| label(key) == Some(value.text()))
        && expressions.items().all(|expression| {
            let found = label(expression.field("key").text());
            let listed = found.is_some_and(|found| {
                expression
                    .field("values")
                    .items()
                    .any(|value| value.text() == found)
            });
            match expression.field("operator").text() {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => found.is_some(),
                "DoesNotExist" => found.is_none(),
                _ => false,
            }
        })
}
