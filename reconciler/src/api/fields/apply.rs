//! Server-side apply.

#[cfg(test)]
mod tests;

use serde_json::Value;

use super::entries::{self, Entry, Operation};
use super::merge;
use super::node::Node;
use super::of::of;
use super::{Writer, changes, ignore, root, track};
use crate::api::kinds::Kind;
use crate::api::object::{self, Object};
use crate::api::schema;
use crate::api::status::{Cause, Status};

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

pub(super) fn apply(
    live: Option<&Value>,
    applied: &Value,
    writer: &Writer<'_>,
    force: bool,
    kind: &Kind,
) -> Result<Value, Status> {
    check(applied, writer, kind)?;
    let node = Node::Struct(schema::of(kind));
    known(applied, node, &mut String::new()).map_err(|why| refused(applied, kind, &why))?;

    let empty = Value::Object(Object::new());
    let before = live.unwrap_or(&empty);
    let managed = object::at(before, &["metadata", "managedFields"]);
    let mut entries = entries::read(managed).unwrap_or_default();
    if let (Some(live), true) = (live, entries.is_empty()) {
        // What is there belongs to somebody, so that it is not taken silently.
        let first = Writer {
            manager: "before-first-apply",
            subresource: "",
            now: writer.now,
        };
        track(
            &mut entries,
            changes(None, live, &first, kind),
            &first,
            kind,
        );
    }

    let mut set = of(applied, node);
    ignore(&mut set, writer.subresource, kind);
    let mut own = Entry {
        manager: writer.manager.to_owned(),
        operation: Operation::Apply,
        api_version: kind.api_version(),
        subresource: writer.subresource.to_owned(),
        time: None,
        fields: set,
    };
    let mut last = None;
    if let Some(place) = entries.iter().position(|entry| entry.same(&own)) {
        let old = entries.swap_remove(place);
        own.time = old.time;
        last = Some(old.fields);
    }

    let mut result = before.clone();
    merge::merge(&mut result, applied, node);
    if let Some(mut gone) = last {
        let mut owned = own.fields.clone();
        for entry in &entries {
            owned.unite(entry.fields.clone());
        }
        merge::with_parents(&mut gone, node);
        merge::with_parents(&mut owned, node);
        gone.subtract(&owned);
        // There is always some that nobody owns.
        gone.disown("f:metadata");
        merge::remove(&mut result, &gone, Some(&owned), node);
    }

    let changes = changes(live, &result, writer, kind);
    let mut conflicts: Vec<_> = entries
        .iter()
        .map(|entry| (entry, entry.fields.common(&changes.changed)))
        .filter(|(_, fields)| !fields.is_empty())
        .collect();
    if writer.manager == "kubectl" && !force && !conflicts.is_empty() {
        // What `kubectl apply` set from the client, and nobody has changed since, it may also set from here.
        let allowed = applied_before(before, kind);
        for (_, fields) in &mut conflicts {
            fields.subtract(&allowed);
        }
        conflicts.retain(|(_, fields)| !fields.is_empty());
    }
    if !force && !conflicts.is_empty() {
        return Err(conflict(&conflicts));
    }
    if live.is_none() || !changes.is_empty() {
        own.time = Some(writer.now.to_owned());
    }
    for entry in &mut entries {
        entry.fields.subtract(&changes.changed);
        entry.fields.subtract(&changes.removed);
    }
    entries.push(own);
    if writer.manager == "kubectl" {
        sync_last_applied(&mut result, applied);
    }
    let managed = entries::write(entries);
    super::set_managed(&mut result, managed);
    Ok(result)
}

fn check(applied: &Value, writer: &Writer<'_>, kind: &Kind) -> Result<(), Status> {
    if writer.manager.is_empty() {
        let missing = Cause::required("fieldManager", "is required for apply patch");
        return Err(Status::invalid(
            "meta.k8s.io",
            "PatchOptions",
            "",
            &[missing],
        ));
    }
    let version = object::text(applied, &["apiVersion"]);
    let found = object::text(applied, &["kind"]);
    if version != kind.api_version() || found != kind.kind {
        let version = version.split_once('/').unwrap_or(("", version));
        return Err(Status::bad_request(format!(
            "invalid object type: {}/{}, Kind={found}",
            version.0, version.1
        )));
    }
    match object::at(applied, &["metadata", "managedFields"]) {
        None | Some(Value::Null) => Ok(()),
        Some(_) => Err(Status::bad_request("metadata.managedFields must be nil")),
    }
}

