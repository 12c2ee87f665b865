//! Stores to test: each with data of its own, gone with the value.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reconciler::store::embedded::{self, Options};
use reconciler::store::etcd::{self, Access};
use reconciler::store::{Event, Store, Watch};
use tempfile::TempDir;
use tokio::time::timeout;

use super::process;

/// Longer than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A store that can be closed and opened again.
#[async_trait]
pub trait Fixture: Send {
    /// The store that is open.
    fn store(&self) -> Arc<dyn Store>;

    /// Closes it and opens it on the same data.
    async fn reopen(&mut self);
}

/// A file in a temporary folder.
pub struct Embedded {
    pub folder: TempDir,
    store: Arc<dyn Store>,
}

impl Embedded {
    pub fn start() -> Self {
        Self::with(Options::default())
    }

    pub fn with(options: Options) -> Self {
        let folder = tempfile::tempdir().expect("make a folder");
        let store = Arc::new(embedded::open(folder.path(), options).expect("open the store"));
        Self { folder, store }
    }
}

#[async_trait]
impl Fixture for Embedded {
    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }

    async fn reopen(&mut self) {
        self.store.close().await;
        let store = embedded::open(self.folder.path(), Options::default());
        self.store = Arc::new(store.expect("open the store again"));
    }
}

/// An etcd of its own, used through one handle.
pub struct Etcd {
    pub process: process::Etcd,
    store: Arc<dyn Store>,
}

impl Etcd {
    pub async fn start() -> Self {
        let process = process::Etcd::start(&[]).await;
        let store = Self::connect(&process);
        Self { process, store }
    }

    /// Another handle on the same etcd.
    pub fn connect(process: &process::Etcd) -> Arc<dyn Store> {
        let access = Access {
            endpoints: vec![process.url()],
            ..Access::default()
        };
        Arc::new(etcd::Etcd::new(access).expect("a handle"))
    }
}

#[async_trait]
impl Fixture for Etcd {
    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }

    async fn reopen(&mut self) {
        self.store.close().await;
        self.process.restart().await;
        self.store = Self::connect(&self.process);
    }
}

/// The next batch.
pub async fn batch(watch: &mut Watch) -> Vec<Event> {
    let batch = timeout(PATIENCE, watch.recv())
        .await
        .expect("a batch in time");
    batch.expect("the watch goes on").expect("no error")
}

/// The next `count` events.
pub async fn events(watch: &mut Watch, count: usize) -> Vec<Event> {
    let mut events = Vec::new();
    while events.len() < count {
        let batch = batch(watch).await;
        assert!(!batch.is_empty(), "an empty batch");
        events.extend(batch);
    }
    assert_eq!(events.len(), count, "more than was written: {events:?}");
    events
}

/// Nothing comes for a while.
pub async fn silent(watch: &mut Watch) {
    if let Ok(batch) = timeout(Duration::from_millis(300), watch.recv()).await {
        panic!("unexpected: {batch:?}");
    }
}
