//! A real API server on loopback, the controllers, and a test that plays the agents: they renew their leases, say that
//! their Pods run, and end those that are deleted.

#[path = "../bed/server.rs"]
mod server;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use controllers::Settings;
use futures_util::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::coordination::v1::Lease;
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

/// How long a node may be silent here.
pub const GRACE: Duration = Duration::from_secs(3);
/// How long a node may be gone here.
pub const GONE: Duration = Duration::from_secs(1);

/// The cluster; everything ends with the value.
pub struct Bed {
    pub client: Client,
    /// Nodes whose agents live.
    alive: Arc<Mutex<BTreeSet<String>>>,
    renewed: Arc<Mutex<BTreeMap<String, Instant>>>,
    _tasks: JoinSet<()>,
    _folder: TempDir,
}

impl Bed {
    /// Starts all, with nodes of these names of 4 CPUs.
    pub async fn start(nodes: &[&str]) -> Result<Self> {
        // Another test of this process may have been first.
        let _ = tracing_subscriber::fmt().with_test_writer().try_init();
        let folder = tempfile::tempdir()?;
        let address = ([127, 0, 0, 1], 0).into();
        let (_, client) = serve(folder.path(), address, std::future::pending()).await?;
        let mut tasks = JoinSet::new();
        let alive: Arc<Mutex<BTreeSet<String>>> = Arc::default();
        let settings = Settings {
            node_monitor_grace: GRACE,
            node_gone_grace: GONE,
            pod_network: vec!["10.244.0.0/16".parse()?],
            ..Settings::default()
        };
        let controllers = controllers::run(client.clone(), settings, std::future::pending());
        tasks.spawn(async move {
            let ran = controllers.await;
            panic!("the controllers ended: {ran:?}");
        });
        let renewed = Arc::default();
        tasks.spawn(renew(
            client.clone(),
            Arc::clone(&alive),
            Arc::clone(&renewed),
        ));
        tasks.spawn(play(client.clone(), Arc::clone(&alive)));
        let bed = Self {
            client,
            alive,
            renewed,
            _tasks: tasks,
            _folder: folder,
        };
        for name in nodes {
            bed.add_node(name, "4").await?;
        }
        Ok(bed)
    }

    fn alive(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.alive.lock().unwrap()
    }

    /// All nodes.
    pub fn nodes(&self) -> Api<Node> {
        Api::all(self.client.clone())
    }

    /// The objects of a kind in a namespace.
    pub fn within<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// The objects of a kind in the namespace `default`.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        self.within("default")
    }

    /// Adds a node whose agent lives, and waits until it takes Pods.
    pub async fn add_node(&self, name: &str, cpu: &str) -> Result<()> {
        let node = json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}});
        let node = serde_json::from_value(node)?;
        self.nodes().create(&PostParams::default(), &node).await?;
        self.alive().insert(name.to_owned());
        self.say_ready(name, cpu).await?;
        until(&self.nodes(), name, |node| {
            let spec = node.spec.clone().unwrap_or_default();
            spec.taints.unwrap_or_default().is_empty() && spec.pod_cidr.is_some()
        })
        .await?;
        Ok(())
    }

    async fn say_ready(&self, name: &str, cpu: &str) -> Result<()> {
        let status = json!({"status": {
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady",
                "lastHeartbeatTime": now(), "lastTransitionTime": now()}],
            "allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "110"},
        }});
        let params = PatchParams::default();
        self.nodes()
            .patch_status(name, &params, &Patch::Merge(status))
            .await?;
        Ok(())
    }

    /// A node's agent, which has renewed its lease before, ends.
    pub fn stop(&self, name: &str) {
        while !self.renewed.lock().unwrap().contains_key(name) {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.alive().remove(name);
    }

    /// How long ago a node's agent last began to renew its lease.
    pub fn silence(&self, name: &str) -> Duration {
        self.renewed.lock().unwrap()[name].elapsed()
    }

    /// A node's agent is back.
    pub async fn resume(&self, name: &str) -> Result<()> {
        self.alive().insert(name.to_owned());
        self.say_ready(name, "4").await
    }

    /// Makes an object in the namespace `default`.
    pub async fn create<K>(&self, object: Value) -> Result<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + Serialize
            + DeserializeOwned,
    {
        let object = serde_json::from_value(object)?;
        Ok(self
            .api::<K>()
            .create(&PostParams::default(), &object)
            .await?)
    }

    /// Makes a Pod that asks for so much CPU.
    pub async fn create_pod(&self, name: &str, cpu: &str) -> Result<Pod> {
        self.create(pod(name, cpu)).await
    }
}

