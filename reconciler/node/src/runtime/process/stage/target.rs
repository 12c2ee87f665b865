//! Mount points in a container's root: found, or made, without ever leaving it, whatever links it holds.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, bail};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat, openat2};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// A container's root, as it is being made.
pub(super) struct RootFolder {
    folder: OwnedFd,
}

/// An open mount point. Mounting goes through its descriptor, so that nothing can be put in its place.
pub(super) struct Target(OwnedFd);

impl Target {
    /// A path that leads to it, for mount(2).
    pub(super) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }

    fn is_folder(&self) -> nix::Result<bool> {
        let kind = SFlag::from_bits_truncate(fstat(&self.0)?.st_mode) & SFlag::S_IFMT;
        Ok(kind == SFlag::S_IFDIR)
    }
}

impl RootFolder {
    /// Opens the folder that is to be the root; what is mounted on it must be mounted already.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let folder = open(path, flags, Mode::empty())
            .with_context(|| format!("open the root {}", path.display()))?;
        Ok(Self { folder })
    }

    /// What is at `path` within, links followed within; `None` if nothing.
    pub(super) fn find(&self, path: &Path) -> anyhow::Result<Option<Target>> {
        match self.resolve(path) {
            Ok(fd) => Ok(Some(Target(fd))),
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Ok(None),
            Err(errno) => Err(errno).with_context(|| format!("look up {}", path.display())),
        }
    }

    /// A folder, made with its parents if need be.
    pub(super) fn folder(&self, path: &Path) -> anyhow::Result<Target> {
        let target = Target(self.make_folders(path)?);
        if !target.is_folder()? {
            bail!("make mount point {}: it is no folder", path.display());
        }
        Ok(target)
    }

    /// A file, made empty if need be. With `afresh` a link there gives way to a file.
    pub(super) fn file(&self, path: &Path, afresh: bool) -> anyhow::Result<Target> {
        let what = || format!("make mount point {}", path.display());
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            bail!("{}: a file needs a name", what());
        };
        let parent = self.make_folders(parent)?;
        if afresh {
            let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            if let Ok(found) = openat(parent.as_fd(), name, flags, Mode::empty()) {
                let kind = SFlag::from_bits_truncate(fstat(&found)?.st_mode) & SFlag::S_IFMT;
                if kind == SFlag::S_IFLNK {
                    unlinkat(parent.as_fd(), name, UnlinkatFlags::NoRemoveDir)
                        .with_context(what)?;
                }
            }
        }
        if let Some(found) = self.find(path)? {
            if found.is_folder()? {
                bail!(
                    "{}: it is a folder, what is to be mounted is a file",
                    what()
                );
            }
            return Ok(found);
        }
        let flags =
            OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_WRONLY;
        openat(parent.as_fd(), name, flags, Mode::from_bits_truncate(0o644)).with_context(what)?;
        Ok(Target(self.resolve(path).with_context(what)?))
    }

    fn resolve(&self, path: &Path) -> nix::Result<OwnedFd> {
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        // Empty is the root itself.
        let path = if path.as_os_str().is_empty() {
            Path::new("/")
        } else {
            path
        };
        openat2(self.folder.as_fd(), path, how)
    }

    fn make_folders(&self, path: &Path) -> anyhow::Result<OwnedFd> {
        let what = || format!("make mount point {}", path.display());
        let mut done = PathBuf::from("/");
        let mut at = self.resolve(&done).with_context(what)?;
        for component in path.components() {
            let name = match component {
                Component::Normal(name) => name,
                Component::RootDir | Component::CurDir => continue,
                Component::ParentDir | Component::Prefix(_) => bail!("{}: `..` in a path", what()),
            };
            done.push(name);
            at = match self.resolve(&done) {
                Ok(fd) => fd,
                Err(Errno::ENOENT) => {
                    make_folder(at.as_fd(), name).with_context(what)?;
                    self.resolve(&done).with_context(what)?
                }
                Err(errno) => return Err(errno).with_context(what),
            };
        }
        Ok(at)
    }
}

fn make_folder(parent: BorrowedFd<'_>, name: &std::ffi::OsStr) -> io::Result<()> {
    match mkdirat(parent, name, Mode::from_bits_truncate(0o755)) {
        Err(Errno::EEXIST) => Err(io::Error::other("a link there leads nowhere")),
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_lead_nowhere_but_within() {
        let folder = tempfile::tempdir().unwrap();
        let outside = folder.path().join("outside");
        let inside = folder.path().join("root");
        fs::create_dir(&outside).unwrap();
        fs::create_dir(&inside).unwrap();
        symlink("../outside", inside.join("up")).unwrap();
        symlink(&outside, inside.join("absolute")).unwrap();
        symlink("/real", inside.join("link")).unwrap();
        fs::create_dir(inside.join("real")).unwrap();
        let root = RootFolder::open(&inside).unwrap();
        // `..` of the root is the root, so these links lead to folders within that are not there.
        assert!(root.folder(Path::new("/up/x")).is_err());
        assert!(root.folder(Path::new("/absolute/x")).is_err());
        assert!(root.folder(Path::new("/a/../b")).is_err());
        root.folder(Path::new("/link/data")).unwrap();
        assert!(inside.join("real/data").is_dir());
        root.file(Path::new("/etc/hosts"), true).unwrap();
        assert!(inside.join("etc/hosts").is_file());
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    }

    #[test]
    fn a_link_gives_way_to_a_file() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("etc")).unwrap();
        symlink("/run/stub", folder.path().join("etc/resolv.conf")).unwrap();
        let root = RootFolder::open(folder.path()).unwrap();
        assert!(root.file(Path::new("/etc/resolv.conf"), false).is_err());
        root.file(Path::new("/etc/resolv.conf"), true).unwrap();
        assert!(
            folder
                .path()
                .join("etc/resolv.conf")
                .symlink_metadata()
                .unwrap()
                .is_file()
        );
        assert!(root.file(Path::new("/etc"), true).is_err());
    }
}
