//! Garbage collection: what has lost all its owners is deleted; what is deleted in the foreground waits for what it
//! owns, and what is deleted as an orphan's parent first lets go of it.
//!
//! One watch per kind, of metadata alone, keeps a [`graph`] of all objects. A change says which to look at; a look
//! first asks the graph, and only where that is not enough the server: nothing is deleted for an owner that the server
//! has not been asked about, and never by a state that is no longer true (the uid and the resource version are
//! conditions of each write). Events own nothing and are left out. Kinds that the server learns later (CRDs) are seen
//! after the next start.

pub mod act;
pub mod decide;
pub mod graph;

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use kube::ResourceExt;
use kube::core::{DynamicObject, PartialObjectMeta};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::cluster::Cluster;
use crate::kept::Retry;
use crate::resources::{self, Resource};
use act::Garbage;
use graph::{Graph, Object, Uid};

/// Objects that are looked at together; each is a connection.
const AT_ONCE: usize = 16;
/// Changes that wait to be taken in.
const WAITING: usize = 1024;
/// The first and the longest pause before an object is looked at again after a failure.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(10));

/// What a watch tells.
enum News {
    /// A list begins.
    List,
    /// An object of the list.
    Listed(Uid, Object),
    /// The list is complete.
    Complete,
    /// An object was made or changed.
    Changed(Uid, Object),
    /// An object is gone.
    Gone(Uid),
}

