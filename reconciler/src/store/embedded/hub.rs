//! Who is told of changes. A watch that keeps up gets them from the writer; one that starts in the past or falls behind
//! reads the history until it has caught up.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use super::{Error, Revision, Shared, Watch, closed, lock, reader};
use crate::store::Event;

/// Batches that wait for a watcher before it counts as behind.
const QUEUE: usize = 32;

pub(super) struct Hub {
    watchers: Mutex<Watchers>,
    /// True once the store is closed.
    closed: watch::Sender<bool>,
}

struct Watchers {
    /// Published up to here.
    newest: Revision,
    /// By prefix. Only those that have all changes up to `newest`.
    live: HashMap<String, Vec<Live>>,
}

/// A watcher that keeps up.
struct Live {
    sender: mpsc::Sender<Result<Vec<Event>, Error>>,
    /// It has had all changes up to this revision, or does not want them.
    after: Revision,
    /// Where its catching up can run.
    runtime: Handle,
}

/// The store for the tasks that the hub starts.
type Store = Arc<Shared>;

impl Hub {
    pub(super) fn new(newest: Revision) -> Self {
        Self {
            watchers: Mutex::new(Watchers {
                newest,
                live: HashMap::new(),
            }),
            closed: watch::Sender::new(false),
        }
    }

    /// Ends every watch.
    pub(super) fn close(&self) {
        self.closed.send_replace(true);
        lock(&self.watchers).live.clear();
    }

    /// Takes the watcher if it has everything that was published.
    fn join(&self, prefix: &str, watcher: Live) -> Result<(), Live> {
        let mut watchers = lock(&self.watchers);
        // Under the lock: whoever comes after `close` has cleared the table must see it.
        if *self.closed.borrow() {
            return Ok(());
        }
        if watcher.after < watchers.newest {
            return Err(watcher);
        }
        let live = watchers.live.entry(prefix.to_owned()).or_default();
        live.retain(|watcher| !watcher.sender.is_closed());
        live.push(watcher);
        Ok(())
    }
}

/// Tells of changes that have been committed, in order.
pub(super) fn publish(store: &Store, events: &[Event]) {
    let Some(last) = events.last() else { return };
    let mut watchers = lock(&store.hub.watchers);
    watchers.newest = last.revision;
    watchers.live.retain(|prefix, live| {
        let of_prefix: Vec<&Event> = events
            .iter()
            .filter(|event| event.key.starts_with(prefix.as_str()))
            .collect();
        let mut at = 0;
        while let Some(watcher) = live.get_mut(at) {
            if watcher.offer(&of_prefix, last.revision) {
                at += 1;
                continue;
            }
            live.swap_remove(at).catch_up(store, prefix);
        }
        !live.is_empty()
    });
}

/// After a write that failed: were its changes written all the same? Then every watcher gets them from the history.
pub(super) fn settle(store: &Store) -> Result<bool, Error> {
    let now = store.file.read(reader::state)?.revision;
    let mut watchers = lock(&store.hub.watchers);
    if now == watchers.newest {
        return Ok(false);
    }
    watchers.newest = now;
    for (prefix, live) in watchers.live.drain() {
        for behind in live {
            behind.catch_up(store, &prefix);
        }
    }
    Ok(true)
}

impl Live {
    /// Offers what there is up to revision `upto`. False when it has gone or fallen behind; then it has had nothing of
    /// these events.
    fn offer(&mut self, events: &[&Event], upto: Revision) -> bool {
        let new: Vec<Event> = events
            .iter()
            .filter(|event| event.revision > self.after)
            .map(|&event| event.clone())
            .collect();
        let taken = if new.is_empty() {
            !self.sender.is_closed()
        } else {
            self.sender.try_send(Ok(new)).is_ok()
        };
        if taken {
            self.after = self.after.max(upto);
        }
        taken
    }

    /// Reads the history elsewhere until it is live again.
    fn catch_up(self, store: &Store, prefix: &str) {
        if !self.sender.is_closed() {
            let runtime = self.runtime.clone();
            runtime.spawn(catch_up(Arc::clone(store), prefix.into(), self));
        }
    }
}

/// Starts a watch on every change under `prefix` after `after`.
pub(super) fn watch(store: &Store, prefix: &str, after: Revision) -> Result<Watch, Error> {
    if *store.hub.closed.borrow() {
        return Err(closed());
    }
    let (sender, watch) = mpsc::channel(QUEUE);
    let watcher = Live {
        sender,
        after,
        runtime: Handle::current(),
    };
    if let Err(behind) = store.hub.join(prefix, watcher) {
        store.file.read(reader::state)?.reaches(after)?;
        behind.catch_up(store, prefix);
    }
    Ok(watch)
}

/// Sends what the history has, as fast as the watcher takes it, until the watcher can go live.
async fn catch_up(store: Store, prefix: Arc<str>, mut watcher: Live) {
    let mut closing = store.hub.closed.subscribe();
    loop {
        // Room first: at most one stretch of the history is held for each watcher.
        let sender = watcher.sender.clone();
        let permit = tokio::select! {
            permit = sender.reserve() => permit,
            _ = closing.wait_for(|closed| *closed) => return,
        };
        let Ok(permit) = permit else { return };
        let read = {
            let (store, prefix, after) = (Arc::clone(&store), Arc::clone(&prefix), watcher.after);
            move || {
                store
                    .file
                    .read(|txn| reader::stretch(txn, &prefix, after))
                    .flatten()
            }
        };
        let stretch = match tokio::task::spawn_blocking(read).await {
            Ok(Ok(stretch)) => stretch,
            Ok(Err(error)) => return permit.send(Err(error)),
            Err(error) => {
                return permit.send(Err(Error::Away(format!("the read was given up: {error}"))));
            }
        };
        watcher.after = stretch.upto;
        if stretch.events.is_empty() {
            drop(permit);
        } else {
            permit.send(Ok(stretch.events));
        }
        if stretch.complete {
            match store.hub.join(&prefix, watcher) {
                Ok(()) => return,
                Err(behind) => watcher = behind,
            }
        }
    }
}

#[cfg(test)]
mod tests;
