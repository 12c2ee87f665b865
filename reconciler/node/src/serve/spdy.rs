//! SPDY/3.1, the server's side: streams that the client opens, on any connection.
//!
//! What clients of Kubernetes use of it: SYN_STREAM, SYN_REPLY, DATA, RST_STREAM, PING, GOAWAY. They take no notice of
//! windows and settings, and neither do we: a full queue stops the connection instead. Nothing is pushed.

mod connection;
mod frame;
mod headers;

#[cfg(test)]
mod tests;

pub use connection::carry;

use std::convert::Infallible;

use tokio::sync::oneshot;

use super::link::{Input, Output};
use headers::Headers;

/// A stream that the client has opened, and that has been accepted.
pub struct Opened {
    headers: Headers,
    /// What the client sends.
    pub input: Input,
    /// What is sent to it.
    pub output: Output,
    /// Resolves, with an error, when the client gives the stream up or is gone.
    pub life: oneshot::Receiver<Infallible>,
}

impl Opened {
    /// A header's value; empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
            .unwrap_or_default()
    }
}
