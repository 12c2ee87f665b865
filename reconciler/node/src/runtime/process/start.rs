//! Starting a container: what its shim is told, and what the shim tells.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use nix::sys::signal::Signal;
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::time::timeout;

use super::container::{self, Container};
use super::image::Unpacked;
use super::record::{self, Processes, Root, Start};
use super::{Inner, blocking, cgroup, failed, sandbox, socket, stage};
use crate::runtime::{ContainerConfig, ContainerState, Error, Event, Mount};

/// Mounting a volume may wait for a server; for so long.
const START_TIME: Duration = Duration::from_secs(120);

/// Program and arguments: the Pod's `command` replaces the image's entry point, and with it the image's arguments.
pub(super) fn arguments(config: &ContainerConfig, image: &Unpacked) -> Vec<String> {
    let (program, rest) = match (config.command.is_empty(), config.args.is_empty()) {
        (true, true) => (&image.entrypoint, &image.arguments),
        (true, false) => (&image.entrypoint, &config.args),
        (false, _) => (&config.command, &config.args),
    };
    [program.as_slice(), rest].concat()
}

impl Inner {
    pub(super) async fn start_container(self: &Arc<Self>, id: &str) -> Result<(), Error> {
        let state = self
            .containers()
            .get(id)
            .map(|one| (one.status().state, one.is_starting));
        match state {
            Some((ContainerState::Created, false)) => {}
            Some((ContainerState::Running, _)) => return Ok(()),
            Some(_) => {
                return Err(Error::Failed(format!(
                    "container {id} has been started before"
                )));
            }
            None => return Err(container::unknown(id)),
        }
        let (inner, own) = (self.clone(), id.to_owned());
        let (child, report) = blocking(move || inner.start_shim(&own)).await?;
        self.watch_shim(id, Some(child))?;
        let what = || format!("start container {id}");
        let mut report = pipe::Receiver::from_owned_fd(report).map_err(failed(what()))?;
        let mut text = String::new();
        match timeout(START_TIME, report.read_to_string(&mut text)).await {
            Ok(result) => drop(result.map_err(failed(what()))?),
            Err(_) => {
                self.stop_container(id, Duration::ZERO).await?;
                return Err(Error::Timeout(format!(
                    "{}: not within {} s",
                    what(),
                    START_TIME.as_secs()
                )));
            }
        }
        if text == "ok" {
            return self.begin(id).await;
        }
        let ended = self.containers().get(id).map(|one| one.ended.subscribe());
        if let Some(mut ended) = ended {
            // Its sender lives as long as the container is known.
            let _ = ended.wait_for(|&ended| ended).await;
        }
        if text.is_empty() {
            let said =
                fs::read_to_string(self.container_folder(id).join("shim.log")).unwrap_or_default();
            return Err(Error::Failed(format!(
                "{}: its shim ended: {}",
                what(),
                said.trim()
            )));
        }
        Err(Error::Invalid(text))
    }

    async fn begin(&self, id: &str) -> Result<(), Error> {
        let folder = self.container_folder(id);
        let pod = {
            let mut containers = self.containers();
            let one = containers
                .get_mut(id)
                .ok_or_else(|| container::unknown(id))?;
            one.is_starting = false;
            if one.started.is_none() {
                one.started = record::read(&folder.join("started.json"))
                    .map_err(failed(format!("start container {id}")))?;
            }
            one.record.pod.clone()
        };
        self.tell(Event::Container(pod)).await;
        Ok(())
    }

    fn start_shim(&self, id: &str) -> Result<(Child, OwnedFd), Error> {
        let folder = self.container_folder(id);
        let what = || format!("start container {id}");
        let start = self.start_record(id, &folder)?;
        record::write(&folder.join("start.json"), &start).map_err(failed(what()))?;
        let listener = socket::bind(&folder).map_err(failed(what()))?;
        let errors = fs::File::create(folder.join("shim.log")).map_err(failed(what()))?;
        let mut command = self.stage(stage::SHIM, &folder);
        command
            .stdin(OwnedFd::from(listener))
            .stdout(Stdio::piped())
            .stderr(errors);
        let mut child = command.spawn().map_err(failed(format!(
            "{}: execute {}",
            what(),
            command.get_program().display()
        )))?;
        match child.stdout.take() {
            Some(stdout) => Ok((child, stdout.into())),
            None => Err(Error::Failed(format!("{}: no pipe to its shim", what()))),
        }
    }

