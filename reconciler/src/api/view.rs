//! A second view of stored objects: `events.k8s.io` Events are the core group's under other names.
//!
//! Source: `k8s.io/kubernetes/pkg/apis/events/v1` conversion.

use std::borrow::Cow;

use serde_json::Value;

use super::kinds::{self, Kind};

/// Core name, and the name in events.k8s.io.
const EVENT: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

fn is_view(kind: &Kind) -> bool {
    kind.group == "events.k8s.io"
}

/// The kind under which objects of this kind are stored.
pub fn stored(kind: &'static Kind) -> &'static Kind {
    if is_view(kind) {
        kinds::find("", "v1", kind.plural).unwrap_or(kind)
    } else {
        kind
    }
}

/// Whether what is stored is what is shown.
pub fn is_plain(kind: &Kind) -> bool {
    !is_view(kind)
}

/// From what is stored to what is shown.
pub fn show(kind: &Kind, object: &mut Value) {
    if is_view(kind) {
        rename(kind, object, |(stored, shown)| (stored, shown));
    }
}

/// From what a client wrote to what is stored.
pub fn store(kind: &'static Kind, object: &mut Value) {
    if is_view(kind) {
        rename(stored(kind), object, |(stored, shown)| (shown, stored));
    }
}

/// A copy as it is shown, or the object itself.
pub fn shown<'a>(kind: &Kind, object: &'a Value) -> Cow<'a, Value> {
    if is_view(kind) {
        let mut copy = object.clone();
        show(kind, &mut copy);
        Cow::Owned(copy)
    } else {
        Cow::Borrowed(object)
    }
}

type Names = (&'static str, &'static str);

fn rename(kind: &Kind, object: &mut Value, direction: impl Fn(Names) -> Names) {
    let Some(map) = object.as_object_mut() else {
        return;
    };
    for names in EVENT {
        let (from, to) = direction(*names);
        if let Some(value) = map.remove(from) {
            map.insert(to.to_owned(), value);
        }
    }
    map.insert("apiVersion".into(), kind.api_version().into());
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_is_the_same_by_both_names() {
        let view = kinds::find("events.k8s.io", "v1", "events").unwrap();
        let core = json!({"apiVersion": "v1", "kind": "Event", "message": "m", "involvedObject": {"name": "a"}, "type": "Normal"});
        let mut object = core.clone();
        show(view, &mut object);
        assert_eq!(
            object,
            json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "note": "m", "regarding": {"name": "a"}, "type": "Normal"})
        );
        store(view, &mut object);
        assert_eq!(object, core);
        assert_eq!(stored(view).group, "");
    }
}
