//! Keeps our lease and follows everybody's: the only part that talks to the store.
//!
//! Theory. One session at a time: list if something may have been missed, claim if we hold nothing,
//! then watch until an error. A broken connection alone does not make us list again (five thousand
//! nodes would do so at once); the store is asked for its revision and for our own key, and only
//! when one of them went back or is not as we left it has the store lost data. Our own lease is
//! guarded by the key's revision, so a foreign write is noticed and never overwritten blindly.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use crate::config::NetworkConfig;
use crate::lease::claim::{self, Claim, Claimant};
use crate::lease::renew::{Action, Renewal};
use crate::lease::store::{Batch, Entry, Error, Event, LeaseStore, LeaseWatch, Listing, Written};
use crate::lease::{Lease, LeaseAttrs, Subnet, key};
use crate::metrics::Metrics;

/// Life of a lease, as flannel's.
pub const LEASE_TTL: Duration = Duration::from_secs(24 * 3600);
/// Claims tried at once when others are faster.
const RACES: u32 = 10;
/// Pause after somebody else wrote to our key, so that two nodes with one address do not fight.
const CONTEST_PAUSE: Duration = Duration::from_secs(5);
/// Longest pause between attempts to reach the store.
const STORE_PAUSE: Duration = Duration::from_secs(5);

/// What the registrar tells the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// All entries; `reset`: the store has lost data.
    Listed {
        /// As stored.
        entries: Vec<Entry>,
        /// Those missing now may come back.
        reset: bool,
    },
    /// Changes since.
    Changed(Vec<Event>),
    /// Our lease as it is now published.
    Own(Lease),
    /// We hold no lease (any more): why.
    Lost(String),
    /// The store answers, or why not.
    Store(Result<(), String>),
    /// The network configuration in the store, as read anew or changed.
    Config(Option<String>),
}

/// What does not change while it runs.
pub struct Terms {
    /// The checked configuration.
    pub config: Arc<NetworkConfig>,
    /// `--subnet-lease-renew-margin`.
    pub margin: Duration,
    /// Life of a lease.
    pub ttl: Duration,
    /// The subnet held in an earlier life.
    pub previous: Option<Subnet>,
    /// The value last published under it.
    pub published: Option<LeaseAttrs>,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

/// The state of our dealings with the store.
pub struct Registrar<S> {
    store: S,
    terms: Terms,
    /// What to publish.
    wanted: watch::Receiver<LeaseAttrs>,
    news: mpsc::Sender<News>,
    renewal: Renewal,
    /// The key we hold, or held last, and its revision.
    own: Option<(Subnet, i64)>,
    published: Option<LeaseAttrs>,
    /// Everything up to this revision has been told.
    seen: i64,
    listed: bool,
    reset: bool,
    up: Option<bool>,
    /// The refusal logged last.
    complaint: Option<String>,
}

/// Why a session ended.
enum End {
    /// The daemon is ending.
    Closed,
    /// This host's addresses have changed.
    Moved,
    /// The store failed.
    Failed(Error),
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl<S: LeaseStore> Registrar<S> {
    /// Nothing is asked of the store yet.
    pub fn new(
        store: S,
        terms: Terms,
        wanted: watch::Receiver<LeaseAttrs>,
        news: mpsc::Sender<News>,
    ) -> Self {
        Self {
            renewal: Renewal::new(terms.margin),
            published: terms.published.clone(),
            store,
            terms,
            wanted,
            news,
            own: None,
            seen: 0,
            listed: false,
            reset: false,
            up: None,
            complaint: None,
        }
    }

    /// Runs until the daemon drops its end of the news.
    pub async fn run(mut self) {
        let mut failures = 0;
        loop {
            let started = Instant::now();
            let error = match self.session().await {
                Ok(()) | Err(End::Closed) => return,
                Err(End::Moved) => {
                    self.store.reconnect();
                    continue;
                }
                Err(End::Failed(error)) => error,
            };
            if matches!(error, Error::Compacted(_)) {
                tracing::warn!("{error}; listing all leases again");
                self.listed = false;
            } else if self.up != Some(false) {
                tracing::warn!("lease store: {error}; the data path is kept, trying again");
                self.up = Some(false);
                if self
                    .tell(News::Store(Err(error.to_string())))
                    .await
                    .is_err()
                {
                    return;
                }
            }
            // A session that had worked for a while starts the pauses anew.
            failures = if started.elapsed() > STORE_PAUSE {
                0
            } else {
                (failures + 1).min(16)
            };
            let pause = Duration::from_millis(100 << failures.min(6)).min(STORE_PAUSE);
            let jittered = pause.mul_f64(0.75 + fastrand::f64() / 2.0);
            tokio::select! {
                () = tokio::time::sleep(jittered) => {}
                () = self.news.closed() => return,
            }
        }
    }

    async fn session(&mut self) -> Result<(), End> {
        let config = self.store.config().await?;
        if self.listed {
            match self.own {
                Some((subnet, revision)) => {
                    if self.has_lost_data(&subnet, revision).await? {
                        (self.listed, self.reset) = (false, true);
                    }
                }
                // Without a key to look at, only a listing shows how the store is.
                None => self.listed = false,
            }
        }
        let listing = if self.listed {
            None
        } else {
            Some(self.store.list().await?)
        };
        if let Some(listing) = &listing {
            self.reset |= listing.revision < self.seen;
            if self.reset {
                tracing::warn!(
                    "the lease store has lost data; peers are kept for a while, for their nodes to come back"
                );
            }
            self.compare_own(listing).await?;
        }
        self.renewal.store_is_back();
        self.act().await?;
        // Only now, so that the node is not called ready between the store's return and ours.
        self.report_up().await?;
        self.tell(News::Config(config)).await?;
        if let Some(Listing { entries, revision }) = listing {
            // Told after our own lease, so that it is never taken for a peer's.
            let reset = std::mem::take(&mut self.reset);
            (self.listed, self.seen) = (true, revision);
            self.tell(News::Listed { entries, reset }).await?;
        }
        let mut watch = self.store.watch(self.seen).await?;
        loop {
            let due = match self.poll().await? {
                Action::Wait(until) => until,
                Action::Renew | Action::Acquire => {
                    self.act().await?;
                    continue;
                }
            };
            let timer = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                batch = watch.next() => self.take_batch(batch?).await?,
                () = timer => {}
                changed = self.wanted.changed() => match changed {
                    Ok(()) => {
                        self.renewal.publish();
                        if self.has_moved() {
                            return Err(End::Moved);
                        }
                    }
                    Err(_) => return Err(End::Closed),
                },
                () = self.news.closed() => return Err(End::Closed),
            }
        }
    }