    fn start_record(&self, id: &str, folder: &Path) -> Result<Start, Error> {
        let record = {
            let containers = self.containers();
            containers
                .get(id)
                .ok_or_else(|| container::unknown(id))?
                .record
                .clone()
        };
        let (sandbox, pause) = {
            let sandboxes = self.sandboxes();
            let found = sandboxes
                .get(&record.sandbox)
                .ok_or_else(|| sandbox::unknown(&record.sandbox))?;
            (found.record.config.clone(), found.pause)
        };
        let pause = pause
            .ok_or_else(|| Error::Failed(format!("sandbox {} is not running", record.sandbox)))?;
        let config = record.config;
        let image = self.images.open(&config.image)?;
        let cgroup = format!("{}/{id}", record.pod.uid);
        let cgroups = self
            .cgroups
            .make(&cgroup, &config.limits)
            .map_err(failed(format!("start container {id}")))?;
        Ok(Start {
            pause,
            processes: match (sandbox.host_pid, sandbox.share_processes) {
                (true, _) => Processes::Host,
                (false, true) => Processes::Sandbox,
                (false, false) => Processes::Own,
            },
            host_ipc: sandbox.host_ipc,
            arguments: arguments(&config, &image),
            working_dir: [&config.working_dir, &image.working_dir]
                .into_iter()
                .find(|path| !path.is_empty())
                .cloned()
                .unwrap_or_else(|| "/".into()),
            env: [
                vec![("HOSTNAME".into(), sandbox.hostname.clone())],
                image.env,
                config.env.clone(),
            ]
            .concat(),
            user: image.user,
            root: image.root.map_or_else(
                || Root::Host {
                    masked: self.masked(),
                },
                Root::Folder,
            ),
            mounts: self.mounts(&record.sandbox, &config, folder)?,
            security: config.security,
            tty: config.tty,
            stdin: config.stdin,
            stdin_once: config.stdin_once,
            cgroups,
            log: record.log,
            log_max_size: self.config.log_max_size,
            log_max_files: self.config.log_max_files,
        })
    }

    /// What `image: host` must not see of the node.
    fn masked(&self) -> Vec<PathBuf> {
        let own = [&self.config.root, &self.config.images, &self.config.logs];
        own.into_iter()
            .chain(&self.config.masked)
            .cloned()
            .collect()
    }

    fn mounts(
        &self,
        sandbox: &str,
        config: &ContainerConfig,
        folder: &Path,
    ) -> Result<Vec<Mount>, Error> {
        let of_sandbox = self.sandbox_folder(sandbox);
        let mount = |source: PathBuf, target: &str| Mount {
            source,
            target: target.into(),
            read_only: false,
            propagation: "None".into(),
        };
        let mut mounts = vec![
            mount(of_sandbox.join("hosts"), "/etc/hosts"),
            mount(of_sandbox.join("hostname"), "/etc/hostname"),
            mount(of_sandbox.join("resolv.conf"), "/etc/resolv.conf"),
        ];
        if !config.termination_message_path.is_empty() {
            let path = folder.join("termination");
            let make =
                || fs::File::create(&path)?.set_permissions(fs::Permissions::from_mode(0o666));
            make().map_err(failed(format!("make {}", path.display())))?;
            mounts.push(mount(path, &config.termination_message_path));
        }
        // The Pod's own choice replaces the runtime's.
        mounts.retain(|own| {
            config
                .mounts
                .iter()
                .all(|theirs| theirs.target != own.target)
        });
        mounts.extend(config.mounts.iter().cloned());
        Ok(mounts)
    }

    /// Learns of a shim's end by its socket, and with it of the container's.
    pub(super) fn watch_shim(
        self: &Arc<Self>,
        id: &str,
        child: Option<Child>,
    ) -> Result<(), Error> {
        let what = || format!("watch container {id}");
        let stream = socket::connect(&self.container_folder(id)).map_err(failed(what()))?;
        let stream = match stream {
            Some(stream) => Some(UnixStream::from_std(stream).map_err(failed(what()))?),
            None => None,
        };
        if let Some(one) = self.containers().get_mut(id) {
            one.is_starting = one.started.is_none();
        }
        let (inner, id) = (self.clone(), id.to_owned());
        tokio::spawn(async move {
            if let Some(mut stream) = stream {
                // A few bytes at its end, if any: what counts is that it ends.
                while matches!(stream.read(&mut [0; 64]).await, Ok(length) if length > 0) {}
            }
            sandbox::reap(child).await;
            inner.end(&id).await;
        });
        Ok(())
    }

    /// Notes the end of a container whose shim has ended.
    async fn end(self: &Arc<Self>, id: &str) {
        let (inner, own) = (self.clone(), id.to_owned());
        let pod = blocking(move || Ok(inner.note_end(&own))).await;
        if let Ok(Some(pod)) = pod {
            self.tell(Event::Container(pod)).await;
        }
    }

    pub(super) fn note_end(&self, id: &str) -> Option<crate::runtime::PodRef> {
        let folder = self.container_folder(id);
        // Read aside: disk is slow, the lock is everybody's.
        let mut fresh = Container::new(self.containers().get(id)?.record.clone());
        if let Err(error) = fresh.learn(&folder) {
            tracing::error!("{error}");
        }
        let cgroups = self
            .cgroups
            .folders(&format!("{}/{id}", fresh.record.pod.uid));
        if fresh.exit.is_none() {
            // Its shim was killed, and has not seen to this.
            if let Some(started) = fresh.started {
                started.process.signal(Signal::SIGKILL);
            }
            cgroup::kill(&cgroups);
            fresh.lost = Some(Timestamp::now());
        }
        cgroup::remove(&cgroups);
        let mut containers = self.containers();
        let one = containers.get_mut(id)?;
        fresh.ended = one.ended.clone();
        *one = fresh;
        one.ended.send_replace(true);
        Some(one.record.pod.clone())
    }
}
