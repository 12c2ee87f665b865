//! What server-side apply sees in a place of an object: something with one owner, or with parts of their own.

use serde_json::Value;

use super::super::schema::{self, Field, ListType, Shape, Type};

/// The only key of lists that has a default (as JSON): ports have it.
const DEFAULTED: (&str, &str) = ("protocol", "\"TCP\"");

/// A place.
#[derive(Clone, Copy, Debug)]
pub(super) enum Node {
    /// One value with one owner.
    Leaf,
    /// An object with the fields of a type.
    Struct(&'static Type),
    /// An object with any keys.
    Map(&'static Shape),
    /// A list whose items are told apart by these fields.
    Items(&'static [&'static str], &'static Shape),
    /// A list whose values each have their owners.
    Values,
    /// Any JSON: objects have parts, all else is a leaf.
    Any,
}

impl Node {
    fn of(field: &'static Field) -> Self {
        match (&field.shape, &field.list_type) {
            _ if field.atomic_map => Self::Leaf,
            (Shape::List(item), ListType::Map(keys)) => Self::Items(keys, item),
            (Shape::List(_), ListType::Set) => Self::Values,
            (shape, _) => Self::of_shape(shape),
        }
    }

    /// Of what is no field: an item, or the value of a map.
    pub(super) fn of_shape(shape: &'static Shape) -> Self {
        match shape {
            Shape::Object(name) => {
                let found = schema::object(name);
                if found.atomic {
                    Self::Leaf
                } else {
                    Self::Struct(found)
                }
            }
            Shape::Map(values) => Self::Map(values),
            Shape::Raw => Self::Any,
            _ => Self::Leaf,
        }
    }

    /// The place at a key of an object; [`Self::Leaf`] for a field that the type does not have.
    pub(super) fn at(self, key: &str) -> Self {
        match self {
            Self::Struct(found) => match key {
                "apiVersion" | "kind" => Self::Leaf,
                _ => found.field(key).map_or(Self::Leaf, Self::of),
            },
            Self::Map(values) => Self::of_shape(values),
            Self::Any => Self::Any,
            _ => Self::Leaf,
        }
    }

    /// Whether a field is known; any key of a map is.
    pub(super) fn knows(self, key: &str) -> bool {
        match self {
            Self::Struct(found) => {
                found.field(key).is_some() || (found.typed && ["apiVersion", "kind"].contains(&key))
            }
            _ => true,
        }
    }

    /// The place of a list's items.
    pub(super) fn item(self) -> Self {
        match self {
            Self::Items(_, item) => Self::of_shape(item),
            _ => Self::Leaf,
        }
    }

    /// The place, by what a value really is: one that does not fit its type has no parts.
    pub(super) fn fitting(self, value: &Value) -> Self {
        match (self, value) {
            (_, Value::Null)
            | (Self::Struct(_) | Self::Map(_) | Self::Any, Value::Object(_))
            | (Self::Items(..) | Self::Values, Value::Array(_)) => self,
            _ => Self::Leaf,
        }
    }

    /// Why an item cannot be in this list, in the words of the reference.
    pub(super) fn misfit(self, item: &Value) -> Option<String> {
        let Self::Items(keys, _) = self else {
            return None;
        };
        let Value::Object(map) = item else {
            return Some("associative list with keys may not have non-map elements".to_owned());
        };
        let missing = keys
            .iter()
            .find(|key| **key != DEFAULTED.0 && !map.contains_key(**key))?;
        Some(format!(
            "associative list with keys has an element that omits key field {missing:?} (and doesn't have default value)"
        ))
    }

    /// What FieldsV1 calls an item of this list.
    pub(super) fn element(self, index: usize, item: &Value) -> String {
        match (self, item) {
            (Self::Items(keys, _), Value::Object(map)) => {
                let mut keys: Vec<&str> = keys.to_vec();
                keys.sort_unstable();
                let mut element = String::from("k:{");
                for key in keys {
                    let value = match map.get(key) {
                        Some(value) => value.to_string(),
                        None if key == DEFAULTED.0 => DEFAULTED.1.to_owned(),
                        None => continue,
                    };
                    if !element.ends_with('{') {
                        element.push(',');
                    }
                    element.push('"');
                    element.push_str(key);
                    element.push_str("\":");
                    element.push_str(&value);
                }
                element.push('}');
                element
            }
            (Self::Values, value) => format!("v:{value}"),
            _ => format!("i:{index}"),
        }
    }

    /// The items of a list, with what FieldsV1 calls them.
    pub(super) fn elements(self, items: &[Value]) -> impl Iterator<Item = (String, &Value)> {
        items
            .iter()
            .enumerate()
            .map(move |(index, item)| (self.element(index, item), item))
    }
}