/// Collects garbage until it is dropped.
pub async fn run(cluster: Cluster) {
    let mut pause = PAUSE.0;
    let kinds = loop {
        match resources::discover(&cluster.client).await {
            Ok(kinds) => break kinds,
            Err(trouble) => tracing::warn!("collect garbage: {trouble}"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    };
    // Nobody is told when they begin or end.
    let kinds: Vec<Resource> = kinds
        .into_iter()
        .filter(|kind| kind.names.kind != "Event")
        .collect();
    let (sender, receiver) = channel(WAITING);
    let mut watches = JoinSet::new();
    for (index, kind) in kinds.iter().enumerate() {
        watches.spawn(watch(cluster.clone(), kind.clone(), index, sender.clone()));
    }
    let garbage = Garbage {
        client: cluster.client.clone(),
        kinds,
        graph: Mutex::new(Graph::default()),
        absent: Mutex::default(),
    };
    collect(&garbage, receiver).await;
}

/// Watches a kind for ever.
async fn watch(cluster: Cluster, kind: Resource, index: usize, to: Sender<(usize, News)>) {
    let config = watcher::Config::default().page_size(500);
    let events = watcher(kind.all(&cluster.client), config).backoff(Retry::default());
    let mut events = std::pin::pin!(events);
    let of = |object: &PartialObjectMeta<DynamicObject>| {
        let uid = object.metadata.uid.as_deref().unwrap_or_default();
        (Uid::from(uid), Object::new(index, &object.metadata))
    };
    while let Some(event) = events.next().await {
        let news = match event {
            Ok(Event::Init) => News::List,
            Ok(Event::InitApply(object)) => {
                let (uid, object) = of(&object);
                News::Listed(uid, object)
            }
            Ok(Event::InitDone) => News::Complete,
            Ok(Event::Apply(object)) => {
                let (uid, object) = of(&object);
                News::Changed(uid, object)
            }
            Ok(Event::Delete(object)) => News::Gone(object.uid().unwrap_or_default().into()),
            Err(error) => {
                tracing::debug!("watch {}: {error}", kind.names.plural);
                continue;
            }
        };
        if to.send((index, news)).await.is_err() {
            return;
        }
    }
}

/// The objects that wait to be looked at.
#[derive(Default)]
struct Queue {
    ready: VecDeque<Uid>,
    queued: HashSet<Uid>,
    working: HashSet<Uid>,
    /// Those that were asked for while they were looked at.
    again: HashSet<Uid>,
    failures: BTreeMap<Uid, u32>,
    later: BTreeSet<(Instant, Uid)>,
}

impl Queue {
    fn push(&mut self, uid: Uid) {
        if self.working.contains(&uid) {
            self.again.insert(uid);
        } else if self.queued.insert(Arc::clone(&uid)) {
            self.ready.push_back(uid);
        }
    }

    fn pop(&mut self) -> Option<Uid> {
        let uid = self.ready.pop_front()?;
        self.queued.remove(&uid);
        self.working.insert(Arc::clone(&uid));
        Some(uid)
    }

    fn done(&mut self, uid: Uid, well: bool, now: Instant) {
        self.working.remove(&uid);
        if well {
            self.failures.remove(&uid);
        } else {
            let count = self.failures.entry(Arc::clone(&uid)).or_default();
            *count += 1;
            let pause = PAUSE.0 * 2_u32.saturating_pow((*count - 1).min(16));
            self.later
                .insert((now + pause.min(PAUSE.1), Arc::clone(&uid)));
        }
        if self.again.remove(&uid) {
            self.push(uid);
        }
    }

    /// Takes over what has waited long enough.
    fn wake(&mut self, now: Instant) {
        while let Some((at, uid)) = self.later.pop_first() {
            if at > now {
                self.later.insert((at, uid));
                return;
            }
            self.push(uid);
        }
    }
}

/// Takes in what the watches tell, and looks at what follows from it, until they end.
async fn collect(garbage: &Garbage, mut news: Receiver<(usize, News)>) {
    let mut queue = Queue::default();
    let mut listed: BTreeMap<usize, HashSet<Uid>> = BTreeMap::new();
    // Before every kind is listed once, what an object owns is not known.
    let mut unlisted: BTreeSet<usize> = (0..garbage.kinds.len()).collect();
    let mut running = FuturesUnordered::new();
    loop {
        queue.wake(Instant::now());
        while unlisted.is_empty()
            && running.len() < AT_ONCE
            && let Some(uid) = queue.pop()
        {
            running.push(async move {
                let done = garbage.look(&uid).await;
                (uid, done)
            });
        }
        let wake = queue.later.first().map(|(at, _)| *at);
        tokio::select! {
            told = news.recv() => {
                let Some((kind, told)) = told else { return };
                if matches!(told, News::Complete) {
                    unlisted.remove(&kind);
                }
                for uid in take(&mut lock(&garbage.graph), &mut listed, kind, told) {
                    queue.push(uid);
                }
            }
            Some((uid, done)) = running.next(), if !running.is_empty() => {
                let well = match done {
                    Ok(more) => {
                        more.into_iter().for_each(|uid| queue.push(uid));
                        true
                    }
                    Err(trouble) if trouble.is_conflict() => false,
                    Err(trouble) => {
                        tracing::warn!("collect garbage: {trouble}");
                        false
                    }
                };
                queue.done(uid, well, Instant::now());
            }
            () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
        }
    }
}

/// Takes news into the graph; the uids to look at.
fn take(
    graph: &mut Graph,
    listed: &mut BTreeMap<usize, HashSet<Uid>>,
    kind: usize,
    news: News,
) -> Vec<Uid> {
    match news {
        News::List => {
            listed.insert(kind, HashSet::new());
            Vec::new()
        }
        News::Listed(uid, object) => {
            listed.entry(kind).or_default().insert(Arc::clone(&uid));
            graph.observe(uid, object)
        }
        News::Changed(uid, object) => graph.observe(uid, object),
        News::Gone(uid) => graph.gone(&uid),
        News::Complete => {
            let there = listed.remove(&kind).unwrap_or_default();
            let of_kind: Vec<Uid> = graph.of_kind(kind).cloned().collect();
            let gone = of_kind.into_iter().filter(|uid| !there.contains(uid));
            gone.flat_map(|uid| graph.gone(&uid)).collect()
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
