//! Jobs and CronJobs.

use serde_json::json;

use super::at::At;
use super::{cron, metadata, pod, workload};
use crate::api::defaults::same;
use crate::api::object;
use crate::api::status::Cause;

/// A Job.
pub fn job(root: &At<'_>, causes: &mut Vec<Cause>) {
    let spec = root.field("spec");
    let manual = spec.field("manualSelector").is_true();
    let (uid, name) = (object::uid(root.value), object::name(root.value));
    if !manual && !uid.is_empty() {
        generated(&spec, uid, name, causes);
    }
    let selector = spec.field("selector");
    if selector.is_set() {
        metadata::selector(&selector, causes);
    } else {
        selector.required(causes, "");
    }
    workload::selected(&spec.field("template"), selector.value, causes);
    job_spec(&spec, causes);
}

/// What the server writes into a Job may not be written otherwise.
fn generated(spec: &At<'_>, uid: &str, name: &str, causes: &mut Vec<Cause>) {
    let template = spec.field("template");
    let meta = template.field("metadata");
    let labels = meta.field("labels");
    for (key, expected) in [
        ("controller-uid", uid),
        ("job-name", name),
        ("batch.kubernetes.io/controller-uid", uid),
        ("batch.kubernetes.io/job-name", name),
    ] {
        let path = format!("{}[{key}]", labels.path());
        let detail = format!("must be '{expected}'");
        match labels.value.get(key).and_then(|label| label.as_str()) {
            Some(label) if label == expected => {}
            Some(_) => causes.push(Cause::invalid(path, labels.value, &detail)),
            None => causes.push(Cause::required(path, &detail)),
        }
    }
    let wanted = json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}});
    let older = json!({"matchLabels": {"controller-uid": uid}});
    let selector = spec.field("selector");
    if ![&wanted, &older].contains(&selector.value) {
        selector.invalid(causes, "`selector` not auto-generated");
    }
}

/// What a Job is to do, also as the template of a CronJob.
fn job_spec(spec: &At<'_>, causes: &mut Vec<Cause>) {
    for key in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
        "ttlSecondsAfterFinished",
    ] {
        spec.field(key).non_negative(causes);
    }
    let (mode, completions) = (spec.field("completionMode"), spec.field("completions"));
    mode.one_of_if_set(causes, &["NonIndexed", "Indexed"]);
    let indexed = mode.text() == "Indexed";
    if indexed && !completions.is_set() {
        completions.required(causes, "when completion mode is Indexed");
    }
    if !indexed {
        for key in ["backoffLimitPerIndex", "maxFailedIndexes", "successPolicy"] {
            let field = spec.field(key);
            if field.is_set() {
                field.invalid(causes, "requires indexed completion mode");
            }
        }
    }
    spec.field("podReplacementPolicy")
        .one_of_if_set(causes, &["Failed", "TerminatingOrFailed"]);
    let template = spec.field("template");
    pod::template(&template, &[], causes);
    let pod = template.field("spec");
    let policy = pod.field("restartPolicy");
    match policy.text() {
        "" | "Always" => policy.required(causes, "valid values: \"OnFailure\", \"Never\""),
        _ => policy.one_of_if_set(causes, &["OnFailure", "Never"]),
    }
}

/// What may not change in a Job.
pub fn update(new: &At<'_>, old: &At<'_>, causes: &mut Vec<Cause>) {
    let (spec, before) = (new.field("spec"), old.field("spec"));
    let completions = spec.field("completions");
    let elastic = spec.field("completionMode").text() == "Indexed"
        && spec.field("parallelism").number() == completions.number();
    if !elastic {
        completions.immutable(causes, &before.field("completions"));
    }
    spec.field("selector")
        .immutable(causes, &before.field("selector"));
    template(&spec, &before, old, causes);
    for key in [
        "completionMode",
        "podFailurePolicy",
        "backoffLimitPerIndex",
        "managedBy",
        "successPolicy",
    ] {
        spec.field(key).immutable(causes, &before.field(key));
    }
}

/// The template stays; but where its Pods run may change while none has been started.
fn template(spec: &At<'_>, before: &At<'_>, old: &At<'_>, causes: &mut Vec<Cause>) {
    let (now, then) = (spec.field("template"), before.field("template"));
    if same(Some(now.value), Some(then.value)) {
        return;
    }
    let status = old.field("status");
    let waiting = before.field("suspend").is_true() && !status.field("startTime").is_set();
    if waiting {
        let mut kept = now.value.clone();
        for (part, key) in [
            ("metadata", "annotations"),
            ("metadata", "labels"),
            ("spec", "nodeSelector"),
            ("spec", "affinity"),
            ("spec", "tolerations"),
            ("spec", "schedulingGates"),
        ] {
            let value = object::at(then.value, &[part, key]).cloned();
            object::object(&mut kept, part).insert(key.to_owned(), value.unwrap_or_default());
        }
        if same(Some(&kept), Some(then.value)) {
            return;
        }
    }
    now.invalid(causes, "field is immutable");
}

/// A CronJob. Its Jobs are called like it, with eleven more characters.
pub fn cron_job(root: &At<'_>, new: bool, causes: &mut Vec<Cause>) {
    if new && object::name(root.value).len() > 52 {
        causes.push(Cause::invalid(
            "metadata.name",
            &json!(object::name(root.value)),
            "must be no more than 52 characters",
        ));
    }
    let spec = root.field("spec");
    let schedule = spec.field("schedule");
    if schedule.is_empty() {
        schedule.required(causes, "");
    } else if let Err(wrong) = cron::check(schedule.text()) {
        schedule.invalid(causes, &wrong);
    }
    let zone = spec.field("timeZone");
    if zone.is_set() && zone.is_empty() {
        zone.invalid(causes, "timeZone must be nil or non-empty string");
    }
    for key in [
        "startingDeadlineSeconds",
        "successfulJobsHistoryLimit",
        "failedJobsHistoryLimit",
    ] {
        spec.field(key).non_negative(causes);
    }
    spec.field("concurrencyPolicy")
        .one_of(causes, &["Allow", "Forbid", "Replace"]);
    let template = spec.field("jobTemplate");
    let job = template.field("spec");
    if job.field("manualSelector").is_true() {
        job.field("manualSelector")
            .one_of_if_set(causes, &["nil", "false"]);
    }
    job_spec(&job, causes);
}
