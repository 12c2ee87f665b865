//! A container's root, made of mounts that only its own mount namespace has: they go when its processes go.
//!
//! `image: host` is an overlay of the node's `/` and an empty tmpfs, so that missing mount points can be made, then
//! read-only; other file systems of the node are bound on it, read-only too (in those, mount points cannot be made).
//! /tmp, /var/tmp and /run are empty and the container's own. What changes on the node below a path that the container
//! has looked at already may stay unseen by it until it starts again.

use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;
use nix::unistd::{chdir, fchdir, pivot_root};

use super::super::record::{Root, Start};
use super::super::sys;
use super::dev;
use super::target::RootFolder;

const NONE: Option<&str> = None;
/// Files that are the container's own even where the image has a link.
const OWN_FILES: [&str; 3] = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"];

/// Makes the root in the container's folder, which is the working directory, and enters it.
pub(super) fn enter(start: &Start, shm: &OwnedFd) -> anyhow::Result<()> {
    // Mounts come in from the node where it shares them, and never go out.
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_SLAVE, NONE)
        .context("leave the node's mounts")?;
    match &start.root {
        Root::Host { .. } => overlay_host()?,
        Root::Folder(lower) => overlay(lower, Path::new("."))?,
    }
    let path = std::env::current_dir()
        .context("the container's folder")?
        .join("rootfs");
    let root = RootFolder::open(&path)?;
    if let Root::Host { masked } = &start.root {
        bind_file_systems(&root, masked)?;
        for (target, options) in [
            ("/tmp", "mode=1777"),
            ("/var/tmp", "mode=1777"),
            ("/run", "mode=755"),
        ] {
            tmpfs(&root, target, options)?;
        }
        for path in masked {
            hide(&root, path)?;
        }
    }
    kernel_file_systems(&root, start)?;
    dev::make(&root, start.security.privileged, shm)?;
    for one in &start.mounts {
        bind(&root, one).with_context(|| {
            format!("mount {} at {}", one.source.display(), one.target.display())
        })?;
    }
    if matches!(start.root, Root::Host { .. }) || start.security.read_only_root {
        sys::make_read_only(&path, false).context("make the root read-only")?;
    }
    drop(root);
    chdir(&path).context("enter the root")?;
    pivot_root(".", ".").context("change the root")?;
    umount2(".", MntFlags::MNT_DETACH).context("leave the node's mounts")?;
    chdir("/").context("enter the root")
}

fn overlay_host() -> anyhow::Result<()> {
    mount(
        Some("scratch"),
        "scratch",
        Some("tmpfs"),
        MsFlags::empty(),
        Some("mode=700"),
    )
    .context("mount a tmpfs for mount points")?;
    fs::create_dir("scratch/upper").context("make the overlay's upper folder")?;
    fs::create_dir("scratch/work").context("make the overlay's work folder")?;
    overlay(Path::new("/"), Path::new("scratch"))
}

fn overlay(lower: &Path, changes: &Path) -> anyhow::Result<()> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let folder = open(lower, flags, Mode::empty())
        .with_context(|| format!("open the image's root {}", lower.display()))?;
    // By descriptor: a path could hold the option's own separators.
    let options = format!(
        "lowerdir=/proc/self/fd/{},upperdir={changes}/upper,workdir={changes}/work",
        folder.as_fd().as_raw_fd(),
        changes = changes.display()
    );
    mount(Some("weft"), "rootfs", Some("overlay"), MsFlags::MS_NODEV, Some(options.as_str())).with_context(|| {
        format!(
            "mount an overlay over {} (the kernel needs overlayfs, and the runtime's folder a file system that can be \
             its upper layer, such as ext4, xfs, btrfs or tmpfs)",
            lower.display()
        )
    })
}

/// Binds the node's other file systems, read-only; not those that the container has of its own, nor what is masked:
/// volumes in memory of other Pods.
fn bind_file_systems(root: &RootFolder, masked: &[PathBuf]) -> anyhow::Result<()> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("read the node's mounts")?;
    let is_seen = |path: &PathBuf| !masked.iter().any(|masked| path.starts_with(masked));
    for path in file_systems(&table).into_iter().filter(is_seen) {
        // A mount point that cannot be reached is one below another mount.
        let Some(target) = root.find(&path)? else {
            continue;
        };
        let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
        let what = || format!("bind {}", path.display());
        mount(Some(&path), &target.path(), NONE, flags, NONE).with_context(what)?;
        let Some(target) = root.find(&path)? else {
            continue;
        };
        sys::make_read_only(&target.path(), true).with_context(what)?;
    }
    Ok(())
}

/// The mount points right on `/` in a table of mounts, without those of the kernel's and of volatile folders.
fn file_systems(table: &str) -> Vec<PathBuf> {
    let lines = || {
        table.lines().filter_map(|line| {
            let mut fields = line.split(' ');
            let id = fields.next()?;
            let parent = fields.next()?;
            Some((id, parent, unescape(fields.nth(2)?)))
        })
    };
    // The last mount on `/` is the one that is seen.
    let roots = lines().filter(|(_, _, path)| path == Path::new("/"));
    let Some(root) = roots.fold(None, |_, (id, ..)| Some(id)) else {
        return Vec::new();
    };
    let own = ["/proc", "/sys", "/dev", "/tmp", "/var/tmp", "/run"];
    let mut found: Vec<_> = lines()
        .filter(|(_, parent, path)| {
            *parent == root
                && path != Path::new("/")
                && !own.iter().any(|own| path.starts_with(own))
        })
        .map(|(_, _, path)| path)
        .collect();
    found.sort();
    found.dedup();
    found
}

