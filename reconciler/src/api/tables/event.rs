//! Events, in both of their views: core/v1 and events.k8s.io/v1 name the same things differently.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::object::{number, text};
use super::age;

/// The first of two names under which something is there.
fn either<'a>(event: &'a Value, core: &[&str], newer: &[&str]) -> &'a str {
    match text(event, core) {
        "" => text(event, newer),
        found => found,
    }
}

/// All cells but the name, which is last.
pub fn cells(event: &Value, now: Timestamp, out: &mut Vec<Value>) {
    let time = |keys: &[&str]| {
        keys.iter()
            .filter_map(|key| event.get(*key))
            .find(|time| !time.is_null())
    };
    let first = time(&["firstTimestamp", "deprecatedFirstTimestamp", "eventTime"]);
    let series = event.get("series").filter(|series| series.is_object());
    let last = match series {
        Some(series) => series.get("lastObservedTime"),
        None => time(&["lastTimestamp", "deprecatedLastTimestamp"]).or(first),
    };
    let count = match series {
        Some(series) => number(series, &["count"]).unwrap_or(0),
        None => ["count", "deprecatedCount"]
            .iter()
            .filter_map(|key| number(event, &[key]))
            .find(|count| *count != 0)
            .unwrap_or(1),
    };
    let about = |key| either(event, &["involvedObject", key], &["regarding", key]);
    let mut target = about("kind").to_lowercase();
    if !about("name").is_empty() {
        target.push('/');
        target.push_str(about("name"));
    }
    let source = |key| either(event, &["source", key], &["deprecatedSource", key]);
    let or = |found, names: [&str; 2]| match found {
        "" => either(event, &names[..1], &names[1..]),
        found => found,
    };
    let mut from = or(
        source("component"),
        ["reportingComponent", "reportingController"],
    )
    .to_owned();
    let instance = or(source("host"), ["reportingInstance", "reportingInstance"]);
    if !instance.is_empty() {
        from.push_str(", ");
        from.push_str(instance);
    }
    let message = either(event, &["message"], &["note"]).trim();
    out.extend([
        age::since(last, now).into(),
        text(event, &["type"]).into(),
        text(event, &["reason"]).into(),
        target.into(),
        about("fieldPath").into(),
        from.into(),
        message.into(),
        age::since(first, now).into(),
        json!(count),
    ]);
}
