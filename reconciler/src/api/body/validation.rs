//! What is done about fields that nobody knows or that are there twice: `?fieldValidation=`.

use serde_json::{Value, json};

use super::Target;
use crate::api::status::{Cause, Status};

/// `?fieldValidation=`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// They are dropped silently.
    Ignore,
    /// They are dropped, and each is a `Warning` header.
    #[default]
    Warn,
    /// The request is refused.
    Strict,
}

impl Mode {
    /// By the query parameter; empty or absent is [`Mode::Warn`]. `options` is the type that the message names:
    /// `CreateOptions`, `UpdateOptions`, `PatchOptions`.
    ///
    /// # Errors
    /// 422 for any other word.
    pub fn of(parameter: Option<&str>, options: &str) -> Result<Self, Status> {
        match parameter.unwrap_or_default() {
            "" | "Warn" => Ok(Self::Warn),
            "Ignore" => Ok(Self::Ignore),
            "Strict" => Ok(Self::Strict),
            other => {
                let cause = Cause::not_supported(
                    "fieldValidation",
                    &json!(other),
                    &["", "Ignore", "Strict", "Warn"],
                );
                Err(Status::invalid("meta.k8s.io", options, "", &[cause]))
            }
        }
    }

    /// What findings in the body of a create or update come to: texts of warnings.
    ///
    /// # Errors
    /// 400 in strict mode, if there are any.
    pub fn judge(self, target: &Target, findings: Vec<String>) -> Result<Vec<String>, Status> {
        self.decide(findings, |error| target.refuse(&error))
    }

    /// What findings in a patched object (or in the patch itself) come to. `patched` is what the message quotes.
    ///
    /// # Errors
    /// 422 in strict mode, if there are any.
    pub fn judge_patch(
        self,
        patched: &Value,
        findings: Vec<String>,
    ) -> Result<Vec<String>, Status> {
        self.decide(findings, |error| patch_refused(patched, &error))
    }

    fn decide(
        self,
        findings: Vec<String>,
        refuse: impl FnOnce(String) -> Status,
    ) -> Result<Vec<String>, Status> {
        match self {
            Self::Ignore => Ok(Vec::new()),
            Self::Strict if !findings.is_empty() => Err(refuse(format!(
                "strict decoding error: {}",
                findings.join(", ")
            ))),
            Self::Warn | Self::Strict => Ok(findings),
        }
    }
}

/// 422: what a patch would make is no object of its type; `error` is that of [`crate::api::conform::conform`].
pub fn patch_refused(patched: &Value, error: &str) -> Status {
    let cause = Cause::invalid("patch", &json!(patched.to_string()), error);
    Status::invalid("", "", "", &[cause])
}

/// The value of a `Warning` header: `299 - "unknown field \"foo\""`. Control characters are left out.
pub fn warning(text: &str) -> String {
    let mut header = String::from("299 - \"");
    for letter in text.chars().filter(|letter| !letter.is_control()) {
        if matches!(letter, '"' | '\\') {
            header.push('\\');
        }
        header.push(letter);
    }
    header.push('"');
    header
}
