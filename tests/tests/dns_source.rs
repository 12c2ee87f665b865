//! What the cluster DNS is told of the objects of our own API server: which, in which order, and what while the server is
//! away.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use dns::model::{Event, Kind, Target};
use dns::objects::Key;
use dns::source::{Named, Pods, Source};
use futures_util::{StreamExt, TryStreamExt, stream};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tests::ApiServer;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

/// For whatever should come soon: the machine may be busy with other tests.
const SOON: Duration = Duration::from_secs(30);
/// More than two pages of a list.
const MANY: usize = 450;

/// A source that runs, and what it has told.
struct Told {
    events: mpsc::Receiver<Vec<Event>>,
    objects: BTreeMap<Key, Event>,
    /// Of lists that have begun: what they have not named yet.
    unnamed: BTreeMap<Kind, BTreeSet<Key>>,
    /// How many lists of a kind were whole.
    lists: BTreeMap<Kind, usize>,
    /// Objects that were said to be gone.
    gone: Vec<Key>,
    task: JoinHandle<()>,
}

impl Drop for Told {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Told {
    async fn from(kubeconfig: &Path, pods: Pods) -> Result<Self> {
        let kube = source::Kube::new(Some(kubeconfig), None, Named { pods }).await?;
        let (sender, events) = mpsc::channel(4);
        Ok(Self {
            events,
            objects: BTreeMap::new(),
            unnamed: BTreeMap::new(),
            lists: BTreeMap::new(),
            gone: Vec::new(),
            task: tokio::spawn(Source::Kube(kube).run(sender)),
        })
    }

    fn fold(&mut self, event: Event) -> Result<()> {
        let Some(key) = Key::of(&event) else {
            match event {
                Event::Restarted(kind) => {
                    let known = self.objects.keys().filter(|key| key.0 == kind);
                    self.unnamed.insert(kind, known.cloned().collect());
                }
                Event::Listed(kind) => {
                    let left = self.unnamed.remove(&kind);
                    let left = left.with_context(|| format!("a list of {kind:?} never began"))?;
                    self.objects.retain(|key, _| !left.contains(key));
                    *self.lists.entry(kind).or_default() += 1;
                }
                other => bail!("{other:?} is of no object"),
            }
            return Ok(());
        };
        let begun = self.unnamed.get_mut(&key.0);
        ensure!(
            begun.is_some() || self.lists.contains_key(&key.0),
            "{event:?} before any list"
        );
        begun.map(|unnamed| unnamed.remove(&key));
        if event == key.clone().gone() {
            self.objects.remove(&key);
            self.gone.push(key);
        } else {
            self.objects.insert(key, event);
        }
        Ok(())
    }

    async fn until(&mut self, what: &str, so: impl Fn(&Self) -> bool) -> Result<()> {
        let end = Instant::now() + SOON;
        while !so(self) {
            match timeout_at(end, self.events.recv()).await {
                Ok(Some(batch)) => batch.into_iter().try_for_each(|event| self.fold(event))?,
                Ok(None) => bail!("the source ended before {what}"),
                Err(_) => bail!("not {what}: {:?} after {:?}", self.objects, self.lists),
            }
        }
        Ok(())
    }

    async fn for_a_while(&mut self, pause: Duration) -> Result<()> {
        let end = Instant::now() + pause;
        while let Ok(batch) = timeout_at(end, self.events.recv()).await {
            let batch = batch.context("the source ended")?;
            batch.into_iter().try_for_each(|event| self.fold(event))?;
        }
        Ok(())
    }

    fn names(&self, kind: Kind) -> Vec<&str> {
        let of_kind = self.objects.keys().filter(|key| key.0 == kind);
        let ours = of_kind.filter(|key| &*key.1.namespace == "shop");
        ours.map(|key| &*key.1.name).collect()
    }

    fn has(&self, kind: Kind, name: &str) -> bool {
        self.names(kind).contains(&name)
    }

    fn is_listed(&self, kinds: &[Kind]) -> bool {
        kinds.iter().all(|kind| self.lists.contains_key(kind))
    }

