//! The ways down: sandboxes and containers stopped and removed. What is gone already is no error.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use nix::sys::signal::Signal;
use tokio::net::TcpSocket;
use tokio::sync::watch;
use tokio::time::timeout;

use super::{Inner, blocking, cgroup, failed, frame, log, sandbox, socket};
use crate::runtime::{ContainerState, Error, PodRef, Stream};

/// For what has been killed to be gone.
const KILL_TIME: Duration = Duration::from_secs(10);

impl Inner {
    pub(super) async fn stop_sandbox(self: &Arc<Self>, id: &str) -> Result<(), Error> {
        self.take_down(id, false).await
    }

    /// With `force` a network that cannot be unmade is left to [`Inner::collect_networks`].
    async fn take_down(self: &Arc<Self>, id: &str, force: bool) -> Result<(), Error> {
        let found = self
            .sandboxes()
            .get(id)
            .map(|one| (one.record.config.clone(), one.pause, one.ended.subscribe()));
        let Some((config, pause, ended)) = found else {
            return Ok(());
        };
        let inside: Vec<_> = {
            let containers = self.containers();
            containers
                .values()
                .filter(|one| one.record.sandbox == id)
                .map(|one| one.record.id.clone())
                .collect()
        };
        let stops = inside
            .iter()
            .map(|container| self.stop_container(container, Duration::ZERO));
        for result in join_all(stops).await {
            result?;
        }
        match self.network.del(id, &config).await {
            Err(error) if force => {
                tracing::warn!("unmake the network of sandbox {id}: {error}");
                self.owes_networks.store(true, Ordering::Relaxed);
            }
            other => other?,
        }
        let marker = self.sandbox_folder(id).join("network.json");
        remove_if_there(&marker).map_err(failed(format!("unmake the network of sandbox {id}")))?;
        if let Some(one) = self.sandboxes().get_mut(id) {
            one.ips = None;
        }
        if pause.is_some() {
            sandbox::end(pause);
            wait(ended, KILL_TIME, || {
                format!("end of the pause process of sandbox {id}")
            })
            .await?;
        }
        let others = self
            .sandboxes()
            .values()
            .any(|one| one.record.config.pod.uid == config.pod.uid && one.pause.is_some());
        if !others {
            let folders = self.cgroups.folders(&config.pod.uid);
            blocking(move || {
                cgroup::remove(&folders);
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    pub(super) async fn remove_sandbox(self: &Arc<Self>, id: &str) -> Result<(), Error> {
        self.stop_sandbox(id).await?;
        self.forget_sandbox(id).await?;
        self.settle_networks();
        Ok(())
    }

    /// Plugins work, as was just seen: tries again to unmake the networks that could not be, aside.
    pub(super) fn settle_networks(self: &Arc<Self>) {
        if self.owes_networks.swap(false, Ordering::Relaxed) {
            let inner = self.clone();
            tokio::spawn(async move {
                if let Err(error) = inner.collect_networks().await {
                    tracing::warn!("remove the networks of sandboxes that are gone: {error}");
                    inner.owes_networks.store(true, Ordering::Relaxed);
                }
            });
        }
    }

    /// Removes a sandbox that was never ready, or whose node ends: whatever its network says.
    pub(super) async fn discard_sandbox(self: &Arc<Self>, id: &str) -> Result<(), Error> {
        self.take_down(id, true).await?;
        self.forget_sandbox(id).await
    }

    async fn forget_sandbox(self: &Arc<Self>, id: &str) -> Result<(), Error> {
        let inside: Vec<_> = {
            let containers = self.containers();
            containers
                .values()
                .filter(|one| one.record.sandbox == id)
                .map(|one| one.record.id.clone())
                .collect()
        };
        for container in inside {
            self.remove_container(&container).await?;
        }
        let folder = self.sandbox_folder(id);
        blocking(move || forget(&folder)).await?;
        self.sandboxes().remove(id);
        Ok(())
    }

    pub(super) async fn stop_container(
        self: &Arc<Self>,
        id: &str,
        grace: Duration,
    ) -> Result<(), Error> {
        let found = self
            .containers()
            .get(id)
            .map(|one| (one.status().state, one.is_starting, one.ended.subscribe()));
        let Some((state, starting, ended)) = found else {
            return Ok(());
        };
        if state != ContainerState::Running && !starting {
            return Ok(());
        }
        if !grace.is_zero() {
            self.signal(id, Signal::SIGTERM).await?;
            if wait(ended.clone(), grace, String::new).await.is_ok() {
                return Ok(());
            }
        }
        self.signal(id, Signal::SIGKILL).await?;
        if wait(ended.clone(), Duration::from_secs(2), String::new)
            .await
            .is_ok()
        {
            return Ok(());
        }
        // A shim that does not answer goes first; what it leaves is killed when its socket ends.
        let started = self.containers().get(id).and_then(|one| one.started);
        if let Some(started) = started {
            started.shim.signal(Signal::SIGKILL);
            started.process.signal(Signal::SIGKILL);
        }
        wait(ended, KILL_TIME, || {
            format!("end of container {id} after SIGKILL")
        })
        .await
    }

    /// Has the shim send a signal: the process is its child, so its id cannot be another's.
    async fn signal(&self, id: &str, signal: Signal) -> Result<(), Error> {
        let what = || format!("send {signal} to container {id}");
        let Some(stream) = socket::connect(&self.container_folder(id)).map_err(failed(what()))?
        else {
            return Ok(());
        };
        let mut stream = tokio::net::UnixStream::from_std(stream).map_err(failed(what()))?;
        let mut bytes = Vec::new();
        frame::encode(frame::SIGNAL, &[signal as i32 as u8], &mut bytes);
        match tokio::io::AsyncWriteExt::write_all(&mut stream, &bytes).await {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(failed(what())(error)),
            _ => Ok(()),
        }
    }

    pub(super) async fn remove_container(self: &Arc<Self>, id: &str) -> Result<(), Error> {
        self.stop_container(id, Duration::ZERO).await?;
        let Some((pod, path)) = self
            .containers()
            .get(id)
            .map(|one| (one.record.pod.clone(), one.record.log.clone()))
        else {
            return Ok(());
        };
        let (inner, own) = (self.clone(), id.to_owned());
        blocking(move || {
            cgroup::remove(&inner.cgroups.folders(&format!("{}/{own}", pod.uid)));
            remove_log(&path, &inner.config.logs)?;
            forget(&inner.container_folder(&own))
        })
        .await?;
        self.containers().remove(id);
        Ok(())
    }

    pub(super) async fn dial(&self, id: &str, port: u16) -> Result<Box<dyn Stream>, Error> {
        let pause = self
            .sandboxes()
            .get(id)
            .ok_or_else(|| sandbox::unknown(id))?
            .pause;
        let pause = pause.ok_or_else(|| Error::Failed(format!("sandbox {id} is not running")))?;
        let sockets = blocking(move || {
            let netns = kernel::Netns::open(pause.netns()).map_err(failed("dial"))?;
            // A socket belongs to the namespace it was made in, wherever it is used.
            netns
                .run(|| (TcpSocket::new_v4(), TcpSocket::new_v6()))
                .map_err(failed("dial"))
        })
        .await?;
        let to = |ip: IpAddr| SocketAddr::new(ip, port);
        let first = match sockets.0 {
            Ok(socket) => socket.connect(to(Ipv4Addr::LOCALHOST.into())).await,
            Err(error) => Err(error),
        };
        let error = match first {
            Ok(stream) => return Ok(Box::new(stream)),
            Err(error) => error,
        };
        if let Ok(socket) = sockets.1
            && let Ok(stream) = socket.connect(to(Ipv6Addr::LOCALHOST.into())).await
        {
            return Ok(Box::new(stream));
        }
        Err(Error::Failed(format!(
            "connect to localhost:{port} in the Pod: {error}"
        )))
    }

    pub(super) async fn check_networks(&self) -> Vec<(PodRef, Error)> {
        let ready: Vec<_> = {
            let sandboxes = self.sandboxes();
            let ready = sandboxes.values().filter(|one| one.status().ready);
            ready.map(|one| one.record.clone()).collect()
        };
        let mut failures = Vec::new();
        for record in ready {
            if let Err(error) = self.network.check(&record.id, &record.config).await {
                failures.push((record.config.pod, error));
            }
        }
        if let Err(error) = self.collect_networks().await {
            tracing::warn!("remove the networks of sandboxes that are gone: {error}");
        }
        failures
    }

    /// Removes attachments of sandboxes that are not there.
    pub(super) async fn collect_networks(&self) -> Result<(), Error> {
        let ids: BTreeSet<_> = self.sandboxes().keys().cloned().collect();
        self.network.keep(&ids).await
    }
}

/// Waits for an end.
async fn wait(
    mut ended: watch::Receiver<bool>,
    limit: Duration,
    what: impl FnOnce() -> String,
) -> Result<(), Error> {
    match timeout(limit, ended.wait_for(|&ended| ended)).await {
        Ok(_) => Ok(()),
        Err(_) => Err(Error::Timeout(format!(
            "no {} within {} s",
            what(),
            limit.as_secs()
        ))),
    }
}

/// Removes a folder, its record first: what is left after a crash is known to be nothing.
pub(super) fn forget(folder: &Path) -> Result<(), Error> {
    let what = || format!("remove {}", folder.display());
    remove_if_there(&folder.join("config.json")).map_err(failed(what()))?;
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(what())(error)),
        _ => Ok(()),
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes a log with all its files, and the folders around it that are empty then.
fn remove_log(path: &Path, logs: &Path) -> Result<(), Error> {
    for number in 0.. {
        let file = log::rotated(path, number);
        match fs::remove_file(&file) {
            // The newest may be missing where a rotation was cut short.
            Err(error) if error.kind() == io::ErrorKind::NotFound && number > 1 => break,
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed(format!("remove {}", file.display()))(error));
            }
            _ => {}
        }
    }
    let folders = path
        .ancestors()
        .skip(1)
        .take_while(|folder| *folder != logs && folder.starts_with(logs));
    for folder in folders {
        // Not empty: other containers' logs are in it.
        if fs::remove_dir(folder).is_err() {
            break;
        }
    }
    Ok(())
}
