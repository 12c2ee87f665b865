//! A set of fields: a tree of path elements, and its form in `managedFields` (FieldsV1).
//!
//! Elements are kept as FieldsV1 writes them: `f:name` for a field, `k:{"name":"c"}` for the item of a list that is told
//! apart by keys, `v:"x"` for the item of a set, `i:0` for a place in a list.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// A set of fields; also each of its subtrees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    /// Whether the path to here belongs to the set, and not only paths below.
    pub member: bool,
    /// What lies below, by element; none of them is empty.
    children: BTreeMap<String, Self>,
}

/// FieldsV1 that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl Set {
    /// One that has only the path to itself.
    pub fn leaf() -> Self {
        Self {
            member: true,
            children: BTreeMap::new(),
        }
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        !self.member && self.children.is_empty()
    }

    /// What lies below an element.
    pub fn get(&self, element: &str) -> Option<&Self> {
        self.children.get(element)
    }

    /// What lies below, by element.
    pub fn children(&self) -> impl Iterator<Item = (&str, &Self)> {
        self.children
            .iter()
            .map(|(element, below)| (element.as_str(), below))
    }

    /// As [`children`](Self::children). None of them may be left empty.
    pub fn children_mut(&mut self) -> impl Iterator<Item = (&str, &mut Self)> {
        self.children
            .iter_mut()
            .map(|(element, below)| (element.as_str(), below))
    }

    /// Adds what lies below an element that is not there yet.
    pub fn insert(&mut self, element: String, below: Self) {
        if !below.is_empty() {
            self.children.insert(element, below);
        }
    }

    /// Adds all that another set has.
    pub fn unite(&mut self, other: Self) {
        self.member |= other.member;
        for (element, below) in other.children {
            match self.children.get_mut(&element) {
                Some(here) => here.unite(below),
                None => {
                    self.children.insert(element, below);
                }
            }
        }
    }

    /// Removes the paths that another set has; those below them stay.
    pub fn subtract(&mut self, other: &Self) {
        self.member &= !other.member;
        if self.children.is_empty() {
            return;
        }
        for (element, gone) in &other.children {
            if let Some(here) = self.children.get_mut(element) {
                here.subtract(gone);
                if here.is_empty() {
                    self.children.remove(element);
                }
            }
        }
    }

    /// The paths that both have.
    pub fn common(&self, other: &Self) -> Self {
        let mut set = Self {
            member: self.member && other.member,
            children: BTreeMap::new(),
        };
        for (element, below) in &self.children {
            if let Some(there) = other.children.get(element) {
                set.insert(element.clone(), below.common(there));
            }
        }
        set
    }

    /// Removes a path and all below it.
    pub fn prune(&mut self, path: &[&str]) {
        let [first, rest @ ..] = path else {
            return;
        };
        if rest.is_empty() {
            self.children.remove(*first);
        } else if let Some(below) = self.children.get_mut(*first) {
            below.prune(rest);
            if below.is_empty() {
                self.children.remove(*first);
            }
        }
    }

    /// Removes an element, and not what lies below it.
    pub fn disown(&mut self, element: &str) {
        if let Some(below) = self.children.get_mut(element) {
            below.member = false;
            if below.is_empty() {
                self.children.remove(element);
            }
        }
    }

    /// All paths, as messages write them: `.spec.containers[name="c"].image`.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.write_paths(&mut String::new(), &mut paths);
        paths
    }

    fn write_paths(&self, path: &mut String, paths: &mut Vec<String>) {
        if self.member {
            paths.push(path.clone());
        }
        let length = path.len();
        for (element, below) in &self.children {
            path.push_str(&readable(element));
            below.write_paths(path, paths);
            path.truncate(length);
        }
    }

    /// As FieldsV1.
    pub fn to_value(&self) -> Value {
        let mut map = Map::new();
        if self.member && !self.children.is_empty() {
            map.insert(".".to_owned(), json!({}));
        }
        for (element, below) in &self.children {
            map.insert(element.clone(), below.to_value());
        }
        Value::Object(map)
    }

    /// From FieldsV1. Elements of a sort that nobody knows are left out, as the reference does.
    ///
    /// # Errors
    /// It is no tree of objects, or one of its elements is malformed.
    pub fn from_value(value: &Value) -> Result<Self, Malformed> {
        let mut set = Self::below(value)?;
        set.member = false;
        Ok(set)
    }

    fn below(value: &Value) -> Result<Self, Malformed> {
        let map = value.as_object().ok_or(Malformed)?;
        let mut set = Self {
            member: map.is_empty(),
            children: BTreeMap::new(),
        };
        for (element, below) in map {
            if element == "." {
                set.member = true;
                continue;
            }
            let below = Self::below(below)?;
            if let Some(element) = canonical(element)? {
                set.insert(element, below);
            }
        }
        Ok(set)
    }
}

/// An element with its JSON written in the one way that sets are compared by.
fn canonical(element: &str) -> Result<Option<String>, Malformed> {
    let (sort, rest) = element.split_once(':').ok_or(Malformed)?;
    let json = |text: &str| serde_json::from_str::<Value>(text).map_err(|_| Malformed);
    Ok(match sort {
        "f" => Some(element.to_owned()),
        "k" => {
            let keys = json(rest)?;
            if !keys.is_object() {
                return Err(Malformed);
            }
            Some(format!("k:{keys}"))
        }
        "v" => Some(format!("v:{}", json(rest)?)),
        "i" => Some(format!("i:{}", rest.parse::<i64>().map_err(|_| Malformed)?)),
        _ if sort.len() == 1 => None,
        _ => return Err(Malformed),
    })
}

/// An element as messages write it.
pub(super) fn readable(element: &str) -> String {
    let (sort, rest) = element.split_once(':').unwrap_or_default();
    match sort {
        "f" => format!(".{rest}"),
        "k" => {
            let keys: Map<String, Value> = serde_json::from_str(rest).unwrap_or_default();
            let keys: Vec<_> = keys
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            format!("[{}]", keys.join(","))
        }
        "v" => format!("[={rest}]"),
        _ => format!("[{rest}]"),
    }
}
