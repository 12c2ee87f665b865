//! What makes Pods: Deployments and their like, Jobs and CronJobs.

use serde_json::{Value, json};

use super::fields::{child, items, make, unset, word_default};
use super::{pod, storage};
use crate::api::object::{self, Object};

/// How many old revisions are kept.
const HISTORY: i64 = 10;

/// A Deployment.
pub fn deployment(deployment: &mut Object) {
    let Some(spec) = make(deployment, "spec") else {
        return;
    };
    object::default(spec, "replicas", 1);
    object::default(spec, "revisionHistoryLimit", HISTORY);
    object::default(spec, "progressDeadlineSeconds", 600);
    rolling(
        spec,
        "strategy",
        &[("maxUnavailable", json!("25%")), ("maxSurge", json!("25%"))],
    );
    pod::template(spec);
}

/// A DaemonSet.
pub fn daemon_set(set: &mut Object) {
    let Some(spec) = make(set, "spec") else {
        return;
    };
    object::default(spec, "revisionHistoryLimit", HISTORY);
    rolling(
        spec,
        "updateStrategy",
        &[("maxUnavailable", json!(1)), ("maxSurge", json!(0))],
    );
    pod::template(spec);
}

/// A StatefulSet.
pub fn stateful_set(set: &mut Object) {
    let Some(spec) = make(set, "spec") else {
        return;
    };
    object::default(spec, "replicas", 1);
    object::default(spec, "revisionHistoryLimit", HISTORY);
    word_default(spec, "podManagementPolicy", "OrderedReady");
    rolling(spec, "updateStrategy", &[("partition", json!(0))]);
    if let Some(retention) = make(spec, "persistentVolumeClaimRetentionPolicy") {
        word_default(retention, "whenDeleted", "Retain");
        word_default(retention, "whenScaled", "Retain");
    }
    for claim in items(spec, "volumeClaimTemplates") {
        word_default(claim, "kind", "PersistentVolumeClaim");
        word_default(claim, "apiVersion", "v1");
        make(claim, "metadata");
        storage::claim(claim);
    }
    pod::template(spec);
}

/// A ReplicaSet.
pub fn replica_set(set: &mut Object) {
    if let Some(spec) = make(set, "spec") {
        object::default(spec, "replicas", 1);
        pod::template(spec);
    }
}

/// A ReplicationController: what it does not say is in the labels of its template.
pub fn replication_controller(controller: &mut Object) {
    let Some(spec) = make(controller, "spec") else {
        return;
    };
    object::default(spec, "replicas", 1);
    if spec
        .get("template")
        .is_some_and(|template| !template.is_null())
    {
        pod::template(spec);
    }
    let Some(labels) = template_labels(spec) else {
        return;
    };
    if unset(spec, "selector") {
        spec.insert("selector".to_owned(), labels.clone());
    }
    own_labels(controller, labels);
}

/// A Job.
pub fn job(job: &mut Object) {
    let Some(spec) = make(job, "spec") else {
        return;
    };
    let absent = |spec: &Object, key| spec.get(key).is_none_or(Value::is_null);
    if absent(spec, "completions") && absent(spec, "parallelism") {
        spec.insert("completions".to_owned(), json!(1));
    }
    object::default(spec, "parallelism", 1);
    let per_index = !absent(spec, "backoffLimitPerIndex");
    object::default(spec, "backoffLimit", if per_index { i32::MAX } else { 6 });
    object::default(spec, "completionMode", "NonIndexed");
    object::default(spec, "suspend", false);
    object::default(spec, "manualSelector", false);
    let policy = if absent(spec, "podFailurePolicy") {
        "TerminatingOrFailed"
    } else {
        "Failed"
    };
    object::default(spec, "podReplacementPolicy", policy);
    for rule in child(spec, "podFailurePolicy")
        .into_iter()
        .flat_map(|policy| items(policy, "rules"))
    {
        for pattern in items(rule, "onPodConditions") {
            word_default(pattern, "status", "True");
        }
    }
    pod::template(spec);
    if let Some(labels) = template_labels(spec) {
        own_labels(job, labels);
    }
}

