//! Waits until something stirs in a folder: inotify, and the end of what is half written.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::Path;
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
    pub(super) async fn stirred(&mut self, pause: Duration) {
        let Some(inotify) = &self.inotify else {
            return sleep(pause).await;
        };
        let mut writing = BTreeSet::new();
        if timeout_at(Instant::now() + pause, drain(inotify, &mut writing))
            .await
            .is_err()
        {
            return;
        }
        let end = Instant::now() + LONGEST_STIR;
        loop {
            let patience = if writing.is_empty() { GATHER } else { QUIET };
            let until = (Instant::now() + patience).min(end);
            let stirs = timeout_at(until, drain(inotify, &mut writing)).await;
            // Quiet, or long enough. What is gathered beside a finished file is not waited for twice.
            if stirs.is_err() || writing.is_empty() {
                return;
            }
        }
    }
}

/// Waits for events and reads them all. `writing` are the manifests that somebody has begun to write
/// and not closed.
async fn drain(inotify: &AsyncFd<Descriptor>, writing: &mut BTreeSet<OsString>) {
    loop {
        let Ok(mut guard) = inotify.readable().await else {
            // The runtime is shutting down.
            return std::future::pending().await;
        };
        match guard.get_inner().0.read_events() {
            Ok(events) => {
                for event in events {
                    note(writing, event);
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

fn note(writing: &mut BTreeSet<OsString>, event: InotifyEvent) {
    let Some(name) = event.name.filter(|name| is_manifest(name)) else {
        return;
    };
    let begun = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MODIFY;
    let over = AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MOVE | AddWatchFlags::IN_DELETE;
    if event.mask.intersects(over) {
        writing.remove(&name);
    } else if event.mask.intersects(begun) {
        writing.insert(name);
    }
}
