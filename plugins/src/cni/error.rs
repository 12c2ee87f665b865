//! The error a plugin prints: the spec's code, a sentence, and details.

use crate::cni::Version;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The spec's error codes.
pub mod code {
    /// The configuration's version is not one the plugin speaks.
    pub const INCOMPATIBLE_VERSION: u32 = 1;
    /// A CNI environment variable is missing or odd.
    pub const INVALID_ENVIRONMENT: u32 = 4;
    /// Reading or writing failed.
    pub const IO: u32 = 5;
    /// A text could not be decoded.
    pub const DECODE: u32 = 6;
    /// The network configuration is invalid.
    pub const INVALID_CONFIG: u32 = 7;
    /// The network namespace is not usable (the Go library's own code).
    pub const INVALID_NETNS: u32 = 8;
    /// A passing condition: try again later.
    pub const TRY_AGAIN: u32 = 11;
    /// STATUS: the plugin cannot serve an ADD now.
    pub const NOT_AVAILABLE: u32 = 50;
    /// Anything else (the Go library's choice).
    pub const GENERIC: u32 = 999;
}

/// What a verb of a plugin gives.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure as the spec has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// One of [`code`], or the plugin's own from 100 on.
    pub code: u32,
    /// One sentence: operation, object, cause.
    pub msg: String,
    /// What helps to mend it; may be empty.
    pub details: String,
}

impl Error {
    /// A failure with a code of the spec.
    pub fn new(code: u32, msg: impl Into<String>) -> Self {
        Self {
            code,
            msg: msg.into(),
            details: String::new(),
        }
    }

    /// A failure without a code of its own (999).
    pub fn generic(msg: impl Into<String>) -> Self {
        Self::new(code::GENERIC, msg)
    }

    /// An invalid configuration (7).
    pub fn config(msg: impl Into<String>) -> Self {
        Self::new(code::INVALID_CONFIG, msg)
    }

    /// A failed read or write (5): `what` names operation and object.
    pub fn io(what: impl fmt::Display, cause: impl fmt::Display) -> Self {
        Self::new(code::IO, format!("{what}: {cause}"))
    }

    /// The same failure with details, replacing those it has.
    #[must_use]
    pub fn with_details(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }

    /// The same failure with one more remark at the end of its details.
    #[must_use]
    pub fn and_also(mut self, remark: &str) -> Self {
        if !self.details.is_empty() {
            self.details.push_str("; ");
        }
        self.details.push_str(remark);
        self
    }

    /// The same failure with `what` before its sentence: `what: sentence`.
    #[must_use]
    pub fn context(mut self, what: impl fmt::Display) -> Self {
        self.msg = format!("{what}: {}", self.msg);
        self
    }

    /// The JSON a plugin prints on stdout, indented by four spaces as the Go library does.
    pub fn render(&self, version: Option<Version>) -> String {
        crate::cni::json::to_indented(&Printed {
            cni_version: version.map(|v| v.to_string()).unwrap_or_default(),
            code: self.code,
            msg: self.msg.clone(),
            details: self.details.clone(),
        })
    }

    /// Reads what [`Error::render`] or another plugin printed.
    pub fn parse(text: &[u8]) -> Result<Self, crate::cni::json::Error> {
        let printed: Printed = crate::cni::json::from_slice(text)?;
        Ok(Self {
            code: printed.code,
            msg: printed.msg,
            details: printed.details,
        })
    }
}

#[derive(Serialize, Deserialize, Default)]
#[serde(default)]
struct Printed {
    #[serde(rename = "cniVersion", skip_serializing_if = "String::is_empty")]
    cni_version: String,
    code: u32,
    msg: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    details: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.msg)?;
        if !self.details.is_empty() {
            write!(f, "; {}", self.details)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

impl From<kernel::Error> for Error {
    fn from(e: kernel::Error) -> Self {
        Self::generic(e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_like_the_go_library_with_the_specs_version_first() {
        let error = Error::new(4, "invalid characters in containerID").with_details("a/b");
        assert_eq!(
            error.render(Some(Version::V110)),
            "{\n    \"cniVersion\": \"1.1.0\",\n    \"code\": 4,\n    \"msg\": \"invalid characters in containerID\",\n    \"details\": \"a/b\"\n}"
        );
        assert_eq!(
            Error::generic("a < b").render(None),
            "{\n    \"code\": 999,\n    \"msg\": \"a \\u003c b\"\n}"
        );
    }

    #[test]
    fn what_is_printed_is_read_back() {
        let error = Error::config("no subnet").and_also("one").and_also("two");
        let text = error.render(Some(Version::V100));
        assert_eq!(Error::parse(text.as_bytes()).unwrap(), error);
        assert_eq!(error.to_string(), "no subnet; one; two");
    }
}
