//! Strategic merge patch: lists, and the order of their items.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::super::status::Status;
use super::rejected;
use super::strategic::{self, Types};

/// What tells an item from others: its merge key's value, or its own, as JSON.
pub(super) type Id = String;

/// The id of an item of a patch.
pub(super) fn id(item: &Value, key: Option<&str>) -> Result<Id, Status> {
    let Some(key) = key else {
        return Ok(item.to_string());
    };
    match item {
        Value::Object(map) => map
            .get(key)
            .map(Value::to_string)
            .ok_or_else(|| no_merge_key(item, key)),
        _ => Err(rejected()),
    }
}

/// The id of an item that is there. One without a key is only equal to itself.
pub(super) fn live_id(item: &Value, key: Option<&str>) -> Id {
    id(item, key).unwrap_or_else(|_| item.to_string())
}

/// Merges the items of a patch into a list: objects by their key, plain values as a set.
pub(super) fn merge(
    mut live: Vec<Value>,
    changes: Vec<Value>,
    key: Option<&str>,
    types: Types,
) -> Result<Vec<Value>, Status> {
    if changes.iter().any(Value::is_array) {
        return Err(rejected());
    }
    let Some(key) = key else {
        return merge_values(live, changes);
    };
    let mut replace = false;
    let mut gone = HashSet::new();
    let mut rest = Vec::with_capacity(changes.len());
    for item in changes {
        let Some(directive) = strategic::directive(&item) else {
            rest.push((id(&item, Some(key))?, item));
            continue;
        };
        match (directive.as_str(), &item) {
            (Some("delete"), _) => {
                gone.insert(id(&item, Some(key))?);
            }
            (Some("replace"), _) => replace = true,
            (Some("merge"), _) => {
                return Err(unprocessable(
                    "merging lists cannot yet be specified in the patch".to_owned(),
                ));
            }
            (_, Value::Object(map)) => return Err(strategic::unknown_directive(directive, map)),
            _ => return Err(rejected()),
        }
    }
    if replace {
        live.clear();
    } else {
        live.retain(|item| !gone.contains(&live_id(item, Some(key))));
    }
    let before: Vec<Id> = live.iter().map(|item| live_id(item, Some(key))).collect();
    let mut places: HashMap<Id, usize> = HashMap::new();
    for (place, id) in before.iter().enumerate() {
        places.entry(id.clone()).or_insert(place);
    }
    let order: Vec<Id> = rest.iter().map(|(id, _)| id.clone()).collect();
    for (id, item) in rest {
        match (places.get(&id).and_then(|place| live.get_mut(*place)), item) {
            (Some(Value::Object(old)), Value::Object(new)) => strategic::object(old, new, types)?,
            (Some(_), _) => return Err(rejected()),
            (None, item) => {
                places.insert(id, live.len());
                live.extend(strategic::clean(item));
            }
        }
    }
    if replace {
        return Ok(live);
    }
    Ok(arrange(live, &order, &before, Some(key)))
}

fn merge_values(live: Vec<Value>, changes: Vec<Value>) -> Result<Vec<Value>, Status> {
    if changes.iter().any(Value::is_object) {
        return Err(rejected());
    }
    let before: Vec<Id> = live.iter().map(Value::to_string).collect();
    let order: Vec<Id> = changes.iter().map(Value::to_string).collect();
    let mut seen = HashSet::new();
    let all = live
        .into_iter()
        .chain(changes)
        .filter(|value| !value.is_null() && seen.insert(value.to_string()))
        .collect();
    Ok(arrange(all, &order, &before, None))
}

/// Puts items in the order that a patch wants.
///
/// Those that the patch names stand as it names them. The others keep their order, and each goes before the first named
/// item that it was before; one that was before none of them goes to the end. So an item that is new comes before all
/// that the patch does not name.
pub(super) fn arrange(
    items: Vec<Value>,
    order: &[Id],
    before: &[Id],
    key: Option<&str>,
) -> Vec<Value> {
    let index = |ids: &[Id]| {
        let mut places: HashMap<Id, usize> = HashMap::new();
        for (place, id) in ids.iter().enumerate() {
            places.entry(id.clone()).or_insert(place);
        }
        places
    };
    let (wanted, was) = (index(order), index(before));
    let (mut named, mut others) = (Vec::new(), Vec::new());
    for item in items {
        let id = live_id(&item, key);
        let old = was.get(&id).copied();
        match wanted.get(&id) {
            Some(place) => named.push((*place, old, item)),
            None => others.push((old, item)),
        }
    }
    named.sort_by_key(|(place, ..)| *place);
    others.sort_by_key(|(old, _)| old.unwrap_or(usize::MAX));
    let mut result = Vec::with_capacity(named.len() + others.len());
    let mut others = others.into_iter().peekable();
    for (_, old, item) in named {
        while let Some((_, other)) = others.next_if(|(other, _)| match (*other, old) {
            (Some(other), Some(old)) => other < old,
            _ => false,
        }) {
            result.push(other);
        }
        result.push(item);
    }
    result.extend(others.map(|(_, item)| item));
    result
}

/// The items of a patch must stand as its `$setElementOrder` says; those that it deletes do not count.
pub(super) fn check_order(
    changes: &[Value],
    order: &[Id],
    key: Option<&str>,
) -> Result<(), Status> {
    let mut rest = order.iter();
    for item in changes {
        if strategic::directive(item).is_some() {
            continue;
        }
        let id = id(item, key)?;
        if !rest.any(|ordered| *ordered == id) {
            let order: Vec<_> = order.iter().map(String::as_str).collect();
            return Err(unprocessable(format!(
                "The order in patch list:\n{}\n doesn't match $setElementOrder list:\n[{}]\n",
                go(&Value::Array(changes.to_vec())),
                order.join(" ")
            )));
        }
    }
    Ok(())
}

fn no_merge_key(item: &Value, key: &str) -> Status {
    unprocessable(format!(
        "map: {} does not contain declared merge key: {key}",
        go(item)
    ))
}

fn unprocessable(message: String) -> Status {
    Status::new(422, "Invalid", message)
}

/// A value as Go prints it (`%v`).
pub(super) fn go(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(go).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Object(map) => {
            let entries: Vec<_> = map
                .iter()
                .map(|(key, value)| format!("{key}:{}", go(value)))
                .collect();
            format!("map[{}]", entries.join(" "))
        }
        value => value.to_string(),
    }
}
