//! The network of Pods: carries out the CNI configuration list on disk as libcni does.
//!
//! The list is the lexically first valid `*.conflist`, `*.conf` or `*.json` of the folder and is read anew at each
//! use. An attachment is written to `cache_dir/results/NETWORK-CONTAINER-IFNAME` in libcni's form *before* its first
//! plugin runs, and again with its result: whatever was begun can be undone with the list that began it, also after a
//! crash and after the list on disk has changed. `cache_dir` belongs to this node alone: [`Cni::gc`] deletes every
//! attachment in it that is not alive.
//!
//! A plugin that takes longer than `timeout` is killed with its process group. An ADD that fails is undone by DEL of
//! the whole list. Plugins are not asked for VERSION first: one that cannot speak the list's version says so itself.
//! The interface `lo` of a sandbox is the runtime's work.

mod attachment;
mod cache;
mod list;
mod plugin;
mod result;
mod watch;

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::RwLock;

pub use attachment::Attachment;
use cache::{Cache, Entry};
use list::{List, Version};
pub use plugin::end_strays;
use plugin::{Plugins, Verb};

use crate::runtime::Error;

/// Where things are.
#[derive(Clone, Debug)]
pub struct Config {
    /// `/etc/cni/net.d`
    pub conf_dir: PathBuf,
    /// `/opt/cni/bin`; searched in order, and `CNI_PATH` of the plugins.
    pub bin_dirs: Vec<PathBuf>,
    /// `/var/lib/cni`, of this node alone.
    pub cache_dir: PathBuf,
    /// For one call of one plugin.
    pub timeout: Duration,
}

/// What an ADD has given.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Added {
    /// The Pod's addresses, in the order of the result.
    pub ips: Vec<IpAddr>,
    /// The MAC address of the Pod's interface, if the result tells it.
    pub mac: Option<String>,
    /// The result of the last plugin.
    pub result: Value,
}

/// Carries out CNI. Calls for different attachments run at the same time.
#[derive(Debug)]
pub struct Cni {
    conf_dir: PathBuf,
    plugins: Plugins,
    cache: Cache,
    /// GC alone, or any number of the other verbs: GC must not take what an ADD is about to hand out.
    turn: RwLock<()>,
}

impl Cni {
    /// Touches nothing yet.
    pub fn new(config: Config) -> Self {
        Self {
            conf_dir: config.conf_dir,
            plugins: Plugins {
                folders: config.bin_dirs,
                timeout: config.timeout,
                owner: config.cache_dir.clone(),
            },
            cache: Cache::new(&config.cache_dir),
            turn: RwLock::default(),
        }
    }

    /// Why Pods cannot get a network now, if they cannot: no list, a plugin is not installed, or one says so itself
    /// (STATUS, from 1.1.0 on).
    pub async fn unready(&self) -> Option<String> {
        let list = match self.list() {
            Ok(list) => list,
            Err(error) => return Some(error.to_string()),
        };
        for plugin in &list.plugins {
            if let Err(error) = self.plugins.find(&plugin.kind) {
                return Some(error.to_string());
            }
        }
        if list.version < Version::STATUS {
            return None;
        }
        for plugin in &list.plugins {
            let config = list.config(plugin, None, None);
            if let Err(error) = self
                .plugins
                .call(&list.name, &plugin.kind, Verb::Status, None, &config)
                .await
            {
                return Some(error.to_string());
            }
        }
        None
    }

    /// ADD of the whole list. On failure it is undone.
    ///
    /// # Errors
    /// [`Error::Network`]: no list, or what a plugin said, with its name and the network's.
    pub async fn add(&self, attachment: &Attachment) -> Result<Added, Error> {
        attachment.check().map_err(Error::Network)?;
        let _turn = self.turn.read().await;
        let list = self.list().map_err(Error::Network)?;
        let mut entry = Entry::new(&list, attachment);
        self.cache.write(&entry).map_err(Error::Network)?;
        let done = async {
            let result = self.add_all(&list, attachment).await?;
            entry.result = Some(result.clone());
            self.cache.write(&entry)?;
            Ok(result)
        };
        let result: Result<Value, String> = done.await;
        let error = match result.and_then(|result| result::read(&result, &attachment.ifname)) {
            Ok(added) => return Ok(added),
            Err(error) => error,
        };
        // Without a result: that of half a list is none.
        entry.result = None;
        match self.delete(&entry).await {
            Ok(()) => Err(Error::Network(error)),
            Err(undo) => Err(Error::Network(format!("{error}; undoing it: {undo}"))),
        }
    }

