//! Where a process of ours is: its network namespace, its session, which signals reach it.

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

/// Lets all signals through. Who starts a daemon may have blocked some for itself, and what is blocked is inherited: the
/// daemon would not hear SIGTERM, nor would the containers that it starts. To be called while there is one thread.
///
/// # Errors
/// The kernel refuses.
pub fn hear_signals() -> anyhow::Result<()> {
    nix::sys::signal::SigSet::empty()
        .thread_set_mask()
        .context("let signals through")
}
