//! Controllers of Pods, and selectors.

use jiff::Timestamp;
use serde_json::Value;

use super::super::object::{at, deleting, list, number, text};
use super::age;
use super::cells::{NONE, UNSET};

/// Names and images of a Pod's containers: two cells.
pub fn containers(spec: Option<&Value>, out: &mut Vec<Value>) {
    let containers = spec.map_or(&[] as &[_], |spec| list(spec, &["containers"]));
    for key in ["name", "image"] {
        let all: Vec<_> = containers.iter().map(|one| text(one, &[key])).collect();
        out.push(all.join(",").into());
    }
}

/// `app=x,tier=y` of plain labels.
pub fn pairs(labels: Option<&Value>) -> String {
    let mut pairs: Vec<_> = labels
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    pairs.sort_unstable();
    if pairs.is_empty() {
        return NONE.to_owned();
    }
    pairs.join(",")
}

/// `a=1,app in (x,y),!z`: a label selector, its requirements in the order of their keys.
pub fn label_selector(selector: Option<&Value>) -> String {
    let Some(selector) = selector.filter(|selector| selector.is_object()) else {
        return NONE.to_owned();
    };
    let labels = at(selector, &["matchLabels"]).and_then(Value::as_object);
    let mut requirements: Vec<(&str, String)> = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| {
            let value = value.as_str().unwrap_or_default();
            (key.as_str(), format!("{key}={value}"))
        })
        .collect();
    for expression in list(selector, &["matchExpressions"]) {
        let key = text(expression, &["key"]);
        let mut values: Vec<_> = list(expression, &["values"])
            .iter()
            .filter_map(Value::as_str)
            .collect();
        values.sort_unstable();
        let values = values.join(",");
        let requirement = match text(expression, &["operator"]) {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            _ => return "<error>".to_owned(),
        };
        requirements.push((key, requirement));
    }
    requirements.sort_by_key(|(key, _)| *key);
    if requirements.is_empty() {
        return NONE.to_owned();
    }
    let texts: Vec<_> = requirements.into_iter().map(|(_, text)| text).collect();
    texts.join(",")
}

/// `statefulset.apps/sts`: the owner that controls an object.
pub fn controller(object: &Value) -> String {
    let owners = list(object, &["metadata", "ownerReferences"]);
    let Some(owner) = owners
        .iter()
        .find(|owner| owner.get("controller") == Some(&Value::Bool(true)))
    else {
        return NONE.to_owned();
    };
    let kind = text(owner, &["kind"]);
    let kind = match text(owner, &["apiVersion"]).split_once('/') {
        Some((group, _)) => format!("{kind}.{group}"),
        None => kind.to_owned(),
    };
    format!("{}/{}", kind.to_lowercase(), text(owner, &["name"]))
}

/// `True`, `False`
pub fn suspended(job: &Value) -> String {
    match at(job, &["spec", "suspend"]).and_then(Value::as_bool) {
        Some(true) => "True",
        Some(false) => "False",
        None => UNSET,
    }
    .to_owned()
}

/// What a Job is doing.
pub fn job_status(job: &Value) -> String {
    let has = |kind: &&str| {
        list(job, &["status", "conditions"])
            .iter()
            .any(|condition| {
                text(condition, &["type"]) == *kind && text(condition, &["status"]) == "True"
            })
    };
    let ended = ["Complete", "Failed"].into_iter().find(has);
    let going = || {
        ["Suspended", "FailureTarget", "SuccessCriteriaMet"]
            .into_iter()
            .find(has)
            .unwrap_or("Running")
    };
    match ended {
        Some(ended) => ended,
        None if deleting(job) => "Terminating",
        None => going(),
    }
    .to_owned()
}

/// `0/1`; `0/1 of 5` when five Pods work on one result.
pub fn completions(job: &Value) -> String {
    let succeeded = number(job, &["status", "succeeded"]).unwrap_or(0);
    let parallel = number(job, &["spec", "parallelism"]).unwrap_or(0);
    match number(job, &["spec", "completions"]) {
        Some(wanted) => format!("{succeeded}/{wanted}"),
        None if parallel > 1 => format!("{succeeded}/1 of {parallel}"),
        None => format!("{succeeded}/1"),
    }
}

/// How long a Job has run; empty until it starts.
pub fn duration(job: &Value, now: Timestamp, out: &mut Vec<Value>) {
    let time = |key| age::time(at(job, &["status", key]));
    let text = time("startTime").map(|start| {
        let end = time("completionTime").unwrap_or(now);
        age::human(end.duration_since(start))
    });
    out.push(text.unwrap_or_default().into());
}

/// `2`, `50%`, `N/A`
pub fn number_or_percent(field: Option<&Value>) -> String {
    match field {
        Some(Value::String(percent)) => percent.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => "N/A".to_owned(),
    }
}
