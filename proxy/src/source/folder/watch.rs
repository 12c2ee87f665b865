//! Waits until something stirs in a folder: inotify, and a moment of quiet after it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep, timeout_at};

/// Writers write in pieces, and several files at once.
const QUIET: Duration = Duration::from_millis(50);
/// A file that is written all the time does not keep the others waiting for ever.
const LONGEST_STIR: Duration = Duration::from_secs(2);

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

    /// Returns when something has stirred and is quiet again, or when the pause is over.
    pub(super) async fn stirred(&mut self, pause: Duration) {
        let Some(inotify) = &self.inotify else {
            return sleep(pause).await;
        };
        if timeout_at(Instant::now() + pause, drain(inotify))
            .await
            .is_err()
        {
            return;
        }
        let end = Instant::now() + LONGEST_STIR;
        while Instant::now() < end
            && timeout_at(Instant::now() + QUIET, drain(inotify))
                .await
                .is_ok()
        {}
    }
}

/// Waits for events and reads them all; what they say does not matter.
async fn drain(inotify: &AsyncFd<Descriptor>) {
    loop {
        let Ok(mut guard) = inotify.readable().await else {
            // The runtime is shutting down.
            return std::future::pending().await;
        };
        match guard.get_inner().0.read_events() {
            Ok(_) => return,
            Err(Errno::EAGAIN) => guard.clear_ready(),
            Err(Errno::EINTR) => {}
            // Not of a kind that passes; the slow looks remain.
            Err(_) => return std::future::pending().await,
        }
    }
}
