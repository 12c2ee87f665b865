//! A real API server on loopback that can go away and come back, the controllers, a player of the nodes' agents, and
//! an observer that counts Pods at every change.

#[path = "../bed/server.rs"]
mod server;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use controllers::Settings;
use controllers::pod;
use futures_util::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

use server::serve;

const NODES: [&str; 2] = ["n1", "n2"];
/// The image of containers that never become ready.
pub const BROKEN: &str = "broken";

/// A kind in a namespace.
pub trait Kind:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
{
}
impl<K> Kind for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned
{
}

/// The cluster; everything ends with the value.
pub struct Bed {
    pub client: Client,
    seen: Arc<Mutex<Seen>>,
    address: SocketAddr,
    server: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
    _tasks: JoinSet<()>,
    folder: TempDir,
}

/// What the observer has seen of the Pods.
#[derive(Default)]
struct Seen {
    pods: BTreeMap<String, Pod>,
    ever: BTreeSet<String>,
    fewest_ready: usize,
    most: usize,
}

impl Seen {
    fn take(&mut self, event: watcher::Event<Pod>) {
        match event {
            watcher::Event::Apply(pod) | watcher::Event::InitApply(pod) => {
                self.ever.insert(pod.uid().unwrap_or_default());
                self.pods.insert(pod.name_any(), pod);
            }
            watcher::Event::Delete(pod) => _ = self.pods.remove(&pod.name_any()),
            watcher::Event::Init | watcher::Event::InitDone => {}
        }
        let active = self.pods.values().filter(|pod| pod::is_active(pod));
        let ready = active.clone().filter(|pod| pod::is_ready(pod)).count();
        self.fewest_ready = self.fewest_ready.min(ready);
        self.most = self.most.max(active.count());
    }
}