/// A Pod that asks for so much CPU.
pub fn pod(name: &str, cpu: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [
        {"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}},
    ]}})
}

/// The time now as objects have it.
pub fn now() -> String {
    format!("{:.0}", jiff::Timestamp::now())
}

/// Waits until the object of this name looks as wanted.
pub async fn until<K>(api: &Api<K>, name: &str, wanted: impl Fn(&K) -> bool) -> Result<K>
where
    K: Clone + Debug + DeserializeOwned,
{
    let begun = Instant::now();
    loop {
        let object = api.get_opt(name).await?;
        if let Some(object) = object.as_ref().filter(|object| wanted(object)) {
            return Ok(object.clone());
        }
        if begun.elapsed() > Duration::from_secs(90) {
            bail!("{name} never became what was wanted: {object:#?}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until there is no object of this name.
pub async fn until_gone<K>(api: &Api<K>, name: &str) -> Result<()>
where
    K: Clone + Debug + DeserializeOwned,
{
    let begun = Instant::now();
    while let Some(object) = api.get_opt(name).await? {
        if begun.elapsed() > Duration::from_secs(90) {
            bail!("{name} never went: {object:#?}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Renews the leases of all whose agents live.
async fn renew(
    client: Client,
    alive: Arc<Mutex<BTreeSet<String>>>,
    renewed: Arc<Mutex<BTreeMap<String, Instant>>>,
) {
    let leases: Api<Lease> = Api::namespaced(client, "kube-node-lease");
    loop {
        let names = alive.lock().unwrap().clone();
        for name in names {
            let lease = json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name},
                "spec": {"holderIdentity": name, "leaseDurationSeconds": 3,
                    "renewTime": format!("{:.6}", jiff::Timestamp::now())},
            });
            renewed.lock().unwrap().insert(name.clone(), Instant::now());
            let params = PatchParams::apply("agent").force();
            leases
                .patch(&name, &params, &Patch::Apply(lease))
                .await
                .unwrap();
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Plays the agents of all that live.
async fn play(client: Client, alive: Arc<Mutex<BTreeSet<String>>>) {
    let all: Api<Pod> = Api::all(client.clone());
    let events = watcher(all, watcher::Config::default()).default_backoff();
    let mut events = std::pin::pin!(events.applied_objects());
    while let Some(event) = events.next().await {
        let Ok(pod) = event else { continue };
        let node = controllers::pod::node(&pod).unwrap_or_default();
        if !alive.lock().unwrap().contains(node) {
            continue;
        }
        let result = act(&client, &pod).await;
        // Another write came between: its event follows.
        if let Err(error) = result
            && !matches!(&error, kube::Error::Api(status) if matches!(status.code, 404 | 409))
        {
            panic!("play the agent of {}: {error}", pod.name_any());
        }
    }
}

async fn act(client: &Client, pod: &Pod) -> kube::Result<()> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let name = pod.name_any();
    if pod.metadata.deletion_timestamp.is_some() {
        if pod.metadata.deletion_grace_period_seconds != Some(0) {
            let at_once = DeleteParams::default().grace_period(0);
            api.delete(&name, &at_once).await?;
        }
        return Ok(());
    }
    if !controllers::pod::is_ready(pod) {
        let status = json!({"status": {"phase": "Running", "conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": now()},
        ]}});
        api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(status))
            .await?;
    }
    Ok(())
}
