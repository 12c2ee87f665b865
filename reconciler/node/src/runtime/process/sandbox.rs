//! Sandboxes: a pause process that holds namespaces, and their network.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;

use jiff::Timestamp;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use tokio::io::AsyncReadExt as _;
use tokio::sync::watch;

use super::proc::Proc;
use super::record::{self, NetworkRecord, SandboxRecord};
use super::{Inner, blocking, container, failed, new_id, socket, stage};
use crate::runtime::{Error, Event, SandboxConfig, SandboxStatus};

/// A sandbox that exists.
pub(super) struct Sandbox {
    pub(super) record: SandboxRecord,
    pub(super) pause: Option<Proc>,
    pub(super) ips: Option<Vec<IpAddr>>,
    /// Turns true when the pause process has ended.
    pub(super) ended: watch::Sender<bool>,
}

impl Sandbox {
    pub(super) fn status(&self) -> SandboxStatus {
        SandboxStatus {
            id: self.record.id.clone(),
            config: self.record.config.clone(),
            ready: self.ips.is_some() && !*self.ended.borrow(),
            ips: self.ips.clone().unwrap_or_default(),
            created: self.record.created,
        }
    }
}

/// The error for a sandbox that is not there.
pub(super) fn unknown(id: &str) -> Error {
    Error::NotFound(format!("no sandbox {id}"))
}

impl Inner {
    pub(super) async fn run_sandbox(
        self: &Arc<Self>,
        config: &SandboxConfig,
    ) -> Result<SandboxStatus, Error> {
        container::check_names(&config.pod)?;
        let record = SandboxRecord {
            id: new_id(),
            config: config.clone(),
            created: Timestamp::now(),
        };
        let id = record.id.clone();
        // Listed from now on: GC of networks must know it before its ADD begins.
        let sandbox = Sandbox {
            record: record.clone(),
            pause: None,
            ips: None,
            ended: watch::Sender::new(false),
        };
        self.sandboxes().insert(id.clone(), sandbox);
        let result = self.make_sandbox(&record).await;
        if let Err(error) = result {
            if let Err(other) = self.discard_sandbox(&id).await {
                tracing::warn!("undo sandbox {id} of {}: {other}", config.pod.name);
            }
            return Err(error);
        }
        self.settle_networks();
        let status = self.sandboxes().get(&id).map(Sandbox::status);
        status.ok_or_else(|| unknown(&id))
    }

    async fn make_sandbox(self: &Arc<Self>, record: &SandboxRecord) -> Result<(), Error> {
        let (id, config) = (&record.id, &record.config);
        let folder = self.sandbox_folder(id);
        let (inner, own) = (self.clone(), record.clone());
        let (child, pause, stdout) = blocking(move || inner.start_pause(&own)).await?;
        self.watch_pause(id, pause, Some(child))?;
        let netns = folder.join("netns");
        let ready = blocking(move || await_ready(stdout));
        let (ips, ready) = tokio::join!(self.network.add(id, &netns, config), ready);
        let ips = ips?;
        ready?;
        let mut hosts = config.hosts.clone();
        if !hosts.is_empty() && !hosts.ends_with('\n') {
            hosts.push('\n');
        }
        if !config.host_network {
            for ip in &ips {
                hosts.push_str(&format!("{ip}"));
                for name in [&config.full_name, &config.hostname] {
                    if !name.is_empty() {
                        hosts.push_str(&format!("\t{name}"));
                    }
                }
                hosts.push('\n');
            }
        }
        write_readable(&folder.join("hosts"), &hosts)?;
        record::write(
            &folder.join("network.json"),
            &NetworkRecord { ips: ips.clone() },
        )
        .map_err(failed(format!("write the network of sandbox {id}")))?;
        if let Some(sandbox) = self.sandboxes().get_mut(id) {
            sandbox.ips = Some(ips);
        }
        Ok(())
    }

    fn start_pause(&self, record: &SandboxRecord) -> Result<(Child, Proc, ChildStdout), Error> {
        let (id, config) = (&record.id, &record.config);
        let folder = self.sandbox_folder(id);
        let what = || format!("make sandbox {id}");
        record::make_folder(&folder.join("root")).map_err(failed(what()))?;
        record::write(&folder.join("config.json"), record).map_err(failed(what()))?;
        write_readable(&folder.join("hostname"), &format!("{}\n", config.hostname))?;
        write_readable(&folder.join("resolv.conf"), &config.resolv_conf)?;
        self.cgroups
            .make(&config.pod.uid, &config.limits)
            .map_err(failed(what()))?;
        let listener = socket::bind(&folder).map_err(failed(what()))?;
        let mut command = self.stage(stage::PAUSE, &folder);
        command
            .stdin(OwnedFd::from(listener))
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = spawn_in_namespaces(command, config)?;
        let pause = Proc::of(child.id() as i32);
        let (Some(pause), Some(stdout)) = (pause, child.stdout.take()) else {
            return Err(Error::Failed(format!(
                "{}: its pause process ended at once",
                what()
            )));
        };
        record::write(&folder.join("pause.json"), &pause).map_err(failed(what()))?;
        symlink(pause.netns(), folder.join("netns")).map_err(failed(what()))?;
        Ok((child, pause, stdout))
    }

