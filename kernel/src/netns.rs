//! Network namespaces: opened by path, made and removed by name, entered only on a thread of their own.
//!
//! Invariant: no thread that anything else runs on is ever moved. [`Netns::run`] starts a thread,
//! moves that one and lets it end, so a panic or an early return cannot leave the caller behind in
//! the wrong namespace. See network_namespaces(7), setns(2).

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
    thread,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
};

use crate::{Error, Result};

/// Where `ip netns` keeps its names.
const NAMED: &str = "/run/netns";

/// An open network namespace; it lives at least as long as this handle.
#[derive(Debug)]
pub struct Netns {
    file: File,
    path: PathBuf,
    id: (u64, u64),
}

impl Netns {
    /// Opens the namespace at `path` (a bind mount or a `/proc/PID/ns/net`).
    ///
    /// Fails with ENOENT if there is nothing, and with a sentence if what is there is no network
    /// namespace.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let what = || format!("open network namespace {}", path.display());
        let file = File::open(&path).map_err(|cause| Error::new(what(), cause))?;
        let meta = file.metadata().map_err(|cause| Error::new(what(), cause))?;
        let is_netns = match crate::sys::namespace_type(file.as_fd()) {
            Ok(kind) => kind == libc::CLONE_NEWNET,
            Err(_) => false,
        };
        if !is_netns {
            return Err(Error::other(
                what(),
                "it is there but is not a network namespace",
            ));
        }
        Ok(Self {
            id: (meta.dev(), meta.ino()),
            file,
            path,
        })
    }

    /// The calling thread's namespace.
    pub fn current() -> Result<Self> {
        Self::open("/proc/thread-self/ns/net")
    }

    /// Makes a namespace with a name under /run/netns, as `ip netns add` does.
    pub fn create(name: &str) -> Result<Self> {
        let path = named(name)?;
        let what = format!("create network namespace {name}");
        let result = prepare_directory()
            .and_then(|()| File::create_new(&path).map(drop))
            .and_then(|()| {
                let bind = || -> io::Result<()> {
                    unshare(CloneFlags::CLONE_NEWNET)?;
                    let none: Option<&str> = None;
                    mount(
                        Some("/proc/thread-self/ns/net"),
                        &path,
                        none,
                        MsFlags::MS_BIND,
                        none,
                    )?;
                    Ok(())
                };
                on_own_thread(bind).inspect_err(|_| drop(fs::remove_file(&path)))
            });
        result.map_err(|cause| Error::new(what, cause))?;
        Self::open(path)
    }

    /// Removes the name of a namespace, as `ip netns delete` does; the namespace itself goes when
    /// nothing uses it any more.
    pub fn delete(name: &str) -> Result<()> {
        let path = named(name)?;
        let remove = || -> io::Result<()> {
            match umount2(&path, MntFlags::MNT_DETACH) {
                // EINVAL: a name left by a crash between making the file and mounting on it.
                Ok(()) | Err(nix::errno::Errno::EINVAL) => {}
                Err(errno) => return Err(errno.into()),
            }
            fs::remove_file(&path)
        };
        remove().map_err(|cause| Error::new(format!("delete network namespace {name}"), cause))
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Device and inode: equal for two handles of one namespace.
    pub fn id(&self) -> (u64, u64) {
        self.id
    }

    /// Runs `work` inside the namespace, on a thread made for it, and waits.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let what = || format!("enter network namespace {}", self.path.display());
        on_own_thread(|| {
            setns(&self.file, CloneFlags::CLONE_NEWNET)?;
            Ok(work())
        })
        .map_err(|cause| Error::new(what(), cause))
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn named(name: &str) -> Result<PathBuf> {
    if name.is_empty() || name == "." || name == ".." || name.contains('/') {
        return Err(Error::other(
            format!("name network namespace {name:?}"),
            "the name must be one path component",
        ));
    }
    Ok(Path::new(NAMED).join(name))
}

/// Makes /run/netns a shared mount point of itself, as `ip netns` does, so that a namespace named
/// in one mount namespace is seen (and released) in the others.
fn prepare_directory() -> io::Result<()> {
    fs::create_dir_all(NAMED)?;
    let none: Option<&str> = None;
    let share = || {
        mount(
            none,
            NAMED,
            none,
            MsFlags::MS_SHARED | MsFlags::MS_REC,
            none,
        )
    };
    match share() {
        Err(nix::errno::Errno::EINVAL) => {
            mount(
                Some(NAMED),
                NAMED,
                none,
                MsFlags::MS_BIND | MsFlags::MS_REC,
                none,
            )?;
            share()?;
        }
        other => other?,
    }
    Ok(())
}

fn on_own_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("netns".into())
            .spawn_scoped(scope, work)?;
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
