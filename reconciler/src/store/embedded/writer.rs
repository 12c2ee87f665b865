//! Writing: one thread, one transaction for all writes that wait, one sync.

use std::sync::Arc;

use bytes::Bytes;
use redb::{Table, WriteTransaction};
use tokio::sync::{mpsc, oneshot};

use super::file::{COMPACTED, Change, HISTORY, HISTORY_BYTES, META, OBJECTS, REVISION, number};
use super::reader::{State, entry};
use super::{Entry, Error, Options, Revision, Shared, hub};
use crate::store::Event;

/// Writes that may wait for the thread; more wait for room.
pub(super) const WAITING: usize = 1024;
/// Writes in one transaction, and bytes of their values.
const BATCH: (usize, usize) = (512, 2 << 20);
/// Old changes forgotten by one transaction beyond the number that it adds, after the options were lowered.
const FORGET: u64 = 500;

/// What is asked of the writer.
pub(super) enum Write {
    Create {
        key: String,
        value: Bytes,
    },
    Update {
        key: String,
        value: Bytes,
        expected: Revision,
    },
    Delete {
        key: String,
        expected: Revision,
    },
    Compact {
        upto: Revision,
    },
}

/// A write and who waits for it.
pub(super) struct Job {
    pub(super) write: Write,
    pub(super) answer: oneshot::Sender<Result<Revision, Error>>,
}

/// Ends when every sender has gone and all that waited has been answered.
pub(super) fn run(shared: &Arc<Shared>, mut waiting: mpsc::Receiver<Job>, options: Options) {
    let mut settled = true;
    while let Some(first) = waiting.blocking_recv() {
        let (writes, answers): (Vec<_>, Vec<_>) = gather(first, &mut waiting)
            .into_iter()
            .map(|job| (job.write, job.answer))
            .unzip();
        let ready = if settled {
            Ok(())
        } else {
            hub::settle(shared).map(drop)
        };
        match ready.and_then(|()| shared.file.write(|txn| commit(txn, &writes, options))) {
            Ok(done) => {
                settled = true;
                for (answer, result) in answers.into_iter().zip(done.results) {
                    // Whoever asked may have gone.
                    let _ = answer.send(result);
                }
                hub::publish(shared, &done.events);
            }
            Err(error) => {
                // The disk may have failed after all was written: then the file, opened again, has the changes.
                let written = hub::settle(shared);
                settled = written.is_ok();
                let error = match written {
                    Ok(false) => error,
                    Ok(true) | Err(_) => Error::Away(error.to_string()),
                };
                for answer in answers {
                    let _ = answer.send(Err(error.clone()));
                }
            }
        }
    }
}

/// The first and those that wait behind it, as many as fit.
fn gather(first: Job, waiting: &mut mpsc::Receiver<Job>) -> Vec<Job> {
    let (most, mut room) = BATCH;
    room = room.saturating_sub(size(&first.write));
    let mut batch = vec![first];
    while batch.len() < most && room > 0 {
        let Ok(job) = waiting.try_recv() else { break };
        room = room.saturating_sub(size(&job.write));
        batch.push(job);
    }
    batch
}

fn size(write: &Write) -> usize {
    match write {
        Write::Create { value, .. } | Write::Update { value, .. } => value.len(),
        Write::Delete { .. } | Write::Compact { .. } => 0,
    }
}

pub(super) struct Done {
    /// One for each write.
    pub(super) results: Vec<Result<Revision, Error>>,
    pub(super) events: Vec<Event>,
}

pub(super) fn commit(
    txn: WriteTransaction,
    writes: &[Write],
    options: Options,
) -> Result<Done, redb::Error> {
    let mut done = Done {
        results: Vec::with_capacity(writes.len()),
        events: Vec::new(),
    };
    let changed = {
        let mut batch = Batch {
            objects: txn.open_table(OBJECTS)?,
            history: txn.open_table(HISTORY)?,
            meta: txn.open_table(META)?,
            revision: 0,
            compacted: 0,
            bytes: 0,
        };
        batch.load()?;
        let before = (batch.revision, batch.compacted);
        for write in writes {
            let result = batch.apply(write, &mut done.events)?;
            done.results.push(result);
        }
        let mut forget = FORGET + 2 * writes.len() as u64;
        while forget > 0 && batch.exceeds(options) && batch.forget_oldest()? {
            forget -= 1;
        }
        let changed = before != (batch.revision, batch.compacted);
        if changed {
            batch.save()?;
        }
        changed
    };
    if changed {
        txn.commit()?;
    } else {
        txn.abort()?;
    }
    Ok(done)
}

