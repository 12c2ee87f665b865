//! ConfigMaps and Secrets that Pods of this node use: one watch each, shared, for as long as a Pod uses it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::spec;
use super::wake::Wake;
use super::watching::{self, Outages};

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A ConfigMap; `data` and `binaryData`.
    ConfigMap,
    /// A Secret.
    Secret,
}

impl Kind {
    /// `configmap`
    pub fn word(self) -> &'static str {
        match self {
            Self::ConfigMap => "configmap",
            Self::Secret => "secret",
        }
    }

    /// `ConfigMap`
    pub fn title(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
        }
    }
}

/// Keys and values.
pub type Data = Arc<BTreeMap<String, Vec<u8>>>;

/// Finds what has been asked for before.
pub trait Lookup: Sync {
    /// The object's data, or that there is none.
    ///
    /// # Errors
    /// It is not known yet.
    fn find(&self, kind: Kind, namespace: &str, name: &str) -> Result<Option<Data>, String>;
}

type Key = (Kind, String, String);

/// All that are watched.
pub struct Objects {
    client: Client,
    outages: Outages,
    entries: Mutex<HashMap<Key, Weak<Entry>>>,
}

struct Entry {
    state: Arc<State>,
    task: AbortHandle,
}

/// Absent until the first answer.
struct State {
    value: watch::Sender<Option<Option<Data>>>,
    listeners: Mutex<Vec<Weak<Wake>>>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl State {
    fn set(&self, data: Option<Data>) {
        let changed = self.value.send_if_modified(|value| {
            let changed = value.as_ref() != Some(&data);
            *value = Some(data);
            changed
        });
        if changed {
            let mut listeners = lock(&self.listeners);
            listeners.retain(|listener| listener.strong_count() > 0);
            for listener in listeners.iter().filter_map(Weak::upgrade) {
                listener.ring_stale();
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Objects {
    /// None yet.
    pub fn new(client: Client, outages: Outages) -> Self {
        Self {
            client,
            outages,
            entries: Mutex::default(),
        }
    }

    fn hold(&self, key: &Key, wake: &Arc<Wake>) -> Arc<Entry> {
        let mut entries = lock(&self.entries);
        entries.retain(|_, entry| entry.strong_count() > 0);
        let entry = entries.get(key).and_then(Weak::upgrade).unwrap_or_else(|| {
            let state = Arc::new(State {
                value: watch::Sender::new(None),
                listeners: Mutex::default(),
            });
            let task = tokio::spawn(follow(
                self.client.clone(),
                self.outages.clone(),
                key.clone(),
                state.clone(),
            ));
            Arc::new(Entry {
                state,
                task: task.abort_handle(),
            })
        });
        entries.insert(key.clone(), Arc::downgrade(&entry));
        lock(&entry.state.listeners).push(Arc::downgrade(wake));
        entry
    }
}

async fn follow(client: Client, outages: Outages, key: Key, state: Arc<State>) {
    let (kind, namespace, name) = key;
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let what = format!("{} {namespace}/{name}", kind.word());
    match kind {
        Kind::ConfigMap => {
            let api: Api<ConfigMap> = Api::namespaced(client, &namespace);
            let mut seen = None;
            watching::forever(&what, api, config, outages, |event| {
                note(&state, &mut seen, event, |map: ConfigMap| {
                    let binary = map.binary_data.into_iter().flatten();
                    let text = map.data.into_iter().flatten();
                    text.map(|(key, value)| (key, value.into_bytes()))
                        .chain(binary.map(|(key, value)| (key, value.0)))
                        .collect()
                });
            })
            .await;
        }
        Kind::Secret => {
            let api: Api<Secret> = Api::namespaced(client, &namespace);
            let mut seen = None;
            watching::forever(&what, api, config, outages, |event| {
                note(&state, &mut seen, event, |secret: Secret| {
                    let data = secret.data.into_iter().flatten();
                    data.map(|(key, value)| (key, value.0)).collect()
                });
            })
            .await;
        }
    }
}

/// `seen` gathers a list; it counts when it is complete.
fn note<K>(
    state: &State,
    seen: &mut Option<Data>,
    event: Event<K>,
    read: impl Fn(K) -> BTreeMap<String, Vec<u8>>,
) {
    match event {
        Event::Init => *seen = None,
        Event::InitApply(object) => *seen = Some(Arc::new(read(object))),
        Event::InitDone => state.set(seen.take()),
        Event::Apply(object) => state.set(Some(Arc::new(read(object)))),
        Event::Delete(_) => state.set(None),
    }
}

/// What one Pod uses.
#[derive(Default)]
pub struct Held {
    entries: BTreeMap<Key, Arc<Entry>>,
}

impl Held {
    /// Holds all that a Pod names.
    pub fn new(objects: &Objects, pod: &Pod, wake: &Arc<Wake>) -> Self {
        Self {
            entries: references(pod)
                .into_iter()
                .map(|key| {
                    let entry = objects.hold(&key, wake);
                    (key, entry)
                })
                .collect(),
        }
    }

    /// Waits until all are known.
    ///
    /// # Errors
    /// The first that is not after `limit`.
    pub async fn known(&self, limit: Duration) -> Result<(), String> {
        let end = tokio::time::Instant::now() + limit;
        for ((kind, namespace, name), entry) in &self.entries {
            let mut value = entry.state.value.subscribe();
            let known = tokio::time::timeout_at(end, value.wait_for(Option::is_some)).await;
            if known.is_err() {
                return Err(format!(
                    "failed to sync {} cache: timed out waiting for {namespace}/{name}",
                    kind.word()
                ));
            }
        }
        Ok(())
    }
}

impl Lookup for Held {
    fn find(&self, kind: Kind, namespace: &str, name: &str) -> Result<Option<Data>, String> {
        self.entries
            .get(&(kind, namespace.to_owned(), name.to_owned()))
            .and_then(|entry| entry.state.value.borrow().clone())
            .ok_or_else(|| format!("{} {namespace}/{name} is not known yet", kind.word()))
    }
}

/// All ConfigMaps and Secrets that a Pod names.
fn references(pod: &Pod) -> Vec<Key> {
    let mut names: Vec<(Kind, String)> = Vec::new();
    let (map, secret) = (Kind::ConfigMap, Kind::Secret);
    for (_, container) in spec::all(pod) {
        for source in container.env_from.iter().flatten() {
            names.extend(
                source
                    .config_map_ref
                    .iter()
                    .map(|of| (map, of.name.clone())),
            );
            names.extend(source.secret_ref.iter().map(|of| (secret, of.name.clone())));
        }
        for from in container
            .env
            .iter()
            .flatten()
            .filter_map(|entry| entry.value_from.as_ref())
        {
            names.extend(
                from.config_map_key_ref
                    .iter()
                    .map(|of| (map, of.name.clone())),
            );
            names.extend(
                from.secret_key_ref
                    .iter()
                    .map(|of| (secret, of.name.clone())),
            );
        }
    }
    let volumes = spec::spec(pod).and_then(|spec| spec.volumes.as_deref());
    for volume in volumes.unwrap_or_default() {
        names.extend(volume.config_map.iter().map(|of| (map, of.name.clone())));
        names.extend(
            volume
                .secret
                .iter()
                .filter_map(|of| of.secret_name.clone())
                .map(|name| (secret, name)),
        );
        let projected = volume
            .projected
            .iter()
            .flat_map(|of| of.sources.iter().flatten());
        for source in projected {
            names.extend(source.config_map.iter().map(|of| (map, of.name.clone())));
            names.extend(source.secret.iter().map(|of| (secret, of.name.clone())));
        }
    }
    names.sort();
    names.dedup();
    names
        .into_iter()
        .filter(|(_, name)| !name.is_empty())
        .map(|(kind, name)| (kind, spec::namespace(pod).to_owned(), name))
        .collect()
}
