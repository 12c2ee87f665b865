//! The error of every kernel operation: what was tried, on what, and the kernel's answer.

use std::io;

/// Result of a kernel operation.
pub type Result<T> = std::result::Result<T, Error>;

/// An operation that the kernel (or a program that speaks to it) refused.
///
/// Prints as `<operation and object>: <cause>`, for example
/// `add route 10.244.2.0/24 dev flannel.1: network is down`.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {}{}", cause_text(.cause), why.as_ref().map(|why| format!(" ({why})")).unwrap_or_default())]
pub struct Error {
    what: String,
    cause: io::Error,
    why: Option<String>,
}

impl Error {
    /// `what` names operation and object, `cause` why it failed.
    pub fn new(what: impl Into<String>, cause: io::Error) -> Self {
        Self {
            what: what.into(),
            cause,
            why: None,
        }
    }

    /// An error whose cause is a sentence and not an error number.
    pub fn other(what: impl Into<String>, cause: impl Into<String>) -> Self {
        Self::new(what, io::Error::other(cause.into()))
    }

    /// Adds the kernel's own explanation, where it gave one.
    pub(crate) fn because(self, why: Option<String>) -> Self {
        Self { why, ..self }
    }

    /// The kernel's error number, where it gave one (see errno(3)).
    pub fn errno(&self) -> Option<i32> {
        self.cause.raw_os_error()
    }

    /// The thing to be made is there already (EEXIST).
    pub fn is_exists(&self) -> bool {
        self.errno() == Some(libc::EEXIST)
    }

    /// The kernel does not know the sort of thing (EOPNOTSUPP).
    pub fn is_not_supported(&self) -> bool {
        self.errno() == Some(libc::EOPNOTSUPP)
    }

    /// Somebody else changed the ruleset since the generation that a transaction expected
    /// (ERESTART).
    pub fn is_outdated(&self) -> bool {
        self.errno() == Some(libc::ERESTART)
    }

    /// The thing to be changed or removed is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(
            self.errno(),
            Some(libc::ENOENT | libc::ENODEV | libc::ESRCH | libc::EADDRNOTAVAIL | libc::ENXIO)
        )
    }
}

/// The cause in the kernel's words, lower case, without Rust's "(os error N)".
fn cause_text(cause: &io::Error) -> String {
    match cause.raw_os_error() {
        Some(code) => {
            let text = nix::errno::Errno::from_raw(code).desc();
            let mut letters = text.chars();
            match letters.next() {
                // Keep abbreviations such as "RFS specific error" as they are.
                Some(first) if !letters.as_str().starts_with(|c: char| c.is_uppercase()) => {
                    first.to_lowercase().chain(letters).collect()
                }
                _ => text.to_owned(),
            }
        }
        None => cause.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_operation_object_and_cause_once() {
        let error = Error::new(
            "add route 10.244.2.0/24 dev flannel.1",
            io::Error::from_raw_os_error(libc::ENETDOWN),
        );
        assert_eq!(
            error.to_string(),
            "add route 10.244.2.0/24 dev flannel.1: network is down"
        );
    }
}
