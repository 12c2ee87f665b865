//! Coming back: what runs is found again, what ended meanwhile is learnt, what was half made is removed.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::Signal;
use tokio::sync::watch;

use super::container::Container;
use super::proc::Proc;
use super::record::{self, ContainerRecord, NetworkRecord, SandboxRecord};
use super::sandbox::Sandbox;
use super::{
    Config, Inner, Process, blocking, cgroup, failed, image, network, socket, stage, stop,
};
use crate::runtime::Error;

pub(super) async fn open(config: Config) -> Result<Process, Error> {
    let inner = Arc::new(prepare(config)?);
    let halves = inner.adopt_sandboxes()?;
    inner.adopt_containers()?;
    for id in halves {
        inner.discard_sandbox(&id).await?;
    }
    let strays: Vec<_> = {
        let (sandboxes, containers) = (inner.sandboxes(), inner.containers());
        let strays = containers
            .values()
            .filter(|one| !sandboxes.contains_key(&one.record.sandbox));
        strays.map(|one| one.record.id.clone()).collect()
    };
    for id in strays {
        inner.remove_container(&id).await?;
    }
    let own = inner.clone();
    blocking(move || own.sweep()).await?;
    if let Err(error) = inner.collect_networks().await {
        tracing::warn!("remove the networks of sandboxes that are gone: {error}");
    }
    Ok(Process { inner })
}

pub(super) async fn destroy(config: Config) -> Result<(), Error> {
    if !config.root.exists() {
        return Ok(());
    }
    let root = config.root.clone();
    let process = open(config).await?;
    let inner = &process.inner;
    let all: Vec<_> = inner.sandboxes().keys().cloned().collect();
    let removals = all.iter().map(|id| inner.discard_sandbox(id));
    let results = join_all(removals).await;
    // Networks that could not be unmade have another try, and say why not.
    let networks = inner.collect_networks().await;
    let own = inner.clone();
    blocking(move || {
        own.cgroups.remove_all();
        for name in ["sandboxes", "containers", "images", "lock"] {
            let path = root.join(name);
            let removed = if path.is_dir() {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
            match removed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed(format!("remove {}", path.display()))(error));
                }
                _ => {}
            }
        }
        // Sources of images may be in it.
        let _ = fs::remove_dir(&root);
        Ok(())
    })
    .await?;
    results.into_iter().chain([networks]).collect()
}

fn prepare(mut config: Config) -> Result<Inner, Error> {
    // Stages work in other folders, and are told by the paths in their arguments.
    let named = [&mut config.root, &mut config.images, &mut config.logs];
    for path in named.into_iter().chain(&mut config.masked) {
        *path = std::path::absolute(&*path).map_err(failed(format!("find {}", path.display())))?;
    }
    for name in ["sandboxes", "containers"] {
        let path = config.root.join(name);
        record::make_folder(&path).map_err(failed(format!("make {}", path.display())))?;
    }
    let lock = hold(&config.root)?;
    let cgroups = cgroup::Cgroups::observe(&config.cgroup);
    if !cgroups.can_limit() {
        tracing::warn!(
            "no cgroups with controllers cpu and memory are mounted: limits of Pods are not kept"
        );
    }
    Ok(Inner {
        images: image::Images::new(&config.images, &config.root.join("images"), config.folders),
        network: network::Network::new(config.cni.clone(), config.node_ips.clone()),
        cgroups,
        config,
        sandboxes: Mutex::default(),
        containers: Mutex::default(),
        events: Mutex::default(),
        owes_networks: AtomicBool::new(false),
        _lock: lock,
    })
}

/// One agent a root: the lock is the process's, and goes with it.
fn hold(root: &Path) -> Result<Flock<File>, Error> {
    let path = root.join("lock");
    let file = File::create(&path).map_err(failed(format!("make {}", path.display())))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
        Error::Failed(format!(
            "lock {}: {errno} (does another agent use this root?)",
            path.display()
        ))
    })
}

