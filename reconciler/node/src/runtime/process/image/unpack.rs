//! Layers onto a root: whatever a tar says, nothing outside of the root is touched.
//!
//! The thread that unpacks has the root as its root directory (chroot(2)), so links and `..` lead nowhere else. Devices
//! are left out, and extended attributes; times are those of files only. Whiteouts (`.wh.NAME`, `.wh..wh..opq`) remove
//! what layers below have brought: see layer.md of the OCI image specification.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown, symlink};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;
use tar::{Archive, Entry, EntryType};

const WHITEOUT: &str = ".wh.";
const OPAQUE: &str = ".wh..wh..opq";

/// Unpacks one layer onto a root.
pub(super) fn layer(from: &mut (dyn Read + Send), root: &Path) -> anyhow::Result<()> {
    let work = || {
        // So that no other thread of this process changes its root.
        unshare(CloneFlags::CLONE_FS).context("unshare the root")?;
        nix::unistd::chroot(root).with_context(|| format!("enter {}", root.display()))?;
        nix::unistd::chdir("/").context("enter the root")?;
        entries(from)
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("unpack".into())
            .spawn_scoped(scope, work)?;
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn entries(from: &mut dyn Read) -> anyhow::Result<()> {
    let mut archive = Archive::new(from);
    let mut own = BTreeSet::new();
    for entry in archive.entries().context("read it as a tar")? {
        let mut entry = entry.context("read it as a tar")?;
        let path = within(&entry.path().context("read a name")?)?;
        one(&mut entry, &path, &mut own).with_context(|| format!("unpack {}", path.display()))?;
    }
    Ok(())
}

/// A name in a tar as a path from the root.
fn within(name: &Path) -> anyhow::Result<PathBuf> {
    let mut path = PathBuf::from("/");
    for component in name.components() {
        match component {
            Component::Normal(part) => path.push(part),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                bail!("the name {} leads out of it", name.display())
            }
        }
    }
    Ok(path)
}

fn one(
    entry: &mut Entry<'_, &mut dyn Read>,
    path: &Path,
    own: &mut BTreeSet<PathBuf>,
) -> anyhow::Result<()> {
    let header = entry.header();
    let (user, group, mode) = (
        header.uid()? as u32,
        header.gid()? as u32,
        header.mode()? & 0o7777,
    );
    let (time, kind) = (header.mtime()?, header.entry_type());
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        // The root itself.
        lchown("/", Some(user), Some(group))?;
        return Ok(fs::set_permissions("/", Permissions::from_mode(mode))?);
    };
    fs::create_dir_all(parent).context("make its parents")?;
    let name = name.to_string_lossy();
    if name == OPAQUE {
        return empty(parent, own);
    }
    if let Some(hidden) = name.strip_prefix(WHITEOUT) {
        if matches!(hidden, "" | "." | "..") {
            bail!("a whiteout of nothing");
        }
        return Ok(remove(&parent.join(hidden))?);
    }
    match kind {
        EntryType::Directory => {
            if !fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir()) {
                remove(path)?;
                fs::create_dir(path)?;
            }
        }
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            remove(path)?;
            let mut file = File::create_new(path)?;
            io::copy(entry, &mut file)?;
            file.set_modified(UNIX_EPOCH + Duration::from_secs(time))?;
        }
        EntryType::Symlink => {
            let to = entry.link_name()?.context("a link without a target")?;
            remove(path)?;
            symlink(to, path)?;
        }
        EntryType::Link => {
            let to = within(&entry.link_name()?.context("a link without a target")?)?;
            if to != path {
                remove(path)?;
                fs::hard_link(to, path)?;
            }
        }
        EntryType::Fifo => {
            remove(path)?;
            nix::unistd::mkfifo(path, Mode::from_bits_truncate(mode))?;
        }
        // Devices, and records about other entries.
        _ => return Ok(()),
    }
    own.insert(path.to_owned());
    if kind != EntryType::Link {
        lchown(path, Some(user), Some(group))?;
    }
    if !matches!(kind, EntryType::Link | EntryType::Symlink) {
        fs::set_permissions(path, Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// Removes from a folder what this layer has not brought itself.
fn empty(folder: &Path, own: &BTreeSet<PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if own
            .range(path.clone()..)
            .next()
            .is_none_or(|next| !next.starts_with(&path))
        {
            remove(&path)?;
        }
    }
    Ok(())
}

/// Removes whatever is there.
fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// The bytes a folder takes on disk.
pub(super) fn bytes(folder: &Path) -> anyhow::Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let entry = entry?;
        let meta = entry.metadata()?;
        sum += if meta.is_dir() {
            bytes(&entry.path())?
        } else {
            meta.blocks() * 512
        };
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_name_leads_out(name in "[a-z./]{0,20}|.*") {
            if let Ok(path) = within(Path::new(&name)) {
                prop_assert!(path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_))));
            }
        }
    }
}
