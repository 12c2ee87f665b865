//! `pause`: born into a sandbox's namespaces, it keeps them by living; as process 1 it reaps.
//!
//! Its standard input is the sandbox's listening socket, which it never reads: who connects waits in the queue, and
//! sees the connection end with this process. A byte on standard output says that it is ready. Its own mount
//! namespace holds nothing but an empty folder and /shm, which the sandbox's containers share as /dev/shm.

use std::fs;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use anyhow::Context as _;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, chdir, dup2_stdout, pivot_root, setsid};

const NONE: Option<&str> = None;

pub(super) fn run(folder: &Path) -> anyhow::Result<()> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT] {
        signals.add(signal);
    }
    signals.thread_block().context("block signals")?;
    setsid().context("leave the agent's session")?;
    let null: OwnedFd = fs::File::open("/dev/null")
        .context("open /dev/null")?
        .into();
    keep_nothing(folder)?;
    io::stdout().write_all(b"\n").context("say it is ready")?;
    io::stdout().flush().context("say it is ready")?;
    dup2_stdout(null.as_fd()).context("close standard output")?;
    drop(null);
    loop {
        match signals.wait().context("wait for a signal")? {
            Signal::SIGCHLD => reap(),
            _ => return Ok(()),
        }
    }
}

fn reap() {
    let any = Pid::from_raw(-1);
    while matches!(waitpid(any, Some(WaitPidFlag::WNOHANG)), Ok(status) if status != WaitStatus::StillAlive)
    {
    }
}

/// Leaves the node's mounts: a process that lives for months must not keep file systems busy.
fn keep_nothing(folder: &Path) -> anyhow::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("unshare mounts")?;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)
        .context("make mounts private")?;
    let root = folder.join("root");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(
        Some("pause"),
        &root,
        Some("tmpfs"),
        flags,
        Some("mode=755,size=64k"),
    )
    .with_context(|| format!("mount a tmpfs at {}", root.display()))?;
    chdir(&root).context("enter the tmpfs")?;
    fs::create_dir("shm").context("make /shm")?;
    mount(
        Some("shm"),
        "shm",
        Some("tmpfs"),
        flags,
        Some("mode=1777,size=64m"),
    )
    .context("mount /shm")?;
    pivot_root(".", ".").context("change the root")?;
    umount2(".", MntFlags::MNT_DETACH).context("leave the node's mounts")?;
    chdir("/").context("enter the new root")
}
