//! The rollback list of a failed ADD: each step that changes something pushes its reverse.

use crate::cni::{Error, Result};

type Step<'a> = Box<dyn FnOnce() -> Result<()> + 'a>;

/// Reverse steps of what was done so far.
#[derive(Default)]
pub struct Undo<'a> {
    steps: Vec<(String, Step<'a>)>,
}

impl<'a> Undo<'a> {
    /// Adds the reverse of a step just done; `what` names it for the error text.
    pub fn push(&mut self, what: impl Into<String>, reverse: impl FnOnce() -> Result<()> + 'a) {
        self.steps.push((what.into(), Box::new(reverse)));
    }

    fn run(self, mut cause: Error) -> Error {
        for (what, step) in self.steps.into_iter().rev() {
            if let Err(e) = step() {
                cause = cause.and_also(&format!("undo failed: {what}: {e}"));
            }
        }
        cause
    }
}

/// Runs `work`; when it fails, runs the reverse steps it pushed, last first, all of them, and gives
/// its error with the failures of those steps in the details.
pub fn with_undo<'a, T>(work: impl FnOnce(&mut Undo<'a>) -> Result<T>) -> Result<T> {
    let mut undo = Undo::default();
    work(&mut undo).map_err(|cause| undo.run(cause))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn a_failure_runs_every_reverse_step_last_first() {
        let log = RefCell::new(Vec::new());
        let error = with_undo::<()>(|undo| {
            undo.push("one", || {
                log.borrow_mut().push(1);
                Ok(())
            });
            undo.push("two", || {
                log.borrow_mut().push(2);
                Err(Error::generic("busy"))
            });
            Err(Error::generic("no room"))
        })
        .unwrap_err();
        assert_eq!(*log.borrow(), [2, 1]);
        assert_eq!(error.to_string(), "no room; undo failed: two: busy");
    }

    #[test]
    fn success_undoes_nothing() {
        let log = RefCell::new(0);
        let value = with_undo(|undo| {
            undo.push("one", || {
                *log.borrow_mut() += 1;
                Ok(())
            });
            Ok(7)
        });
        assert_eq!((value, *log.borrow()), (Ok(7), 0));
    }
}
