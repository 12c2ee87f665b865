//! Walking down an object that is being filled in. What has an unexpected shape is left as it is: decoding and
//! validation speak about it.

use serde_json::{Value, json};

use crate::api::object::Object;
use crate::api::quantity::Quantity;

/// The object at a key, if there is one.
pub fn child<'a>(map: &'a mut Object, key: &str) -> Option<&'a mut Object> {
    map.get_mut(key)?.as_object_mut()
}

/// The object at a key, made if it is absent or null.
pub fn make<'a>(map: &'a mut Object, key: &str) -> Option<&'a mut Object> {
    if map.get(key).is_none_or(Value::is_null) {
        map.insert(key.to_owned(), json!({}));
    }
    child(map, key)
}

/// The objects in the list at a key.
pub fn items<'a>(map: &'a mut Object, key: &str) -> impl Iterator<Item = &'a mut Object> {
    let list = map.get_mut(key).and_then(Value::as_array_mut);
    list.into_iter().flatten().filter_map(Value::as_object_mut)
}

/// The list at a key, made if it is absent or null.
pub fn make_list<'a>(map: &'a mut Object, key: &str) -> Option<&'a mut Vec<Value>> {
    if map.get(key).is_none_or(Value::is_null) {
        map.insert(key.to_owned(), json!([]));
    }
    map.get_mut(key)?.as_array_mut()
}

/// The string at a key, or `""`.
pub fn word<'a>(map: &'a Object, key: &str) -> &'a str {
    map.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// Whether a key has no value: absent, null, an empty string, list or object, or 0.
pub fn unset(map: &Object, key: &str) -> bool {
    map.get(key).is_none_or(empty)
}

/// Null, or an empty string, list or object, or 0.
pub fn empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Bool(_) => false,
    }
}

/// Writes a word unless there is one; an empty one counts as none.
pub fn word_default(map: &mut Object, key: &str, value: &str) {
    if unset(map, key) {
        map.insert(key.to_owned(), json!(value));
    }
}

/// Writes the amounts of the list of resources at a key as they are printed, no finer than a thousandth.
pub fn resource_list(map: &mut Object, key: &str) {
    for value in child(map, key).into_iter().flat_map(Object::values_mut) {
        canonical(value, |quantity| quantity.to_milli());
    }
}

/// Writes the amount at a key as it is printed.
pub fn amount(map: &mut Object, key: &str) {
    if let Some(value) = map.get_mut(key) {
        canonical(value, |quantity| quantity);
    }
}

fn canonical(value: &mut Value, round: fn(Quantity) -> Quantity) {
    if let Some(quantity) = Quantity::of(value) {
        let text = round(quantity).to_string();
        if value.as_str() != Some(&text) {
            *value = Value::String(text);
        }
    }
}
