//! Objects in one file of this machine, `DIR/weft.redb`; one process at a time.
//!
//! Writes go to one thread, which takes all that wait, applies them in one transaction and makes them durable with
//! one sync; only then are they answered. Every change is also kept in a bounded history, from which watches catch up
//! and lists of older revisions are answered.

mod file;
mod header;
mod hub;
mod reader;
mod writer;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use self::file::File;
use self::hub::Hub;
use self::writer::{Job, Write};
use super::{Entry, Error, Page, Range, Revision, Store, Watch};

/// The name of the file in the data folder.
pub const FILE: &str = "weft.redb";

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Changes kept for watches and lists of older revisions.
    pub history_events: u64,
    /// Bytes of keys and values in these changes.
    pub history_bytes: u64,
    /// Bytes of memory for pages of the file.
    pub cache_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            history_events: 20_000,
            history_bytes: 32 << 20,
            cache_bytes: 8 << 20,
        }
    }
}

/// Opens the store in a folder, and makes both if they are not there. Blocks for a few milliseconds, longer after a
/// crash, when the whole file is checked.
///
/// # Errors
/// [`Error::Broken`] when another process has the file, when it was written by a newer version or is damaged beyond
/// the repair that a crash needs; [`Error::Full`]. Nothing is ever deleted.
pub fn open(folder: &Path, options: Options) -> Result<Embedded, Error> {
    let file = File::open(&folder.join(FILE), options.cache_bytes)?;
    let newest = file.read(reader::state)?.revision;
    let shared = Arc::new(Shared {
        file,
        hub: Hub::new(newest),
    });
    let (jobs, waiting) = mpsc::channel(writer::WAITING);
    let thread = {
        let shared = Arc::clone(&shared);
        let run = move || writer::run(&shared, waiting, options);
        std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(run)
    };
    let thread =
        thread.map_err(|error| Error::Broken(format!("start the store's thread: {error}")))?;
    Ok(Embedded {
        shared,
        jobs: Mutex::new(Some(jobs)),
        thread: Mutex::new(Some(thread)),
    })
}

/// What the writer, readers and watches share.
struct Shared {
    file: File,
    hub: Hub,
}

/// The open store. Dropping it closes it.
pub struct Embedded {
    shared: Arc<Shared>,
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Embedded {
    async fn write(&self, write: Write) -> Result<Revision, Error> {
        let jobs = lock(&self.jobs).clone().ok_or_else(closed)?;
        let (answer, answered) = oneshot::channel();
        let job = Job { write, answer };
        jobs.send(job).await.map_err(|_| closed())?;
        drop(jobs);
        answered.await.map_err(|_| closed())?
    }

    /// Reads for long: away from the threads that serve requests.
    async fn read_much<T: Send + 'static>(
        &self,
        read: impl Fn(&redb::ReadTransaction) -> Result<Result<T, Error>, redb::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let shared = Arc::clone(&self.shared);
        let done = tokio::task::spawn_blocking(move || shared.file.read(read)).await;
        done.map_err(|error| Error::Away(format!("the read was given up: {error}")))??
    }

    /// Takes no more writes. What is returned waits for those that were begun, and lets go of everything.
    fn end(&self) -> impl FnOnce() + Send + 'static {
        drop(lock(&self.jobs).take());
        let thread = lock(&self.thread).take();
        let shared = Arc::clone(&self.shared);
        move || {
            // Without a thread somebody else is at it.
            let Some(thread) = thread else { return };
            if thread.join().is_err() {
                tracing::error!("the store's thread has panicked");
            }
            shared.hub.close();
            shared.file.close();
        }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.end()();
    }
}

#[async_trait]
impl Store for Embedded {
    async fn revision(&self) -> Result<Revision, Error> {
        Ok(self.shared.file.read(reader::state)?.revision)
    }

    async fn get(&self, key: &str) -> Result<Option<Entry>, Error> {
        self.shared.file.read(|txn| reader::get(txn, key))
    }

    async fn list(&self, range: Range) -> Result<Page, Error> {
        self.read_much(move |txn| reader::list(txn, &range)).await
    }

    async fn create(&self, key: &str, value: Bytes) -> Result<Revision, Error> {
        let key = key.to_owned();
        self.write(Write::Create { key, value }).await
    }

    async fn update(&self, key: &str, value: Bytes, expected: Revision) -> Result<Revision, Error> {
        let key = key.to_owned();
        self.write(Write::Update {
            key,
            value,
            expected,
        })
        .await
    }

    async fn delete(&self, key: &str, expected: Revision) -> Result<Revision, Error> {
        let key = key.to_owned();
        self.write(Write::Delete { key, expected }).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, Error> {
        hub::watch(&self.shared, prefix, after)
    }

    async fn compact(&self, upto: Revision) -> Result<(), Error> {
        self.write(Write::Compact { upto }).await.map(drop)
    }

    async fn close(&self) {
        // The writer may be in the middle of a sync.
        if let Err(error) = tokio::task::spawn_blocking(self.end()).await {
            tracing::error!("close the store: {error}");
        }
    }
}

fn closed() -> Error {
    Error::Away("it has been closed".to_owned())
}

/// What the mutex guards is replaced as a whole, so a panic elsewhere leaves nothing half-done.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
