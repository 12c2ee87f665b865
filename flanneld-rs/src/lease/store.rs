//! Where leases are kept: the seam between the daemon and etcd (or, later, the Kubernetes API).
//!
//! A store is a revisioned map from subnet to lease plus one network configuration. Every write is
//! guarded: it creates only what is absent and replaces only the revision that was seen, so that two
//! nodes never hold one subnet.

pub mod etcd;

use std::time::Duration;

use super::{Lease, LeaseAttrs, Subnet};

/// One stored key below `subnets/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key's last part, as stored.
    pub key: String,
    /// The lease, or why it cannot be read.
    pub lease: Result<Lease, String>,
    /// True for a reservation: a key without expiry.
    pub reserved: bool,
    /// Store revision of the last write to this key.
    pub revision: i64,
    /// Store revision of the key's creation.
    pub created: i64,
}

impl Entry {
    /// The subnet this key occupies, readable value or not.
    pub fn subnet(&self) -> Option<Subnet> {
        super::key::parse(&self.key)
    }
}

/// All entries at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// In key order.
    pub entries: Vec<Entry>,
    /// The store's revision then; watch from here.
    pub revision: i64,
}

/// What a watch tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A key below `subnets/` was written.
    Put(Entry),
    /// A key below `subnets/` was deleted or expired.
    Delete {
        /// The key's last part.
        key: String,
    },
    /// The network configuration was written, or deleted (`None`).
    Config(Option<String>),
}

/// Changes up to a revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// In the store's order.
    pub events: Vec<Event>,
    /// The store's revision after them.
    pub revision: i64,
}

/// A successful write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The key's new revision.
    pub revision: i64,
    /// How long the store keeps it; `None` for a reservation.
    pub ttl: Option<Duration>,
}

/// What the store says of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The store's revision.
    pub store_revision: i64,
    /// The key's revision; `None` when it is absent.
    pub key_revision: Option<i64>,
}

/// Why a store call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The store cannot be reached or did not answer in time: try again.
    #[error("{0}")]
    Unavailable(String),
    /// The wanted revision is no longer kept: list again.
    #[error("{0}")]
    Compacted(String),
    /// The store answered with a refusal (permission, bad request).
    #[error("{0}")]
    Refused(String),
}

/// A place that keeps leases. Calls time out by themselves; dropping a call's future is safe.
#[expect(
    async_fn_in_trait,
    reason = "used from one current-thread runtime, never as dyn"
)]
pub trait LeaseStore {
    /// An open watch.
    type Watch: LeaseWatch;

    /// Where the network configuration is, for messages: a key or a path.
    fn config_place(&self) -> String;

    /// The network configuration text; `None` when there is none.
    async fn config(&self) -> Result<Option<String>, Error>;

    /// All entries.
    async fn list(&self) -> Result<Listing, Error>;

    /// Writes a lease that expires after `ttl`, only if the key is absent. `None`: it is taken.
    async fn create(&self, lease: &Lease, ttl: Duration) -> Result<Option<Written>, Error>;

    /// Rewrites the value of a key last written at `revision`, with a new expiry (`None`: without
    /// one). `None`: the key has changed or is gone.
    async fn replace(
        &self,
        subnet: &Subnet,
        revision: i64,
        attrs: &LeaseAttrs,
        ttl: Option<Duration>,
    ) -> Result<Option<Written>, Error>;

    /// Deletes a key last written at `revision`. False: it has changed or is gone.
    async fn delete(&self, subnet: &Subnet, revision: i64) -> Result<bool, Error>;

    /// Looks at one key.
    async fn probe(&self, subnet: &Subnet) -> Result<Probe, Error>;

    /// Opens a new connection at the next call: this host's addresses have changed, and the one in
    /// use may hang for long on an address that is gone.
    fn reconnect(&self);

    /// Follows everything written after `revision`.
    async fn watch(&self, revision: i64) -> Result<Self::Watch, Error>;
}

/// A stream of changes.
#[expect(
    async_fn_in_trait,
    reason = "used from one current-thread runtime, never as dyn"
)]
pub trait LeaseWatch {
    /// Waits for the next changes. After an error the watch is of no more use.
    async fn next(&mut self) -> Result<Batch, Error>;
}
