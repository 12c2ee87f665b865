//! The object of a kind in which nothing is set, as the reference writes it.
//!
//! A new object is compared with it: what is in it anyway (`spec: {}`, `replicas: 0`) nobody has set.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use crate::api::kinds::{KINDS, Kind};
use crate::api::schema::{self, Field, Shape};

static ZEROS: LazyLock<HashMap<&'static str, Value>> = LazyLock::new(|| {
    KINDS
        .iter()
        .map(|kind| schema::of(kind).name)
        .map(|name| (name, object(name)))
        .collect()
});

pub(super) fn of(kind: &Kind) -> &'static Value {
    static NONE: Value = Value::Null;
    ZEROS.get(schema::of(kind).name).unwrap_or(&NONE)
}

fn object(name: &'static str) -> Value {
    let mut map = Map::new();
    for field in schema::object(name).json_fields() {
        if let Some(value) = value(field) {
            map.insert(field.name.to_owned(), value);
        }
    }
    Value::Object(map)
}

fn value(field: &Field) -> Option<Value> {
    Some(match &field.shape {
        // A Go struct is never left out.
        Shape::Object(name) if !field.pointer => object(name),
        Shape::Raw if !field.pointer => Value::Null,
        _ if field.omit_empty => return None,
        _ if field.pointer => Value::Null,
        Shape::String => json!(""),
        Shape::Int32 | Shape::Int64 | Shape::IntOrString => json!(0),
        Shape::Double => json!(0.0),
        Shape::Bool => json!(false),
        Shape::Quantity => json!("0"),
        Shape::Object(_)
        | Shape::Bytes
        | Shape::Time
        | Shape::MicroTime
        | Shape::Raw
        | Shape::Fields
        | Shape::List(_)
        | Shape::Map(_) => Value::Null,
    })
}
