//! Patches: JSON patch (RFC 6902), merge patch (RFC 7386) and Kubernetes' strategic merge patch.
//!
//! Server-side apply is no patch of this kind; see [`super::fields`].

mod json;
mod list;
#[cfg(test)]
mod properties;
mod strategic;
#[cfg(test)]
mod tests;

use serde_json::{Value, json};

use super::kinds::Kind;
use super::object::Object;
use super::schema;
use super::status::Status;

/// How a patch is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A list of operations.
    Json,
    /// The fields that change; null removes; lists are replaced.
    Merge,
    /// As `Merge`, and lists are merged as their types say, and by directives (`$patch`, …).
    Strategic,
}

impl Format {
    /// By the type and subtype of a `Content-Type` (`application/merge-patch+json`).
    pub fn of(media_type: &str) -> Option<Self> {
        match media_type {
            "application/json-patch+json" => Some(Self::Json),
            "application/merge-patch+json" => Some(Self::Merge),
            "application/strategic-merge-patch+json" => Some(Self::Strategic),
            _ => None,
        }
    }
}

/// The patched object. Fields that its kind does not have may be in it, and values of wrong types; a later pass finds
/// them.
///
/// # Errors
/// 400 for what is no patch, 413 for too many operations, 422 for a patch that does not fit the object. The texts are
/// those of kube-apiserver, except where it answers 500.
pub fn apply(format: Format, target: &Value, body: &[u8], kind: &Kind) -> Result<Value, Status> {
    let patch: Value = serde_json::from_slice(body).map_err(|error| malformed(&error))?;
    if format == Format::Json {
        return json::apply(target, patch);
    }
    let Value::Object(patch) = patch else {
        return Err(malformed(&go_mismatch(&patch, "map[string]interface {}")));
    };
    let mut result = target.as_object().cloned().unwrap_or_default();
    if format == Format::Merge {
        merge(&mut result, patch);
    } else {
        strategic::object(&mut result, patch, strategic::Types::of(schema::of(kind)))?;
    }
    Ok(Value::Object(result))
}

/// RFC 7386.
fn merge(target: &mut Object, patch: Object) {
    for (key, value) in patch {
        match value {
            Value::Null => {
                target.remove(&key);
            }
            Value::Object(inner) => {
                let slot = target.entry(key).or_insert(Value::Null);
                if !slot.is_object() {
                    *slot = json!({});
                }
                if let Value::Object(slot) = slot {
                    merge(slot, inner);
                }
            }
            value => {
                target.insert(key, value);
            }
        }
    }
}

fn malformed(why: &dyn std::fmt::Display) -> Status {
    Status::bad_request(format!("error decoding patch: {why}"))
}

/// What Go's JSON decoder says of a value of the wrong type.
fn go_mismatch(value: &Value, wanted: &str) -> String {
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    format!("json: cannot unmarshal {found} into Go value of type {wanted}")
}

/// The patch is well-formed and does not fit the object. The reference does not say why.
fn rejected() -> Status {
    let mut status = Status::new(
        422,
        "Invalid",
        "the server rejected our request due to an error in our request",
    );
    status.details = Some(json!({}));
    status
}
