//! A container's /dev: a tmpfs with the devices every program expects, terminals of its own, the sandbox's /dev/shm.

use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, symlink};
use std::path::Path;

use anyhow::Context as _;
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, mknod, umask};

use super::super::sys;
use super::target::RootFolder;

/// Name, major and minor number: Documentation/admin-guide/devices.txt.
const DEVICES: [(&str, u64, u64); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Makes /dev in a root. With `privileged` it has all devices of the node, as they are now.
pub(super) fn make(root: &RootFolder, privileged: bool, shm: &OwnedFd) -> anyhow::Result<()> {
    let path = Path::new("/dev");
    let target = root.folder(path)?;
    mount(
        Some("dev"),
        &target.path(),
        Some("tmpfs"),
        MsFlags::MS_NOSUID,
        Some("mode=755,size=64k"),
    )
    .context("mount /dev")?;
    let target = root.folder(path)?;
    let dev = target.path();
    let old = umask(Mode::empty());
    for (name, major, minor) in DEVICES {
        let all = Mode::from_bits_truncate(0o666);
        mknod(
            &dev.join(name),
            SFlag::S_IFCHR,
            all,
            nix::sys::stat::makedev(major, minor),
        )
        .with_context(|| format!("make /dev/{name}"))?;
    }
    for (name, to) in LINKS {
        symlink(to, dev.join(name)).with_context(|| format!("make /dev/{name}"))?;
    }
    if privileged {
        copy(path, &dev)?;
    }
    umask(old);
    for (name, kind, options) in [
        (
            "pts",
            "devpts",
            Some("newinstance,ptmxmode=0666,mode=0620,gid=5"),
        ),
        ("mqueue", "mqueue", None),
    ] {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
        fs::create_dir(dev.join(name)).with_context(|| format!("make /dev/{name}"))?;
        mount(Some(kind), &dev.join(name), Some(kind), flags, options)
            .with_context(|| format!("mount /dev/{name}"))?;
    }
    fs::create_dir(dev.join("shm")).context("make /dev/shm")?;
    sys::move_mount(shm.as_fd(), &dev.join("shm")).context("mount /dev/shm")
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(from).with_context(|| format!("list {}", from.display()))? {
        let entry = entry?;
        let name = entry.file_name();
        if ["pts", "shm", "mqueue", "hugepages"]
            .iter()
            .any(|own| name == *own)
        {
            continue;
        }
        let (kind, target) = (entry.file_type()?, to.join(&name));
        let what = || format!("make {}", target.display());
        if kind.is_dir() {
            fs::create_dir_all(&target).with_context(what)?;
            copy(&entry.path(), &target)?;
        } else if (kind.is_char_device() || kind.is_block_device())
            && target.symlink_metadata().is_err()
        {
            let meta = entry.metadata()?;
            let kind = SFlag::from_bits_truncate(meta.mode()) & SFlag::S_IFMT;
            mknod(
                &target,
                kind,
                Mode::from_bits_truncate(meta.mode() & 0o777),
                meta.rdev(),
            )
            .with_context(what)?;
        }
    }
    Ok(())
}
