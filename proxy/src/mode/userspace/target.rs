//! What a data thread knows of a service port, and the orders by which it learns of it.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::IpNet;
use nix::errno::Errno;

use super::fronts::Place;
use super::picker::Picker;
use super::surroundings::Surroundings;
use crate::model::{Balancer, FrontKind};

/// Number of a service port, for as long as it is there.
pub(super) type Id = u64;

/// Held by whoever needs a Service's address to stay the node's.
pub(super) type Lease = Arc<()>;

/// Sockets that a thread could not keep: the control side asks after its orders.
#[derive(Clone, Debug, Default)]
pub(super) struct Lost(Arc<Mutex<Vec<(Place, Errno)>>>);

impl Lost {
    /// A socket was closed for this reason instead of served.
    pub(super) fn note(&self, place: Place, errno: Errno) {
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        list.push((place, errno));
    }

    /// All since the last call.
    pub(super) fn take(&self) -> Vec<(Place, Errno)> {
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut list)
    }
}

/// What a thread that answers clients is told. A socket's service port is told before the socket.
pub(super) enum Order {
    /// The node has changed.
    Surroundings(Arc<Surroundings>),
    /// A service port is there, or has changed.
    Set(Id, Arc<Balancer>),
    /// A service port is gone; its sockets are gone before.
    Forget(Id),
    /// A socket to answer on. The lease is held by the socket and by each stream accepted from it.
    Open(Place, OwnedFd, Occupant, Lease),
    /// Put this gate on a listening socket.
    Guard(Place, Vec<Vec<IpNet>>),
    /// Close a socket.
    Close(Place),
}

/// Whom a socket serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Occupant {
    /// The service port.
    pub(super) id: Id,
    /// Which of its fronts this is.
    pub(super) kind: FrontKind,
}

/// A service port as a data thread keeps it.
pub(super) struct Target {
    /// What was decided.
    pub(super) balancer: Arc<Balancer>,
    /// Whose turn it is.
    pub(super) picker: Picker,
}

impl Target {
    /// A new one.
    pub(super) fn new(balancer: Arc<Balancer>) -> Self {
        Self {
            balancer,
            picker: Picker::new(),
        }
    }
}