    fn target(&self, name: &str) -> Option<&Target> {
        self.objects.values().find_map(|event| match event {
            Event::Service(service) if &*service.name.name == name => Some(&service.target),
            _ => None,
        })
    }
}

async fn client(server: &ApiServer) -> Result<Client> {
    let file = Kubeconfig::read_from(server.kubeconfig())?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    let client = Client::try_from(config)?;
    let namespace = serde_json::from_value(json!({"metadata": {"name": "shop"}}))?;
    Api::all(client.clone())
        .create(&PostParams::default(), &namespace)
        .await
        .map(|_: k8s_openapi::api::core::v1::Namespace| client)
        .context("create the namespace")
}

async fn create<K>(client: &Client, object: Value) -> Result<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned,
{
    let shown = object.to_string();
    let object: K = serde_json::from_value(object)?;
    let api: Api<K> = Api::namespaced(client.clone(), "shop");
    let made = api.create(&PostParams::default(), &object).await;
    made.with_context(|| format!("create {shown}"))
}

fn service(name: &str, more: Value) -> Value {
    let mut spec = json!({"ports": [{"name": "http", "port": 80}]});
    if let (Value::Object(spec), Value::Object(more)) = (&mut spec, more) {
        spec.extend(more);
    }
    json!({"metadata": {"name": name}, "spec": spec})
}

fn slice(service: &str, addresses: &[&str]) -> Value {
    let endpoints: Vec<_> = addresses
        .iter()
        .map(|address| json!({"addresses": [address], "conditions": {"ready": true}}))
        .collect();
    let labels =
        json!({"kubernetes.io/service-name": service, "service.kubernetes.io/headless": ""});
    json!({"metadata": {"name": format!("{service}-1"), "labels": labels}, "addressType": "IPv4",
        "endpoints": endpoints, "ports": [{"name": "http", "port": 8080}]})
}

async fn patch_slice(client: &Client, service: &str, addresses: &[&str]) -> Result<()> {
    let api: Api<EndpointSlice> = Api::namespaced(client.clone(), "shop");
    let patch = json!({"endpoints": slice(service, addresses)["endpoints"]});
    let name = format!("{service}-1");
    api.patch(&name, &PatchParams::default(), &Patch::Merge(&patch))
        .await?;
    Ok(())
}

#[tokio::test]
async fn services_of_all_sorts_and_all_slices_are_told() -> Result<()> {
    let server = ApiServer::start(&[])?;
    let client = client(&server).await?;
    create::<Service>(&client, service("web", json!({}))).await?;
    create::<Service>(&client, service("own", json!({"clusterIP": "None"}))).await?;
    create::<EndpointSlice>(&client, slice("own", &["10.1.0.1"])).await?;

    let mut told = Told::from(&server.kubeconfig(), Pods::None).await?;
    let kinds = [Kind::Services, Kind::Slices];
    told.until("listed", |told| told.is_listed(&kinds)).await?;
    ensure!(told.names(Kind::Services) == ["own", "web"]);
    ensure!(told.names(Kind::Slices) == ["own-1"]);
    ensure!(told.target("own") == Some(&Target::Headless));
    let address =
        |told: &Told| matches!(told.target("web"), Some(Target::ClusterIps(ips)) if ips.len() == 1);
    ensure!(address(&told), "{:?}", told.target("web"));

    let far = json!({"type": "ExternalName", "externalName": "example.org"});
    create::<Service>(&client, service("far", far)).await?;
    let external = Target::External("example.org".into());
    told.until("an external name", |told| {
        told.target("far") == Some(&external)
    })
    .await?;
    patch_slice(&client, "own", &["10.1.0.1", "10.1.0.2"]).await?;
    told.until("another endpoint", |told| {
        told.objects.values().any(|event| {
            matches!(event, Event::Slice(slice) if &*slice.name.name == "own-1" && slice.endpoints.len() == 2)
        })
    })
    .await?;
    let api: Api<Service> = Api::namespaced(client, "shop");
    api.delete("own", &DeleteParams::default()).await?;
    told.until("gone", |told| !told.has(Kind::Services, "own"))
        .await?;
    ensure!(
        told.lists.values().all(|&lists| lists == 1),
        "{:?}",
        told.lists
    );
    Ok(())
}

#[tokio::test]
async fn a_list_of_several_pages_is_one() -> Result<()> {
    let server = ApiServer::start(&["--service-cidr=10.100.0.0/16"])?;
    let client = client(&server).await?;
    stream::iter(0..MANY)
        .map(async |number| {
            let name = format!("s{number}");
            create::<Service>(&client, service(&name, json!({}))).await?;
            create::<EndpointSlice>(&client, slice(&name, &["10.1.0.1"])).await?;
            anyhow::Ok(())
        })
        .buffer_unordered(16)
        .try_collect::<()>()
        .await?;
    let mut told = Told::from(&server.kubeconfig(), Pods::None).await?;
    let kinds = [Kind::Services, Kind::Slices];
    told.until("listed", |told| told.is_listed(&kinds)).await?;
    for kind in kinds {
        let count = told.names(kind).len();
        ensure!(count == MANY, "{count} of {kind:?}");
    }
    ensure!(
        told.lists.values().all(|&lists| lists == 1),
        "{:?}",
        told.lists
    );
    Ok(())
}

#[tokio::test]
async fn while_the_server_is_away_nothing_is_taken_back() -> Result<()> {
    let mut server = ApiServer::start(&[])?;
    let client = client(&server).await?;
    for name in ["stays", "goes"] {
        create::<Service>(&client, service(name, json!({}))).await?;
        create::<EndpointSlice>(&client, slice(name, &["10.1.0.1"])).await?;
    }
    let mut told = Told::from(&server.kubeconfig(), Pods::None).await?;
    let kinds = [Kind::Services, Kind::Slices];
    told.until("listed", |told| told.is_listed(&kinds)).await?;

    for round in 0..2 {
        let before = told.objects.clone();
        server.kill()?;
        // Long enough for several attempts.
        told.for_a_while(Duration::from_secs(3)).await?;
        ensure!(told.objects == before, "{:?} of {before:?}", told.objects);
        ensure!(told.gone.is_empty(), "{:?}", told.gone);
        server.resume()?;
        let late = format!("late-{round}");
        create::<Service>(&client, service(&late, json!({}))).await?;
        told.until("what came later", |told| told.has(Kind::Services, &late))
            .await?;
        ensure!(told.gone.is_empty(), "{:?}", told.gone);
        ensure!(before.keys().all(|key| told.objects.contains_key(key)));
    }

    // What goes while nobody could hear of it is gone afterwards, by an event or by a list that does not name it.
    server.kill()?;
    server.resume()?;
    let api: Api<Service> = Api::namespaced(client.clone(), "shop");
    api.delete("goes", &DeleteParams::default()).await?;
    let api: Api<EndpointSlice> = Api::namespaced(client, "shop");
    api.delete("goes-1", &DeleteParams::default()).await?;
    told.until("gone", |told| {
        !told.has(Kind::Services, "goes") && !told.has(Kind::Slices, "goes-1")
    })
    .await?;
    ensure!(told.names(Kind::Services) == ["late-0", "late-1", "stays"]);
    ensure!(told.names(Kind::Slices) == ["stays-1"]);
    Ok(())
}

#[tokio::test]
async fn pods_of_a_node_or_all_while_they_have_an_address_of_their_own() -> Result<()> {
    let server = ApiServer::start(&[])?;
    let client = client(&server).await?;
    let api: Api<Pod> = Api::namespaced(client.clone(), "shop");
    let pod = |name: &str, node: &str, on_host: bool| {
        json!({"metadata": {"name": name}, "spec": {"nodeName": node, "hostNetwork": on_host,
            "containers": [{"name": "c", "image": "i"}]}})
    };
    let set = async |name: &str, phase: &str, address: &str| -> Result<()> {
        let status =
            json!({"status": {"phase": phase, "podIP": address, "podIPs": [{"ip": address}]}});
        api.patch_status(name, &PatchParams::default(), &Patch::Merge(&status))
            .await
            .with_context(|| format!("patch the status of {name}"))?;
        Ok(())
    };
    for (name, node, on_host) in [("a", "n1", false), ("b", "n2", false), ("host", "n1", true)] {
        create::<Pod>(&client, pod(name, node, on_host)).await?;
    }
    set("a", "Running", "10.1.0.1").await?;
    set("host", "Running", "192.0.2.1").await?;

    let kinds = [Kind::Services, Kind::Slices, Kind::Pods];
    let mut of_node = Told::from(&server.kubeconfig(), Pods::OfNode("n1".into())).await?;
    let mut all = Told::from(&server.kubeconfig(), Pods::All).await?;
    for told in [&mut of_node, &mut all] {
        told.until("listed", |told| told.is_listed(&kinds)).await?;
        ensure!(told.names(Kind::Pods) == ["a"]);
    }
    set("b", "Running", "10.2.0.1").await?;
    all.until("b", |told| told.has(Kind::Pods, "b")).await?;
    // One that ends gives its address back, though it still says it.
    set("a", "Succeeded", "10.1.0.1").await?;
    for told in [&mut of_node, &mut all] {
        told.until("a has ended", |told| !told.has(Kind::Pods, "a"))
            .await?;
    }
    create::<Pod>(&client, pod("c", "n1", false)).await?;
    set("c", "Running", "10.1.0.1").await?;
    for told in [&mut of_node, &mut all] {
        told.until("c", |told| told.has(Kind::Pods, "c")).await?;
    }
    ensure!(of_node.names(Kind::Pods) == ["c"]);
    ensure!(all.names(Kind::Pods) == ["b", "c"]);
    Ok(())
}
