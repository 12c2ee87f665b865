//! The ways to program a node. A [`Mode`] serves one family; it blocks, and runs on the thread that
//! owns it, in the network namespace where that thread is.

pub mod iptables;
pub mod nftables;
pub mod userspace;
pub mod with_loopback;

use std::os::fd::BorrowedFd;
use std::time::Duration;

use crate::model::{Changed, Wanted};

/// What a sync did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Single changes written to the kernel (elements, rules, listeners).
    pub changes: usize,
    /// What went wrong; the rest was done, and the next sync tries again.
    pub errors: Vec<String>,
    /// It compared everything and not only what was said to have changed.
    pub full: bool,
}

/// One way to program a node.
pub trait Mode: Send {
    /// `nftables`, `iptables` or `userspace`.
    fn name(&self) -> &'static str;

    /// Brings the node to what is wanted, writing only differences. The first call of a new value,
    /// and one with [`Changed::All`], compares with what is there (a restart finds nothing to do).
    /// After a report with errors the next call compares everything.
    fn sync(&mut self, wanted: &Wanted, changed: &Changed) -> Report;

    /// Whether someone else changed what is ours since the last sync: what, in a few words. Cheap,
    /// called a few times a second. The caller then syncs with [`Changed::All`].
    fn disturbed(&mut self) -> Option<String>;

    /// Something to wait on: readable when [`Mode::disturbed`] is worth a call before its time.
    fn events(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// What [`Mode::sync`] with [`Changed::All`] would do, as text that an operator can read and,
    /// where the mode has programs for it, replay by hand. Changes nothing; empty if nothing is to do.
    fn plan(&mut self, wanted: &Wanted) -> anyhow::Result<String>;

    /// The process is about to end, and what it programmed stays: connections that it carries itself
    /// may go on for so long.
    fn drain(&mut self, limit: Duration) {
        let _ = limit;
    }

    /// Removes everything of this mode that this or an earlier process made for the family.
    fn cleanup(&mut self) -> Report;
}