impl Bed {
    /// Starts all.
    pub async fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        // A port that nobody had a moment ago: the server must come back on it.
        let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let (end, ended) = oneshot::channel();
        let (running, client) = serve(folder.path(), address, until(ended)).await?;
        let seen = Arc::<Mutex<Seen>>::default();
        let mut tasks = JoinSet::new();
        for name in NODES {
            add_node(&client, name).await?;
        }
        let settings = Settings {
            node_monitor_grace: Duration::from_secs(3600),
            ..Settings::default()
        };
        let controllers = controllers::run(client.clone(), settings, std::future::pending());
        tasks.spawn(async {
            let ran = controllers.await;
            panic!("the controllers ended: {ran:?}");
        });
        tasks.spawn(play(client.clone()));
        tasks.spawn(observe(client.clone(), Arc::clone(&seen)));
        Ok(Self {
            client,
            seen,
            address,
            server: Some((end, running)),
            _tasks: tasks,
            folder,
        })
    }

    /// Ends the API server.
    pub async fn stop_server(&mut self) -> Result<()> {
        let (end, running) = self.server.take().context("the server runs")?;
        _ = end.send(());
        Ok(running.await?)
    }

    /// Starts it again, where it was and with what it had.
    pub async fn start_server(&mut self) -> Result<()> {
        let (end, ended) = oneshot::channel();
        let (running, _) = serve(self.folder.path(), self.address, until(ended)).await?;
        self.server = Some((end, running));
        Ok(())
    }

    /// The objects of a kind in the namespace `default`.
    pub fn api<K: Kind>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), "default")
    }

    /// Makes an object.
    pub async fn create<K: Kind>(&self, object: Value) -> Result<K> {
        Ok(self
            .api::<K>()
            .create(&PostParams::default(), &serde_json::from_value(object)?)
            .await?)
    }

    /// Changes an object by a merge patch.
    pub async fn merge<K: Kind>(&self, name: &str, patch: Value) -> Result<K> {
        Ok(self
            .api::<K>()
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await?)
    }

    /// Waits until the object of this name looks as wanted.
    pub async fn until<K: Kind>(&self, name: &str, wanted: impl Fn(&K) -> bool) -> Result<K> {
        let begun = Instant::now();
        loop {
            let mut object = self.api::<K>().get(name).await?;
            if wanted(&object) {
                return Ok(object);
            }
            if begun.elapsed() > Duration::from_secs(180) {
                object.meta_mut().managed_fields = None;
                let object = serde_json::to_string_pretty(&object)?;
                let pods = self.pods();
                let events = self
                    .api::<Event>()
                    .list(&ListParams::default())
                    .await?
                    .items;
                let events: Vec<_> = events
                    .into_iter()
                    .filter_map(|event| event.message)
                    .collect();
                bail!(
                    "{name} never became what was wanted: {object}\nPods: {pods:#?}\nEvents: {events:#?}"
                );
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Each Pod that there is, with its node and phase.
    fn pods(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        let line = |pod: &Pod| {
            format!(
                "{} on {:?}: {}",
                pod.name_any(),
                pod::node(pod),
                pod::phase(pod)
            )
        };
        seen.pods.values().map(line).collect()
    }

    /// Counts anew, from the state that the observer knows.
    pub fn count_anew(&self) {
        let mut seen = self.seen.lock().unwrap();
        let active = seen.pods.values().filter(|pod| pod::is_active(pod));
        (seen.most, seen.fewest_ready) = (
            active.clone().count(),
            active.filter(|pod| pod::is_ready(pod)).count(),
        );
    }

    /// The fewest ready and the most active Pods at one time since then, and all Pods that there ever were.
    pub fn counted(&self) -> (usize, usize, usize) {
        let seen = self.seen.lock().unwrap();
        (seen.fewest_ready, seen.most, seen.ever.len())
    }

    /// The messages of the events with this reason, in the order of their names.
    pub async fn told(&self, reason: &str) -> Result<Vec<String>> {
        let events = self.api::<Event>().list(&ListParams::default()).await?;
        let told = events
            .items
            .into_iter()
            .filter(|event| event.reason.as_deref() == Some(reason));
        let mut told: Vec<_> = told
            .map(|event| (event.metadata.name, event.message.unwrap_or_default()))
            .collect();
        told.sort();
        Ok(told.into_iter().map(|(_, message)| message).collect())
    }
}

async fn until(ended: oneshot::Receiver<()>) {
    _ = ended.await;
}

async fn add_node(client: &Client, name: &str) -> Result<()> {
    let api: Api<Node> = Api::all(client.clone());
    let node = json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}});
    api.create(&PostParams::default(), &serde_json::from_value(node)?)
        .await?;
    let params = PatchParams::default();
    let untainted = json!({"spec": {"taints": Vec::<Value>::new()}});
    api.patch(name, &params, &Patch::Merge(untainted)).await?;
    let status = json!({"status": {
        "conditions": [{"type": "Ready", "status": "True"}],
        "allocatable": {"cpu": "64", "memory": "64Gi", "pods": "500"},
    }});
    api.patch_status(name, &params, &Patch::Merge(status))
        .await?;
    Ok(())
}

async fn observe(client: Client, seen: Arc<Mutex<Seen>>) {
    let events = watcher(Api::all(client), watcher::Config::default()).default_backoff();
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        if let Ok(event) = event {
            seen.lock().unwrap().take(event);
        }
    }
}

/// Plays the agents: Pods that are placed run and become ready, those that are deleted end.
async fn play(client: Client) {
    let events =
        watcher(Api::<Pod>::all(client.clone()), watcher::Config::default()).default_backoff();
    let mut events = std::pin::pin!(events.applied_objects());
    while let Some(event) = events.next().await {
        let Ok(pod) = event else { continue };
        while let Err(error) = act(&client, &pod).await {
            match error {
                // Another write came between: its event follows.
                kube::Error::Api(status) if matches!(status.code, 404 | 409) => break,
                // The server is away.
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }
}

async fn act(client: &Client, pod: &Pod) -> kube::Result<()> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let name = pod.name_any();
    if pod::is_terminating(pod) {
        if pod.metadata.deletion_grace_period_seconds != Some(0) {
            api.delete(&name, &DeleteParams::default().grace_period(0))
                .await?;
        }
        return Ok(());
    }
    let broken = pod
        .spec
        .iter()
        .flat_map(|spec| &spec.containers)
        .any(|container| container.image.as_deref() == Some(BROKEN));
    if pod::node(pod).is_none() || pod::is_ready(pod) || broken {
        return Ok(());
    }
    let now = format!("{:.0}", jiff::Timestamp::now());
    let status = json!({"status": {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": now}],
    }});
    api.patch_status(&name, &PatchParams::default(), &Patch::Merge(status))
        .await?;
    Ok(())
}
