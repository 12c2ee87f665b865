//! Waits for changes of a folder's files: configuration that comes and goes, logs that grow and are rotated.

mod sys;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A file has been written, made, moved or removed.
    File(OsString),
    /// One that wrote to a file has closed it.
    Closed(OsString),
    /// The folder itself is gone or moved, or more happened than was kept: look anew.
    Folder,
}

/// A watched folder.
pub struct Watch {
    folder: PathBuf,
    inotify: AsyncFd<sys::Descriptor>,
}

impl Watch {
    /// Watches a folder from now on.
    ///
    /// # Errors
    /// It is not there, or the limit of watches is reached.
    pub fn folder(folder: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let flags = AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        inotify.add_watch(folder, flags)?;
        Ok(Self {
            folder: folder.to_owned(),
            inotify: sys::register(inotify)?,
        })
    }

    /// Which it is.
    pub fn folder_path(&self) -> &Path {
        &self.folder
    }

    /// Waits for changes.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn next(&mut self) -> io::Result<Vec<Change>> {
        loop {
            let mut ready = self.inotify.readable().await?;
            match ready.get_inner().inotify().read_events() {
                Ok(events) => {
                    return Ok(events
                        .into_iter()
                        .map(|event| match event.name {
                            Some(name) if event.mask.contains(AddWatchFlags::IN_CLOSE_WRITE) => {
                                Change::Closed(name)
                            }
                            Some(name) => Change::File(name),
                            None => Change::Folder,
                        })
                        .collect());
                }
                Err(Errno::EAGAIN) => ready.clear_ready(),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
