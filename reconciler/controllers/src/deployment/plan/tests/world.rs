//! A Deployment, its ReplicaSets and their Pods, without a server: what the plan wants is done, and the rest of the
//! cluster follows when the test says so.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::deployment::plan::{Plan, plan};
use crate::deployment::revision;
use crate::replicas::Replicated;

/// See the module.
pub struct World {
    pub deployment: Deployment,
    pub sets: Vec<Arc<ReplicaSet>>,
    pub now: Timestamp,
    /// For each ReplicaSet ever made, by the number in its uid: Pods that run, and how many of them are available.
    pods: Vec<(i32, i32)>,
    log: Vec<String>,
}

/// The image of a ReplicaSet's template, by which the tests name it.
pub fn image_of(set: &ReplicaSet) -> String {
    let template = set
        .spec
        .as_ref()
        .and_then(|spec| spec.template.as_ref()?.spec.as_ref());
    template.unwrap().containers[0].image.clone().unwrap()
}

impl World {
    pub fn new(replicas: i32, strategy: Value) -> Self {
        let template = json!({"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "a"}]}});
        let deployment = json!({
            "metadata": {"name": "web", "namespace": "demo", "uid": "u", "generation": 1,
                "annotations": {"kubernetes.io/change-cause": "first", "kubectl.kubernetes.io/last-applied-configuration": "{}"}},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "x"}}, "template": template,
                "strategy": strategy, "progressDeadlineSeconds": 600, "revisionHistoryLimit": 10}
        });
        Self {
            deployment: serde_json::from_value(deployment).unwrap(),
            sets: Vec::new(),
            now: "2026-11-26T12:00:00Z".parse().unwrap(),
            pods: Vec::new(),
            log: Vec::new(),
        }
    }

    fn specify(&mut self, change: impl FnOnce(&mut k8s_openapi::api::apps::v1::DeploymentSpec)) {
        change(self.deployment.spec.as_mut().unwrap());
        *self.deployment.metadata.generation.as_mut().unwrap() += 1;
    }

    pub fn scale(&mut self, replicas: i32) {
        self.specify(|spec| spec.replicas = Some(replicas));
    }

    pub fn template(&mut self, image: &str) {
        self.specify(|spec| {
            spec.template.spec.as_mut().unwrap().containers[0].image = Some(image.into())
        });
    }

    pub fn paused(&mut self, paused: bool) {
        self.specify(|spec| spec.paused = Some(paused));
    }

    pub fn image(&self) -> String {
        let template = &self.deployment.spec.as_ref().unwrap().template;
        template.spec.as_ref().unwrap().containers[0]
            .image
            .clone()
            .unwrap()
    }

    pub fn set(&self, image: &str) -> &ReplicaSet {
        self.sets.iter().find(|set| image_of(set) == image).unwrap()
    }

    /// What has been scaled since the last call.
    pub fn scaled(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log)
    }

    fn number(set: &ReplicaSet) -> usize {
        set.uid()
            .unwrap()
            .strip_prefix("set-")
            .unwrap()
            .parse()
            .unwrap()
    }

    /// How many Pods the ReplicaSets want.
    pub fn wanted(&self) -> i32 {
        self.sets.iter().map(|set| set.replicas()).sum()
    }

    /// How many Pods are told to be available and will not be let go of. No more is told than is true, since Pods here
    /// stay available.
    pub fn available(&self) -> i32 {
        let told = |set: &ReplicaSet| {
            set.status
                .as_ref()
                .and_then(|status| status.available_replicas)
                .unwrap_or(0)
        };
        let kept = |set: &Arc<ReplicaSet>| {
            told(set)
                .min(self.pods[Self::number(set)].1)
                .min(set.replicas())
        };
        self.sets.iter().map(kept).sum()
    }

    /// A Pod of the ReplicaSet that is being deleted.
    pub fn pod(&self, at: usize) -> Pod {
        let owner = json!([crate::owned::reference(self.sets[at].as_ref())]);
        let metadata = json!({"name": "p", "deletionTimestamp": "2026-11-26T12:00:00Z", "ownerReferences": owner});
        serde_json::from_value(json!({"metadata": metadata, "status": {"phase": "Running"}}))
            .unwrap()
    }

    /// The controller looks, and what it plans is done.
    pub fn look(&mut self) -> Plan {
        let pods: Vec<_> = (0..self.sets.len())
            .filter(|at| self.pods[Self::number(&self.sets[*at])].0 > 0)
            .map(|at| Arc::new(self.pod(at)))
            .collect();
        let plan = plan(&self.deployment, &self.sets, &pods, self.now);
        if let Some(new) = &plan.create {
            let mut new = new.clone();
            let number = self.pods.len();
            new.metadata.uid = Some(format!("set-{number}"));
            new.metadata.generation = Some(1);
            new.metadata.creation_timestamp = Some(Time(
                Timestamp::from_second(1_795_694_401 + number as i64).unwrap(),
            ));
            self.pods.push((0, 0));
            self.note(&new, 0);
            self.sets.push(Arc::new(new));
        }
        for (was, is) in &plan.update {
            let at = self
                .sets
                .iter()
                .position(|set| set.uid() == was.uid())
                .unwrap();
            self.note(is, was.replicas());
            let mut is = is.clone();
            if was.spec != is.spec {
                *is.metadata.generation.as_mut().unwrap() += 1;
            }
            self.sets[at] = Arc::new(is);
        }
        for gone in &plan.delete {
            assert_eq!(gone.replicas(), 0, "one with Pods must not be deleted");
            self.sets.retain(|set| set.uid() != gone.uid());
        }
        if let Some(revision) = &plan.revision {
            self.deployment
                .annotations_mut()
                .insert(revision::REVISION.into(), revision.clone());
        }
        self.deployment.status = Some(plan.status.clone());
        plan
    }

    fn note(&mut self, set: &ReplicaSet, from: i32) {
        if set.replicas() != from {
            self.log
                .push(format!("{}: {from} to {}", image_of(set), set.replicas()));
        }
    }

    /// The ReplicaSet's Pods follow its wish: the unavailable ones go first.
    pub fn replicate(&mut self, at: usize) {
        let wanted = self.sets[at].replicas();
        let (count, available) = &mut self.pods[Self::number(&self.sets[at])];
        *count = wanted;
        *available = wanted.min(*available);
    }

    /// One more of the ReplicaSet's Pods becomes available.
    pub fn ready(&mut self, at: usize) {
        let (count, available) = &mut self.pods[Self::number(&self.sets[at])];
        *available = (*available + 1).min(*count);
    }

    /// The ReplicaSet's status follows its Pods.
    pub fn tell(&mut self, at: usize) {
        let (count, available) = self.pods[Self::number(&self.sets[at])];
        let mut set = self.sets[at].as_ref().clone();
        set.status = Some(ReplicaSetStatus {
            replicas: count,
            ready_replicas: Some(available),
            available_replicas: Some(available),
            observed_generation: set.metadata.generation,
            ..ReplicaSetStatus::default()
        });
        self.sets[at] = Arc::new(set);
    }

    /// All follow until nothing changes any more.
    pub fn settle(&mut self) {
        for _ in 0..200 {
            let before = (
                self.deployment.clone(),
                self.sets.clone(),
                self.pods.clone(),
            );
            self.look();
            for at in 0..self.sets.len() {
                self.replicate(at);
                self.tell(at);
                self.ready(at);
                self.tell(at);
            }
            if before
                == (
                    self.deployment.clone(),
                    self.sets.clone(),
                    self.pods.clone(),
                )
            {
                return;
            }
        }
        panic!("it does not end: {:?}", self.log);
    }
}
