//! What has changed between two states of an object.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::node::Node;
use super::set::Set;

/// Changes.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Has another value, or is new.
    pub(super) changed: Set,
    /// Is no more.
    pub(super) removed: Set,
}

impl Changes {
    pub(super) fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.removed.is_empty()
    }

    fn add(&mut self, element: impl FnOnce() -> String, below: Self) {
        if below.is_empty() {
            return;
        }
        let element = element();
        self.removed.insert(element.clone(), below.removed);
        self.changed.insert(element, below.changed);
    }
}

/// The changes from `old` to `new`.
///
/// A null in `new` is as good as nothing. In `old` it is a field that exists and has no value: what is put there is
/// changed in its parts, where something new is also changed as a whole.
pub(super) fn compare(old: Option<&Value>, new: Option<&Value>, node: Node) -> Changes {
    let new = new.filter(|value| !value.is_null());
    let mut changes = Changes::default();
    match (old, new) {
        (None | Some(Value::Null), None) => {}
        (Some(old), Some(new)) => {
            let (before, after) = (node.fitting(old), node.fitting(new));
            if matches!(before, Node::Leaf) || matches!(after, Node::Leaf) {
                // A value that does not fit its type is new as a whole.
                changes.changed.member = old != new;
            } else {
                parts(old, new, node, &mut changes);
            }
        }
        (None, Some(new)) => {
            parts(&Value::Null, new, node.fitting(new), &mut changes);
            changes.changed.member = true;
        }
        (Some(old), None) => {
            parts(old, &Value::Null, node.fitting(old), &mut changes);
            changes.changed.member = false;
            changes.removed.member = true;
        }
    }
    changes
}

fn parts(old: &Value, new: &Value, node: Node, changes: &mut Changes) {
    match node {
        Node::Leaf => {}
        Node::Struct(_) | Node::Map(_) | Node::Any => {
            let empty = Map::new();
            let (before, after) = (
                old.as_object().unwrap_or(&empty),
                new.as_object().unwrap_or(&empty),
            );
            if before.is_empty() && after.is_empty() {
                // Nothing to have parts; there or not is then all the difference.
                changes.changed.member = old != new;
                return;
            }
            for (key, value) in after {
                let below = compare(before.get(key), Some(value), node.at(key));
                changes.add(|| format!("f:{key}"), below);
            }
            for (key, value) in before {
                if !after.contains_key(key) {
                    let below = compare(Some(value), None, node.at(key));
                    changes.add(|| format!("f:{key}"), below);
                }
            }
        }
        Node::Items(..) | Node::Values => {
            if old == new {
                return;
            }
            let before = old.as_array().map(Vec::as_slice).unwrap_or_default();
            let after = new.as_array().map(Vec::as_slice).unwrap_or_default();
            if before.is_empty() && after.is_empty() {
                changes.changed.member = true;
                return;
            }
            items(before, after, node, changes);
        }
    }
}

fn items(before: &[Value], after: &[Value], node: Node, changes: &mut Changes) {
    let mut pairs: BTreeMap<String, (Vec<&Value>, Vec<&Value>)> = BTreeMap::new();
    for (element, item) in node.elements(before) {
        pairs.entry(element).or_default().0.push(item);
    }
    for (element, item) in node.elements(after) {
        pairs.entry(element).or_default().1.push(item);
    }
    for (element, (old, new)) in pairs {
        let below = match (old.as_slice(), new.as_slice()) {
            ([] | [_], [] | [_]) => {
                compare(old.first().copied(), new.first().copied(), node.item())
            }
            // Items with the same keys cannot be told apart.
            _ => {
                let mut below = Changes::default();
                below.removed.member = new.is_empty();
                below.changed.member = !new.is_empty() && old != new;
                below
            }
        };
        changes.add(|| element, below);
    }
}