/// A path of /proc/PID/mountinfo: blanks and the like are written as three octal digits.
fn unescape(field: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt as _;
    let mut bytes = Vec::new();
    let mut rest = field.as_bytes();
    while let Some((&byte, more)) = rest.split_first() {
        let octal = more
            .get(..3)
            .filter(|_| byte == b'\\')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(octal.unwrap_or(byte));
        rest = if octal.is_some() { &more[3..] } else { more };
    }
    std::ffi::OsString::from_vec(bytes).into()
}

fn tmpfs(root: &RootFolder, path: &str, options: &str) -> anyhow::Result<()> {
    let target = root.folder(Path::new(path))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(
        Some("tmpfs"),
        &target.path(),
        Some("tmpfs"),
        flags,
        Some(options),
    )
    .with_context(|| format!("mount a tmpfs at {path}"))
}

/// Puts nothing in the place of a file or folder, if it is there.
fn hide(root: &RootFolder, path: &Path) -> anyhow::Result<()> {
    let Some(target) = root.find(path)? else {
        return Ok(());
    };
    let target = target.path();
    let result = if fs::metadata(&target)?.is_dir() {
        let flags =
            MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(
            Some("hidden"),
            &target,
            Some("tmpfs"),
            flags,
            Some("mode=755,size=0"),
        )
    } else {
        mount(Some("/dev/null"), &target, NONE, MsFlags::MS_BIND, NONE)
    };
    result.with_context(|| format!("hide {}", path.display()))
}

/// /proc and /sys. Without `privileged`, what is of the whole machine is hidden or cannot be written.
fn kernel_file_systems(root: &RootFolder, start: &Start) -> anyhow::Result<()> {
    let privileged = start.security.privileged;
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let proc = root.folder(Path::new("/proc"))?;
    mount(Some("proc"), &proc.path(), Some("proc"), safe, NONE).context("mount /proc")?;
    let sys = root.folder(Path::new("/sys"))?;
    let flags = if privileged {
        safe
    } else {
        safe | MsFlags::MS_RDONLY
    };
    mount(Some("sysfs"), &sys.path(), Some("sysfs"), flags, NONE).context("mount /sys")?;
    if privileged {
        return Ok(());
    }
    for name in ["bus", "fs", "irq", "sys", "sysrq-trigger"] {
        let path = PathBuf::from(format!("/proc/{name}"));
        let Some(target) = root.find(&path)? else {
            continue;
        };
        let what = || format!("make {} read-only", path.display());
        mount(
            Some(&target.path()),
            &target.path(),
            NONE,
            MsFlags::MS_BIND | MsFlags::MS_REC,
            NONE,
        )
        .with_context(what)?;
        if let Some(bound) = root.find(&path)? {
            sys::make_read_only(&bound.path(), true).with_context(what)?;
        }
    }
    for name in [
        "acpi",
        "kcore",
        "keys",
        "latency_stats",
        "timer_list",
        "sched_debug",
        "scsi",
        "interrupts",
    ] {
        hide(root, Path::new(&format!("/proc/{name}")))?;
    }
    hide(root, Path::new("/sys/firmware"))?;
    hide(root, Path::new("/sys/devices/virtual/powercap"))
}

fn bind(root: &RootFolder, one: &crate::runtime::Mount) -> anyhow::Result<()> {
    let afresh = OWN_FILES.iter().any(|own| one.target == Path::new(own));
    let open_target = || {
        if fs::metadata(&one.source)?.is_dir() {
            root.folder(&one.target)
        } else {
            root.file(&one.target, afresh)
        }
    };
    let target = open_target()?;
    mount(
        Some(&one.source),
        &target.path(),
        NONE,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        NONE,
    )?;
    // The path now leads to what has been mounted.
    let target = open_target()?;
    let propagation = match one.propagation.as_str() {
        "HostToContainer" => MsFlags::MS_SLAVE,
        _ => MsFlags::MS_PRIVATE,
    };
    mount(
        NONE,
        &target.path(),
        NONE,
        MsFlags::MS_REC | propagation,
        NONE,
    )?;
    if one.read_only {
        sys::make_read_only(&target.path(), true)?;
    }
    Ok(())
}

/// Goes back to the namespace of mounts it came from, in the folder it was in.
pub(super) fn shared_memory(pause: &super::super::proc::ProcFolder) -> anyhow::Result<OwnedFd> {
    use nix::sched::{CloneFlags, setns};
    let own = fs::File::open("/proc/self/ns/mnt").context("open the node's mounts")?;
    let folder = open(
        ".",
        OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .context("open the container's folder")?;
    setns(
        pause
            .namespace("mnt")
            .context("open the sandbox's mounts")?,
        CloneFlags::CLONE_NEWNS,
    )
    .context("enter the sandbox's mounts")?;
    let tree = sys::open_tree(Path::new("/shm"));
    setns(own, CloneFlags::CLONE_NEWNS).context("return to the node's mounts")?;
    fchdir(folder).context("return to the container's folder")?;
    tree.context("take the sandbox's /dev/shm")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_of_the_node_are_those_on_its_root() {
        let table = "1 0 8:1 / / rw - ext4 /dev/sda rw\n\
                     2 1 0:4 / /proc rw - proc proc rw\n\
                     3 1 8:2 / /home\\040of rw shared:1 - ext4 /dev/sdb rw\n\
                     4 3 8:3 / /home\\040of/deep rw - ext4 /dev/sdc rw\n\
                     5 1 0:9 net:[1] /run/netns/a rw shared:2 - nsfs nsfs rw\n\
                     6 1 8:4 / /data rw - xfs /dev/sdd rw\n\
                     nonsense\n";
        let found = file_systems(table);
        assert_eq!(found, [PathBuf::from("/data"), PathBuf::from("/home of")]);
        assert!(file_systems("").is_empty());
    }
}
