//! Containers: what is known of them, and making one.

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use jiff::Timestamp;
use tokio::sync::watch;

use super::record::{self, ContainerRecord, Exit, Started};
use super::{Inner, failed, new_id, sandbox};
use crate::runtime::{ContainerConfig, ContainerState, ContainerStatus, Error, PodRef};

/// Kubernetes' own limits of last words: from their file, and from the log.
const MESSAGE_MAX: u64 = 4096;
const LOG_MESSAGE_MAX: u64 = 2048;
const LOG_MESSAGE_LINES: usize = 80;

/// A container that exists.
pub(super) struct Container {
    pub(super) record: ContainerRecord,
    pub(super) started: Option<Started>,
    pub(super) exit: Option<Exit>,
    /// When its shim was found dead without an exit record.
    pub(super) lost: Option<Timestamp>,
    /// A shim has been started for it.
    pub(super) is_starting: bool,
    pub(super) message: String,
    /// Turns true when its shim has ended.
    pub(super) ended: watch::Sender<bool>,
}

impl Container {
    pub(super) fn new(record: ContainerRecord) -> Self {
        Self {
            record,
            started: None,
            exit: None,
            lost: None,
            is_starting: false,
            message: String::new(),
            ended: watch::Sender::new(false),
        }
    }

    pub(super) fn status(&self) -> ContainerStatus {
        let state = match (&self.exit, self.lost, self.started) {
            (Some(_), ..) => ContainerState::Exited,
            (None, Some(_), _) => ContainerState::Unknown,
            (None, None, Some(_)) => ContainerState::Running,
            (None, None, None) => ContainerState::Created,
        };
        let reason = match (&self.exit, self.lost) {
            (Some(exit), _) if exit.failure.is_some() => "StartError",
            (Some(exit), _) if exit.oom && exit.code != 0 => "OOMKilled",
            (Some(exit), _) if exit.code == 0 => "Completed",
            (Some(_), _) => "Error",
            (None, Some(_)) => "ContainerStatusUnknown",
            (None, None) => "",
        };
        let lost_code = self.lost.map(|_| 137);
        ContainerStatus {
            id: self.record.id.clone(),
            sandbox: self.record.sandbox.clone(),
            pod: self.record.pod.clone(),
            config: self.record.config.clone(),
            state,
            created: self.record.created,
            started: self.started.map(|started| started.at),
            finished: self.exit.as_ref().map(|exit| exit.finished).or(self.lost),
            exit_code: self.exit.as_ref().map(|exit| exit.code).or(lost_code),
            signal: self.exit.as_ref().map_or(0, |exit| exit.signal),
            reason: reason.into(),
            message: self.message.clone(),
            log: self.record.log.clone(),
        }
    }

    /// Reads from its folder what has become of it.
    pub(super) fn learn(&mut self, folder: &Path) -> Result<(), Error> {
        let what = || format!("read the state of container {}", self.record.id);
        self.started = record::read(&folder.join("started.json")).map_err(failed(what()))?;
        self.exit = record::read(&folder.join("exit.json")).map_err(failed(what()))?;
        if let Some(exit) = &self.exit {
            self.message = match &exit.failure {
                Some(text) => text.clone(),
                None => last_words(&self.record, exit.code, folder),
            };
        }
        Ok(())
    }
}

/// The error for a container that is not there.
pub(super) fn unknown(id: &str) -> Error {
    Error::NotFound(format!("no container {id}"))
}

/// Names that become parts of paths.
pub(super) fn check_names(pod: &PodRef) -> Result<(), Error> {
    for (what, name) in [
        ("namespace", &pod.namespace),
        ("name", &pod.name),
        ("uid", &pod.uid),
    ] {
        check_name(what, name)?;
    }
    Ok(())
}

fn check_name(what: &str, name: &str) -> Result<(), Error> {
    if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) {
        return Err(Error::Invalid(format!(
            "{what} {name:?} cannot be part of a path"
        )));
    }
    Ok(())
}

impl Inner {
    pub(super) fn create_container(
        &self,
        sandbox: &str,
        config: ContainerConfig,
    ) -> Result<String, Error> {
        let pod = {
            let sandboxes = self.sandboxes();
            let found = sandboxes
                .get(sandbox)
                .ok_or_else(|| sandbox::unknown(sandbox))?;
            found.record.config.pod.clone()
        };
        check_name("container", &config.name)?;
        for mount in &config.mounts {
            if mount.propagation == "Bidirectional" {
                return Err(Error::Invalid(format!(
                    "mount {}: propagation Bidirectional is not supported; use HostToContainer",
                    mount.target.display()
                )));
            }
        }
        let image = self.images.open(&config.image)?;
        if super::start::arguments(&config, &image).is_empty() {
            return Err(Error::Invalid("no command specified".into()));
        }
        let log = self
            .config
            .logs
            .join(format!("{}_{}_{}", pod.namespace, pod.name, pod.uid))
            .join(&config.name)
            .join(format!("{}.log", config.attempt));
        let record = ContainerRecord {
            id: new_id(),
            sandbox: sandbox.to_owned(),
            pod,
            config,
            created: Timestamp::now(),
            log,
        };
        let id = record.id.clone();
        let folder = self.container_folder(&id);
        let what = || format!("make container {id}");
        for name in ["rootfs", "upper", "work", "scratch"] {
            record::make_folder(&folder.join(name)).map_err(failed(what()))?;
        }
        // The upper folder's mode is the root's.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(folder.join("upper"), open).map_err(failed(what()))?;
        record::write(&folder.join("config.json"), &record).map_err(failed(what()))?;
        self.containers().insert(id.clone(), Container::new(record));
        Ok(id)
    }
}

/// A container's last words.
fn last_words(record: &ContainerRecord, code: i32, folder: &Path) -> String {
    // That there are none is no failure; they are the container's to write.
    let mut bytes = Vec::new();
    if let Ok(file) = fs::File::open(folder.join("termination")) {
        let _ = file.take(MESSAGE_MAX).read_to_end(&mut bytes);
    }
    if bytes.is_empty() && record.config.message_from_log && code != 0 {
        return end_of_log(&record.log).unwrap_or_default();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn end_of_log(path: &Path) -> std::io::Result<String> {
    let mut file = fs::File::open(path)?;
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(4 * LOG_MESSAGE_MAX)))?;
    let mut bytes = Vec::new();
    file.take(4 * LOG_MESSAGE_MAX).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    // TIME STREAM TAG TEXT; the first may be cut.
    let lines: Vec<_> = text
        .lines()
        .filter_map(|line| line.splitn(4, ' ').nth(3))
        .collect();
    let first = lines.len().saturating_sub(LOG_MESSAGE_LINES);
    let mut message: String = lines[first..]
        .iter()
        .map(|line| format!("{line}\n"))
        .collect();
    while message.len() as u64 > LOG_MESSAGE_MAX {
        message.remove(0);
    }
    Ok(message)
}