    /// True when the address to publish is not the one published last.
    fn has_moved(&self) -> bool {
        let wanted = self.wanted.borrow();
        self.published.as_ref().is_some_and(|published| {
            published.public_ip != wanted.public_ip || published.public_ipv6 != wanted.public_ipv6
        })
    }

    /// Compares the store with what we know of it.
    async fn has_lost_data(&self, subnet: &Subnet, revision: i64) -> Result<bool, Error> {
        let probe = self.store.probe(subnet).await?;
        let ours_is_gone =
            self.renewal.holds() && probe.key_revision.is_none_or(|found| found < revision);
        Ok(probe.store_revision < self.seen || ours_is_gone)
    }

    async fn report_up(&mut self) -> Result<(), End> {
        if self.up != Some(true) {
            if self.up == Some(false) {
                tracing::info!("the lease store is back");
            }
            self.up = Some(true);
            self.tell(News::Store(Ok(()))).await?;
        }
        Ok(())
    }

    async fn compare_own(&mut self, listing: &Listing) -> Result<(), End> {
        let Some((subnet, revision)) = self.own else {
            return Ok(());
        };
        let name = key::render(&subnet);
        if listing
            .entries
            .iter()
            .any(|entry| entry.key == name && entry.revision == revision)
        {
            return Ok(());
        }
        self.lose("our lease is no longer in the store as we left it")
            .await
    }

    async fn take_batch(&mut self, batch: Batch) -> Result<(), End> {
        self.seen = self.seen.max(batch.revision);
        let mut changes = Vec::with_capacity(batch.events.len());
        for event in batch.events {
            match event {
                Event::Config(text) => self.tell(News::Config(text)).await?,
                event => {
                    self.check_own(&event).await?;
                    changes.push(event);
                }
            }
        }
        if changes.is_empty() {
            Ok(())
        } else {
            self.tell(News::Changed(changes)).await
        }
    }

