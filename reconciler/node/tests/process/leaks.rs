//! What a runtime's root holds of the machine: processes, mounts, cgroups, namespaces. After the end it must be nothing.
//!
//! Counted by what names the root or its cgroup, so that other tests on the machine do not disturb; a namespace lives by
//! a process, a mount or a descriptor, so there is no other place for one to leak to. To be used from other tests by
//! `#[path = "…/leaks.rs"] mod leaks;`.

use std::fs;
use std::path::Path;

/// All that belongs to a root now, one line each.
pub fn of(root: &Path, cgroup: &str) -> Vec<String> {
    let root = root.display().to_string();
    let mut found = Vec::new();
    for id in processes() {
        let read = |file: &str| fs::read(format!("/proc/{id}/{file}")).unwrap_or_default();
        let line = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
        let groups = String::from_utf8_lossy(&read("cgroup")).into_owned();
        let folder = fs::read_link(format!("/proc/{id}/cwd")).unwrap_or_default();
        // One that has ended and waits for its parent is that parent's matter: init's, mostly.
        let is_over = String::from_utf8_lossy(&read("stat"))
            .rsplit_once(')')
            .is_none_or(|(_, rest)| rest.starts_with(" Z"));
        if !is_over
            && id != std::process::id()
            && (line.contains(&root) || groups.contains(cgroup) || folder.starts_with(&root))
        {
            found.push(format!("process {id}: {line}"));
        }
    }
    for id in processes() {
        let table = fs::read_to_string(format!("/proc/{id}/mountinfo")).unwrap_or_default();
        found.extend(
            table
                .lines()
                .filter(|line| line.contains(&root))
                .map(|line| format!("mount of {id}: {line}")),
        );
    }
    let hierarchies = fs::read_dir("/sys/fs/cgroup")
        .into_iter()
        .flatten()
        .flatten();
    for path in hierarchies
        .map(|entry| entry.path().join(cgroup))
        .chain([Path::new("/sys/fs/cgroup").join(cgroup)])
    {
        if path.exists() {
            found.push(format!("cgroup {}", path.display()));
        }
    }
    found.sort();
    found.dedup();
    found
}

/// Namespaces that this process holds open.
pub fn open_namespaces() -> usize {
    let fds = fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .flatten();
    let to = |path: &Path| {
        fs::read_link(path)
            .unwrap_or_default()
            .display()
            .to_string()
    };
    fds.filter(|entry| to(&entry.path()).contains(":[4026"))
        .count()
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}
