use super::plan::{Plan, plan};
use super::worker::{FINALIZER, INDEX, is_active, is_tracked};
use super::{indexes, outcome};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

fn now() -> Timestamp {
    "2026-01-01T01:00:00Z".parse().unwrap()
}

fn job(more: Value) -> Job {
    let mut job = json!({
        "metadata": {"name": "sum", "namespace": "demo", "uid": "j"},
        "spec": {"parallelism": 1, "completions": 1, "backoffLimit": 6,
            "template": {"metadata": {"labels": {"job-name": "sum"}},
                "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}},
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        if value.is_null() {
            job["spec"].as_object_mut().unwrap().remove(key);
        } else {
            job["spec"][key] = value.clone();
        }
    }
    serde_json::from_value(job).unwrap()
}

/// The Job, its Pods and a clock, as a server would keep them.
struct World {
    job: Job,
    pods: Vec<Pod>,
    made: usize,
    now: Timestamp,
    events: Vec<String>,
}

impl World {
    fn new(job: Job) -> Self {
        Self {
            job,
            pods: Vec::new(),
            made: 0,
            now: now(),
            events: Vec::new(),
        }
    }

    fn plan(&self) -> Plan {
        let pods: Vec<_> = self.pods.iter().cloned().map(Arc::new).collect();
        plan(&self.job, &pods, self.now)
    }

    /// Carries a plan out, up to `steps` of its parts, as if the controller ended there.
    fn step(&mut self, steps: usize) {
        let plan = self.plan();
        let begun = |step: usize| steps > step;
        if begun(0) {
            self.job.status = Some(plan.status.clone());
            self.events
                .extend(plan.events.iter().map(|(_, reason, _)| reason.clone()));
        }
        if begun(1) {
            for pod in &mut self.pods {
                let name = pod.name_any();
                if plan.release.contains(&name) || plan.stop.contains(&name) {
                    pod.finalizers_mut()
                        .retain(|finalizer| finalizer != FINALIZER);
                }
            }
        }
        if begun(2) {
            for pod in &mut self.pods {
                let name = pod.name_any();
                if plan.stop.contains(&name) || plan.fail.contains(&name) {
                    pod.metadata.deletion_timestamp = Some(
                        k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(self.now),
                    );
                }
            }
        }
        if begun(3) {
            for mut pod in plan.create {
                self.made += 1;
                pod.metadata.name = Some(format!(
                    "{}{:04}",
                    pod.metadata.generate_name.take().unwrap(),
                    self.made
                ));
                pod.metadata.uid = Some(format!("u{}", self.made));
                self.pods.push(pod);
            }
        }
    }

    fn end(&mut self, which: usize, phase: &str) {
        let active: Vec<usize> = (0..self.pods.len())
            .filter(|&i| is_active(&self.pods[i]))
            .collect();
        if let Some(&which) = active.get(which % active.len().max(1)) {
            self.pods[which].status =
                serde_json::from_value(json!({"phase": phase, "containerStatuses": [{
                "name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"terminated": {"exitCode": 0, "finishedAt": self.now.to_string()}}}]}))
                .unwrap();
        }
    }

    /// Pods that are being deleted and that nobody holds go.
    fn collect(&mut self) {
        self.pods
            .retain(|pod| pod.metadata.deletion_timestamp.is_none() || is_tracked(pod));
    }

    fn active(&self) -> usize {
        self.pods.iter().filter(|pod| is_active(pod)).count()
    }

    fn count(&self) -> (i32, i32) {
        let status = self.job.status.clone().unwrap_or_default();
        (status.succeeded.unwrap_or(0), status.failed.unwrap_or(0))
    }
}

#[test]
fn a_pod_of_an_indexed_job_knows_its_index() {
    let indexed = job(json!({"completionMode": "Indexed", "completions": 2, "parallelism": 2}));
    let plan = World::new(indexed).plan();
    assert_eq!(plan.create.len(), 2);
    let pod = &plan.create[1];
    assert_eq!(pod.metadata.generate_name.as_deref(), Some("sum-1-"));
    assert_eq!(
        (
            pod.labels()[INDEX].as_str(),
            pod.annotations()[INDEX].as_str()
        ),
        ("1", "1")
    );
    assert_eq!(pod.finalizers(), [FINALIZER]);
    let spec = json!(pod.spec);
    assert_eq!(spec["hostname"], "sum-1");
    assert_eq!(
        spec["containers"][0]["env"],
        json!([{"name": "JOB_COMPLETION_INDEX", "valueFrom": {"fieldRef":
            {"fieldPath": "metadata.labels['batch.kubernetes.io/job-completion-index']"}}}])
    );
}

#[test]
fn indexes_are_written_as_kubernetes_does() {
    for (text, set) in [
        ("", vec![]),
        ("0", vec![0]),
        ("0,1", vec![0, 1]),
        ("0-2,4,5,7-9", vec![0, 1, 2, 4, 5, 7, 8, 9]),
    ] {
        let set: BTreeSet<i32> = set.into_iter().collect();
        assert_eq!(indexes::render(&set), text);
        assert_eq!(indexes::parse(text, 100), set);
    }
    assert_eq!(indexes::parse("1-4000000000,x,-3,2-", 4), BTreeSet::new());
    assert_eq!(indexes::parse("2-9", 4), BTreeSet::from([2, 3]));
}

#[test]
fn a_job_that_succeeds_is_counted_then_complete() {
    let mut world = World::new(job(json!({})));
    world.step(4);
    world.end(0, "Succeeded");
    world.step(4);
    assert!(outcome::condition(&world.job, "SuccessCriteriaMet").is_some());
    assert!(!outcome::is_over(&world.job), "its Pod is not counted yet");
    world.step(4);
    assert!(outcome::condition(&world.job, "Complete").is_some());
    assert_eq!(
        (world.count(), world.events.as_slice()),
        ((1, 0), &["Completed".to_owned()][..])
    );
    let before = world.job.status.clone();
    world.step(4);
    assert_eq!(world.job.status, before);
}

#[test]
fn failures_pause_and_then_end_the_job() {
    let mut world = World::new(job(json!({"backoffLimit": 1})));
    world.step(4);
    world.end(0, "Failed");
    world.step(4);
    assert_eq!(
        (world.active(), world.plan().again),
        (0, Some(SignedDuration::from_secs(10)))
    );
    world.now += SignedDuration::from_secs(10);
    world.step(4);
    assert_eq!(world.active(), 1);
    world.end(0, "Failed");
    for _ in 0..3 {
        world.step(4);
    }
    let failed = outcome::condition(&world.job, "Failed").unwrap();
    assert_eq!(failed.reason.as_deref(), Some("BackoffLimitExceeded"));
    assert_eq!(
        (world.count(), world.events.as_slice()),
        ((0, 2), &["BackoffLimitExceeded".to_owned()][..])
    );
}

#[test]
fn restarts_in_a_pod_count_as_failures() {
    let mut world = World::new(job(json!({"backoffLimit": 2})));
    let template = world
        .job
        .spec
        .as_mut()
        .unwrap()
        .template
        .spec
        .as_mut()
        .unwrap();
    template.restart_policy = Some("OnFailure".to_owned());
    world.step(4);
    for (restarts, over) in [(1, false), (2, true)] {
        world.pods[0].status =
            serde_json::from_value(json!({"phase": "Running", "containerStatuses": [
            {"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": restarts}]}))
            .unwrap();
        assert_eq!(!world.plan().fail.is_empty(), over);
    }
}

#[test]
fn the_first_success_of_a_work_queue_stops_the_rest() {
    let mut world = World::new(job(json!({"completions": null, "parallelism": 3})));
    world.step(4);
    assert_eq!(world.active(), 3);
    world.end(1, "Succeeded");
    assert_eq!(world.plan().stop.len(), 2);
    for _ in 0..3 {
        world.step(4);
        world.collect();
    }
    assert!(outcome::condition(&world.job, "Complete").is_some());
    assert_eq!((world.count(), world.pods.len()), ((1, 0), 1));
}

#[test]
fn a_deadline_ends_a_job_and_a_pause_does_not_count() {
    let mut world = World::new(job(json!({"activeDeadlineSeconds": 60})));
    world.step(4);
    assert_eq!(world.plan().again, Some(SignedDuration::from_secs(60)));
    world.job.spec.as_mut().unwrap().suspend = Some(true);
    world.now += SignedDuration::from_secs(100);
    world.step(4);
    world.collect();
    assert_eq!(
        (world.active(), world.count()),
        (0, (0, 0)),
        "what was stopped has not failed"
    );
    world.job.spec.as_mut().unwrap().suspend = Some(false);
    world.step(4);
    assert_eq!(
        (world.active(), outcome::condition(&world.job, "Suspended")),
        (1, None)
    );
    world.now += SignedDuration::from_secs(60);
    for _ in 0..3 {
        world.step(4);
        world.collect();
    }
    let failed = outcome::condition(&world.job, "Failed").unwrap();
    assert_eq!(failed.reason.as_deref(), Some("DeadlineExceeded"));
    assert_eq!(world.events, ["Suspended", "Resumed", "DeadlineExceeded"]);
}

#[test]
fn a_job_that_is_over_goes_after_its_time() {
    let mut world = World::new(job(
        json!({"ttlSecondsAfterFinished": 30, "completions": 0}),
    ));
    world.step(4);
    assert_eq!(
        (world.plan().remove, world.plan().again),
        (false, Some(SignedDuration::from_secs(30)))
    );
    world.now += SignedDuration::from_secs(30);
    assert!(world.plan().remove);
}

/// What happens between two looks of the controller.
#[derive(Clone, Debug)]
enum Event {
    Succeeds(usize),
    Fails(usize),
    Deleted(usize),
    Collected,
    /// The controller gets as far as this.
    Look(usize),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        any::<usize>().prop_map(Event::Succeeds),
        any::<usize>().prop_map(Event::Fails),
        any::<usize>().prop_map(Event::Deleted),
        Just(Event::Collected),
        (1..=4_usize).prop_map(Event::Look),
        (1..=4_usize).prop_map(Event::Look),
    ];
    prop::collection::vec(event, 0..80)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever happens and wherever the controller is interrupted, every Pod that ended is counted once, no index
    /// has two Pods that work, and the Job ends.
    #[test]
    fn each_pod_is_counted_once_and_the_job_ends(events in events(), indexed in any::<bool>()) {
        let mode = if indexed { "Indexed" } else { "NonIndexed" };
        let spec = json!({"completions": 4, "parallelism": 2, "backoffLimit": 100, "completionMode": mode});
        let mut world = World::new(job(spec));
        let (mut succeeded, mut failed) = (BTreeSet::new(), BTreeSet::new());
        let tail = (0..60).flat_map(|_| [Event::Look(4), Event::Succeeds(0), Event::Collected]);
        for event in events.into_iter().chain(tail) {
            world.now += SignedDuration::from_secs(1000);
            match event {
                Event::Succeeds(which) => world.end(which, "Succeeded"),
                Event::Fails(which) => world.end(which, "Failed"),
                Event::Deleted(which) if !world.pods.is_empty() => {
                    let which = which % world.pods.len();
                    let time = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(world.now);
                    world.pods[which].metadata.deletion_timestamp.get_or_insert(time);
                }
                Event::Deleted(_) => {}
                Event::Collected => world.collect(),
                Event::Look(steps) => world.step(steps),
            }
            // Those that ended before anybody took their finalizer are to be counted.
            for pod in world.pods.iter().filter(|pod| is_tracked(pod)) {
                let (uid, phase) = (pod.uid().unwrap(), crate::pod::phase(pod).to_owned());
                let leaving = pod.metadata.deletion_timestamp.is_some();
                if phase == "Succeeded" && !failed.contains(&uid) {
                    succeeded.insert(uid);
                } else if (phase == "Failed" || leaving) && phase != "Succeeded" {
                    failed.insert(uid);
                }
            }
            let working: Vec<_> = world.pods.iter().filter(|pod| is_active(pod)).collect();
            prop_assert!(working.len() <= 2);
            let indexes: BTreeSet<_> = working.iter().filter_map(|pod| super::worker::index(pod)).collect();
            prop_assert!(!indexed || indexes.len() == working.len(), "two of one index");
        }
        prop_assert!(outcome::condition(&world.job, "Complete").is_some(), "{:?}", world.job.status);
        let wanted = if indexed { 4 } else { i32::try_from(succeeded.len()).unwrap() };
        prop_assert_eq!(world.count(), (wanted, i32::try_from(failed.len()).unwrap()));
        prop_assert_eq!(world.events.iter().filter(|reason| *reason == "Completed").count(), 1);
        prop_assert!(world.pods.iter().all(|pod| !is_tracked(pod)));
    }
}