/// A CronJob. The Job's own defaults come when it is made.
pub fn cron_job(job: &mut Object) {
    let Some(spec) = make(job, "spec") else {
        return;
    };
    word_default(spec, "concurrencyPolicy", "Allow");
    object::default(spec, "suspend", false);
    object::default(spec, "successfulJobsHistoryLimit", 3);
    object::default(spec, "failedJobsHistoryLimit", 1);
    if let Some(template) = make(spec, "jobTemplate") {
        make(template, "metadata");
        if let Some(spec) = make(template, "spec") {
            pod::template(spec);
        }
    }
}

/// Gives a new Job the selector that finds its Pods by the Job's uid, and the labels that go with it.
pub fn job_selector(job: &mut Object) {
    let metadata = job.get("metadata");
    let get = |key| metadata.and_then(|metadata| metadata.get(key)).cloned();
    let (Some(uid), Some(name)) = (get("uid"), get("name")) else {
        return;
    };
    let Some(spec) = child(job, "spec") else {
        return;
    };
    if spec.get("manualSelector") == Some(&Value::Bool(true)) {
        return;
    }
    if let Some(labels) = child(spec, "template")
        .and_then(|template| make(template, "metadata"))
        .and_then(|metadata| make(metadata, "labels"))
    {
        for (prefix, value) in [("controller-uid", &uid), ("job-name", &name)] {
            object::default(labels, prefix, value.clone());
            let qualified = format!("batch.kubernetes.io/{prefix}");
            object::default(labels, &qualified, value.clone());
        }
    }
    if let Some(labels) = make(spec, "selector").and_then(|selector| make(selector, "matchLabels"))
    {
        object::default(labels, "batch.kubernetes.io/controller-uid", uid);
    }
}

/// The annotation in which a DaemonSet counts the changes of its template.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

/// Counts a DaemonSet's templates: 1 at first, one more when it differs from the old one's.
pub fn template_generation(set: &mut Object, old: Option<&Value>) {
    let counted = old
        .and_then(|old| object::at(old, &["metadata", "annotations", TEMPLATE_GENERATION]))
        .and_then(Value::as_str)
        .and_then(|count| count.parse::<i64>().ok())
        .unwrap_or(0)
        .max(0);
    let template = set.get("spec").and_then(|spec| spec.get("template"));
    let before = old.and_then(|old| object::at(old, &["spec", "template"]));
    let count = match (old, super::same(template, before)) {
        (Some(_), true) => counted.max(1),
        _ => counted.saturating_add(1),
    };
    if let Some(annotations) =
        make(set, "metadata").and_then(|metadata| make(metadata, "annotations"))
    {
        annotations.insert(TEMPLATE_GENERATION.to_owned(), json!(count.to_string()));
    }
}

/// How Pods are replaced: rolling unless it says otherwise.
fn rolling(spec: &mut Object, key: &str, defaults: &[(&str, Value)]) {
    let Some(strategy) = make(spec, key) else {
        return;
    };
    word_default(strategy, "type", "RollingUpdate");
    if super::fields::word(strategy, "type") == "RollingUpdate"
        && let Some(rolling) = make(strategy, "rollingUpdate")
    {
        for (key, value) in defaults {
            object::default(rolling, key, value.clone());
        }
    }
}

fn template_labels(spec: &Object) -> Option<Value> {
    let labels = spec.get("template")?.get("metadata")?.get("labels")?;
    (!super::fields::empty(labels)).then(|| labels.clone())
}

fn own_labels(owner: &mut Object, labels: Value) {
    if let Some(metadata) = make(owner, "metadata")
        && unset(metadata, "labels")
    {
        metadata.insert("labels".to_owned(), labels);
    }
}