/// The tables of the transaction, and the numbers of the meta table.
struct Batch<'t> {
    objects: Table<'t, &'static str, (u64, &'static [u8])>,
    history: Table<'t, u64, Change<'static>>,
    meta: Table<'t, &'static str, u64>,
    revision: Revision,
    compacted: Revision,
    bytes: u64,
}

impl Batch<'_> {
    fn load(&mut self) -> Result<(), redb::Error> {
        self.revision = number(&self.meta, REVISION)?;
        self.compacted = number(&self.meta, COMPACTED)?;
        self.bytes = number(&self.meta, HISTORY_BYTES)?;
        Ok(())
    }

    fn save(&mut self) -> Result<(), redb::Error> {
        self.meta.insert(REVISION, self.revision)?;
        self.meta.insert(COMPACTED, self.compacted)?;
        self.meta.insert(HISTORY_BYTES, self.bytes)?;
        Ok(())
    }

    fn apply(
        &mut self,
        write: &Write,
        events: &mut Vec<Event>,
    ) -> Result<Result<Revision, Error>, redb::Error> {
        let (key, value, expected) = match write {
            Write::Create { key, value } => (key, Some(value), None),
            Write::Update {
                key,
                value,
                expected,
            } => (key, Some(value), Some(*expected)),
            Write::Delete { key, expected } => (key, None, Some(*expected)),
            Write::Compact { upto } => return self.compact(*upto),
        };
        let now = entry(&self.objects, key)?;
        match (expected, &now) {
            (None, Some(_)) => return Ok(Err(Error::Exists(key.clone()))),
            (Some(expected), now) if now.as_ref().map(|now| now.revision) != Some(expected) => {
                let (key, now) = (key.clone(), now.clone());
                return Ok(Err(Error::Changed { key, now }));
            }
            _ => {}
        }
        self.change(key, value, now, events).map(Ok)
    }

    fn change(
        &mut self,
        key: &str,
        value: Option<&Bytes>,
        now: Option<Entry>,
        events: &mut Vec<Event>,
    ) -> Result<Revision, redb::Error> {
        self.revision += 1;
        match value {
            Some(value) => drop(self.objects.insert(key, (self.revision, value.as_ref()))?),
            None => drop(self.objects.remove(key)?),
        }
        let (written, before) = now.map_or((0, None), |now| (now.revision, Some(now.value)));
        let row = (key, value.map(Bytes::as_ref), written, before.as_deref());
        self.bytes += weight(&row);
        self.history.insert(self.revision, row)?;
        events.push(Event {
            revision: self.revision,
            key: key.to_owned(),
            value: value.cloned(),
            before,
        });
        Ok(self.revision)
    }

    fn compact(&mut self, upto: Revision) -> Result<Result<Revision, Error>, redb::Error> {
        let state = State {
            revision: self.revision,
            compacted: self.compacted,
        };
        if let Err(error) = state.has(upto) {
            return Ok(Err(error));
        }
        while self.compacted < upto && self.forget_oldest()? {}
        Ok(Ok(self.compacted))
    }

    fn exceeds(&self, options: Options) -> bool {
        let events = self.revision.saturating_sub(self.compacted);
        events > options.history_events || self.bytes > options.history_bytes
    }

    /// False when the history is empty.
    fn forget_oldest(&mut self) -> Result<bool, redb::Error> {
        let Some((revision, row)) = self.history.pop_first()? else {
            return Ok(false);
        };
        self.compacted = revision.value();
        self.bytes = self.bytes.saturating_sub(weight(&row.value()));
        Ok(true)
    }
}

/// Bytes that a row counts for.
fn weight((key, value, _, before): &Change<'_>) -> u64 {
    (key.len() + value.map_or(0, <[u8]>::len) + before.map_or(0, <[u8]>::len)) as u64
}
