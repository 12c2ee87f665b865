//! Advisory file locks that end with the handle (flock(2)).

use std::{
    fs::{File, OpenOptions},
    path::Path,
};

use crate::{Error, Result};

/// An exclusive lock on a file, held until dropped.
#[derive(Debug)]
pub struct FileLock {
    _file: File,
}

impl FileLock {
    /// Waits for the exclusive lock on `path`, made (mode 0600) if missing.
    pub fn lock(path: &Path) -> Result<Self> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let open = || {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(path)?;
            file.lock()?;
            Ok(file)
        };
        match open() {
            Ok(file) => Ok(Self { _file: file }),
            Err(cause) => Err(Error::new(format!("lock {}", path.display()), cause)),
        }
    }
}
