//! One command at a time changes a cluster: a lock on its folder, which goes with the process that holds it.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::Context;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::folder;

/// Held until it is dropped.
pub struct Turn {
    _lock: Flock<File>,
}

impl Turn {
    /// Waits for it, and says so; `None` if there is no folder of this cluster.
    ///
    /// # Errors
    /// The file system's.
    pub fn take(name: &str) -> anyhow::Result<Option<Self>> {
        let path = folder(name);
        let what = || format!("lock {}", path.display());
        let mut said = false;
        while path.exists() {
            let file = File::open(&path).with_context(what)?;
            let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => lock,
                Err((file, Errno::EWOULDBLOCK)) => {
                    if !said {
                        eprintln!(
                            "weft: waiting for another weft that is at work on cluster {name}"
                        );
                        said = true;
                    }
                    Flock::lock(file, FlockArg::LockExclusive)
                        .map_err(|(_, error)| error)
                        .with_context(what)?
                }
                Err((_, error)) => return Err(error).with_context(what),
            };
            // Whoever had it may have taken the folder away, and others have made another.
            if is_at(&lock, &path) {
                return Ok(Some(Self { _lock: lock }));
            }
        }
        Ok(None)
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), path.metadata()) {
        (Ok(held), Ok(there)) => held.ino() == there.ino() && held.dev() == there.dev(),
        _ => false,
    }
}
