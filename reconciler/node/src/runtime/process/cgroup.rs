//! Control groups of Pods and containers: limits, weights, who ran out of memory, and killing all there is.
//!
//! Hierarchies of version 1 and the one of version 2 are used as they are mounted, each for the controllers it has; a
//! version 2 hierarchy without controllers still serves to find and kill processes. A container's cgroup is
//! `BASE/POD/CONTAINER` in each. See cgroups(7) and Documentation/admin-guide/cgroup-v2.rst.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill as send};
use nix::unistd::Pid;

use crate::runtime::Limits;

const CONTROLLERS: [&str; 2] = ["cpu", "memory"];

#[derive(Clone, Debug, PartialEq, Eq)]
struct Hierarchy {
    mount: PathBuf,
    unified: bool,
    controllers: Vec<String>,
}

/// The node's cgroups that the runtime works in.
#[derive(Clone, Debug)]
pub(super) struct Cgroups {
    hierarchies: Vec<Hierarchy>,
    base: PathBuf,
}

impl Cgroups {
    /// Finds what is mounted, for cgroups below `base`. None at all is no error.
    pub(super) fn observe(base: &str) -> Self {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mut hierarchies = parse(&table);
        for one in hierarchies.iter_mut().filter(|one| one.unified) {
            let held = fs::read_to_string(one.mount.join("cgroup.controllers")).unwrap_or_default();
            one.controllers = held.split_whitespace().map(str::to_owned).collect();
        }
        hierarchies.retain(|one| one.unified || CONTROLLERS.iter().any(|name| one.has(name)));
        let base = PathBuf::from(base.trim_matches('/'));
        hierarchies.retain_mut(|one| match one.prepare(&base) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!("{error}: this hierarchy of cgroups is not used");
                false
            }
        });
        Self { hierarchies, base }
    }

    /// Whether limits can be kept.
    pub(super) fn can_limit(&self) -> bool {
        ["cpu", "memory"]
            .iter()
            .all(|name| self.hierarchies.iter().any(|one| one.has(name)))
    }

    /// Makes the cgroup `BASE/NAME` in each hierarchy; its folders. Names of one component or two.
    pub(super) fn make(&self, name: &str, limits: &Limits) -> io::Result<Vec<PathBuf>> {
        let mut folders = Vec::new();
        for one in &self.hierarchies {
            let path = self.base.join(name);
            let folder = one.mount.join(&path);
            fs::create_dir_all(&folder).map_err(|error| naming("make cgroup", &folder, error))?;
            if one.unified {
                one.hand_down(&path)?;
            }
            one.limit(&folder, limits)?;
            folders.push(folder);
        }
        Ok(folders)
    }

    /// The folders of a cgroup, whether they are there or not.
    pub(super) fn folders(&self, name: &str) -> Vec<PathBuf> {
        let folder = |one: &Hierarchy| one.mount.join(&self.base).join(name);
        self.hierarchies.iter().map(folder).collect()
    }

    /// Kills and removes all cgroups below `BASE` but those of these Pods and containers.
    pub(super) fn keep(&self, pods: &BTreeSet<String>, containers: &BTreeSet<String>) {
        for base in self.folders("") {
            for pod in children(&base) {
                let is_known = |folder: &PathBuf, names: &BTreeSet<String>| {
                    folder
                        .file_name()
                        .and_then(|name| name.to_str())
                        .is_some_and(|name| names.contains(name))
                };
                let mut strays = Vec::new();
                if is_known(&pod, pods) {
                    let inside = children(&pod);
                    inside
                        .iter()
                        .filter(|one| !is_known(one, containers))
                        .for_each(|one| collect(one, &mut strays));
                } else {
                    collect(&pod, &mut strays);
                }
                kill(&strays);
                remove(&strays);
            }
        }
    }

    /// Kills and removes all cgroups below `BASE`, and `BASE`.
    pub(super) fn remove_all(&self) {
        for folder in self.folders("") {
            let mut all = Vec::new();
            collect(&folder, &mut all);
            kill(&all);
            remove(&all);
            // Of its parents, those that are empty.
            if let Some(parent) = folder
                .parent()
                .filter(|_| self.base.components().count() > 1)
            {
                let _ = fs::remove_dir(parent);
            }
        }
    }
}

/// Folders below and including `folder`, the deepest first.
fn collect(folder: &Path, into: &mut Vec<PathBuf>) {
    for child in children(folder) {
        collect(&child, into);
    }
    into.push(folder.to_owned());
}

