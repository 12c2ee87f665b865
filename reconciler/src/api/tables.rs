//! Tables: lists as `kubectl get` prints them, made by the server (`meta.k8s.io/v1` Table).
//!
//! The columns of a kind are data (`tables/columns.json`, as kube-apiserver 1.36 sends them); what stands in them is a
//! row of [`cells`]' table. An object may have any shape: what is not there, or is not what it should be, is printed as
//! if it were absent.

pub mod age;
mod cells;
mod event;
mod network;
mod node;
mod pod;
mod storage;
mod workload;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::kinds::{Kind, NameRule, Scope, Verbs};
use super::object;
pub use cells::cells;
pub use workload::{label_selector, pairs};

const API_VERSION: &str = "meta.k8s.io/v1";

/// How one column is headed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// `Ready`
    pub name: String,
    /// `string`, `integer`, `boolean`, `date`; cells do not always keep to it.
    #[serde(rename = "type")]
    pub kind: String,
    /// `name` for the column that holds the object's name, otherwise empty.
    pub format: String,
    /// For people.
    pub description: String,
    /// 0 is always printed, 1 only with `-o wide`.
    pub priority: i32,
}

/// The kind of the `scale` subresource, which is printed too.
pub static SCALE: Kind = Kind {
    group: "autoscaling",
    version: "v1",
    kind: "Scale",
    plural: "scales",
    short: &[],
    all: false,
    scope: Scope::Namespaced,
    name: NameRule::Subdomain,
    generation: false,
    verbs: Verbs::ReadOnly,
    subresources: &[],
    warning: None,
};

/// By `deployments.apps`; `""` is what a kind without columns of its own has.
static COLUMNS: LazyLock<BTreeMap<String, Vec<Column>>> = LazyLock::new(|| {
    serde_json::from_str(include_str!("tables/columns.json"))
        .unwrap_or_else(|error| unreachable!("columns.json is part of the program: {error}"))
});

/// The columns of a kind, in the order of its cells.
pub fn columns(kind: &Kind) -> &'static [Column] {
    let own = match kind.plural {
        "events" => COLUMNS.get(kind.plural),
        _ => COLUMNS.get(&kind.qualified()),
    };
    own.or_else(|| COLUMNS.get(""))
        .map(Vec::as_slice)
        .unwrap_or_default()
}

/// What a row says about its object besides the cells: `?includeObject=`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Include {
    /// Nothing.
    None,
    /// Its metadata.
    #[default]
    Metadata,
    /// All of it.
    Object,
}

impl Include {
    /// Reads the query parameter; absent and empty mean metadata. `None` if it is no such word.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "None" => Some(Self::None),
            "" | "Metadata" => Some(Self::Metadata),
            "Object" => Some(Self::Object),
            _ => None,
        }
    }
}

/// One row. The object is taken, as its metadata (or all of it) goes into the row.
pub fn row(kind: &Kind, object: Value, include: Include, now: Timestamp) -> Value {
    let cells = cells(kind, &object, now);
    let conditions = pod::conditions(kind, &object);
    let object = match include {
        Include::None => Value::Null,
        Include::Metadata => partial(object),
        Include::Object => object,
    };
    let mut row = vec![("cells", Value::Array(cells)), ("object", object)];
    row.extend(conditions.map(|conditions| ("conditions", conditions)));
    of(row)
}

/// An object of these parts. (`json!` would copy them.)
fn of(parts: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    let parts = parts.into_iter();
    Value::Object(parts.map(|(key, part)| (key.to_owned(), part)).collect())
}

/// An object's metadata alone, as a `PartialObjectMetadata`.
pub fn partial(mut object: Value) -> Value {
    let metadata = std::mem::take(object::object(&mut object, "metadata"));
    of([
        ("kind", json!("PartialObjectMetadata")),
        ("apiVersion", json!(API_VERSION)),
        ("metadata", Value::Object(metadata)),
    ])
}

/// A table of rows. `metadata` is the list's, or the object's for one object and for an event of a watch:
/// `resourceVersion`, `continue` and `remainingItemCount` are kept of it. Columns are named in an answer and in the
/// first event of a watch, later events leave them out (`None`, sent as `null`).
pub fn table(columns: Option<&[Column]>, metadata: &Value, rows: Vec<Value>) -> Value {
    let mut kept = object::Object::new();
    for key in ["resourceVersion", "continue", "remainingItemCount"] {
        if let Some(value) = metadata.get(key) {
            kept.insert(key.to_owned(), value.clone());
        }
    }
    of([
        ("kind", json!("Table")),
        ("apiVersion", json!(API_VERSION)),
        ("metadata", Value::Object(kept)),
        ("columnDefinitions", json!(columns)),
        ("rows", Value::Array(rows)),
    ])
}
