//! Removal of namespaces, cgroups and folders, and the sweep of what dead runs have left.
//!
//! A run's names begin with `weft-<pid>.<start time>.<random>-`. The start time (clock ticks since
//! boot, `/proc/<pid>/stat`) tells a living run from a later process with the same id.

use crate::container;
use crate::process;
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::fs;
use std::os::linux::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const MARK: &str = "weft-";
const NETNS: &str = "/run/netns";
const BPFFS: &str = "/sys/fs/bpf";

/// A prefix that no other run has.
pub(crate) fn new_prefix() -> Result<String> {
    let pid = std::process::id();
    let start = start_time(pid).context("this process has no start time")?;
    let random = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    Ok(format!("{MARK}{pid}.{start}.{}-", &random[..6]))
}

/// When process `pid` started, in clock ticks since boot; `None` if there is no such process.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name (field 2) may hold anything, so count from its closing bracket: field 22 of all.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

/// Whether `name` belongs to a run whose process is gone.
fn is_dead(name: &str) -> bool {
    let owner = || {
        let (owner, _) = name.strip_prefix(MARK)?.split_once('-')?;
        let mut parts = owner.split('.');
        let pid: u32 = parts.next()?.parse().ok()?;
        let start: u64 = parts.next()?.parse().ok()?;
        Some((pid, start))
    };
    owner().is_some_and(|(pid, start)| start_time(pid) != Some(start))
}

/// Removes the namespaces, cgroups and folders of dead runs; returns their names.
pub fn sweep() -> Result<Vec<String>> {
    let mut swept = Vec::new();
    let namespaces: Vec<_> = dead_in(Path::new(NETNS))?;
    remove_namespaces(&namespaces)?;
    swept.extend(namespaces);
    swept.extend(container::remove_cgroups_where(is_dead)?);
    for folder in dead_in(&std::env::temp_dir())? {
        match fs::remove_dir_all(&folder) {
            // Its janitor or another sweep was quicker.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            result => {
                result.with_context(|| format!("remove {}", folder.display()))?;
                swept.push(folder);
            }
        }
    }
    Ok(swept
        .iter()
        .map(|path| path.display().to_string())
        .collect())
}

fn dead_in(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut dead = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let entry = entry?;
        if is_dead(&entry.file_name().to_string_lossy()) {
            dead.push(entry.path());
        }
    }
    Ok(dead)
}

/// Ends the processes inside the given namespaces, then removes them.
pub(crate) fn remove_namespaces(paths: &[PathBuf]) -> Result<()> {
    if paths.is_empty() {
        return Ok(());
    }
    kill_inside(paths)?;
    remove_pins(paths)?;
    for path in paths {
        let Some(name) = path.file_name() else {
            continue;
        };
        let removed = process::run(Command::new("ip").args(["netns", "delete"]).arg(name));
        // Another sweep may have been quicker; only a namespace that stays is an error.
        if path.exists() {
            removed?;
        }
    }
    Ok(())
}

/// Removes what daemons inside the given namespaces pinned (`weft-<device>-<inode of the namespace>`):
/// a bpffs is shared by all namespaces, and pins outlive them.
fn remove_pins(paths: &[PathBuf]) -> Result<()> {
    let Ok(pins) = fs::read_dir(BPFFS) else {
        return Ok(());
    };
    let inside: BTreeSet<String> = paths
        .iter()
        .filter_map(|path| fs::metadata(path).ok())
        .map(|meta| meta.st_ino().to_string())
        .collect();
    for entry in pins {
        let entry = entry.with_context(|| format!("read {BPFFS}"))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let owner = name
            .strip_prefix(MARK)
            .and_then(|rest| rest.rsplit_once('-'));
        if owner.is_some_and(|(_, inode)| inside.contains(inode)) {
            match fs::remove_dir_all(entry.path()) {
                // Another sweep, or the daemon's own `cleanup`, was quicker.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                result => {
                    result.with_context(|| format!("remove {}", entry.path().display()))?;
                }
            }
        }
    }
    Ok(())
}

fn kill_inside(paths: &[PathBuf]) -> Result<()> {
    let inside: BTreeSet<_> = paths
        .iter()
        .filter_map(|path| fs::metadata(path).ok())
        .map(|meta| (meta.st_dev(), meta.st_ino()))
        .collect();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else {
            continue;
        };
        // A process may end while we look.
        let Ok(meta) = fs::metadata(entry.path().join("ns/net")) else {
            continue;
        };
        if inside.contains(&(meta.st_dev(), meta.st_ino()))
            && pid.cast_unsigned() != std::process::id()
        {
            let pid = nix::unistd::Pid::from_raw(pid);
            match nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL) {
                Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
                Err(error) => return Err(error).with_context(|| format!("kill {pid}")),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_names_are_alive_and_others_are_left_alone() {
        let prefix = new_prefix().expect("a prefix");
        assert!(!is_dead(&format!("{prefix}n1")));
        assert!(!is_dead("weft-host"));
        assert!(!is_dead("cni-0815"));
    }

    #[test]
    fn name_of_an_earlier_process_with_our_id_is_dead() {
        let pid = std::process::id();
        assert!(is_dead(&format!("weft-{pid}.1.abcdef-n1")));
    }
}
