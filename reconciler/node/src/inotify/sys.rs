//! The one step of waiting for inotify that the compiler cannot check.
#![allow(
    unsafe_code,
    reason = "tokio asks for a promise about the descriptor; the block says why it holds"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use nix::sys::inotify::Inotify;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// An inotify instance that is not taken out of this, so that its descriptor stays the same and open.
pub struct Descriptor(Inotify);

impl Descriptor {
    /// What it wraps.
    pub fn inotify(&self) -> &Inotify {
        &self.0
    }
}

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// Registers it with the runtime.
///
/// # Errors
/// The kernel's.
pub fn register(inotify: Inotify) -> io::Result<AsyncFd<Descriptor>> {
    // SAFETY: the descriptor is owned by the `Inotify` within, which is never replaced or closed before the `AsyncFd`
    // that owns it has been dropped; `as_raw_fd` always answers this one.
    let registered =
        unsafe { AsyncFd::register_with_interest(Descriptor(inotify), Interest::READABLE) };
    registered.map_err(io::Error::from)
}