    /// Notices when somebody else deletes or writes our key.
    async fn check_own(&mut self, event: &Event) -> Result<(), End> {
        let Some((subnet, revision)) = self.own.filter(|_| self.renewal.holds()) else {
            return Ok(());
        };
        let name = key::render(&subnet);
        match event {
            Event::Delete { key } if *key == name => {
                self.lose("our lease was deleted or has expired").await
            }
            Event::Put(entry) if entry.key == name && entry.revision > revision => {
                self.lose("our lease was rewritten by somebody else")
                    .await?;
                self.renewal.pause(Instant::now() + CONTEST_PAUSE);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn lose(&mut self, why: &str) -> Result<(), End> {
        if self.renewal.lost() {
            self.tell_lost(why).await?;
        }
        Ok(())
    }

    async fn tell_lost(&self, why: &str) -> Result<(), End> {
        self.terms.metrics.lease_lost.fetch_add(1, Relaxed);
        tracing::warn!("{why}; claiming again");
        self.tell(News::Lost(why.to_owned())).await
    }

    /// What is due for our own lease; the one place where its expiry is noticed.
    async fn poll(&mut self) -> Result<Action, End> {
        let held = self.renewal.holds();
        let action = self.renewal.poll(Instant::now());
        if held && !self.renewal.holds() {
            self.tell_lost("our lease has expired").await?;
        }
        Ok(action)
    }

    /// Does what is due for our own lease.
    async fn act(&mut self) -> Result<(), End> {
        let result = match self.poll().await? {
            Action::Wait(_) => return Ok(()),
            Action::Renew => self.renew().await,
            Action::Acquire => self.acquire().await,
        };
        match result {
            Ok(()) => Ok(()),
            Err(End::Closed) => Err(End::Closed),
            Err(End::Moved) => Err(End::Moved),
            Err(End::Failed(error)) => {
                self.renewal.failed(Instant::now());
                match &error {
                    // The session goes on: the other nodes' leases are still followed.
                    Error::Refused(why) => {
                        if self.complaint.replace(why.clone()).as_ref() != Some(why) {
                            tracing::warn!("{why}; trying again");
                        }
                        if self.renewal.holds() {
                            Ok(())
                        } else {
                            self.tell(News::Lost(why.clone())).await
                        }
                    }
                    _ => Err(End::Failed(error)),
                }
            }
        }
    }

    async fn renew(&mut self) -> Result<(), End> {
        let Some((subnet, revision)) = self.own else {
            return self.acquire().await;
        };
        let attrs = self.wanted.borrow_and_update().clone();
        let ttl = if self.renewal.is_reserved() {
            None
        } else {
            Some(self.terms.ttl)
        };
        match self.store.replace(&subnet, revision, &attrs, ttl).await? {
            Some(written) => self.hold(subnet, attrs, written).await,
            None => self.lose("our lease has changed in the store").await,
        }
    }

    /// Claims until it is ours, some other node being faster a few times at most.
    async fn acquire(&mut self) -> Result<(), End> {
        for _ in 0..RACES {
            let listing = self.store.list().await?;
            let attrs = self.wanted.borrow_and_update().clone();
            let claimant = Claimant {
                config: &self.terms.config,
                public_ip: attrs.public_ip,
                public_ipv6: attrs.public_ipv6,
                previous: self.own.map(|(subnet, _)| subnet).or(self.terms.previous),
                published: self.published.as_ref(),
            };
            let plan = claimant
                .plan(&listing.entries, |n| fastrand::usize(..n))
                .map_err(|full| Error::Refused(full.to_string()))?;
            for (subnet, revision) in plan.delete {
                tracing::info!(
                    "deleting our lease of {subnet}, which does not fit the network configuration"
                );
                self.store.delete(&subnet, revision).await?;
            }
            let (subnet, written) = match plan.claim {
                Claim::Adopt {
                    subnet,
                    revision,
                    reserved,
                } => {
                    let ttl = if reserved { None } else { Some(self.terms.ttl) };
                    (
                        subnet,
                        self.store.replace(&subnet, revision, &attrs, ttl).await?,
                    )
                }
                Claim::Create { subnet } => {
                    let lease = Lease {
                        subnet,
                        attrs: attrs.clone(),
                    };
                    let written = self.store.create(&lease, self.terms.ttl).await?;
                    match written {
                        Some(written) if self.must_yield(&subnet, written).await? => {
                            tracing::info!(
                                "{subnet} overlaps a lease that was created first; choosing another"
                            );
                            self.store.delete(&subnet, written.revision).await?;
                            (subnet, None)
                        }
                        other => (subnet, other),
                    }
                }
            };
            match written {
                Some(written) => return self.hold(subnet, attrs, written).await,
                None => tracing::info!("another node was faster at {subnet}; choosing again"),
            }
        }
        Err(Error::Refused(format!("lost the race for a subnet {RACES} times")).into())
    }

    /// Two nodes may have created different keys that share one family's subnet.
    async fn must_yield(&self, subnet: &Subnet, written: Written) -> Result<bool, Error> {
        let listing = self.store.list().await?;
        Ok(claim::yields(subnet, written.revision, &listing.entries))
    }

    async fn hold(
        &mut self,
        subnet: Subnet,
        attrs: LeaseAttrs,
        written: Written,
    ) -> Result<(), End> {
        let known = self.own.is_some_and(|(held, _)| held == subnet) && self.renewal.holds();
        self.renewal.written(Instant::now(), written.ttl);
        self.own = Some((subnet, written.revision));
        let verb = if known { "renewed" } else { "holding" };
        match written.ttl {
            Some(ttl) => tracing::info!(
                "{verb} the lease of {subnet} for {} minutes",
                ttl.as_secs() / 60
            ),
            None => tracing::info!("{verb} the reserved lease of {subnet}"),
        }
        self.published = Some(attrs.clone());
        self.complaint = None;
        self.tell(News::Own(Lease { subnet, attrs })).await
    }

    async fn tell(&self, news: News) -> Result<(), End> {
        self.news.send(news).await.map_err(|_| End::Closed)
    }
}
