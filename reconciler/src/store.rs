//! Where objects are kept: keys and bytes under one counter of revisions, with compare-and-swap and a watch.
//!
//! The model is etcd's (<https://etcd.io/docs/latest/learning/api/>), cut to what the API server needs. Two stores
//! implement it and pass the same tests: [`embedded`] (a file) and [`etcd`].
//!
//! Invariants: revisions grow by at least one with each change and are never reused, also across restarts; a change
//! that was answered is durable; a watch delivers every change under its prefix once, in order of revision.

pub mod embedded;
pub mod etcd;
mod open;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;

pub use self::open::{Credentials, open};

/// A point in the store's history. 0 is before everything.
pub type Revision = u64;

/// A value as it was at some revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// `/registry/pods/default/web`
    pub key: String,
    /// What was written, byte for byte.
    pub value: Bytes,
    /// The change that wrote it.
    pub revision: Revision,
}

/// A part of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// In order of their keys.
    pub entries: Vec<Entry>,
    /// The state that the page shows.
    pub revision: Revision,
    /// How many entries of the prefix follow this page; 0 when it is the last.
    pub remaining: u64,
}

/// Which part of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// Keys that start with this; ends in `/`.
    pub prefix: String,
    /// Only keys greater than this one.
    pub after: Option<String>,
    /// At most so many entries.
    pub limit: Option<usize>,
    /// The state at that revision; the newest if absent.
    pub at: Option<Revision>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The revision that the change made.
    pub revision: Revision,
    /// What was changed.
    pub key: String,
    /// The new value; absent when it was deleted.
    pub value: Option<Bytes>,
    /// The value before; absent when it was created.
    pub before: Option<Bytes>,
}

/// What a watch delivers: changes of consecutive revisions in batches, or why it ended. After an error nothing follows;
/// when the store is closed the channel is.
pub type Watch = mpsc::Receiver<Result<Vec<Event>, Error>>;

/// Why the store did not do it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// `create`: the key has a value.
    #[error("{0} exists")]
    Exists(String),
    /// `update`, `delete`: the key's revision is another (or the key has no value): what is there now.
    #[error("{key} has changed")]
    Changed {
        /// The key.
        key: String,
        /// Its entry now.
        now: Option<Entry>,
    },
    /// The history of that revision has been forgotten.
    #[error("revision {asked} has been compacted (the oldest kept is {oldest})")]
    Compacted {
        /// What was asked for.
        asked: Revision,
        /// The oldest revision from which a watch can start.
        oldest: Revision,
    },
    /// That revision is not yet.
    #[error("revision {asked} is in the future (the newest is {newest})")]
    Future {
        /// What was asked for.
        asked: Revision,
        /// The newest.
        newest: Revision,
    },
    /// No place on the disk (or etcd's quota, or its limit for one request).
    #[error("the store is full: {0}")]
    Full(String),
    /// The store cannot be reached now; whether a write took effect is unknown.
    #[error("the store is away: {0}")]
    Away(String),
    /// The store is broken; the text says what to do.
    #[error("{0}")]
    Broken(String),
}

/// A store. All methods may be called at the same time.
#[async_trait]
pub trait Store: Send + Sync {
    /// The newest revision.
    async fn revision(&self) -> Result<Revision, Error>;

    /// The value of a key now.
    async fn get(&self, key: &str) -> Result<Option<Entry>, Error>;

    /// Entries under a prefix, all as of one revision.
    ///
    /// # Errors
    /// [`Error::Compacted`] and [`Error::Future`] for `range.at`.
    async fn list(&self, range: Range) -> Result<Page, Error>;

    /// Writes a key that has no value.
    ///
    /// # Errors
    /// [`Error::Exists`].
    async fn create(&self, key: &str, value: Bytes) -> Result<Revision, Error>;

    /// Writes a key whose entry's revision is `expected`.
    ///
    /// # Errors
    /// [`Error::Changed`].
    async fn update(&self, key: &str, value: Bytes, expected: Revision) -> Result<Revision, Error>;

    /// Deletes a key whose entry's revision is `expected`; the revision of the deletion.
    ///
    /// # Errors
    /// [`Error::Changed`].
    async fn delete(&self, key: &str, expected: Revision) -> Result<Revision, Error>;

    /// Every change under a prefix after revision `after`.
    ///
    /// # Errors
    /// [`Error::Compacted`] when changes after that revision have been forgotten. A revision in the future is waited
    /// for.
    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, Error>;

    /// Forgets the history up to a revision. Values that are current are not touched.
    async fn compact(&self, upto: Revision) -> Result<(), Error>;

    /// Ends watches, finishes writes, and lets go of what is held. Later calls fail with [`Error::Away`].
    async fn close(&self);
}
