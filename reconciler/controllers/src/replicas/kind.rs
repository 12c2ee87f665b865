//! The two kinds that want replicas of a Pod.

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{
    PodTemplateSpec, ReplicationController, ReplicationControllerCondition,
    ReplicationControllerStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::Resource;
use serde::Serialize;

use super::plan::{Condition, Status};
use crate::kept::Kind;

/// A kind that wants replicas.
pub trait Replicated: Kind + Serialize + Resource<Scope = NamespaceResourceScope> {
    /// The controller's name in events.
    const COMPONENT: &'static str;

    /// How many Pods are wanted.
    fn replicas(&self) -> i32;
    /// How long a Pod must be ready to count as available.
    fn min_ready_seconds(&self) -> i32;
    /// Which Pods are meant.
    fn selector(&self) -> Option<LabelSelector>;
    /// What a new Pod is like.
    fn template(&self) -> Option<&PodTemplateSpec>;
    /// The status as it was written last.
    fn status(&self) -> Status;
    /// The object with this status; nothing if it has it already.
    fn with_status(&self, status: Status) -> Option<Self>;
}

/// Counts of nothing are left out, as Kubernetes does.
fn some(count: i32) -> Option<i32> {
    (count != 0).then_some(count)
}

macro_rules! conditions {
    ($from:ident, $into:ident, $type:ident) => {
        fn $from(condition: &$type) -> Condition {
            Condition {
                type_: condition.type_.clone(),
                status: condition.status.clone(),
                reason: condition.reason.clone().unwrap_or_default(),
                message: condition.message.clone().unwrap_or_default(),
                since: condition.last_transition_time.clone(),
            }
        }

        fn $into(condition: Condition) -> $type {
            $type {
                type_: condition.type_,
                status: condition.status,
                reason: Some(condition.reason),
                message: Some(condition.message),
                last_transition_time: condition.since,
            }
        }
    };
}

conditions!(from_set, into_set, ReplicaSetCondition);
conditions!(
    from_controller,
    into_controller,
    ReplicationControllerCondition
);

impl Replicated for ReplicaSet {
    const COMPONENT: &'static str = "replicaset-controller";

    fn replicas(&self) -> i32 {
        self.spec
            .as_ref()
            .and_then(|spec| spec.replicas)
            .unwrap_or(1)
    }

    fn min_ready_seconds(&self) -> i32 {
        self.spec
            .as_ref()
            .and_then(|spec| spec.min_ready_seconds)
            .unwrap_or(0)
    }

    fn selector(&self) -> Option<LabelSelector> {
        self.spec.as_ref().map(|spec| spec.selector.clone())
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }

    fn status(&self) -> Status {
        let Some(status) = &self.status else {
            return Status::default();
        };
        Status {
            replicas: status.replicas,
            fully_labeled: status.fully_labeled_replicas.unwrap_or(0),
            ready: status.ready_replicas.unwrap_or(0),
            available: status.available_replicas.unwrap_or(0),
            terminating: status.terminating_replicas,
            observed_generation: status.observed_generation,
            conditions: status.conditions.iter().flatten().map(from_set).collect(),
        }
    }

    fn with_status(&self, status: Status) -> Option<Self> {
        if self.status.is_some() && status == Replicated::status(self) {
            return None;
        }
        let conditions: Vec<_> = status.conditions.into_iter().map(into_set).collect();
        let status = ReplicaSetStatus {
            replicas: status.replicas,
            fully_labeled_replicas: some(status.fully_labeled),
            ready_replicas: some(status.ready),
            available_replicas: some(status.available),
            terminating_replicas: status.terminating,
            observed_generation: status.observed_generation,
            conditions: (!conditions.is_empty()).then_some(conditions),
        };
        Some(Self {
            status: Some(status),
            ..self.clone()
        })
    }
}

impl Replicated for ReplicationController {
    const COMPONENT: &'static str = "replication-controller";

    fn replicas(&self) -> i32 {
        self.spec
            .as_ref()
            .and_then(|spec| spec.replicas)
            .unwrap_or(1)
    }

    fn min_ready_seconds(&self) -> i32 {
        self.spec
            .as_ref()
            .and_then(|spec| spec.min_ready_seconds)
            .unwrap_or(0)
    }

    fn selector(&self) -> Option<LabelSelector> {
        let match_labels = self.spec.as_ref()?.selector.clone();
        Some(LabelSelector {
            match_labels,
            match_expressions: None,
        })
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }

    fn status(&self) -> Status {
        let Some(status) = &self.status else {
            return Status::default();
        };
        Status {
            replicas: status.replicas,
            fully_labeled: status.fully_labeled_replicas.unwrap_or(0),
            ready: status.ready_replicas.unwrap_or(0),
            available: status.available_replicas.unwrap_or(0),
            terminating: None,
            observed_generation: status.observed_generation,
            conditions: status
                .conditions
                .iter()
                .flatten()
                .map(from_controller)
                .collect(),
        }
    }

    fn with_status(&self, status: Status) -> Option<Self> {
        // This kind has no field for Pods that terminate.
        let status = Status {
            terminating: None,
            ..status
        };
        if self.status.is_some() && status == Replicated::status(self) {
            return None;
        }
        let conditions: Vec<_> = status.conditions.into_iter().map(into_controller).collect();
        let status = ReplicationControllerStatus {
            replicas: status.replicas,
            fully_labeled_replicas: some(status.fully_labeled),
            ready_replicas: some(status.ready),
            available_replicas: some(status.available),
            observed_generation: status.observed_generation,
            conditions: (!conditions.is_empty()).then_some(conditions),
        };
        Some(Self {
            status: Some(status),
            ..self.clone()
        })
    }
}
