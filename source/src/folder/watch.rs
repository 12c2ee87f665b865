//! Waits until something stirs in a folder: inotify, and the end of what is half written.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent};
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep, timeout_at};

use super::files::is_manifest;

/// Several files change at once.
const GATHER: Duration = Duration::from_millis(5);
/// A file that is being written is waited for, piece by piece.
const QUIET: Duration = Duration::from_millis(50);
/// One that is written all the time does not keep the others waiting for ever.
const LONGEST_STIR: Duration = Duration::from_millis(250);

/// A watch on a folder; without inotify it only waits.
pub(super) struct Watch {
    inotify: Option<AsyncFd<Descriptor>>,
    /// The last reason why it does not watch, to say it once.
    said: Option<String>,
}

struct Descriptor(Inotify);

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Watch {
    pub(super) fn new() -> Self {
        let mut watch = Self {
            inotify: None,
            said: None,
        };
        let flags = InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC;
        let opened = Inotify::init(flags).map_err(io::Error::from);
        #[expect(
            deprecated,
            reason = "the replacement is unsafe because as_raw_fd could name a descriptor that is \
                      not owned; ours always names the one inotify owns"
        )]
        let watched = opened.and_then(|inotify| AsyncFd::new(Descriptor(inotify)));
        match watched {
            Ok(inotify) => watch.inotify = Some(inotify),
            Err(error) => watch.say(format!(
                "open inotify: {error}; changes are only noticed at the slow looks"
            )),
        }
        watch
    }

    /// Watches what is at this path now; again for the same folder is no change. A folder that is
    /// not there is for the look to complain of.
    pub(super) fn cover(&mut self, path: &Path) {
        let Some(inotify) = &self.inotify else {
            return;
        };
        let flags = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        match inotify.get_ref().0.add_watch(path, flags) {
            Ok(_) => self.said = None,
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES) => {}
            Err(error) => self.say(format!(
                "watch {}: {error}; changes are only noticed at the slow looks",
                path.display()
            )),
        }
    }

    fn say(&mut self, line: String) {
        if self.said.as_ref() != Some(&line) {
            tracing::warn!("{line}");
            self.said = Some(line);
        }
    }

    /// Returns when something has stirred and no manifest is half written, or when the pause is over.
    /// Says which manifests stirred; `None`: any, or nothing did.
    pub(super) async fn stirred(&mut self, pause: Duration) -> Option<BTreeSet<Arc<str>>> {
        let Some(inotify) = &self.inotify else {
            sleep(pause).await;
            return None;
        };
        let mut stir = Stir::default();
        if timeout_at(Instant::now() + pause, drain(inotify, &mut stir))
            .await
            .is_err()
        {
            return None;
        }
        let end = Instant::now() + LONGEST_STIR;
        loop {
            let patience = if stir.is_over() { GATHER } else { QUIET };
            let until = (Instant::now() + patience).min(end);
            let stirs = timeout_at(until, drain(inotify, &mut stir)).await;
            // Quiet, or long enough. What is gathered beside a finished file is not waited for twice.
            if stirs.is_err() || stir.is_over() {
                return (!stir.anything).then_some(stir.names);
            }
        }
    }
}

/// What has stirred.
#[derive(Default)]
struct Stir {
    /// Manifests.
    names: BTreeSet<Arc<str>>,
    /// Those that somebody has begun to write and not closed.
    writing: BTreeSet<Arc<str>>,
    /// A file went: perhaps the folder goes with all that is in it.
    removing: bool,
    /// The folder itself, a mount's links, or more than could be told.
    anything: bool,
}

/// Waits for events and reads them all.
async fn drain(inotify: &AsyncFd<Descriptor>, stir: &mut Stir) {
    loop {
        let Ok(mut guard) = inotify.readable().await else {
            // The runtime is shutting down.
            return std::future::pending().await;
        };
        match guard.get_inner().0.read_events() {
            Ok(events) => {
                for event in events {
                    stir.note(&event);
                }
                return;
            }
            Err(Errno::EAGAIN) => guard.clear_ready(),
            Err(Errno::EINTR) => {}
            // Not of a kind that passes; the slow looks remain.
            Err(_) => return std::future::pending().await,
        }
    }
}

impl Stir {
    fn is_over(&self) -> bool {
        self.writing.is_empty() && !self.removing
    }

    fn note(&mut self, event: &InotifyEvent) {
        let name = event.name.as_deref().and_then(OsStr::to_str);
        let Some(name) = name.filter(|name| !name.starts_with("..")) else {
            self.anything = true;
            return;
        };
        if !is_manifest(OsStr::new(name)) {
            return;
        }
        let name: Arc<str> = name.into();
        let begun = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MODIFY;
        let over =
            AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MOVE | AddWatchFlags::IN_DELETE;
        if event.mask.intersects(over) {
            self.writing.remove(&name);
        } else if event.mask.intersects(begun) {
            self.writing.insert(Arc::clone(&name));
        }
        self.removing |= event.mask.intersects(AddWatchFlags::IN_DELETE);
        self.names.insert(name);
    }
}
