//! Makes a value an object of its type, as a round trip through Go's types would.
//!
//! One pass, in place: unknown fields are noted and removed, wrong types are errors in Go's words, nulls and zero
//! values that Go leaves out are removed, those that Go writes are added, quantities and times get their one form.
//! It runs after each create, update and patch; doing it twice changes nothing.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Number, Value, json};

use super::body::path::Path;
use super::body::time;
use super::schema::{self, Field, Shape, Type};

/// Gives a quantity its one form (`1000m` is `1`); none if the text is no quantity.
pub type Canonical = fn(&str) -> Option<String>;

/// More unknown fields than these are removed, but not told.
const FINDINGS: usize = 100;

/// Makes a value an object of a type. Gives the unknown fields: `unknown field "spec.containers[0].foo"`.
///
/// # Errors
/// A value of the wrong type, as Go's JSON decoder says it:
/// `json: cannot unmarshal number into Go struct field ConfigMap.data of type string`.
pub fn conform(
    value: &mut Value,
    of: &'static Type,
    canonical: Canonical,
) -> Result<Vec<String>, String> {
    let mut walk = Walk {
        canonical,
        unknown: Vec::new(),
        error: None,
    };
    let place = Place {
        path: Path::Root,
        within: of,
    };
    walk.object(value, of, place);
    match walk.error {
        Some(error) => Err(error),
        None => Ok(walk.unknown),
    }
}

/// An object of a type of which nothing is set: a new status, for example.
pub fn empty(of: &'static Type) -> Map<String, Value> {
    let mut map = Map::new();
    fill(&mut map, of);
    map
}

fn fill(map: &mut Map<String, Value>, of: &'static Type) {
    for field in of.always() {
        if !map.contains_key(field.name) {
            let value = if field.pointer {
                Value::Null
            } else {
                zero(&field.shape)
            };
            map.insert(field.name.into(), value);
        }
    }
}

/// What Go writes for a value that was not set.
fn zero(shape: &Shape) -> Value {
    match shape {
        Shape::String | Shape::Bytes => json!(""),
        Shape::Int32 | Shape::Int64 | Shape::Double | Shape::IntOrString => json!(0),
        Shape::Bool => json!(false),
        Shape::Quantity => json!("0"),
        Shape::Object(name) => Value::Object(empty(schema::object(name))),
        Shape::Time
        | Shape::MicroTime
        | Shape::Raw
        | Shape::Fields
        | Shape::List(_)
        | Shape::Map(_) => Value::Null,
    }
}

/// Where a value is, for messages.
#[derive(Clone, Copy)]
struct Place<'a> {
    path: Path<'a>,
    /// The innermost type around it.
    within: &'static Type,
}

struct Walk {
    canonical: Canonical,
    unknown: Vec<String>,
    /// The first one counts, as in Go.
    error: Option<String>,
}

impl Walk {
    fn object(&mut self, value: &mut Value, of: &'static Type, place: Place<'_>) {
        let Value::Object(map) = value else {
            self.wrong(value, &Shape::Object(of.name), place);
            return;
        };
        map.retain(|key, value| {
            if self.error.is_some() {
                return true;
            }
            let path = Path::Field(&place.path, key);
            let Some(field) = of.field(key) else {
                if of.typed && (key == "apiVersion" || key == "kind") {
                    let place = Place { path, within: of };
                    return self.keep(value, &Shape::String, true, place);
                }
                self.unknown(&path);
                return false;
            };
            self.keep(
                value,
                &field.shape,
                left_out(field),
                Place { path, within: of },
            )
        });
        if self.error.is_none() {
            fill(map, of);
        }
    }

    /// Conforms the value of a field. Whether the field stays.
    fn keep(&mut self, value: &mut Value, shape: &Shape, omit: bool, place: Place<'_>) -> bool {
        if value.is_null() {
            return false;
        }
        self.value(value, shape, place);
        !(value.is_null() || omit && is_zero(value))
    }