/// An applied object must be understood as a whole, or its fields would have owners and no place.
fn known(value: &Value, node: Node, path: &mut String) -> Result<(), String> {
    let length = path.len();
    match (node.fitting(value), value) {
        (node @ (Node::Struct(_) | Node::Map(_)), Value::Object(map)) => {
            for (key, part) in map {
                path.push('.');
                path.push_str(key);
                if !node.knows(key) {
                    return Err(format!("{path}: field not declared in schema"));
                }
                known(part, node.at(key), path)?;
                path.truncate(length);
            }
        }
        (node @ (Node::Items(..) | Node::Values), Value::Array(items)) => {
            let mut seen = std::collections::HashSet::new();
            for (index, item) in items.iter().enumerate() {
                if let Some(why) = node.misfit(item) {
                    return Err(format!("{path}: element {index}: {why}"));
                }
                let element = node.element(index, item);
                if !seen.insert(element.clone()) {
                    let readable = super::set::readable(&element);
                    return Err(format!("{path}: duplicate entries for key {readable}"));
                }
                path.push_str(&super::set::readable(&element));
                known(item, node.item(), path)?;
                path.truncate(length);
            }
        }
        _ => {}
    }
    Ok(())
}

fn refused(applied: &Value, kind: &Kind, why: &str) -> Status {
    Status::bad_request(format!(
        "failed to create typed patch object ({}/{}; {}/{}, Kind={}): {why}",
        object::namespace(applied).unwrap_or_default(),
        object::name(applied),
        kind.group,
        kind.version,
        kind.kind
    ))
}

/// The fields that `kubectl apply` set from the client, as far as they still have the values that it gave them.
fn applied_before(live: &Value, kind: &Kind) -> super::Set {
    let text = object::text(live, &["metadata", "annotations", LAST_APPLIED]);
    let last: Value = serde_json::from_str(text).unwrap_or_default();
    if object::text(&last, &["apiVersion"]) != kind.api_version() || !last.is_object() {
        return super::Set::default();
    }
    let mut set = of(&last, root(kind));
    let changes = super::compare::compare(Some(&last), Some(live), root(kind));
    set.subtract(&changes.changed);
    set.subtract(&changes.removed);
    set
}

/// `kubectl apply` from the client goes on where its server-side form has been.
fn sync_last_applied(result: &mut Value, applied: &Value) {
    let annotation = result
        .get_mut("metadata")
        .and_then(|metadata| metadata.get_mut("annotations"))
        .and_then(|annotations| annotations.get_mut(LAST_APPLIED));
    let Some(annotation) = annotation else {
        return;
    };
    let mut applied = applied.clone();
    let annotations = applied
        .get_mut("metadata")
        .and_then(|metadata| metadata.get_mut("annotations"))
        .and_then(Value::as_object_mut);
    if let Some(annotations) = annotations {
        annotations.remove(LAST_APPLIED);
    }
    *annotation = Value::String(format!("{applied}\n"));
}

fn conflict(conflicts: &[(&Entry, super::Set)]) -> Status {
    let mut causes = Vec::new();
    let mut listed = Vec::new();
    for (entry, fields) in conflicts {
        let who = who(entry);
        listed.push(format!("conflicts with {who}:"));
        for path in fields.paths() {
            listed.push(format!("- {path}"));
            causes.push(Cause {
                reason: "FieldManagerConflict",
                message: format!("conflict with {who}"),
                field: path,
            });
        }
    }
    let message = match causes.as_slice() {
        [one] => format!(
            "Apply failed with 1 conflict: {}: {}",
            one.message, one.field
        ),
        several => format!(
            "Apply failed with {} conflicts: {}",
            several.len(),
            listed.join("\n")
        ),
    };
    Status::new(409, "Conflict", message).with_causes(&causes)
}

fn who(entry: &Entry) -> String {
    let mut text = format!("{:?}", entry.manager);
    if !entry.subresource.is_empty() {
        text.push_str(&format!(" with subresource {:?}", entry.subresource));
    }
    if entry.operation == Operation::Update {
        text.push_str(&format!(" using {}", entry.api_version));
    }
    text
}
