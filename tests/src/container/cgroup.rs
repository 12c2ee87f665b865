//! The cgroups of a run's containers: they carry the run's prefix in their name, directly below each
//! hierarchy's root, so that those that a killed runtime leaves can be found and removed.

use crate::wait::eventually;
use anyhow::{Context, Result};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

const ROOT: &str = "/sys/fs/cgroup";

/// The cgroup of the container `id`, as a runtime takes it.
pub(super) fn path(id: &str) -> String {
    format!("/{id}")
}

/// Removes the cgroups whose name `is_ours`, in the one hierarchy of cgroup v2 or all those of v1;
/// returns their paths.
pub(crate) fn remove_where(is_ours: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
    let mut removed = Vec::new();
    for top in folders(Path::new(ROOT))? {
        let mut found = Vec::new();
        if is_ours(&name(&top)) {
            found.push(top);
        } else {
            let below = folders(&top)?;
            found.extend(below.into_iter().filter(|path| is_ours(&name(path))));
        }
        for path in found {
            // The kernel takes a moment to let go of a process that has been killed.
            let what = format!("{} is removed", path.display());
            eventually(&what, Duration::from_secs(3), || remove(&path))?;
            removed.push(path);
        }
    }
    Ok(removed)
}

fn name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// A cgroup goes when its children have gone. Another sweep may be quicker.
fn remove(path: &Path) -> Result<()> {
    for child in folders(path)? {
        remove(&child)?;
    }
    match std::fs::remove_dir(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result.with_context(|| format!("remove {}", path.display())),
    }
}

fn folders(path: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("read {}", path.display()))?,
    };
    let mut folders = Vec::new();
    for entry in entries {
        let entry = entry?;
        // A cgroup may go while we look; `file_type` does not follow the links of v1.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            folders.push(entry.path());
        }
    }
    Ok(folders)
}