    fn value(&mut self, value: &mut Value, shape: &Shape, place: Place<'_>) {
        match (shape, &mut *value) {
            (Shape::Object(name), _) => self.object(value, schema::object(name), place),
            (Shape::List(item), Value::Array(items)) => {
                for (index, value) in items.iter_mut().enumerate() {
                    let path = Path::Item(&place.path, index);
                    self.inner(value, item, Place { path, ..place });
                }
            }
            (Shape::Map(inner), Value::Object(map)) => {
                for (key, value) in map.iter_mut() {
                    let path = Path::Key(&place.path, key);
                    self.inner(value, inner, Place { path, ..place });
                }
            }
            (Shape::String, Value::String(_)) | (Shape::Bool, Value::Bool(_)) => {}
            (Shape::Int32, Value::Number(number)) if is_int32(number) => {}
            (Shape::Int64, Value::Number(number)) if number.is_i64() => {}
            (Shape::Double, Value::Number(_)) => {}
            (Shape::Raw | Shape::Fields, _) => {}
            (Shape::Bytes, Value::String(text)) => self.bytes(text),
            (Shape::Time | Shape::MicroTime, Value::String(text)) => {
                let micro = *shape == Shape::MicroTime;
                match time::canonical(text, micro) {
                    Some(time) => *text = time,
                    None => self.fail(|| time::refusal(text, micro)),
                }
            }
            (Shape::Time | Shape::MicroTime, other) => self.fail(|| plain(other, "string")),
            (Shape::Quantity, Value::String(text)) => match (self.canonical)(text) {
                Some(quantity) => *text = quantity,
                None => self.fail(no_quantity),
            },
            (Shape::Quantity, Value::Number(number)) => {
                match (self.canonical)(&number.to_string()) {
                    Some(quantity) => *value = json!(quantity),
                    None => self.fail(no_quantity),
                }
            }
            (Shape::Quantity, _) => self.fail(no_quantity),
            (Shape::IntOrString, Value::String(_)) => {}
            (Shape::IntOrString, Value::Number(number)) if is_int32(number) => {}
            (Shape::IntOrString, other) => self.fail(|| plain(other, "int32")),
            _ => self.wrong(value, shape, place),
        }
    }

    /// An item of a list, or a value of a map: null is what Go has when nothing is set.
    fn inner(&mut self, value: &mut Value, shape: &Shape, place: Place<'_>) {
        if self.error.is_some() {
            return;
        }
        if value.is_null() {
            *value = zero(shape);
        }
        if !value.is_null() {
            self.value(value, shape, place);
        }
    }

    fn bytes(&mut self, text: &mut String) {
        if text.contains(['\r', '\n']) {
            text.retain(|letter| letter != '\r' && letter != '\n');
        }
        if let Err(error) = STANDARD.decode(text.as_bytes()) {
            let at = match error {
                base64::DecodeError::InvalidByte(at, _)
                | base64::DecodeError::InvalidLastSymbol(at, _) => at,
                _ => text.len(),
            };
            self.fail(|| format!("illegal base64 data at input byte {at}"));
        }
    }

    fn unknown(&mut self, path: &Path<'_>) {
        if self.unknown.len() < FINDINGS {
            self.unknown
                .push(format!("unknown field {:?}", path.to_string()));
        }
    }

    fn wrong(&mut self, value: &Value, shape: &Shape, place: Place<'_>) {
        self.fail(|| {
            let what = what(value, matches!(shape, Shape::Int32 | Shape::Int64));
            let of = go_type(shape);
            match place.path {
                Path::Root => {
                    format!("json: cannot unmarshal {what} into Go value of type {of}")
                }
                path => format!(
                    "json: cannot unmarshal {what} into Go struct field {}.{} of type {of}",
                    unqualified(place.within),
                    path.fields()
                ),
            }
        });
    }

    fn fail(&mut self, error: impl FnOnce() -> String) {
        if self.error.is_none() {
            self.error = Some(error());
        }
    }
}

/// Whether a field is not written when it is zero.
fn left_out(field: &Field) -> bool {
    field.omit_empty && !field.pointer && !matches!(field.shape, Shape::Object(_) | Shape::Raw)
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

fn is_int32(number: &Number) -> bool {
    number
        .as_i64()
        .is_some_and(|number| i32::try_from(number).is_ok())
}

fn plain(value: &Value, of: &str) -> String {
    let what = what(value, of == "int32");
    format!("json: cannot unmarshal {what} into Go value of type {of}")
}

fn no_quantity() -> String {
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
        .into()
}

/// What Go calls a value. A number that does not fit is given.
pub(super) fn what(value: &Value, wants_integer: bool) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(_) => "bool".into(),
        Value::Number(number) if wants_integer => format!("number {number}"),
        Value::Number(_) => "number".into(),
        Value::String(_) => "string".into(),
        Value::Array(_) => "array".into(),
        Value::Object(_) => "object".into(),
    }
}

/// `PodSpec`
fn unqualified(of: &Type) -> &'static str {
    of.name.rsplit('.').next().unwrap_or_default()
}

fn go_type(shape: &Shape) -> String {
    match shape {
        Shape::String => "string".into(),
        Shape::Int32 => "int32".into(),
        Shape::Int64 => "int64".into(),
        Shape::Bool => "bool".into(),
        Shape::Double => "float64".into(),
        Shape::Bytes => "[]uint8".into(),
        Shape::Time => "v1.Time".into(),
        Shape::MicroTime => "v1.MicroTime".into(),
        Shape::Quantity => "resource.Quantity".into(),
        Shape::IntOrString => "intstr.IntOrString".into(),
        Shape::Raw => "runtime.RawExtension".into(),
        Shape::Fields => "v1.FieldsV1".into(),
        // `core/v1.PodSpec` is `v1.PodSpec`.
        Shape::Object(name) => name.rsplit('/').next().unwrap_or_default().into(),
        Shape::List(item) => format!("[]{}", go_type(item)),
        Shape::Map(value) => format!("map[string]{}", go_type(value)),
    }
}

#[cfg(test)]
mod tests;
