//! The other nodes' leases this node must reach: a snapshot, and how it changes.

pub mod tracker;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::lease::{Lease, Subnet};

pub use tracker::{Rules, Tracker};

/// Peers by subnet. Cheap to clone; a clone does not see later changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peers(Arc<BTreeMap<Subnet, Arc<Lease>>>);

/// One difference between two snapshots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerChange {
    /// A subnet that was not there.
    Added(Arc<Lease>),
    /// The same subnet with other attributes.
    Changed {
        /// Before.
        old: Arc<Lease>,
        /// Now.
        new: Arc<Lease>,
    },
    /// A subnet that is gone.
    Removed(Arc<Lease>),
}

impl PeerChange {
    /// The lease that was.
    pub fn before(&self) -> Option<&Arc<Lease>> {
        match self {
            Self::Removed(old) | Self::Changed { old, .. } => Some(old),
            Self::Added(_) => None,
        }
    }

    /// The lease that is.
    pub fn now(&self) -> Option<&Arc<Lease>> {
        match self {
            Self::Added(new) | Self::Changed { new, .. } => Some(new),
            Self::Removed(_) => None,
        }
    }
}

impl Peers {
    /// All peers, in order of subnet.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Lease>> {
        self.0.values()
    }

    /// The peer that holds exactly this subnet.
    pub fn get(&self, subnet: &Subnet) -> Option<&Arc<Lease>> {
        self.0.get(subnet)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sets or removes one peer and says what that changed.
    fn set(&mut self, subnet: Subnet, wanted: Option<&Arc<Lease>>) -> Option<PeerChange> {
        match (self.0.get(&subnet).cloned(), wanted) {
            (None, None) => None,
            (Some(old), Some(new)) if old == *new => None,
            (old, Some(new)) => {
                Arc::make_mut(&mut self.0).insert(subnet, Arc::clone(new));
                let new = Arc::clone(new);
                Some(match old {
                    Some(old) => PeerChange::Changed { old, new },
                    None => PeerChange::Added(new),
                })
            }
            (Some(old), None) => {
                Arc::make_mut(&mut self.0).remove(&subnet);
                Some(PeerChange::Removed(old))
            }
        }
    }
}

impl FromIterator<Arc<Lease>> for Peers {
    fn from_iter<I: IntoIterator<Item = Arc<Lease>>>(leases: I) -> Self {
        Self(Arc::new(
            leases
                .into_iter()
                .map(|lease| (lease.subnet, lease))
                .collect(),
        ))
    }
}
