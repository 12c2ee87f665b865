//! Deployments, ReplicaSets, ReplicationControllers, DaemonSets, StatefulSets, ControllerRevisions, and disruption
//! budgets.

use serde_json::{Value, json};

use super::at::At;
use super::{metadata, pod};
use crate::api::defaults::same;
use crate::api::status::Cause;

/// A Deployment, ReplicaSet, DaemonSet or StatefulSet.
pub fn workload(kind: &str, root: &At<'_>, causes: &mut Vec<Cause>) {
    let spec = root.field("spec");
    for key in ["replicas", "minReadySeconds", "revisionHistoryLimit"] {
        spec.field(key).non_negative(causes);
    }
    let selector = spec.field("selector");
    if selector.is_set() {
        metadata::selector(&selector, causes);
        if selector.field("matchLabels").count() + selector.field("matchExpressions").count() == 0 {
            // What the reference says of a ReplicaSet too.
            let kind = match kind {
                "ReplicaSet" => "deployment".to_owned(),
                kind => kind.to_lowercase(),
            };
            selector.invalid(causes, &format!("empty selector is invalid for {kind}"));
        }
    } else {
        selector.required(causes, "");
    }
    template(kind, &spec, selector.value, causes);
    match kind {
        "Deployment" => deployment(&spec, causes),
        "DaemonSet" => daemon_set(&spec, causes),
        "StatefulSet" => stateful_set(&spec, causes),
        _ => {}
    }
}

/// A ReplicationController.
pub fn replication_controller(root: &At<'_>, causes: &mut Vec<Cause>) {
    let spec = root.field("spec");
    spec.field("minReadySeconds").non_negative(causes);
    let selector = spec.field("selector");
    if selector.is_empty() {
        selector.required(causes, "");
    }
    spec.field("replicas").non_negative(causes);
    if spec.field("template").is_set() {
        let selector = json!({"matchLabels": selector.value});
        template("ReplicationController", &spec, &selector, causes);
    } else {
        spec.field("template").required(causes, "");
    }
}

/// A template whose Pods the selector finds, and that run for ever.
fn template(kind: &str, spec: &At<'_>, selector: &Value, causes: &mut Vec<Cause>) {
    let template = spec.field("template");
    selected(&template, selector, causes);
    let claims = spec.field("volumeClaimTemplates");
    let claims: Vec<_> = claims
        .items()
        .map(|claim| claim.value["metadata"]["name"].as_str().unwrap_or_default())
        .collect();
    pod::template(&template, &claims, causes);
    let pod = template.field("spec");
    let policy = pod.field("restartPolicy");
    if !["", "Always"].contains(&policy.text()) {
        causes.push(Cause::not_supported(
            policy.path(),
            policy.value,
            &["Always"],
        ));
    }
    let deadline = pod.field("activeDeadlineSeconds");
    if deadline.is_set() {
        deadline.forbidden(
            causes,
            &format!("activeDeadlineSeconds in {kind} is not Supported"),
        );
    }
}

/// The labels of a template must be selected.
pub fn selected(template: &At<'_>, selector: &Value, causes: &mut Vec<Cause>) {
    let meta = template.field("metadata");
    let labels = meta.field("labels");
    let some = ["matchLabels", "matchExpressions"]
        .iter()
        .any(|key| At::root(selector).field(key).count() > 0);
    if some && !metadata::selects(selector, labels.value) {
        labels.invalid(causes, "`selector` does not match template `labels`");
    }
}

fn deployment(spec: &At<'_>, causes: &mut Vec<Cause>) {
    let strategy = spec.field("strategy");
    let (kind, rolling) = (strategy.field("type"), strategy.field("rollingUpdate"));
    kind.one_of_if_set(causes, &["Recreate", "RollingUpdate"]);
    match kind.text() {
        "Recreate" if rolling.is_set() => rolling.forbidden(
            causes,
            "may not be specified when strategy `type` is 'Recreate'",
        ),
        "RollingUpdate" if rolling.is_set() => self::rolling(&rolling, causes),
        "RollingUpdate" => {
            rolling.required(causes, "this should be defaulted and never be nil");
        }
        _ => {}
    }
    let deadline = spec.field("progressDeadlineSeconds");
    deadline.non_negative(causes);
    let ready = spec.field("minReadySeconds").number().unwrap_or(0);
    if deadline.number().is_some_and(|seconds| seconds <= ready) {
        deadline.invalid(causes, "must be greater than minReadySeconds");
    }
}