/// The folders in a folder.
fn folders(path: &Path) -> Result<Vec<(String, PathBuf)>, Error> {
    let what = || format!("list {}", path.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(path).map_err(failed(what()))? {
        let entry = entry.map_err(failed(what()))?;
        if let Ok(name) = entry.file_name().into_string() {
            found.push((name, entry.path()));
        }
    }
    Ok(found)
}

impl Inner {
    /// Takes sandboxes over; answers those that were never ready.
    fn adopt_sandboxes(self: &Arc<Self>) -> Result<Vec<String>, Error> {
        let mut halves = Vec::new();
        for (id, folder) in folders(&self.config.root.join("sandboxes"))? {
            let what = || format!("take over sandbox {id}");
            let Some(record) = record::read::<SandboxRecord>(&folder.join("config.json"))
                .map_err(failed(what()))?
            else {
                stop::forget(&folder)?;
                continue;
            };
            let pause = record::read::<Proc>(&folder.join("pause.json")).map_err(failed(what()))?;
            let network = record::read::<NetworkRecord>(&folder.join("network.json"))
                .map_err(failed(what()))?;
            if network.is_none() {
                halves.push(id.clone());
            }
            let ips = network.map(|network| network.ips);
            let sandbox = Sandbox {
                record,
                pause: None,
                ips,
                ended: watch::Sender::new(false),
            };
            self.sandboxes().insert(id.clone(), sandbox);
            // It may end at this moment: then watching fails, and it has ended.
            let lives = pause.is_some_and(|pause| {
                pause.is_alive() && self.watch_pause(&id, pause, None).is_ok()
            });
            if !lives {
                let _ = fs::remove_file(folder.join("netns"));
                if let Some(sandbox) = self.sandboxes().get(&id) {
                    sandbox.ended.send_replace(true);
                }
            }
        }
        Ok(halves)
    }

    fn adopt_containers(self: &Arc<Self>) -> Result<(), Error> {
        for (id, folder) in folders(&self.config.root.join("containers"))? {
            let what = || format!("take over container {id}");
            let Some(record) = record::read::<ContainerRecord>(&folder.join("config.json"))
                .map_err(failed(what()))?
            else {
                stop::forget(&folder)?;
                continue;
            };
            let mut container = Container::new(record);
            container.learn(&folder)?;
            let (started, exited) = (container.started.is_some(), container.exit.is_some());
            container.is_starting = !started;
            let was_begun = folder.join("start.json").exists();
            self.containers().insert(id.clone(), container);
            let shim = socket::connect(&folder).map_err(failed(what()))?;
            match shim {
                Some(_) if !exited => {
                    self.watch_shim(&id, None)?;
                    if !started {
                        self.stop_half_started(&id);
                    }
                }
                _ if was_begun => drop(self.note_end(&id)),
                // Made, and not started.
                _ => {
                    if let Some(one) = self.containers().get_mut(&id) {
                        one.is_starting = false;
                    }
                }
            }
        }
        Ok(())
    }

    /// Nobody waits for its start any more.
    fn stop_half_started(self: &Arc<Self>, id: &str) {
        let (inner, id) = (self.clone(), id.to_owned());
        tokio::spawn(async move {
            if let Err(error) = inner.stop_container(&id, std::time::Duration::ZERO).await {
                tracing::warn!("{error}");
            }
        });
    }

    /// Ends stages that belong to nothing, and removes cgroups and images of nothing.
    fn sweep(&self) -> Result<(), Error> {
        for (process, stage, folder) in stages(&self.config.root) {
            let name = folder
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let is_known = match stage.as_str() {
                stage::PAUSE => self
                    .sandboxes()
                    .get(&name)
                    .is_some_and(|one| one.pause == Some(process)),
                stage::SHIM => self.containers().contains_key(&name),
                // It ends with the agent that started it.
                _ => true,
            };
            if !is_known {
                process.signal(Signal::SIGKILL);
            }
        }
        let pods: BTreeSet<_> = self
            .sandboxes()
            .values()
            .map(|one| one.record.config.pod.uid.clone())
            .collect();
        let (ids, images): (BTreeSet<_>, BTreeSet<_>) = {
            let containers = self.containers();
            containers
                .values()
                .map(|one| (one.record.id.clone(), one.record.config.image.id.clone()))
                .unzip()
        };
        self.cgroups.keep(&pods, &ids);
        self.images.keep(&images)
    }
}

/// The stages that run for a root, by their command lines.
fn stages(root: &Path) -> Vec<(Proc, String, PathBuf)> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let ids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter_map(|id: i32| {
        let line = fs::read(format!("/proc/{id}/cmdline")).ok()?;
        let (stage, folder) = parse_stage(&line, root)?;
        Some((Proc::of(id)?, stage, folder))
    })
    .collect()
}

fn parse_stage(line: &[u8], root: &Path) -> Option<(String, PathBuf)> {
    let mut arguments = line.strip_suffix(&[0])?.rsplit(|&byte| byte == 0);
    let folder = PathBuf::from(OsString::from_vec(arguments.next()?.to_vec()));
    let stage = String::from_utf8(arguments.next()?.to_vec()).ok()?;
    let parent = folder.parent()?;
    let is_ours = match stage.as_str() {
        stage::PAUSE => parent == root.join("sandboxes"),
        stage::SHIM | stage::EXEC_IN => parent == root.join("containers"),
        _ => false,
    };
    is_ours.then_some((stage, folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_told_by_their_command_lines() {
        let root = Path::new("/r");
        let of = |line: &str| parse_stage(line.as_bytes(), root);
        assert_eq!(
            of("weft\0pause\0/r/sandboxes/a\0"),
            Some(("pause".into(), "/r/sandboxes/a".into()))
        );
        assert_eq!(of("weft\0shim\0/r/sandboxes/a\0"), None);
        assert_eq!(of("weft\0shim\0/other/containers/a\0"), None);
        assert_eq!(of("vi\0/r/containers/a\0"), None);
        assert_eq!(of(""), None);
    }
}
