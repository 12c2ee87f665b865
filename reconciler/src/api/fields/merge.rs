//! Putting an applied object into the live one, and taking fields out.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::node::Node;
use super::set::Set;

/// The live value with what is applied in it.
pub(super) fn merge(live: &mut Value, applied: &Value, node: Node) {
    let fits = |value: &Value| !value.is_null() && !matches!(node.fitting(value), Node::Leaf);
    if !fits(live) || !fits(applied) {
        live.clone_from(applied);
        return;
    }
    match (live, applied) {
        (Value::Object(live), Value::Object(applied)) => {
            for (key, value) in applied {
                match live.get_mut(key) {
                    _ if value.is_null() => {
                        live.remove(key);
                    }
                    Some(part) => merge(part, value, node.at(key)),
                    None => {
                        live.insert(key.clone(), value.clone());
                    }
                }
            }
        }
        (Value::Array(live), Value::Array(applied)) => {
            *live = items(std::mem::take(live), applied, node);
        }
        _ => {}
    }
}

/// Applied items stand as they are applied; between them, those that only the live list has stay behind those that they
/// followed.
fn items(live: Vec<Value>, applied: &[Value], node: Node) -> Vec<Value> {
    let wanted: Vec<String> = node.elements(applied).map(|(element, _)| element).collect();
    let named: HashSet<&str> = wanted.iter().map(String::as_str).collect();
    let mut shared: HashMap<String, Value> = HashMap::new();
    // Places are of shared items or hold one that only the live list has.
    let mut places: Vec<(String, Option<Value>)> = Vec::with_capacity(live.len());
    for (index, item) in live.into_iter().enumerate() {
        let element = node.element(index, &item);
        if named.contains(element.as_str()) {
            shared.entry(element.clone()).or_insert(item);
            places.push((element, None));
        } else {
            places.push((element, Some(item)));
        }
    }
    let is_shared: HashSet<String> = shared.keys().cloned().collect();
    let mut result = Vec::with_capacity(places.len() + applied.len());
    let mut places = places.into_iter().peekable();
    let mut next_shared = wanted
        .iter()
        .filter(|element| is_shared.contains(*element))
        .peekable();
    for (element, item) in wanted.iter().zip(applied) {
        let stop = next_shared.peek().map(|element| element.as_str());
        while let Some((_, only_live)) = places
            .next_if(|(element, only_live)| only_live.is_some() || Some(element.as_str()) != stop)
        {
            result.extend(only_live);
        }
        if stop == Some(element.as_str()) {
            next_shared.next();
            places.next();
        }
        let mut merged = shared.remove(element).unwrap_or(Value::Null);
        merge(&mut merged, item, node.item());
        result.push(merged);
    }
    result.extend(places.filter_map(|(_, only_live)| only_live));
    result
}

/// Takes the members of a set out of a value. Lists and maps that become empty go, unless somebody owns them.
pub(super) fn remove(value: &mut Value, gone: &Set, owned: Option<&Set>, node: Node) {
    let owned_at = |element: &str| owned.and_then(|owned| owned.get(element));
    match (node.fitting(value), value) {
        (node @ (Node::Struct(_) | Node::Map(_) | Node::Any), Value::Object(map)) => {
            for (element, below) in gone.children() {
                let Some(key) = element.strip_prefix("f:") else {
                    continue;
                };
                if below.member {
                    map.remove(key);
                } else if let Some(part) = map.get_mut(key) {
                    let full = !is_empty(part);
                    let (at, owned) = (node.at(key), owned_at(element));
                    remove(part, below, owned, at);
                    let stays =
                        owned.is_some_and(|owned| owned.member) || matches!(at, Node::Struct(_));
                    if full && is_empty(part) && !stays {
                        map.remove(key);
                    }
                }
            }
        }
        (node @ (Node::Items(..) | Node::Values), Value::Array(items)) => {
            let mut index = 0;
            items.retain_mut(|item| {
                let element = node.element(index, item);
                index += 1;
                match gone.get(&element) {
                    Some(below) if below.member => false,
                    Some(below) => {
                        remove(item, below, owned_at(&element), node.item());
                        true
                    }
                    None => true,
                }
            });
        }
        _ => {}
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

/// Fields of structs belong to a set as soon as something in them does: who owns a part of a struct keeps it there.
pub(super) fn with_parents(set: &mut Set, node: Node) {
    for (element, below) in set.children_mut() {
        let at = match element.strip_prefix("f:") {
            Some(key) => node.at(key),
            None => node.item(),
        };
        with_parents(below, at);
        if let (Node::Struct(_), Some(key)) = (node, element.strip_prefix("f:")) {
            below.member |= node.knows(key);
        }
    }
}