/// The cgroups right below one; none if it is not there.
fn children(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

impl Hierarchy {
    fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|name| name == controller)
    }

    /// Makes the base, and finds out what can be done in it.
    fn prepare(&mut self, base: &Path) -> io::Result<()> {
        let folder = self.mount.join(base);
        fs::create_dir_all(&folder).map_err(|error| naming("make cgroup", &folder, error))?;
        if self.unified
            && let Err(error) = self.hand_down(base)
        {
            // Someone's processes are in the root of a delegated hierarchy: it still serves to kill.
            tracing::warn!("{error}: no limits by this hierarchy of cgroups");
            self.controllers.clear();
        }
        Ok(())
    }

    /// Lets the controllers reach the cgroup at `path`: each parent must hand them down.
    fn hand_down(&self, path: &Path) -> io::Result<()> {
        let wanted: Vec<_> = CONTROLLERS
            .iter()
            .filter(|name| self.has(name))
            .map(|name| format!("+{name}"))
            .collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let mut folder = self.mount.clone();
        for component in path.components() {
            write(&folder, "cgroup.subtree_control", &wanted.join(" "))?;
            folder.push(component);
        }
        Ok(())
    }

    fn limit(&self, folder: &Path, limits: &Limits) -> io::Result<()> {
        if limits.memory > 0 && self.has("memory") {
            let bytes = limits.memory.to_string();
            if self.unified {
                write(folder, "memory.max", &bytes)?;
                write_if_there(folder, "memory.swap.max", "0")?;
                write_if_there(folder, "memory.oom.group", "1")?;
            } else {
                write(folder, "memory.limit_in_bytes", &bytes)?;
                write_if_there(folder, "memory.memsw.limit_in_bytes", &bytes)?;
            }
        }
        if self.has("cpu") {
            let shares = shares(limits.cpu_request);
            let quota = (limits.cpu * 100).max(1000);
            if self.unified {
                write(
                    folder,
                    "cpu.weight",
                    &(1 + (shares - 2) * 9999 / 262_142).to_string(),
                )?;
            } else {
                write(folder, "cpu.shares", &shares.to_string())?;
            }
            if limits.cpu > 0 && self.unified {
                write(folder, "cpu.max", &format!("{quota} 100000"))?;
            } else if limits.cpu > 0 {
                write(folder, "cpu.cfs_period_us", "100000")?;
                write(folder, "cpu.cfs_quota_us", &quota.to_string())?;
            }
        }
        Ok(())
    }
}

/// Kubernetes' own: 1024 shares are one CPU.
fn shares(milli: u64) -> u64 {
    (milli * 1024 / 1000).clamp(2, 262_144)
}

/// The hierarchies in a table of mounts; those of version 2 without their controllers.
fn parse(table: &str) -> Vec<Hierarchy> {
    let hierarchy = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let mount = left.split(' ').nth(4)?.into();
        let mut right = right.split(' ');
        let (kind, options) = (right.next()?, right.nth(1)?);
        match kind {
            "cgroup2" => Some(Hierarchy {
                mount,
                unified: true,
                controllers: Vec::new(),
            }),
            "cgroup" => Some(Hierarchy {
                mount,
                unified: false,
                controllers: options.split(',').map(str::to_owned).collect(),
            }),
            _ => None,
        }
    };
    table.lines().filter_map(hierarchy).collect()
}

/// Kills every process in these cgroups, those that come into being meanwhile too.
pub(super) fn kill(folders: &[PathBuf]) {
    for folder in folders {
        // Version 2, Linux 5.14.
        if fs::write(folder.join("cgroup.kill"), "1").is_ok() {
            continue;
        }
        for _ in 0..100 {
            let ids = members(folder);
            if ids.is_empty() {
                break;
            }
            for id in ids {
                let _ = send(Pid::from_raw(id), Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Processes in a cgroup that still run.
fn members(folder: &Path) -> Vec<i32> {
    let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    // 0 is a process outside of our PID namespace, and to kill(2) means our own group.
    let ids = text.lines().filter_map(|line| line.parse().ok());
    ids.filter(|&id| id > 0 && super::proc::Proc::of(id).is_some())
        .collect()
}

/// Whether the kernel has killed in one of these cgroups for want of memory.
pub(super) fn was_out_of_memory(folders: &[PathBuf]) -> bool {
    folders.iter().any(|folder| {
        ["memory.events", "memory.oom_control"].iter().any(|file| {
            let text = fs::read_to_string(folder.join(file)).unwrap_or_default();
            let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
            count.is_some_and(|count| count.trim() != "0")
        })
    })
}

/// Removes cgroups that are empty, or about to be: those killed take a moment to go.
pub(super) fn remove(folders: &[PathBuf]) {
    for folder in folders {
        for _ in 0..50 {
            match fs::remove_dir(folder) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!("remove cgroup {}: {error}", folder.display());
                    break;
                }
                _ => break,
            }
        }
    }
}

fn write(folder: &Path, file: &str, value: &str) -> io::Result<()> {
    let path = folder.join(file);
    fs::write(&path, value).map_err(|error| naming(&format!("write {value} to"), &path, error))
}

fn write_if_there(folder: &Path, file: &str, value: &str) -> io::Result<()> {
    if folder.join(file).exists() {
        write(folder, file, value)
    } else {
        Ok(())
    }
}

fn naming(what: &str, path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_read_from_the_table_of_mounts() {
        let table = "31 24 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                     32 24 0:28 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw\n\
                     33 24 0:29 / /proc rw - proc proc rw\n\
                     broken\n";
        let found = parse(table);
        assert_eq!(found.len(), 2);
        assert!(found[0].has("cpu") && !found[0].has("memory") && !found[0].unified);
        assert!(found[1].unified && found[1].mount == Path::new("/sys/fs/cgroup/unified"));
    }

    #[test]
    fn weights_are_those_of_kubernetes() {
        assert_eq!(
            (shares(0), shares(1000), shares(250), shares(1 << 40)),
            (2, 1024, 256, 262_144)
        );
    }
}
