//! A watch that outlives its streams.
//!
//! A stream starts at the revision after the last one delivered. If etcd is further on already, it starts at that last
//! revision itself (whose events are skipped): only then does etcd refuse the start whenever something after it may
//! have been compacted away.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{EventType, WatchOptions, WatchResponse, WatchStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::error::{Failure, translate};
use super::{ATTEMPT, Inner, connect, end, number, revision, text, wire};
use crate::store::{Error, Event, Revision, Watch};

/// Batches that wait for the watcher. When they are full the stream is not read, and etcd holds its changes back.
const QUEUE: usize = 8;
/// Between attempts to open a stream.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

pub(super) async fn start(
    inner: &Arc<Inner>,
    prefix: &str,
    after: Revision,
) -> Result<Watch, Error> {
    // So that what is compacted is refused here and not by the first answer.
    let newest = match inner.newest(Some(after.max(1))).await {
        Ok(newest) => newest,
        Err(Failure::Future) => after,
        Err(failure) => return Err(inner.explain(failure, after).await),
    };
    let (sender, watch) = mpsc::channel(QUEUE);
    let mut closed = inner.closed.subscribe();
    let follower = Follower {
        inner: Arc::clone(inner),
        prefix: prefix.to_owned(),
        last: after.max(1),
        again: newest > after.max(1),
        sender: sender.clone(),
    };
    tokio::spawn(async move {
        tokio::select! {
            error = follower.run() => if let Some(error) = error {
                // The watcher may have gone.
                let _ = sender.send(Err(error)).await;
            },
            () = sender.closed() => {}
            () = async { drop(closed.wait_for(|closed| *closed).await) } => {}
        }
    });
    Ok(watch)
}

struct Follower {
    inner: Arc<Inner>,
    prefix: String,
    /// All changes up to this revision have been delivered.
    last: Revision,
    /// Start at `last`, not behind it.
    again: bool,
    sender: mpsc::Sender<Result<Vec<Event>, Error>>,
}

/// Why a stream is not read any more.
enum End {
    /// It broke.
    Broken,
    /// It began behind what may be compacted.
    Again,
    /// With what the watcher is told; nothing if it has gone.
    Finish(Option<Error>),
}

impl Follower {
    async fn run(mut self) -> Option<Error> {
        let mut pause = PAUSE.0;
        loop {
            let limit = Instant::now() + ATTEMPT;
            let what = format!("watch {} in", self.prefix);
            let start = if self.again {
                self.last
            } else {
                self.last.saturating_add(1)
            };
            let options = WatchOptions::new()
                .with_range(end(&self.prefix))
                .with_start_revision(wire(start))
                .with_prev_key();
            let key = match self.prefix.as_str() {
                "" => "\0",
                prefix => prefix,
            };
            let opened = self
                .inner
                .connection
                .attempt(&what, limit, |client| async move {
                    connect::watch(&client).watch(key, Some(options)).await
                });
            match opened.await {
                Ok(stream) => {
                    let last = self.last;
                    match self.follow(stream).await {
                        End::Finish(error) => return error,
                        End::Again => continue,
                        End::Broken if self.last > last => pause = PAUSE.0,
                        End::Broken => {}
                    }
                }
                Err(failure) if failure.is_away() => tracing::debug!("{}", Error::from(failure)),
                Err(failure) => return Some(failure.into()),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    async fn follow(&mut self, mut stream: WatchStream) -> End {
        loop {
            let answer = match stream.message().await {
                Ok(Some(answer)) => answer,
                Ok(None) => return End::Broken,
                Err(error) => match translate("watch etcd", &error) {
                    failure if failure.is_away() => {
                        tracing::debug!("{}", Error::from(failure));
                        return End::Broken;
                    }
                    failure => return End::Finish(Some(failure.into())),
                },
            };
            if answer.compact_revision() > 0 {
                return End::Finish(Some(self.compacted(number(answer.compact_revision()))));
            }
            if answer.canceled() {
                // Without a leader the stream is cancelled; with one, the user may lack the right.
                let why = format!("watch {} in etcd: {}", self.prefix, answer.cancel_reason());
                if answer.cancel_reason().contains("permission denied") {
                    return End::Finish(Some(Error::Broken(why)));
                }
                tracing::debug!("{why}");
                return End::Broken;
            }
            if answer.created() {
                if !self.again && revision(answer.header()) > self.last {
                    self.again = true;
                    return End::Again;
                }
                // What a later stream must start with is told by its own first answer.
                self.again = false;
                continue;
            }
            let batch = match self.batch(&answer) {
                Ok(batch) => batch,
                Err(error) => return End::Finish(Some(error)),
            };
            let Some(newest) = batch.last().map(|event| event.revision) else {
                continue;
            };
            if self.sender.send(Ok(batch)).await.is_err() {
                return End::Finish(None);
            }
            self.last = newest;
        }
    }

    fn batch(&self, answer: &WatchResponse) -> Result<Vec<Event>, Error> {
        let mut batch = Vec::with_capacity(answer.events().len());
        for event in answer.events() {
            let Some(kv) = event.kv() else { continue };
            let revision = number(kv.mod_revision());
            if revision <= self.last {
                continue;
            }
            let deleted = event.event_type() == EventType::Delete;
            let before = event.prev_kv().map(|kv| kv.value().to_vec().into());
            if before.is_none() && (deleted || kv.version() > 1) {
                // Compacted while this event was on its way: there was a value, but nobody knows it any more.
                return Err(self.compacted(revision));
            }
            batch.push(Event {
                revision,
                key: text(kv.key().to_vec())?,
                value: (!deleted).then(|| kv.value().to_vec().into()),
                before,
            });
        }
        Ok(batch)
    }

    fn compacted(&self, oldest: Revision) -> Error {
        Error::Compacted {
            asked: self.last,
            oldest,
        }
    }
}

/// The oldest revision of the history; etcd tells it only to a watch that starts too early.
pub(super) async fn oldest(inner: &Inner) -> Result<Revision, Failure> {
    inner
        .call(
            "ask for the oldest revision of",
            true,
            |client| async move {
                let options = WatchOptions::new().with_start_revision(1);
                let mut stream = connect::watch(&client).watch("/", Some(options)).await?;
                while let Some(answer) = stream.message().await? {
                    if answer.compact_revision() > 0 {
                        return Ok(number(answer.compact_revision()));
                    }
                    if !answer.created() {
                        break;
                    }
                }
                Ok(0)
            },
        )
        .await
}
