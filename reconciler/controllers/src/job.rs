//! Jobs: Pods that run until enough of them have succeeded.
//!
//! `completions` Pods, `parallelism` at a time; with `completionMode: Indexed` one for each index. A Job without
//! `completions` is a work queue: as soon as one Pod has succeeded, the rest is stopped, and the Job is complete when
//! they are gone. (Kubernetes waits for the rest to end by themselves instead. There the last worker knows that the
//! queue is empty, and so do the others; here the first who says so speaks for all.)
//!
//! A Job fails by `backoffLimit` (failed Pods, or restarts with `restartPolicy: OnFailure`) or `activeDeadlineSeconds`.
//! Between failures it pauses, 10 s at first and twice as long each time. How Pods are counted is in [`account`]. Failed
//! and succeeded Pods stay until the Job goes, by hand or by `ttlSecondsAfterFinished`.
//!
//! Left out, and ignored where written: `podFailurePolicy`, `successPolicy`, `backoffLimitPerIndex` with
//! `maxFailedIndexes`. A Job with another's `managedBy` is not touched.

pub mod account;
pub mod indexes;
pub mod outcome;
pub mod plan;
#[cfg(test)]
mod tests;
pub mod worker;

use crate::cluster::{Cluster, FIELD_MANAGER};
use crate::controller::{self, Again};
use crate::kept::Change;
use crate::recorder::Severity;
use crate::trouble::{Tried, Trouble};
use crate::{owned, pod, pod_writes, status_write};
use futures_util::stream::{self, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use plan::Plan;
use serde_json::json;
use std::sync::Arc;
use worker::{FINALIZER, is_tracked};

const SOURCE: &str = "job-controller";
/// `spec.managedBy` of those that are ours.
const MANAGER: &str = "kubernetes.io/job-controller";

/// Runs the controller; it does not end.
pub async fn run(cluster: Cluster) {
    cluster.jobs.ready().await;
    cluster.pods.ready().await;
    let jobs = cluster.jobs.clone();
    let of_pod = move |change: &Change<Pod>| {
        controller::owners(change, &jobs, |job: &Job, pod: &Pod| {
            owned::selects(
                job.spec.as_ref().and_then(|spec| spec.selector.as_ref()),
                pod,
            )
        })
    };
    let requests = stream::select_all([
        controller::own_changes(&cluster.jobs).boxed(),
        controller::related_changes(&cluster.pods, of_pod).boxed(),
    ]);
    let working = controller::run("jobs", &cluster.jobs, requests, |job| {
        reconcile(&cluster, job)
    });
    tokio::join!(working, free_orphans(&cluster));
}

/// Takes the finalizer off Pods that no Job counts any more, or they could never be deleted.
async fn free_orphans(cluster: &Cluster) {
    let pods = cluster
        .pods
        .changes()
        .filter_map(async |change| Some(vec![change.new?]));
    let jobs = cluster.jobs.changes().filter_map(async |change| {
        let gone = change.old.filter(|_| change.new.is_none())?;
        Some(cluster.pods.within(&gone.namespace()?))
    });
    let mut candidates = std::pin::pin!(stream::select(pods, jobs));
    while let Some(candidates) = candidates.next().await {
        for pod in candidates {
            if !is_tracked(&pod) || job_of(cluster, &pod).is_some() {
                continue;
            }
            if let Err(trouble) = release(cluster, &pod).await {
                tracing::warn!("jobs: {trouble}");
            }
        }
    }
}

fn job_of(cluster: &Cluster, pod: &Pod) -> Option<Arc<Job>> {
    let owner = controller::controller_of(pod).filter(|owner| owner.kind == "Job")?;
    let job = cluster.jobs.get(&pod.namespace()?, &owner.name)?;
    (job.metadata.uid.as_ref() == Some(&owner.uid)).then_some(job)
}

async fn reconcile(cluster: &Cluster, job: Arc<Job>) -> Result<Again, Trouble> {
    let Some(spec) = &job.spec else {
        return Ok(None);
    };
    if spec.managed_by.as_ref().is_some_and(|name| name != MANAGER) {
        return Ok(None);
    }
    let selector = owned::selector(spec.selector.as_ref())?;
    let pods = owned::claim(cluster, &cluster.pods, job.as_ref(), selector.as_ref()).await?;
    let plan = plan::plan(&job, &pods, Timestamp::now());
    let again = plan.again;
    apply(cluster, &job, &pods, plan).await?;
    Ok(again.and_then(|again| again.try_into().ok()))
}

async fn apply(cluster: &Cluster, job: &Job, pods: &[Arc<Pod>], plan: Plan) -> Result<(), Trouble> {
    write_status(cluster, job, &plan).await?;
    for (severity, reason, message) in plan.events {
        match severity {
            Severity::Normal => cluster.recorder.normal(SOURCE, job, &reason, message),
            Severity::Warning => cluster.recorder.warning(SOURCE, job, &reason, message),
        }
    }
    for pod in pods {
        let name = pod::name(pod);
        if plan.release.contains(name) || (plan.stop.contains(name) && is_tracked(pod)) {
            release(cluster, pod).await?;
        }
        if plan.stop.contains(name) || plan.fail.contains(name) {
            pod_writes::delete(cluster, SOURCE, job, pod, false).await?;
        }
    }
    pod_writes::create_all(cluster, SOURCE, job, plan.create).await?;
    if plan.remove {
        remove(cluster, job).await?;
    }
    Ok(())
}

/// Writes the status over the revision that was read: the count must not be written over another.
async fn write_status(cluster: &Cluster, job: &Job, plan: &Plan) -> Result<(), Trouble> {
    if status_write::same(&job.status, &plan.status) {
        return Ok(());
    }
    let (namespace, name) = (job.namespace().unwrap_or_default(), job.name_any());
    let new = Job {
        metadata: ObjectMeta {
            managed_fields: None,
            ..job.metadata.clone()
        },
        status: Some(plan.status.clone()),
        ..job.clone()
    };
    let params = PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    };
    let api = cluster.api::<Job>(&namespace);
    let written = api.replace_status(&name, &params, &new).await;
    let written = written.tried(|| format!("write the status of Job {namespace}/{name}"))?;
    cluster.jobs.seen(&written).await;
    Ok(())
}

/// Takes our finalizer off a Pod. One that is gone, or another by now, is no error.
async fn release(cluster: &Cluster, pod: &Pod) -> Result<(), Trouble> {
    let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
    let patch = json!({"metadata": {
        "uid": pod.uid(),
        "$deleteFromPrimitiveList/finalizers": [FINALIZER],
    }});
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let api = cluster.api::<Pod>(&namespace);
    match api.patch(&name, &params, &Patch::Strategic(patch)).await {
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409 | 422) => Ok(()),
        answer => {
            answer.tried(|| format!("count Pod {namespace}/{name}"))?;
            Ok(())
        }
    }
}

async fn remove(cluster: &Cluster, job: &Job) -> Result<(), Trouble> {
    let (namespace, name) = (job.namespace().unwrap_or_default(), job.name_any());
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: job.uid(),
            resource_version: job.resource_version(),
        }),
        ..DeleteParams::background()
    };
    match cluster.api::<Job>(&namespace).delete(&name, &params).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        answer => {
            answer.tried(|| format!("delete Job {namespace}/{name}"))?;
            Ok(())
        }
    }
}
