//! The sockets in the folders of sandboxes and containers, whatever the length of their paths.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

/// Makes the socket of a folder.
pub(super) fn bind(folder: &Path) -> io::Result<UnixListener> {
    through(folder, |path| match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => UnixListener::bind(path),
    })
}

/// Connects to the process that holds the socket of a folder; `None` if it has ended. Ready for tokio.
pub(super) fn connect(folder: &Path) -> io::Result<Option<UnixStream>> {
    match through(folder, |path| UnixStream::connect(path)) {
        Ok(stream) => {
            stream.set_nonblocking(true)?;
            Ok(Some(stream))
        }
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// A socket's path has at most 107 bytes: it leads over a descriptor of the folder.
fn through<T>(folder: &Path, act: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let folder = File::open(folder)?;
    act(Path::new(&format!(
        "/proc/self/fd/{}/sock",
        folder.as_raw_fd()
    )))
}
