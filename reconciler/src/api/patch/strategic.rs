//! Strategic merge patch: objects.
//!
//! What kube-apiserver does is the measure: its documents say what the directives mean, and where they are silent, what
//! it was seen to do.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::super::object::Object;
use super::super::schema::{self, Shape, Strategy, Type};
use super::super::status::Status;
use super::list::{self, Id};

const DIRECTIVE: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const ORDER: &str = "$setElementOrder/";
const DELETE: &str = "$deleteFromPrimitiveList/";

/// What the fields of an object are.
#[derive(Clone, Copy)]
pub(super) enum Types {
    /// Those of a type.
    Struct(&'static Type),
    /// All alike.
    Map(&'static Shape),
    /// Nobody knows: objects are merged, lists replaced.
    Unknown,
}

impl Types {
    pub(super) fn of(found: &'static Type) -> Self {
        Self::Struct(found)
    }

    fn in_shape(shape: Option<&'static Shape>) -> Self {
        match shape {
            Some(Shape::Object(name)) => Self::Struct(schema::object(name)),
            Some(Shape::Map(values)) => Self::Map(values),
            _ => Self::Unknown,
        }
    }

    /// The types in the items of a list.
    fn in_items(shape: Option<&'static Shape>) -> Self {
        match shape {
            Some(Shape::List(item)) => Self::in_shape(Some(item)),
            _ => Self::Unknown,
        }
    }

    fn field(self, name: &str) -> (Option<&'static Shape>, Strategy) {
        match self {
            Self::Struct(found) => match found.field(name) {
                Some(field) => (Some(&field.shape), field.strategy.clone()),
                None => (None, Strategy::default()),
            },
            Self::Map(values) => (Some(values), Strategy::default()),
            Self::Unknown => (None, Strategy::default()),
        }
    }
}

/// Merges a patch into an object.
pub(super) fn object(target: &mut Object, mut patch: Object, types: Types) -> Result<(), Status> {
    if let Some(directive) = patch.remove(DIRECTIVE) {
        target.clear();
        return match directive.as_str() {
            Some("replace") => {
                *target = cleaned(patch);
                Ok(())
            }
            Some("delete") => Ok(()),
            _ => Err(unknown_directive(&directive, &patch)),
        };
    }
    if let Some(names) = patch.remove(RETAIN) {
        retain(target, &patch, &names)?;
    }
    let ordered: Vec<_> = patch
        .keys()
        .filter(|key| key.starts_with(ORDER))
        .cloned()
        .collect();
    for key in ordered {
        let order = patch.remove(&key);
        let name = key.strip_prefix(ORDER).unwrap_or_default();
        if let Some(Value::Array(order)) = order {
            set_order(target, &mut patch, name, &order, types)?;
        } else {
            return Err(Status::bad_request(
                "invalid patch format of setElementOrder list",
            ));
        }
    }
    for (key, value) in patch {
        if let Some(name) = key.strip_prefix(DELETE) {
            delete_from(target, name, &value)?;
        } else if value.is_null() {
            target.remove(&key);
        } else {
            field(target, key, value, types)?;
        }
    }
    Ok(())
}

fn field(target: &mut Object, key: String, value: Value, types: Types) -> Result<(), Status> {
    match (target.get_mut(&key), value) {
        (Some(Value::Object(old)), Value::Object(new)) => {
            let (shape, strategy) = types.field(&key);
            if strategy.replace {
                *old = cleaned(new);
            } else {
                object(old, new, Types::in_shape(shape))?;
            }
        }
        (Some(Value::Array(old)), Value::Array(new)) => {
            let (shape, strategy) = types.field(&key);
            let live = std::mem::take(old);
            *old = match strategy.merge {
                Some(by) => list::merge(live, new, by, Types::in_items(shape))?,
                None => clean_items(new),
            };
        }
        (_, value) => {
            if let Some(value) = clean(value) {
                target.insert(key, value);
            }
        }
    }
    Ok(())
}

/// `$retainKeys`: fields that are not named go.
fn retain(target: &mut Object, patch: &Object, names: &Value) -> Result<(), Status> {
    let bad = || Status::bad_request("invalid patch format of retainKeys");
    let names = names.as_array().ok_or_else(bad)?;
    let names: HashSet<&str> = names.iter().filter_map(Value::as_str).collect();
    let named = |key: &str| names.contains(key);
    for (key, value) in patch {
        let directive = key.starts_with(ORDER) || key.starts_with(DELETE);
        if !value.is_null() && !directive && !named(key) {
            return Err(bad());
        }
    }
    target.retain(|key, _| named(key));
    Ok(())
}

/// `$setElementOrder/name`: merges the list, and takes it out of the patch.
fn set_order(
    target: &mut Object,
    patch: &mut Object,
    name: &str,
    order: &[Value],
    types: Types,
) -> Result<(), Status> {
    let (shape, strategy) = types.field(name);
    let key = strategy.merge.flatten();
    let changes = match patch.get_mut(name) {
        Some(Value::Array(items)) => {
            let items = std::mem::take(items);
            patch.remove(name);
            Some(items)
        }
        // Of another type, or to be removed: not a matter of order.
        Some(_) => return Ok(()),
        None => None,
    };
    let order: Vec<Id> = order
        .iter()
        .map(|item| list::id(item, key))
        .collect::<Result<_, _>>()?;
    if let Some(changes) = &changes {
        list::check_order(changes, &order, key)?;
    }
    let live = match target.get_mut(name) {
        Some(Value::Array(items)) => Some(std::mem::take(items)),
        _ => None,
    };
    let before: Vec<Id> = live
        .iter()
        .flatten()
        .map(|item| list::live_id(item, key))
        .collect();
    let merged = match (live, changes) {
        (None, None) => return Ok(()),
        (Some(live), None) => live,
        (None, Some(changes)) => clean_items(changes),
        (Some(live), Some(changes)) => match strategy.merge {
            Some(by) => list::merge(live, changes, by, Types::in_items(shape))?,
            None => clean_items(changes),
        },
    };
    let merged = list::arrange(merged, &order, &before, key);
    target.insert(name.to_owned(), Value::Array(merged));
    Ok(())
}

/// `$deleteFromPrimitiveList/name`: these values go.
fn delete_from(target: &mut Object, name: &str, values: &Value) -> Result<(), Status> {
    let Value::Array(values) = values else {
        return Err(Status::bad_request(
            "invalid patch format of primitive list",
        ));
    };
    if let Some(Value::Array(items)) = target.get_mut(name) {
        let gone: HashSet<Id> = values.iter().map(Value::to_string).collect();
        items.retain(|item| !gone.contains(&item.to_string()));
    }
    Ok(())
}

/// A value of a patch, where the object has none: without directives and without the nulls that would have removed
/// something. None for what says that it be deleted.
pub(super) fn clean(value: Value) -> Option<Value> {
    match value {
        Value::Object(map) if map.get(DIRECTIVE).and_then(Value::as_str) == Some("delete") => None,
        Value::Object(map) => Some(Value::Object(cleaned(map))),
        Value::Array(items) => Some(Value::Array(clean_items(items))),
        value => Some(value),
    }
}

fn clean_items(items: Vec<Value>) -> Vec<Value> {
    items
        .into_iter()
        .filter(|item| !says_replace(item))
        .filter_map(clean)
        .collect()
}

fn cleaned(map: Object) -> Object {
    map.into_iter()
        .filter(|(key, value)| !is_directive(key) && !value.is_null())
        .filter_map(|(key, value)| Some((key, clean(value)?)))
        .collect::<Map<_, _>>()
}

/// An item that only tells that the list be replaced.
fn says_replace(item: &Value) -> bool {
    item.as_object()
        .is_some_and(|map| map.len() == 1 && map.contains_key(DIRECTIVE))
}

pub(super) fn is_directive(key: &str) -> bool {
    key == DIRECTIVE || key == RETAIN || key.starts_with(ORDER) || key.starts_with(DELETE)
}

/// The directive of a list's item.
pub(super) fn directive(item: &Value) -> Option<&Value> {
    item.get(DIRECTIVE)
}

pub(super) fn unknown_directive(directive: &Value, map: &Object) -> Status {
    let mut whole = map.clone();
    whole.insert(DIRECTIVE.to_owned(), directive.clone());
    Status::bad_request(format!(
        "unknown patch type: {} in map: {}",
        list::go(directive),
        list::go(&Value::Object(whole))
    ))
}
