//! Who owns which field: `metadata.managedFields`, and server-side apply.
//!
//! Source: kubernetes.io/docs/reference/using-api/server-side-apply, and recordings of kube-apiserver 1.36.

mod apply;
mod compare;
mod entries;
mod merge;
mod node;
mod of;
#[cfg(test)]
mod properties;
mod set;
#[cfg(test)]
mod tests;
mod zero;

use serde_json::{Value, json};

use self::compare::{Changes, compare};
use self::entries::{Entry, Operation};
use self::node::Node;
pub use self::set::{Malformed, Set};
use super::kinds::{Kind, Subresource};
use super::object;
use super::schema;
use super::status::Status;

/// Who writes, through what, and when.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// Of the request (`fieldManager`), or [`of_user_agent`].
    pub manager: &'a str,
    /// `status`; empty for the object itself.
    pub subresource: &'a str,
    /// RFC 3339, UTC, to the second.
    pub now: &'a str,
}

/// The manager of a client that names none: its program, `kubectl` of `kubectl/v1.36.2 (linux/amd64)`.
pub fn of_user_agent(agent: &str) -> String {
    let program = agent.split('/').next().unwrap_or_default();
    program
        .chars()
        .filter(|char| !char.is_control())
        .take(128)
        .collect()
}

/// Records who changed what, in `new`'s `managedFields`: for create (`old` is None), update and every patch but apply.
///
/// `new` has its defaults, and not yet what the server itself allots (IPs, ports, admission's additions): that has no
/// manager. It may bring its own `managedFields`: then they are taken, unless they are malformed; `[]` and `[{}]` drop
/// all entries; without any, those of `old` go on. An object without entries gets none by updates, only by the first
/// apply.
///
/// Fields that changed belong to the writer alone; nobody owns what has gone. Times move when the writer changes
/// something. There are at most 10 entries of updates; the oldest become one, `ancient-changes`.
pub fn update(old: Option<&Value>, new: &mut Value, writer: &Writer<'_>, kind: &Kind) {
    let live = old.and_then(|old| object::at(old, &["metadata", "managedFields"]));
    let sent = object::at(new, &["metadata", "managedFields"]);
    let sent = sent.filter(|sent| writer.subresource.is_empty() && !sent.is_null());
    if sent.is_some_and(entries::is_reset) {
        set_managed(new, None);
        return;
    }
    let sent = sent.filter(|sent| Some(*sent) != live);
    let changes = changes(old, new, writer, kind);
    if changes.is_empty() && sent.is_none() {
        if object::at(new, &["metadata", "managedFields"]) != live {
            set_managed(new, live.cloned());
        }
        return;
    }
    let mut entries = match entries::read(sent) {
        Ok(entries) if !entries.is_empty() => entries,
        _ => entries::read(live).unwrap_or_default(),
    };
    if !entries.is_empty() || old.is_none() {
        track(&mut entries, changes, writer, kind);
        entries::cap(&mut entries);
    }
    set_managed(new, entries::write(entries));
}

/// Server-side apply: `applied` put into `live`, with the fields gone that the manager applied before and does no
/// longer, unless another one owns them. Makes the object if there is none; the rest (defaults, status, names) is the
/// caller's, as for an update.
///
/// # Errors
/// 422 without a manager; 400 for another type, for `managedFields`, and for fields or list items that the kind cannot
/// have; 409 when other managers own what would change, unless `force`.
pub fn apply(
    live: Option<&Value>,
    applied: &Value,
    writer: &Writer<'_>,
    force: bool,
    kind: &Kind,
) -> Result<Value, Status> {
    apply::apply(live, applied, writer, force, kind)
}

fn root(kind: &Kind) -> Node {
    Node::Struct(schema::of(kind))
}

/// What a write changes, without what nobody owns.
fn changes(old: Option<&Value>, new: &Value, writer: &Writer<'_>, kind: &Kind) -> Changes {
    let old = old.unwrap_or_else(|| zero::of(kind));
    let mut changes = compare(Some(old), Some(new), root(kind));
    ignore(&mut changes.changed, writer.subresource, kind);
    ignore(&mut changes.removed, writer.subresource, kind);
    changes
}

/// Gives the writer what it changed.
fn track(entries: &mut Vec<Entry>, changes: Changes, writer: &Writer<'_>, kind: &Kind) {
    for entry in entries.iter_mut() {
        entry.fields.subtract(&changes.changed);
        entry.fields.subtract(&changes.removed);
    }
    if !changes.changed.is_empty() {
        let new = Entry {
            manager: entries::named(writer.manager),
            operation: Operation::Update,
            api_version: kind.api_version(),
            subresource: writer.subresource.to_owned(),
            time: Some(writer.now.to_owned()),
            fields: changes.changed,
        };
        match entries.iter_mut().find(|entry| entry.same(&new)) {
            Some(entry) => {
                entry.time = new.time;
                entry.fields.unite(new.fields);
            }
            None => entries.push(new),
        }
    }
    entries.retain(|entry| !entry.fields.is_empty());
}

/// Takes out what has no owner in this write: what says which object it is, what the server makes, and what this
/// subresource does not write.
fn ignore(set: &mut Set, subresource: &str, kind: &Kind) {
    const SERVERS: [&str; 9] = [
        "f:name",
        "f:namespace",
        "f:creationTimestamp",
        "f:selfLink",
        "f:uid",
        "f:clusterName",
        "f:generation",
        "f:managedFields",
        "f:resourceVersion",
    ];
    set.prune(&["f:apiVersion"]);
    set.prune(&["f:kind"]);
    for field in SERVERS {
        set.prune(&["f:metadata", field]);
    }
    set.disown("f:metadata");
    if subresource.is_empty() && kind.subresources.contains(&Subresource::Status) {
        set.prune(&["f:status"]);
    }
    if subresource == Subresource::Status.name() {
        set.prune(&["f:spec"]);
        match kind.kind {
            "Pod" => {
                set.prune(&["f:metadata", "f:deletionTimestamp"]);
                set.prune(&["f:metadata", "f:ownerReferences"]);
            }
            "Deployment" => set.prune(&["f:metadata", "f:labels"]),
            _ => {}
        }
    }
}

/// Objects of wrong shapes are left alone: who reads types refuses them.
fn set_managed(value: &mut Value, managed: Option<Value>) {
    let Some(object) = value.as_object_mut() else {
        return;
    };
    match (object.get_mut("metadata"), managed) {
        (Some(Value::Object(metadata)), Some(managed)) => {
            metadata.insert("managedFields".to_owned(), managed);
        }
        (Some(Value::Object(metadata)), None) => {
            metadata.remove("managedFields");
        }
        (None | Some(Value::Null), Some(managed)) => {
            object.insert("metadata".to_owned(), json!({"managedFields": managed}));
        }
        _ => {}
    }
}
