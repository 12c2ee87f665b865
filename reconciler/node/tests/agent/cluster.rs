//! A real API server in this process, and agents with books for a runtime.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client};
use node::agent::{self, Config, Directory};
use node::runtime::Runtime;
use reconciler::api::{Config as ServerConfig, Server};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::paper::Paper;

/// For what has to come; a machine under load takes its time.
const LIMIT: Duration = Duration::from_secs(90);

/// An API server and one node.
pub struct Cluster {
    pub folder: tempfile::TempDir,
    pub client: Client,
    pub runtime: Paper,
    /// Instead of the books.
    pub real: Option<Arc<dyn Runtime>>,
    pub directory: Directory,
    server: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
    agent: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
    port: u16,
}

impl Cluster {
    pub async fn new() -> Self {
        Self::with(None).await
    }

    pub async fn with(real: Option<Arc<dyn Runtime>>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (server, kubeconfig, port) = serve(folder.path().join("server"), 0).await;
        let kubeconfig = kube::config::Kubeconfig::read_from(kubeconfig).unwrap();
        let options = kube::config::KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .unwrap();
        let mut cluster = Self {
            folder,
            client: Client::try_from(config).unwrap(),
            runtime: Paper::default(),
            real,
            directory: Directory::default(),
            server: Some(server),
            agent: None,
            port,
        };
        cluster.start_agent();
        cluster
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("node")
    }

    pub fn start_agent(&mut self) {
        let (end, ended) = oneshot::channel();
        let mut config = Config::new("n1", vec![IpAddr::V4(Ipv4Addr::LOCALHOST)], self.data());
        config.cluster_dns = vec!["10.96.0.10".parse().unwrap()];
        config.renew_interval = Duration::from_millis(500);
        config.directory = self.directory.clone();
        let client = self.client.clone();
        let books = || Arc::new(self.runtime.clone()) as Arc<dyn Runtime>;
        let runtime = self.real.clone().unwrap_or_else(books);
        let task = tokio::spawn(async move {
            let end = async { drop(ended.await) };
            agent::run(config, runtime, client, end).await.unwrap();
        });
        self.agent = Some((end, task));
    }

    pub async fn stop_agent(&mut self) {
        let (end, task) = self.agent.take().unwrap();
        let _ = end.send(());
        task.await.unwrap();
    }

    pub async fn stop_server(&mut self) {
        let (end, task) = self.server.take().unwrap();
        let _ = end.send(());
        task.await.unwrap();
    }

    pub async fn start_server(&mut self) {
        let (server, _, _) = serve(self.folder.path().join("server"), self.port).await;
        self.server = Some(server);
    }

    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), "default")
    }

    /// Creates a Pod bound to the node; `spec` is merged over one with a container `c`.
    pub async fn create(&self, name: &str, spec: Value) -> Pod {
        let mut whole = json!({
            "nodeName": "n1",
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "c", "image": "host", "command": ["run"]}],
        });
        for (key, value) in spec.as_object().unwrap() {
            whole[key] = value.clone();
        }
        let pod =
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": whole});
        let pod = serde_json::from_value(pod).unwrap();
        self.pods()
            .create(&PostParams::default(), &pod)
            .await
            .unwrap()
    }

    /// The Pod as JSON; null if there is none.
    pub async fn get(&self, name: &str) -> Value {
        let pod = self.pods().get_opt(name).await.unwrap();
        pod.map_or(Value::Null, |pod| serde_json::to_value(pod).unwrap())
    }

    /// Waits until a Pod is as it should be.
    pub async fn until(&self, name: &str, what: &str, test: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + LIMIT;
        loop {
            let pod = self.get(name).await;
            if test(&pod) {
                return pod;
            }
            assert!(
                Instant::now() < end,
                "{name} is never {what}: {:#}",
                pod["status"]
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn running(&self, name: &str) -> Value {
        self.until(name, "running and ready", is_ready).await
    }

    pub async fn delete(&self, name: &str) {
        self.pods()
            .delete(name, &DeleteParams::default())
            .await
            .unwrap();
    }

    pub async fn gone(&self, name: &str) {
        self.until(name, "gone", Value::is_null).await;
    }

    /// Reasons and messages of the events of a Pod, in order.
    pub async fn events(&self, name: &str) -> Vec<String> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), "default");
        let fields = ListParams::default().fields(&format!("involvedObject.name={name}"));
        let mut events = api.list(&fields).await.unwrap().items;
        events.sort_by_key(|event| {
            event
                .metadata
                .resource_version
                .as_deref()
                .and_then(|v| v.parse::<u64>().ok())
        });
        let told = events.into_iter().map(|event| {
            format!(
                "{} {}",
                event.reason.unwrap_or_default(),
                event.message.unwrap_or_default()
            )
        });
        told.collect()
    }

    pub async fn event(&self, name: &str, wanted: &str) {
        let end = Instant::now() + LIMIT;
        loop {
            let events = self.events(name).await;
            if events.iter().any(|event| event.contains(wanted)) {
                return;
            }
            assert!(
                Instant::now() < end,
                "no event {wanted:?} of {name}: {events:#?}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Ends all, and checks that nothing of any Pod is left on the node.
    pub async fn close(mut self, is_empty: bool) {
        if is_empty {
            until(|| async { self.runtime.books().sandboxes.is_empty() }).await;
            let left: Vec<_> = std::fs::read_dir(self.data().join("pods"))
                .unwrap()
                .flatten()
                .collect();
            assert!(left.is_empty(), "{left:?}");
        }
        self.stop_agent().await;
        self.stop_server().await;
    }
}

pub fn is_ready(pod: &Value) -> bool {
    condition(pod, "Ready") == Some("True") && pod["status"]["phase"] == "Running"
}

pub fn condition<'a>(pod: &'a Value, kind: &str) -> Option<&'a str> {
    let conditions = pod["status"]["conditions"].as_array()?;
    conditions
        .iter()
        .find(|condition| condition["type"] == kind)?["status"]
        .as_str()
}

pub async fn until<F: Future<Output = bool>>(test: impl Fn() -> F) {
    let end = Instant::now() + LIMIT;
    while !test().await {
        assert!(Instant::now() < end, "it never comes");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn serve(data: PathBuf, port: u16) -> ((oneshot::Sender<()>, JoinHandle<()>), PathBuf, u16) {
    let config = ServerConfig {
        data,
        store: "embedded".to_owned(),
        credentials: reconciler::store::Credentials::default(),
        listen: vec![([127, 0, 0, 1], port).into()],
        service_networks: vec!["10.96.0.0/16".parse().unwrap()],
        node_ports: (30000, 32767),
        empties_namespaces: true,
    };
    let server = Server::open(config, Vec::new()).await.unwrap();
    let kubeconfig = server.kubeconfig().clone();
    let port = server.addresses()[0].port();
    let (end, ended) = oneshot::channel::<()>();
    let (ready, is_ready) = oneshot::channel();
    let task = tokio::spawn(async move {
        let end = async { drop(ended.await) };
        server
            .run(end, || {
                let _ = ready.send(());
            })
            .await
            .unwrap();
    });
    is_ready.await.unwrap();
    ((end, task), kubeconfig, port)
}
