//! Why a controller could not bring an object to what is wanted.

use std::fmt::Display;

/// An operation on an object that failed. The controller tries again; see [`crate::controller`].
#[derive(Debug, thiserror::Error)]
#[error("{operation}: {cause}")]
pub struct Trouble {
    /// What was tried, with the object's kind and name: `create Pod demo/web-`.
    pub operation: String,
    /// Why it failed.
    pub cause: Cause,
}

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// The server refused it or could not be reached.
    #[error("{0}")]
    Server(kube::Error),
    /// The objects themselves forbid it.
    #[error("{0}")]
    Object(String),
}

impl Trouble {
    /// An object that cannot be worked with as it is.
    pub fn object(operation: impl Display, cause: impl Display) -> Self {
        Self {
            operation: operation.to_string(),
            cause: Cause::Object(cause.to_string()),
        }
    }

    /// The HTTP status code, if the server answered.
    pub fn code(&self) -> Option<u16> {
        match &self.cause {
            Cause::Server(kube::Error::Api(status)) => Some(status.code),
            _ => None,
        }
    }

    /// Whether somebody else has written the object meanwhile, so that a look at its new state is enough.
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }

    /// Whether the object, or one that it needs, is not there.
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// Whether the server refused a new object because its namespace is being deleted: nothing is to be done then.
    pub fn ends_with_namespace(&self) -> bool {
        let Cause::Server(kube::Error::Api(status)) = &self.cause else {
            return false;
        };
        let causes = status.details.iter().flat_map(|details| &details.causes);
        causes
            .into_iter()
            .any(|cause| cause.reason == "NamespaceTerminating")
    }

    /// What the server said, as it said it (event messages quote it); else the whole cause.
    pub fn said(&self) -> String {
        match &self.cause {
            Cause::Server(kube::Error::Api(status)) => status.message.clone(),
            cause => cause.to_string(),
        }
    }
}

/// Says what was tried when the server refuses it.
pub trait Tried<T> {
    /// Names the operation, with the object's kind and name.
    fn tried<D: Display>(self, operation: impl FnOnce() -> D) -> Result<T, Trouble>;
}

impl<T> Tried<T> for kube::Result<T> {
    fn tried<D: Display>(self, operation: impl FnOnce() -> D) -> Result<T, Trouble> {
        self.map_err(|error| Trouble {
            operation: operation().to_string(),
            cause: Cause::Server(error),
        })
    }
}
