//! A small client of a Kubernetes API server, for a machine without `kubectl`: [`get`], [`apply`], [`delete`].
//!
//! It knows no kind: which there are, and how a table of them looks, the server says. Answers are JSON values.

pub mod apply;
pub mod delete;
pub mod failure;
pub mod get;
mod gone;
pub mod manifest;
pub mod output;
pub mod resources;
pub mod session;
pub mod table;
pub mod watch;

use std::collections::BTreeSet;
use std::io::Write;

use failure::Failure;

/// Where a command writes.
pub struct Terminal<'a> {
    /// What was asked for.
    pub out: &'a mut dyn Write,
    /// Everything else.
    pub err: &'a mut dyn Write,
    failed: bool,
    warned: BTreeSet<String>,
}

impl<'a> Terminal<'a> {
    /// Two streams that nothing has been written to.
    pub fn new(out: &'a mut dyn Write, err: &'a mut dyn Write) -> Self {
        Self {
            out,
            err,
            failed: false,
            warned: BTreeSet::new(),
        }
    }

    /// Says what went wrong; the command may go on, but it has failed.
    pub fn complain(&mut self, failure: &Failure) {
        self.failed = true;
        if failure.nobody_reads() {
            return;
        }
        // There is nobody left to tell that stderr is closed.
        let _ = writeln!(self.err, "{failure}");
    }

    /// Shows a server's warning, each text once.
    pub fn warn(&mut self, text: &str) {
        if self.warned.insert(text.to_owned()) {
            // As above.
            let _ = writeln!(self.err, "Warning: {text}");
        }
    }

    /// Whether anything went wrong.
    pub fn failed(&self) -> bool {
        self.failed
    }
}