    async fn add_all(&self, list: &List, attachment: &Attachment) -> Result<Value, String> {
        let mut previous: Option<Value> = None;
        for plugin in &list.plugins {
            let config = list.config(plugin, Some(&attachment.capabilities), previous.as_ref());
            let output = self
                .plugins
                .call(
                    &list.name,
                    &plugin.kind,
                    Verb::Add,
                    Some(attachment),
                    &config,
                )
                .await?;
            let said = |error: &dyn std::fmt::Display| {
                format!(
                    "plugin type={:?} name={:?} answered ADD with what is no result: {error}",
                    plugin.kind, list.name
                )
            };
            let mut result: Value =
                serde_json::from_slice(&output).map_err(|error| said(&error))?;
            let members = result
                .as_object_mut()
                .ok_or_else(|| said(&"it is no object"))?;
            members
                .entry("cniVersion")
                .or_insert_with(|| list.version.to_string().into());
            previous = Some(result);
        }
        previous.ok_or_else(|| format!("network {:?} has no plugins", list.name))
    }

    /// DEL of the whole list in reverse: of the list and with the result of the ADD, whatever is on disk now. Of what
    /// was never added nothing is there to remove.
    ///
    /// # Errors
    /// What the first plugin that failed said; the others have run, and the attachment stays known for another try.
    pub async fn del(&self, container_id: &str, ifname: &str) -> Result<(), Error> {
        let _turn = self.turn.read().await;
        let entries = self
            .cache
            .of(container_id, ifname)
            .map_err(Error::Network)?;
        let mut outcome = Ok(());
        for entry in &entries {
            outcome = outcome.and(self.delete(entry).await);
        }
        outcome.map_err(Error::Network)
    }

    async fn delete(&self, entry: &Entry) -> Result<(), String> {
        let list = entry.list()?;
        let attachment = entry.attachment();
        let previous = entry
            .result
            .as_ref()
            .filter(|_| list.version >= Version::CHECK);
        let mut outcome = Ok(());
        for plugin in list.plugins.iter().rev() {
            let config = list.config(plugin, Some(&attachment.capabilities), previous);
            let said = self
                .plugins
                .call(
                    &list.name,
                    &plugin.kind,
                    Verb::Del,
                    Some(&attachment),
                    &config,
                )
                .await;
            outcome = outcome.and(said.map(drop));
        }
        outcome?;
        self.cache.remove(entry)
    }

    /// CHECK of an attachment; nothing where the list is older than 0.4.0 or says `disableCheck`.
    ///
    /// # Errors
    /// What the first plugin that failed said; that there is no such attachment.
    pub async fn check(&self, container_id: &str, ifname: &str) -> Result<(), Error> {
        let _turn = self.turn.read().await;
        let entries = self
            .cache
            .of(container_id, ifname)
            .map_err(Error::Network)?;
        if entries.iter().all(|entry| entry.result.is_none()) {
            return Err(Error::NotFound(format!(
                "container {container_id} has no network at {ifname}"
            )));
        }
        for entry in entries.iter().filter(|entry| entry.result.is_some()) {
            self.check_one(entry).await.map_err(Error::Network)?;
        }
        Ok(())
    }

    async fn check_one(&self, entry: &Entry) -> Result<(), String> {
        let list = entry.list()?;
        if list.version < Version::CHECK || list.disable_check {
            return Ok(());
        }
        let attachment = entry.attachment();
        for plugin in &list.plugins {
            let config = list.config(
                plugin,
                Some(&attachment.capabilities),
                entry.result.as_ref(),
            );
            self.plugins
                .call(
                    &list.name,
                    &plugin.kind,
                    Verb::Check,
                    Some(&attachment),
                    &config,
                )
                .await?;
        }
        Ok(())
    }

    /// Removes every attachment whose container is not alive, then GC of the list (from 1.1.0 on, unless it says
    /// `disableGC`). `alive` is asked while no ADD runs; it must know a container before its ADD begins.
    ///
    /// # Errors
    /// All that failed; the rest is done.
    pub async fn gc(&self, alive: impl Fn(&str) -> bool) -> Result<(), Error> {
        let _turn = self.turn.write().await;
        // None of this agent's runs now.
        end_strays(&self.plugins.owner);
        let mut failures = Vec::new();
        let mut valid = Vec::new();
        for entry in self.cache.all().map_err(Error::Network)? {
            if alive(&entry.container_id) {
                valid.push(entry);
            } else if let Err(error) = self.delete(&entry).await {
                failures.push(error);
            }
        }
        if let Ok(list) = self.list()
            && list.version >= Version::GC
            && !list.disable_gc
        {
            valid.retain(|entry| entry.network_name == list.name);
            for plugin in &list.plugins {
                let config = list.gc_config(plugin, &valid);
                if let Err(error) = self
                    .plugins
                    .call(&list.name, &plugin.kind, Verb::Gc, None, &config)
                    .await
                {
                    failures.push(error);
                }
            }
        }
        match failures.is_empty() {
            true => Ok(()),
            false => Err(Error::Network(failures.join("; "))),
        }
    }

    fn list(&self) -> Result<List, String> {
        list::choose(&self.conf_dir)
    }
}
