//! Files that only their owner may read: keys, tokens, kubeconfigs.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, ensure};

/// More than any of them needs.
const LIMIT: u64 = 4 << 20;

/// Makes a folder (and those above it) that is its owner's alone. One that exists may be read, but not written, by
/// others.
///
/// # Errors
/// It cannot be made, or others can write there.
pub fn folder(path: &Path) -> anyhow::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("make the folder {}", path.display()))?;
    let mode = fs::metadata(path)
        .with_context(|| format!("look at the folder {}", path.display()))?
        .permissions()
        .mode();
    ensure!(
        mode & 0o022 == 0,
        "{} can be written by others (mode {:o}): chmod 700 it",
        path.display(),
        mode & 0o777
    );
    Ok(())
}

/// Reads a file that is its owner's alone; `None` if there is none.
///
/// # Errors
/// It cannot be read, is no text, or others may read or write it.
pub fn read(path: &Path) -> anyhow::Result<Option<String>> {
    read_unless(path, 0o077, "is open to others than its owner", "600")
}

/// Reads a file that others may read too, such as a certificate; `None` if there is none.
///
/// # Errors
/// It cannot be read, is no text, or others may write it.
pub fn read_public(path: &Path) -> anyhow::Result<Option<String>> {
    read_unless(path, 0o022, "can be written by others", "644")
}

fn read_unless(
    path: &Path,
    refused: u32,
    why: &str,
    better: &str,
) -> anyhow::Result<Option<String>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.with_context(|| format!("open {}", path.display()))?,
    };
    let metadata = file
        .metadata()
        .with_context(|| format!("look at {}", path.display()))?;
    ensure!(metadata.is_file(), "{} is no file", path.display());
    let mode = metadata.permissions().mode() & 0o777;
    ensure!(
        mode & refused == 0,
        "{} {why} (mode {mode:o}): chmod {better} it if what it holds can still be trusted",
        path.display()
    );
    let mut text = String::new();
    let size = file
        .take(LIMIT + 1)
        .read_to_string(&mut text)
        .with_context(|| format!("read {}", path.display()))?;
    ensure!(
        size as u64 <= LIMIT,
        "{} is larger than {LIMIT} bytes",
        path.display()
    );
    Ok(Some(text))
}

/// Writes a file, mode 0600, whole or not at all: after a crash it is the old one or the new one.
///
/// # Errors
/// The file system's.
pub fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let fresh = path.with_file_name(format!(".{name}.{}.new", std::process::id()));
    let written = replace(&fresh, path, text);
    if written.is_err() {
        // The first error is what is told.
        let _ = fs::remove_file(&fresh);
    }
    written.with_context(|| format!("write {}", path.display()))
}

fn replace(fresh: &Path, path: &Path, text: &str) -> io::Result<()> {
    match fs::remove_file(fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(fresh, path)?;
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}