fn daemon_set(spec: &At<'_>, causes: &mut Vec<Cause>) {
    let strategy = spec.field("updateStrategy");
    let (kind, rolling) = (strategy.field("type"), strategy.field("rollingUpdate"));
    kind.one_of_if_set(causes, &["RollingUpdate", "OnDelete"]);
    if kind.text() != "RollingUpdate" {
        return;
    }
    if !rolling.is_set() {
        rolling.required(causes, "");
        return;
    }
    let (away, extra) = (rolling.field("maxUnavailable"), rolling.field("maxSurge"));
    share(&away, true, causes);
    share(&extra, true, causes);
    match (is_zero(away.value), is_zero(extra.value)) {
        (true, true) => away.invalid(causes, "cannot be 0 when `maxSurge` is 0"),
        (false, false) => extra.invalid(causes, "may not be set when `maxUnavailable` is non-zero"),
        _ => {}
    }
}

fn rolling(rolling: &At<'_>, causes: &mut Vec<Cause>) {
    let (away, extra) = (rolling.field("maxUnavailable"), rolling.field("maxSurge"));
    share(&away, true, causes);
    share(&extra, false, causes);
    if is_zero(away.value) && is_zero(extra.value) {
        away.invalid(causes, "may not be 0 when `maxSurge` is 0");
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::String(text) => text
            .trim_end_matches('%')
            .bytes()
            .all(|digit| digit == b'0'),
        value => value.as_i64().unwrap_or(0) == 0,
    }
}

/// A count or a share, that may not be more than all if it is part of a whole.
fn share(value: &At<'_>, part: bool, causes: &mut Vec<Cause>) {
    value.count_or_percent(causes);
    let percent = value.text().strip_suffix('%');
    if part && percent.is_some_and(|text| text.parse::<u32>().is_ok_and(|share| share > 100)) {
        value.invalid(causes, "must not be greater than 100%");
    }
}

fn stateful_set(spec: &At<'_>, causes: &mut Vec<Cause>) {
    let word = |at: &At<'_>, one: &str, other: &str, causes: &mut Vec<Cause>| {
        if at.is_empty() {
            at.required(causes, "");
        } else if ![one, other].contains(&at.text()) {
            at.invalid(causes, &format!("must be '{one}' or '{other}'"));
        }
    };
    word(
        &spec.field("podManagementPolicy"),
        "OrderedReady",
        "Parallel",
        causes,
    );
    let strategy = spec.field("updateStrategy");
    word(&strategy.field("type"), "RollingUpdate", "OnDelete", causes);
    let rolling = strategy.field("rollingUpdate");
    if strategy.field("type").text() == "OnDelete" && rolling.is_set() {
        rolling.invalid(causes, "only allowed for updateStrategy 'RollingUpdate'");
    }
    rolling.field("partition").non_negative(causes);
    let retention = spec.field("persistentVolumeClaimRetentionPolicy");
    for key in ["whenDeleted", "whenScaled"] {
        let policy = retention.field(key);
        policy.one_of_if_set(causes, &["Retain", "Delete"]);
    }
    spec.field("ordinals").field("start").non_negative(causes);
}

/// What may not change in a workload.
pub fn update(kind: &str, new: &At<'_>, old: &At<'_>, causes: &mut Vec<Cause>) {
    let (spec, before) = (new.field("spec"), old.field("spec"));
    match kind {
        "Deployment" | "ReplicaSet" | "DaemonSet" => {
            let selector = spec.field("selector");
            selector.immutable(causes, &before.field("selector"));
        }
        "StatefulSet" => {
            const FREE: [&str; 7] = [
                "replicas",
                "ordinals",
                "template",
                "updateStrategy",
                "revisionHistoryLimit",
                "persistentVolumeClaimRetentionPolicy",
                "minReadySeconds",
            ];
            let keys = |spec: &At<'_>| -> Vec<String> {
                spec.entries().map(|(key, _)| key.to_owned()).collect()
            };
            let changed = keys(&spec)
                .iter()
                .chain(&keys(&before))
                .filter(|key| !FREE.contains(&key.as_str()))
                .any(|key| !same(Some(spec.field(key).value), Some(before.field(key).value)));
            if changed {
                spec.forbidden(
                    causes,
                    "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
                );
            }
        }
        _ => {}
    }
}

/// A ControllerRevision.
pub fn revision(root: &At<'_>, causes: &mut Vec<Cause>) {
    let data = root.field("data");
    if !data.is_set() {
        data.required(causes, "data is mandatory");
    }
    root.field("revision").non_negative(causes);
}

/// A PodDisruptionBudget.
pub fn budget(root: &At<'_>, causes: &mut Vec<Cause>) {
    let spec = root.field("spec");
    let (least, most) = (spec.field("minAvailable"), spec.field("maxUnavailable"));
    if least.is_set() && most.is_set() {
        spec.invalid(causes, "minAvailable and maxUnavailable cannot be both set");
    }
    share(&least, true, causes);
    share(&most, true, causes);
    metadata::selector(&spec.field("selector"), causes);
    spec.field("unhealthyPodEvictionPolicy")
        .one_of_if_set(causes, &["AlwaysAllow", "IfHealthyBudget"]);
}
