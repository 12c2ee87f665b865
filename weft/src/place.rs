//! Where a process of ours is: its network namespace, its session.

use std::fs::File;
use std::path::Path;

use anyhow::Context;
use nix::sched::{CloneFlags, setns};

/// Takes the whole process, which has one thread, into a network namespace.
///
/// # Errors
/// There is none, or it may not be entered.
pub fn enter(netns: &Path) -> anyhow::Result<()> {
    let what = || format!("enter network namespace {}", netns.display());
    let file = File::open(netns).with_context(what)?;
    setns(file, CloneFlags::CLONE_NEWNET).with_context(what)
}

/// Leaves the terminal's session, so that its end is not ours.
///
/// # Errors
/// The process leads a group already.
pub fn detach() -> anyhow::Result<()> {
    nix::unistd::setsid()
        .map(drop)
        .context("leave the terminal's session")
}
