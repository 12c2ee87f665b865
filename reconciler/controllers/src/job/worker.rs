//! The Pod of a Job, and what it tells.

use crate::owned;
use crate::pod;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{
    Container, ContainerStatus, EnvVar, EnvVarSource, ObjectFieldSelector, Pod,
};
use kube::ResourceExt;

/// While a Pod has it, its end has not been counted.
pub const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
/// The label and annotation with a Pod's index.
pub const INDEX: &str = "batch.kubernetes.io/job-completion-index";
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";

/// A Pod of the Job; with an index, of an Indexed one.
pub fn pod(job: &Job, index: Option<i32>) -> Pod {
    let template = job.spec.as_ref().map(|spec| spec.template.clone());
    let mut pod = owned::pod_of(job, &template.unwrap_or_default());
    let finalizers = pod.metadata.finalizers.get_or_insert_default();
    finalizers.push(FINALIZER.to_owned());
    let Some(index) = index else {
        return pod;
    };
    let (name, text) = (job.name_any(), index.to_string());
    pod.metadata.generate_name = Some(format!("{name}-{index}-"));
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(INDEX.to_owned(), text.clone());
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(INDEX.to_owned(), text);
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(format!("{name}-{index}"));
    let first = spec.init_containers.iter_mut().flatten();
    first.chain(&mut spec.containers).for_each(tell_index);
    pod
}

fn tell_index(container: &mut Container) {
    let variables = container.env.get_or_insert_default();
    if variables
        .iter()
        .any(|variable| variable.name == INDEX_VARIABLE)
    {
        return;
    }
    variables.push(EnvVar {
        name: INDEX_VARIABLE.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: None,
                field_path: format!("metadata.labels['{INDEX}']"),
            }),
            ..EnvVarSource::default()
        }),
    });
}

/// Whether its end has not been counted.
pub fn is_tracked(pod: &Pod) -> bool {
    pod.finalizers().iter().any(|name| name == FINALIZER)
}

/// Its index. None: it has none, or it is not one.
pub fn index(pod: &Pod) -> Option<i32> {
    let text = pod.annotations().get(INDEX)?;
    text.parse().ok().filter(|index| *index >= 0)
}

/// Whether it works, or is about to.
pub fn is_active(pod: &Pod) -> bool {
    !pod::has_ended(pod) && !pod::is_terminating(pod)
}

/// How often its containers have been restarted, together.
pub fn restarts(pod: &Pod) -> i64 {
    statuses(pod)
        .map(|status| i64::from(status.restart_count))
        .sum()
}

/// When it ended: its last container did, or as near to that as the Pod tells.
pub fn ended_at(pod: &Pod) -> Option<Timestamp> {
    let ended = |status: &ContainerStatus| {
        let terminated = status.state.as_ref()?.terminated.as_ref()?;
        terminated.finished_at.as_ref().map(|time| time.0)
    };
    let deleted = || pod.metadata.deletion_timestamp.as_ref().map(|time| time.0);
    let made = || pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let unready = || {
        let condition = pod::condition(pod, "Ready")?;
        condition.last_transition_time.as_ref().map(|time| time.0)
    };
    statuses(pod)
        .filter_map(ended)
        .max()
        .or_else(deleted)
        .or_else(unready)
        .or_else(made)
}

fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let all = pod.status.iter().flat_map(|status| {
        let first = status.init_container_statuses.iter().flatten();
        first.chain(status.container_statuses.iter().flatten())
    });
    all
}
