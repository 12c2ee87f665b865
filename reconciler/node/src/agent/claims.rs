//! Persistent volume claims: a folder of the node each, made on demand, kept until the claim is deleted.
//!
//! `CLAIMS/NAMESPACE/NAME`, with the claim's uid beside it in `CLAIMS/NAMESPACE/.NAME`, so that a claim of the same
//! name made later does not find the data of an earlier one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, ResourceExt as _};
use tokio::sync::watch;

use super::volumes::place;
use super::watching::{self, Outages};

type Name = (String, String);

/// All claims.
pub struct Claims {
    root: PathBuf,
    state: Mutex<State>,
    listed: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    /// Uids of those in the API.
    known: BTreeMap<Name, String>,
    /// Uids of Pods that use one.
    users: BTreeMap<Name, BTreeSet<String>>,
}

impl Claims {
    /// With folders below `root`.
    pub fn new(root: PathBuf) -> Self {
        Self {
            root,
            state: Mutex::default(),
            listed: watch::Sender::new(false),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps up with the API.
    pub async fn follow(&self, client: Client, outages: Outages) {
        let api: Api<PersistentVolumeClaim> = Api::all(client);
        let mut fresh = BTreeMap::new();
        let config = watcher::Config::default();
        watching::forever(
            "persistent volume claims",
            api,
            config,
            outages,
            |event| match event {
                Event::Init => fresh.clear(),
                Event::InitApply(claim) => {
                    fresh.insert(name_of(&claim), claim.uid().unwrap_or_default());
                }
                Event::InitDone => {
                    self.state().known = std::mem::take(&mut fresh);
                    self.listed.send_replace(true);
                    self.sweep();
                }
                Event::Apply(claim) => {
                    let uid = claim.uid().unwrap_or_default();
                    self.state().known.insert(name_of(&claim), uid);
                }
                Event::Delete(claim) => {
                    self.state().known.remove(&name_of(&claim));
                    self.sweep();
                }
            },
        )
        .await;
    }

    /// The folder of a claim, for a Pod that uses it until it is [`Claims::release`]d.
    ///
    /// # Errors
    /// There is no such claim, or its folder cannot be made.
    pub async fn folder(&self, namespace: &str, name: &str, pod: &str) -> Result<PathBuf, String> {
        let mut listed = self.listed.subscribe();
        let known =
            tokio::time::timeout(Duration::from_secs(10), listed.wait_for(|known| *known)).await;
        if known.is_err() {
            return Err("persistent volume claims are not known yet".to_owned());
        }
        let (namespace, name) = (place::plain(namespace)?, place::plain(name)?);
        let key = (namespace.to_owned(), name.to_owned());
        let mut state = self.state();
        let uid = state
            .known
            .get(&key)
            .cloned()
            .ok_or_else(|| format!("persistentvolumeclaim {name:?} not found"))?;
        let folder = self.root.join(namespace).join(name);
        self.make(
            &folder,
            &self.root.join(namespace).join(format!(".{name}")),
            &uid,
        )
        .map_err(|error| format!("make {}: {error}", folder.display()))?;
        state.users.entry(key).or_default().insert(pod.to_owned());
        Ok(folder)
    }

    fn make(&self, folder: &Path, mark: &Path, uid: &str) -> io::Result<()> {
        let earlier = fs::read_to_string(mark).ok();
        if earlier.as_deref().is_some_and(|earlier| earlier != uid) {
            place::remove(folder)?;
        }
        if !folder.exists() {
            fs::create_dir_all(folder)?;
            fs::set_permissions(folder, fs::Permissions::from_mode(0o777))?;
        }
        if earlier.as_deref() == Some(uid) {
            return Ok(());
        }
        fs::write(mark, uid)
    }

    /// A Pod is gone.
    pub fn release(&self, pod: &str) {
        let mut state = self.state();
        for users in state.users.values_mut() {
            users.remove(pod);
        }
        state.users.retain(|_, users| !users.is_empty());
        drop(state);
        if *self.listed.borrow() {
            self.sweep();
        }
    }

    /// Removes the folders of claims that are no more, unless a Pod still uses one.
    fn sweep(&self) {
        let state = self.state();
        for (namespace, name) in self.folders() {
            let key = (namespace, name);
            if state.known.contains_key(&key) || state.users.contains_key(&key) {
                continue;
            }
            let (namespace, name) = &key;
            let parent = self.root.join(namespace);
            let folder = parent.join(name);
            let removed = place::remove(&folder).and_then(|()| {
                match fs::remove_file(parent.join(format!(".{name}"))) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                    _ => Ok(()),
                }
            });
            if let Err(error) = removed {
                tracing::warn!("remove {}: {error}", folder.display());
            }
            // Only if it is empty now.
            let _ = fs::remove_dir(parent);
        }
    }

    fn folders(&self) -> Vec<Name> {
        let names = |folder: &Path| -> Vec<String> {
            fs::read_dir(folder)
                .into_iter()
                .flatten()
                .flatten()
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .filter_map(|entry| entry.file_name().into_string().ok())
                .filter(|name| !name.starts_with('.'))
                .collect()
        };
        names(&self.root)
            .into_iter()
            .flat_map(|namespace| {
                names(&self.root.join(&namespace))
                    .into_iter()
                    .map(move |name| (namespace.clone(), name))
            })
            .collect()
    }
}

fn name_of(claim: &PersistentVolumeClaim) -> Name {
    (claim.namespace().unwrap_or_default(), claim.name_any())
}
