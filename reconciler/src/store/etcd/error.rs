//! What etcd's errors mean.

use std::error::Error as Cause;
use std::io::ErrorKind;

use crate::store::Error;

/// Why a request has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// That revision has been compacted.
    Compacted,
    /// That revision is not yet.
    Future,
    /// No answer, and nobody has got the request.
    Unsent(String),
    /// No answer; the request may have had its effect.
    Away(String),
    /// The same, and nothing tells why.
    Silent(String),
    /// etcd's quota, or its limit on one request.
    Full(String),
    /// Trying again will not help.
    Refused(String),
}

impl Failure {
    pub(super) fn is_away(&self) -> bool {
        matches!(self, Self::Unsent(_) | Self::Away(_) | Self::Silent(_))
    }

    pub(super) fn is_unsent(&self) -> bool {
        matches!(self, Self::Unsent(_))
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unsent(text) | Failure::Away(text) | Failure::Silent(text) => Self::Away(text),
            Failure::Full(text) => Self::Full(text),
            Failure::Refused(text) => Self::Broken(text),
            Failure::Compacted => Self::Away("etcd compacts while it is read".to_owned()),
            Failure::Future => Self::Away("etcd's revision went back".to_owned()),
        }
    }
}

/// Names what was tried and the innermost cause, on one line.
pub(super) fn translate(what: &str, error: &etcd_client::Error) -> Failure {
    use etcd_client::Error as E;
    match error {
        E::GRpcStatus(status) => {
            let (cause, unsent) = innermost(status);
            let cause = cause.unwrap_or_else(|| status.message().to_owned());
            let text = format!("{what}: {cause}");
            let says = |words| status.message().contains(words);
            // https://github.com/etcd-io/etcd/blob/release-3.4/etcdserver/api/v3rpc/rpctypes/error.go
            match i32::from(status.code()) {
                11 if says("compacted") => Failure::Compacted,
                11 if says("future revision") => Failure::Future,
                8 if says("space exceeded") => Failure::Full(format!(
                    "{text}: compact and defragment etcd, raise its --quota-backend-bytes, and disarm the alarm"
                )),
                3 if says("request is too large") => Failure::Full(text),
                8 if says("larger than max") => Failure::Full(text),
                // INVALID_ARGUMENT, NOT_FOUND, ALREADY_EXISTS, PERMISSION_DENIED, FAILED_PRECONDITION, OUT_OF_RANGE,
                // UNIMPLEMENTED, UNAUTHENTICATED.
                3 | 5 | 6 | 7 | 9 | 11 | 12 | 16 => Failure::Refused(text),
                _ if unsent => Failure::Unsent(text),
                _ => Failure::Away(text),
            }
        }
        E::TransportError(transport) => {
            let (cause, unsent) = innermost(transport);
            let text = format!("{what}: {}", cause.unwrap_or_else(|| transport.to_string()));
            if unsent {
                Failure::Unsent(text)
            } else {
                Failure::Away(text)
            }
        }
        E::InvalidArgs(_) | E::InvalidUri(_) => Failure::Refused(format!("{what}: {error}")),
        other => Failure::Away(format!("{what}: {other}")),
    }
}

/// The cause at the end of the chain, and whether it says that there was no connection.
fn innermost(error: &dyn Cause) -> (Option<String>, bool) {
    let (mut cause, mut unsent) = (None, false);
    let mut next = error.source();
    while let Some(inner) = next {
        cause = Some(inner.to_string());
        unsent |= inner
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == ErrorKind::ConnectionRefused);
        next = inner.source();
    }
    (cause, unsent)
}
