//! What every controller reads and writes: a client, all kept objects, and the recorder of events.

use k8s_openapi::api::apps::v1::{
    ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet,
};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    Endpoints, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod,
    ReplicationController, Service,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use kube::{Api, Client, Resource};
use tokio::task::JoinSet;

use crate::kept::{Kept, Kind};
use crate::recorder::Recorder;

/// The name under which all writes are recorded in `managedFields`.
pub const FIELD_MANAGER: &str = "weft-controllers";

/// The cluster as the controllers see it. Clones share everything.
#[derive(Clone)]
pub struct Cluster {
    /// For writes, and for the few reads that must not be stale.
    pub client: Client,
    /// Writes events without making anybody wait.
    pub recorder: Recorder,
    /// All Pods.
    pub pods: Kept<Pod>,
    /// All Nodes.
    pub nodes: Kept<Node>,
    /// All Namespaces.
    pub namespaces: Kept<Namespace>,
    /// All Services.
    pub services: Kept<Service>,
    /// All Endpoints.
    pub endpoints: Kept<Endpoints>,
    /// All EndpointSlices.
    pub endpoint_slices: Kept<EndpointSlice>,
    /// All PersistentVolumeClaims.
    pub claims: Kept<PersistentVolumeClaim>,
    /// All PersistentVolumes.
    pub volumes: Kept<PersistentVolume>,
    /// All ReplicationControllers.
    pub replication_controllers: Kept<ReplicationController>,
    /// All ReplicaSets.
    pub replica_sets: Kept<ReplicaSet>,
    /// All Deployments.
    pub deployments: Kept<Deployment>,
    /// All DaemonSets.
    pub daemon_sets: Kept<DaemonSet>,
    /// All StatefulSets.
    pub stateful_sets: Kept<StatefulSet>,
    /// All ControllerRevisions.
    pub revisions: Kept<ControllerRevision>,
    /// All Jobs.
    pub jobs: Kept<Job>,
    /// All Leases.
    pub leases: Kept<Lease>,
}

impl Cluster {
    /// Starts the watches and the recorder as tasks of `tasks`.
    pub fn start(client: Client, tasks: &mut JoinSet<()>) -> Self {
        Self {
            recorder: Recorder::start(client.clone(), tasks),
            pods: keep(&client, tasks),
            nodes: keep(&client, tasks),
            namespaces: keep(&client, tasks),
            services: keep(&client, tasks),
            endpoints: keep(&client, tasks),
            endpoint_slices: keep(&client, tasks),
            claims: keep(&client, tasks),
            volumes: keep(&client, tasks),
            replication_controllers: keep(&client, tasks),
            replica_sets: keep(&client, tasks),
            deployments: keep(&client, tasks),
            daemon_sets: keep(&client, tasks),
            stateful_sets: keep(&client, tasks),
            revisions: keep(&client, tasks),
            jobs: keep(&client, tasks),
            leases: keep(&client, tasks),
            client,
        }
    }

    /// The objects of a kind in one namespace, to be written.
    pub fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// The objects of a kind that has no namespaces, to be written.
    pub fn api_all<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = ClusterResourceScope>,
    {
        Api::all(self.client.clone())
    }
}

fn keep<K: Kind>(client: &Client, tasks: &mut JoinSet<()>) -> Kept<K> {
    let (kept, keeping) = Kept::new(Api::all(client.clone()));
    tasks.spawn(keeping);
    kept
}
