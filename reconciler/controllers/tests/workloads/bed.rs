//! A real API server on loopback, the controllers, and a test that plays every node's agent.

#[path = "../bed/server.rs"]
mod server;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use controllers::Settings;
use futures_util::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;

use server::serve;

/// The namespace of the tests.
pub const NAMESPACE: &str = "default";
/// What a Pod's containers do, as an annotation of the Pod: `run` (or nothing), `succeed`, `fail`, `wait` (not ready).
pub const PLAY: &str = "test/play";

/// The cluster; everything ends with the value.
pub struct Bed {
    pub client: Client,
    _tasks: JoinSet<()>,
    _folder: TempDir,
}

impl Bed {
    /// Starts all, with nodes of these names.
    pub async fn start(nodes: &[&str]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let address = ([127, 0, 0, 1], 0).into();
        let (_, client) = serve(folder.path(), address, std::future::pending()).await?;
        let mut tasks = JoinSet::new();
        let bed = Self {
            client: client.clone(),
            _tasks: JoinSet::new(),
            _folder: folder,
        };
        for name in nodes {
            bed.add_node(name).await?;
        }
        let for_controllers = client.clone();
        tasks.spawn(async move {
            let settings = Settings::default();
            let ran = controllers::run(for_controllers, settings, std::future::pending()).await;
            panic!("the controllers ended: {ran:?}");
        });
        let names = nodes.iter().map(|&name| name.to_owned()).collect();
        tasks.spawn(play(client, names));
        Ok(Self {
            _tasks: tasks,
            ..bed
        })
    }

    /// The objects of a kind in the tests' namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// Adds a ready node.
    pub async fn add_node(&self, name: &str) -> Result<()> {
        let api: Api<Node> = Api::all(self.client.clone());
        let node = json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}});
        api.create(&PostParams::default(), &serde_json::from_value(node)?)
            .await?;
        let none: Vec<Value> = Vec::new();
        let untainted = json!({"spec": {"taints": none}});
        api.patch(name, &PatchParams::default(), &Patch::Merge(untainted))
            .await?;
        let status = json!({"status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "allocatable": {"cpu": "64", "memory": "64Gi", "pods": "500"},
        }});
        api.patch_status(name, &PatchParams::default(), &Patch::Merge(status))
            .await?;
        Ok(())
    }

    /// Makes an object.
    pub async fn create<K>(&self, object: Value) -> Result<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + Serialize
            + DeserializeOwned,
    {
        let object = serde_json::from_value(object)?;
        Ok(self
            .api::<K>()
            .create(&PostParams::default(), &object)
            .await?)
    }

    /// Changes an object by a merge patch.
    pub async fn merge<K>(&self, name: &str, patch: Value) -> Result<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned,
    {
        let params = PatchParams::default();
        Ok(self
            .api::<K>()
            .patch(name, &params, &Patch::Merge(patch))
            .await?)
    }

    /// Waits until the object of this name looks as wanted.
    pub async fn until<K>(&self, name: &str, wanted: impl Fn(&K) -> bool) -> Result<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned,
    {
        let begun = Instant::now();
        loop {
            let object = self.api::<K>().get_opt(name).await?;
            if let Some(object) = object.as_ref().filter(|object| wanted(object)) {
                return Ok(object.clone());
            }
            if begun.elapsed() > Duration::from_secs(20) {
                bail!(
                    "{} {name} never became what was wanted: {object:#?}",
                    K::kind(&())
                );
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The Pods with a label, by name, that are not being deleted.
    pub async fn pods(&self, label: &str) -> Result<BTreeMap<String, Pod>> {
        let params = kube::api::ListParams::default().labels(label);
        let pods = self.api::<Pod>().list(&params).await?.items;
        let pods = pods
            .into_iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none());
        Ok(pods.map(|pod| (pod.name_any(), pod)).collect())
    }
}

/// Plays scheduler and agents: places Pods, runs them, and ends those that are deleted.
async fn play(client: Client, nodes: Vec<String>) {
    let all: Api<Pod> = Api::all(client.clone());
    let events = watcher(all, watcher::Config::default()).default_backoff();
    let mut events = std::pin::pin!(events.applied_objects());
    let mut count = 0;
    while let Some(event) = events.next().await {
        let Ok(pod) = event else { continue };
        count += 1;
        if let Err(error) = act(&client, &nodes, count, &pod).await {
            // Another write came between: its event follows.
            if !matches!(&error, kube::Error::Api(status) if matches!(status.code, 404 | 409)) {
                panic!("play the agent of {}: {error}", pod.name_any());
            }
        }
    }
}

async fn act(client: &Client, nodes: &[String], count: usize, pod: &Pod) -> kube::Result<()> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let name = pod.name_any();
    if pod.metadata.deletion_timestamp.is_some() {
        if pod.metadata.deletion_grace_period_seconds != Some(0) {
            api.delete(&name, &DeleteParams::default().grace_period(0))
                .await?;
        }
        return Ok(());
    }
    let spec = pod.spec.clone().unwrap_or_default();
    if spec.node_name.is_none() {
        let required = serde_json::to_string(&spec.affinity).unwrap_or_default();
        let named = nodes
            .iter()
            .find(|node| required.contains(&format!("\"{node}\"")));
        let node = named.unwrap_or(&nodes[count % nodes.len()]);
        let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
            "target": {"kind": "Node", "name": node}});
        let _: Value = api
            .create_subresource("binding", &name, &PostParams::default(), &binding)
            .await?;
        return Ok(());
    }
    let phase = pod.status.as_ref().and_then(|status| status.phase.clone());
    let play = pod.annotations().get(PLAY).map_or("run", String::as_str);
    let (wanted, ready) = match play {
        "succeed" => ("Succeeded", "False"),
        "fail" => ("Failed", "False"),
        "wait" => ("Running", "False"),
        _ => ("Running", "True"),
    };
    let has = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let mut ready_now = has
        .filter(|condition| condition.type_ == "Ready")
        .map(|c| c.status.clone());
    if phase.as_deref() == Some(wanted) && ready_now.next_back().as_deref() == Some(ready) {
        return Ok(());
    }
    let now = jiff::Timestamp::now();
    let status = json!({"status": {
        "phase": wanted,
        "podIP": format!("10.244.{}.{}", count / 250 % 250, count % 250 + 1),
        "podIPs": [{"ip": format!("10.244.{}.{}", count / 250 % 250, count % 250 + 1)}],
        "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": format!("{now:.0}")}],
    }});
    api.patch_status(&name, &PatchParams::default(), &Patch::Merge(status))
        .await?;
    Ok(())
}
