//! What a stream's bytes rest in between reading and writing: a pipe that the kernel moves pages through (splice(2)),
//! or a buffer where that is refused.
//!
//! A store is borrowed from the thread's stock only while there are bytes in it, so an idle connection has none,
//! and a few large ones serve many thousand connections.

use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::unistd::{pipe2, read, write};

/// Bytes of a pipe. Measured (`cargo run --release --example userspace`): 64 KiB is as fast on a quiet machine, but
/// holds less of what a loaded one has gathered; with 1 MiB the bytes have left the cache before they go on.
const PIPE: usize = 256 * 1024;
/// Bytes of a buffer: larger ones were slower.
const BUFFER: usize = 64 * 1024;
/// Unused stores kept for later.
const KEPT: usize = 16;

/// See the module. Readers take care to fill it only when it is empty.
#[derive(Debug)]
pub(super) enum Store {
    /// Pages are moved, not copied.
    Pipe {
        /// Bytes go in here,
        entry: OwnedFd,
        /// and come out here.
        exit: OwnedFd,
        /// So many are inside.
        held: usize,
    },
    /// Read and written.
    Buffer {
        /// Room.
        bytes: Box<[u8]>,
        /// First byte not yet written.
        start: usize,
        /// Behind the last one.
        end: usize,
    },
}

impl Store {
    /// Bytes that have been read and not yet written.
    pub(super) fn held(&self) -> usize {
        match self {
            Self::Pipe { held, .. } => *held,
            Self::Buffer { start, end, .. } => end - start,
        }
    }

    /// Reads what there is; 0 at the end of the stream.
    pub(super) fn fill(&mut self, from: &TcpStream) -> io::Result<usize> {
        match self {
            Self::Pipe { entry, held, .. } => {
                let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
                let count = splice(from, None, &*entry, None, PIPE, flags)?;
                *held += count;
                Ok(count)
            }
            Self::Buffer { bytes, start, end } => {
                let count = read(from, bytes)?;
                (*start, *end) = (0, count);
                Ok(count)
            }
        }
    }

    /// Writes what the other side takes.
    pub(super) fn drain(&mut self, to: &TcpStream) -> io::Result<usize> {
        match self {
            Self::Pipe { exit, held, .. } => {
                let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
                let count = splice(&*exit, None, to, None, *held, flags)?;
                *held -= count;
                Ok(count)
            }
            Self::Buffer { bytes, start, end } => {
                let count = write(to, &bytes[*start..*end])?;
                *start += count;
                Ok(count)
            }
        }
    }
}

/// The stores of one thread.
#[derive(Debug, Default)]
pub(super) struct Stock {
    unused: Vec<Store>,
    without_splice: bool,
}

impl Stock {
    /// A store with nothing in it.
    pub(super) fn take(&mut self) -> Store {
        if let Some(store) = self.unused.pop() {
            return store;
        }
        if !self.without_splice {
            match pipe() {
                Ok(store) => return store,
                // For want of descriptors, say: this once.
                Err(errno) => tracing::debug!("make a pipe: {}", errno.desc()),
            }
        }
        Store::Buffer {
            bytes: vec![0; BUFFER].into(),
            start: 0,
            end: 0,
        }
    }

    /// Takes a store back; one that still holds bytes is thrown away with them.
    pub(super) fn give(&mut self, store: Store) {
        let wanted = !self.without_splice && matches!(store, Store::Pipe { .. });
        if store.held() == 0 && self.unused.len() < KEPT && (wanted || self.without_splice) {
            self.unused.push(store);
        }
    }

    /// The kernel (or a sandbox) refuses to splice: from now on bytes are copied.
    pub(super) fn refuse_splice(&mut self, error: &io::Error) {
        if !self.without_splice {
            tracing::warn!("splice between sockets: {error}; streams are copied instead");
        }
        self.without_splice = true;
        self.unused.clear();
    }

    #[cfg(test)]
    pub(super) fn without_splice() -> Self {
        Self {
            unused: Vec::new(),
            without_splice: true,
        }
    }
}

/// Whether an error of a socket call means that splice itself is refused, and not that the stream has ended.
pub(super) fn is_refusal(store: &Store, error: &io::Error) -> bool {
    matches!(store, Store::Pipe { .. })
        && matches!(
            error.raw_os_error(),
            Some(libc::EINVAL | libc::ENOSYS | libc::EPERM | libc::EOPNOTSUPP)
        )
}

fn pipe() -> Result<Store, Errno> {
    let (exit, entry) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    if let Err(errno) = fcntl(&entry, FcntlArg::F_SETPIPE_SZ(PIPE as i32)) {
        // A process without CAP_SYS_RESOURCE has a share of pages (pipe(7)). The default size will do, but what the
        // kernel gives when the share is used up is too small to be worth it.
        let size = fcntl(&entry, FcntlArg::F_GETPIPE_SZ)?;
        if size < BUFFER as i32 {
            return Err(errno);
        }
    }
    Ok(Store::Pipe {
        entry,
        exit,
        held: 0,
    })
}