    /// A command that executes a stage.
    pub(super) fn stage(&self, name: &str, folder: &Path) -> Command {
        let (program, prefix) = match self.config.stage.split_first() {
            Some((program, prefix)) => (program.as_os_str(), prefix),
            None => ("/proc/self/exe".as_ref(), Default::default()),
        };
        let mut command = Command::new(program);
        // `ps` need not show /proc/self/exe.
        command
            .arg0("weft")
            .args(prefix)
            .arg(name)
            .arg(folder)
            .env_clear();
        command
    }

    /// Learns of the end of a pause process by its socket.
    pub(super) fn watch_pause(
        self: &Arc<Self>,
        id: &str,
        pause: Proc,
        child: Option<Child>,
    ) -> Result<(), Error> {
        let what = || format!("watch sandbox {id}");
        let stream = socket::connect(&self.sandbox_folder(id)).map_err(failed(what()))?;
        let stream = stream
            .ok_or_else(|| Error::Failed(format!("{}: its pause process has ended", what())))?;
        let mut stream = tokio::net::UnixStream::from_std(stream).map_err(failed(what()))?;
        let pod = match self.sandboxes().get_mut(id) {
            Some(sandbox) => {
                sandbox.pause = Some(pause);
                sandbox.record.config.pod.clone()
            }
            None => return Err(unknown(id)),
        };
        let (inner, id) = (self.clone(), id.to_owned());
        tokio::spawn(async move {
            // It never sends anything: this returns when it has ended.
            let _ = stream.read(&mut [0]).await;
            reap(child).await;
            // From now on its process id may be another's.
            let _ = fs::remove_file(inner.sandbox_folder(&id).join("netns"));
            if let Some(sandbox) = inner.sandboxes().get_mut(&id) {
                sandbox.pause = None;
                sandbox.ended.send_replace(true);
            }
            inner.tell(Event::Sandbox(pod)).await;
        });
        Ok(())
    }
}

/// Waits for a child that has closed everything: it is about to end.
pub(super) async fn reap(child: Option<Child>) {
    if let Some(mut child) = child {
        // An error here is that it has been waited for already.
        let _ = tokio::task::spawn_blocking(move || child.wait()).await;
    }
}

/// Kills a process at once; its end is seen by its socket.
pub(super) fn end(pause: Option<Proc>) {
    if let Some(pause) = pause {
        pause.signal(Signal::SIGKILL);
    }
}

fn await_ready(mut stdout: ChildStdout) -> Result<(), Error> {
    match stdout.read(&mut [0]) {
        Ok(1) => Ok(()),
        Ok(_) => Err(Error::Failed(
            "the sandbox's pause process could not set itself up".into(),
        )),
        Err(error) => Err(Error::Failed(format!(
            "read from the pause process: {error}"
        ))),
    }
}

/// A file that whoever runs in a container may read; the folder around it is closed.
fn write_readable(path: &Path, text: &str) -> Result<(), Error> {
    let write = || {
        let mut file = fs::File::create(path)?;
        file.set_permissions(fs::Permissions::from_mode(0o644))?;
        file.write_all(text.as_bytes())
    };
    write().map_err(failed(format!("write {}", path.display())))
}

/// Spawns from a thread that has gone into new namespaces: its child is born in them, and no other thread is moved.
fn spawn_in_namespaces(mut command: Command, config: &SandboxConfig) -> Result<Child, Error> {
    let mut flags = CloneFlags::empty();
    flags.set(
        CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS,
        !config.host_network,
    );
    flags.set(CloneFlags::CLONE_NEWIPC, !config.host_ipc);
    flags.set(
        CloneFlags::CLONE_NEWPID,
        config.share_processes && !config.host_pid,
    );
    let work = move || -> Result<Child, Error> {
        unshare(flags).map_err(failed("make namespaces"))?;
        if !config.host_network {
            nix::unistd::sethostname(&config.hostname).map_err(failed("set the hostname"))?;
            let mut netlink = kernel::Netlink::open().map_err(failed("bring lo up"))?;
            let lo = netlink.expect_link("lo").map_err(failed("bring lo up"))?;
            netlink.ensure_up(&lo).map_err(failed("bring lo up"))?;
        }
        command.spawn().map_err(failed(format!(
            "execute {}",
            command.get_program().display()
        )))
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("sandbox".into())
            .spawn_scoped(scope, work);
        match thread.map_err(failed("start a thread"))?.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
