//! All that a cluster of `weft up` has on this machine, as sorted lines of text: two of them compared tell what was
//! left behind, or that nothing is left at all.

use crate::namespace::Namespace;
use crate::{eventually, snapshot};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A process of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// Its number.
    pub pid: i32,
    /// When it began, in ticks since the machine's start: with the number, which process it is.
    pub began: u64,
    /// Its command line.
    pub command: String,
    /// Its cgroup below that of the node's Pods (`POD-UID/CONTAINER`), if it is in one.
    pub cgroup: Option<String>,
}

/// A cluster's files.
pub fn folder(cluster: &str) -> PathBuf {
    Path::new("/var/lib/weft/clusters").join(cluster)
}

/// The processes of a cluster, or of one node (`n1`): those that name its folder in their command line or
/// environment, and those in its cgroups. Not `kubectl`, which is ours.
pub fn processes(cluster: &str, node: Option<&str>) -> Result<Vec<Member>> {
    let mut place = folder(cluster);
    if let Some(node) = node {
        place = place.join("nodes").join(node);
    }
    let place = format!("{}/", place.display());
    let cgroup = place.trim_matches('/').replace('/', "-");
    let cgroup = match node {
        // Nothing follows the node's name but what is in it.
        Some(_) => format!("{cgroup}/"),
        None => format!("{cgroup}-nodes-"),
    };
    let mut members = Vec::new();
    for entry in fs::read_dir("/proc").context("list processes")?.flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        // One that has ended meanwhile is none.
        members.extend(member(pid, &place, &cgroup));
    }
    members.sort();
    Ok(members)
}

fn member(pid: i32, place: &str, cgroup: &str) -> Option<Member> {
    if pid == i32::try_from(std::process::id()).ok()? {
        return None;
    }
    let read = |file: &str| {
        let bytes = fs::read(format!("/proc/{pid}/{file}")).ok()?;
        Some(
            String::from_utf8_lossy(&bytes)
                .replace('\0', " ")
                .trim()
                .to_owned(),
        )
    };
    let stat = read("stat")?;
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    if matches!(*fields.first()?, "Z" | "X") {
        return None;
    }
    let command = read("cmdline")?;
    if command.starts_with("kubectl ") {
        return None;
    }
    let cgroups = read("cgroup")?;
    let inside = cgroups.lines().find_map(|line| {
        let (_, below) = line.split_once(cgroup)?;
        Some(below.to_owned())
    });
    // The folder itself, at the end of a word, as well as what is below it.
    let named = |text: &str| format!("{text} ").replace(' ', "/ ").contains(place);
    if inside.is_none() && !named(&command) && !named(&read("environ")?) {
        return None;
    }
    Some(Member {
        pid,
        began: fields.get(19)?.parse().ok()?,
        command,
        cgroup: inside,
    })
}

/// The processes of Pods on a node: pauses, shims and what runs in containers. Two that are the same say that nothing
/// was touched.
pub fn of_pods(cluster: &str, node: &str) -> Result<Vec<Member>> {
    let all = processes(cluster, Some(node))?;
    let stage = |command: &str| {
        let mut words = command.split(' ').skip(1);
        words
            .next()
            .is_some_and(|word| word == "pause" || word == "shim")
    };
    Ok(all
        .into_iter()
        .filter(|one| one.cgroup.is_some() || stage(&one.command))
        .collect())
}

/// Everything: namespaces with their links, addresses, routes and rules, processes, mounts, cgroups, files but for
/// what `kubectl` and the store keep.
pub fn of(cluster: &str) -> Result<Vec<String>> {
    let place = folder(cluster);
    let mut lines = Vec::new();
    for namespace in namespaces(cluster)? {
        lines.push(format!("namespace {namespace}"));
        let inside = snapshot::of(&Namespace::of_name(&namespace))?;
        lines.extend(
            inside
                .into_iter()
                .map(|line| format!("{namespace}: {line}")),
        );
    }
    lines.extend(
        processes(cluster, None)?
            .into_iter()
            .map(|one| format!("process {}", one.command)),
    );
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("read the mounts")?;
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    lines.extend(
        points
            .filter(|point| Path::new(point).starts_with(&place))
            .map(|point| format!("mount {point}")),
    );
    let mark = format!("{}-nodes-", place.display())
        .trim_matches('/')
        .replace('/', "-");
    let is_ours = |path: &Path| path.display().to_string().contains(&mark);
    lines.extend(
        folders(Path::new("/sys/fs/cgroup"), 5)
            .into_iter()
            .filter(|path| is_ours(path))
            .map(|path| format!("cgroup {}", path.display())),
    );
    lines.extend(
        files(&place)
            .into_iter()
            .map(|path| format!("file {}", path.display())),
    );
    lines.sort();
    Ok(lines)
}

/// The host's own links. Others may work on the machine at the same time: wait until they are as they were.
pub fn of_host() -> Result<Vec<String>> {
    let links = fs::read_dir("/sys/class/net")
        .context("list the host's links")?
        .flatten();
    let mut links: Vec<_> = links
        .map(|link| format!("link {}", link.file_name().to_string_lossy()))
        .collect();
    links.sort();
    Ok(links)
}

/// The namespaces of a cluster.
pub fn namespaces(cluster: &str) -> Result<Vec<String>> {
    let own = format!("weft-{cluster}");
    let Ok(entries) = fs::read_dir("/run/netns") else {
        return Ok(Vec::new());
    };
    let names = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<_> = names
        .filter(|name| *name == own || name.starts_with(&format!("{own}-n")))
        .collect();
    names.sort();
    Ok(names)
}

/// Waits until a cluster has no trace on this machine.
pub fn ensure_nothing(cluster: &str, limit: Duration) -> Result<()> {
    eventually(
        &format!("nothing is left of cluster {cluster}"),
        limit,
        || {
            let left = of(cluster)?;
            let place = folder(cluster);
            ensure!(!place.exists(), "{} is still there", place.display());
            ensure!(
                left.is_empty(),
                "there is still\n    {}",
                left.join("\n    ")
            );
            Ok(())
        },
    )
}

/// Waits until a cluster has what it had before, and nothing more.
pub fn ensure_as_before(cluster: &str, before: &[String], limit: Duration) -> Result<()> {
    eventually("nothing is left behind", limit, || {
        snapshot::ensure_same(
            &format!("what cluster {cluster} has"),
            before,
            &of(cluster)?,
        )
    })
}

fn folders(path: &Path, depth: u8) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Some(depth) = depth.checked_sub(1) else {
        return found;
    };
    // Cgroups come and go while we look.
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(folders(&entry.path(), depth));
            found.push(entry.path());
        }
    }
    found
}

/// Files and folders below, without those of the store and of kubectl's cache.
fn files(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name == "kubectl-cache" || name == "etcd" || name == "server" {
            continue;
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(files(&entry.path()));
        }
        found.push(entry.path());
    }
    found
}
