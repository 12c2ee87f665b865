//! Keeps our own Node as it should be and follows all others: the only part that talks to the API server.
//!
//! Theory. One session at a time: list if something may have been missed, else look at our own Node;
//! publish what it lacks; then watch until an error. A broken connection alone does not make us list
//! again. What the server said last stays until it says something else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use super::api::{Change, Nodes, Scope, Watch};
use super::leases::Leases;
use super::{Annotations, Node, publish};
use crate::config::{BackendConfig, NetworkConfig};
use crate::daemon::registrar::News;
use crate::lease::store::Error;
use crate::lease::{Lease, LeaseAttrs};

/// Pause between patches of the same when somebody undoes them.
const CONTEST_PAUSE: Duration = Duration::from_secs(5);
/// Longest pause between attempts to reach the server.
const PAUSE: Duration = Duration::from_secs(5);

/// What does not change while it runs.
pub struct Terms {
    /// The checked configuration.
    pub config: Arc<NetworkConfig>,
    /// The names of annotations.
    pub annotations: Annotations,
    /// `--set-node-network-unavailable`.
    pub set_network_unavailable: bool,
}

/// The state of our dealings with the server.
pub struct Registrar {
    nodes: Nodes,
    terms: Terms,
    scope: Scope,
    /// What to publish.
    wanted: watch::Receiver<LeaseAttrs>,
    /// True once packets can flow.
    up: watch::Receiver<bool>,
    news: mpsc::Sender<News>,
    leases: Leases,
    /// Our own Node as last seen.
    own: Option<Node>,
    /// Our lease as told.
    held: Option<Lease>,
    /// Why we hold none, as told.
    lost: Option<String>,
    /// What was published last.
    published: Option<LeaseAttrs>,
    annotated: Option<Instant>,
    conditioned: Option<Instant>,
    /// Everything up to this revision has been told.
    seen: String,
    listed: bool,
    is_up: Option<bool>,
    /// The refusal logged last.
    complaint: Option<String>,
}

/// Why a session ended.
enum End {
    /// The daemon is ending.
    Closed,
    /// This host's addresses have changed.
    Moved,
    /// The server failed.
    Failed(Error),
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Registrar {
    /// Nothing is asked of the server yet.
    pub fn new(
        nodes: Nodes,
        terms: Terms,
        wanted: watch::Receiver<LeaseAttrs>,
        up: watch::Receiver<bool>,
        news: mpsc::Sender<News>,
    ) -> Self {
        // Somebody else routes for alloc: it has no peers.
        let scope = match terms.config.backend {
            BackendConfig::Alloc => Scope::Own,
            _ => Scope::All,
        };
        Self {
            leases: Leases::new(nodes.own_name()),
            nodes,
            terms,
            scope,
            wanted,
            up,
            news,
            own: None,
            held: None,
            lost: None,
            published: None,
            annotated: None,
            conditioned: None,
            seen: String::new(),
            listed: false,
            is_up: None,
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
                    self.nodes.reconnect().await;
                    continue;
                }
                Err(End::Failed(error)) => error,
            };
            if matches!(error, Error::Compacted(_)) {
                tracing::info!("{error}; listing all Nodes again");
                self.listed = false;
            } else if self.is_up != Some(false) {
                let server = self.nodes.server();
                tracing::warn!("API server {server}: {error}; the data path is kept, trying again");
                self.is_up = Some(false);
                let told = self.tell(News::Store(Err(error.to_string()))).await;
                if told.is_err() {
                    return;
                }
            }
            // A session that had worked for a while starts the pauses anew.
            failures = if started.elapsed() > PAUSE {
                0
            } else {
                (failures + 1).min(16)
            };
            let pause = Duration::from_millis(100 << failures.min(6)).min(PAUSE);
            let jittered = pause.mul_f64(0.75 + fastrand::f64() / 2.0);
            tokio::select! {
                () = tokio::time::sleep(jittered) => {}
                () = self.news.closed() => return,
            }
            self.nodes.reconnect().await;
        }
    }

    async fn session(&mut self) -> Result<(), End> {
        let mut reset = false;
        if self.listed {
            let (own, revision) = self.nodes.own().await?;
            reset = is_before(&revision, &self.seen);
            self.own = own;
        }
        let listing = match self.listed && !reset {
            true => None,
            false => Some(self.list().await?),
        };
        if let Some(revision) = &listing {
            reset |= is_before(revision, &self.seen);
            if reset {
                tracing::warn!(
                    "the API server has lost data; peers are kept for a while, for their Nodes to come back"
                );
            }
        }
        let mut due = self.act().await?;
        // Only now, so that the node is not called ready between the server's return and ours.
        self.report_up().await?;
        if let Some(revision) = listing {
            (self.listed, self.seen) = (true, revision);
            let entries = self.leases.entries();
            self.tell(News::Listed { entries, reset }).await?;
        }
        loop {
            let opened = Instant::now();
            let mut watch = self.nodes.watch(self.scope, &self.seen).await?;
            while self.step(&mut watch, due).await? {
                due = self.act().await?;
            }
            if opened.elapsed() < PAUSE {
                let why = "watch Nodes: the server ends it at once".to_owned();
                return Err(Error::Unavailable(why).into());
            }
        }
    }

    /// Lists all Nodes; returns the server's revision.
    async fn list(&mut self) -> Result<String, End> {
        let mut leases = Leases::new(self.nodes.own_name());
        let mut own = None;
        let (names, config) = (&self.terms.annotations, &self.terms.config);
        let each = |node: Node| {
            if node.name() == self.nodes.own_name() {
                own = Some(node);
            } else {
                leases.set(names, config, &node);
            }
        };
        let revision = self.nodes.list(self.scope, each).await?;
        (self.leases, self.own) = (leases, own);
        Ok(revision)
    }

    /// Waits for whatever comes next; false when the watch has ended.
    async fn step(&mut self, watch: &mut Watch, due: Option<Instant>) -> Result<bool, End> {
        let timer = async {
            match due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            change = watch.next() => match change? {
                Some(change) => self.take(change).await?,
                None => return Ok(false),
            },
            () = timer => {}
            changed = self.wanted.changed() => {
                changed.map_err(|_| End::Closed)?;
                self.annotated = None;
                if self.has_moved() {
                    return Err(End::Moved);
                }
            }
            changed = self.up.changed() => changed.map_err(|_| End::Closed)?,
            () = self.news.closed() => return Err(End::Closed),
        }
        Ok(true)
    }

    async fn take(&mut self, change: Change) -> Result<(), End> {
        let (node, is_gone) = match change {
            Change::Nothing(revision) => {
                self.seen = revision;
                return Ok(());
            }
            Change::Set(node) => (node, false),
            Change::Gone(node) => (node, true),
        };
        if let Some(revision) = node.revision() {
            revision.clone_into(&mut self.seen);
        }
        if node.name() == self.nodes.own_name() {
            self.own = (!is_gone).then_some(*node);
            return Ok(());
        }
        let events = if is_gone {
            self.leases.remove(node.name())
        } else {
            let (names, config) = (&self.terms.annotations, &self.terms.config);
            self.leases.set(names, config, &node)
        };
        match events.is_empty() {
            true => Ok(()),
            false => self.tell(News::Changed(events)).await,
        }
    }

    /// Makes our own Node as it should be and tells what we hold. Returns when to look again.
    async fn act(&mut self) -> Result<Option<Instant>, End> {
        let name = self.nodes.own_name();
        let Some(own) = &self.own else {
            let why = format!("Node {name} is not there; subnet and data path are kept");
            self.lose(why).await?;
            return Ok(None);
        };
        let attrs = self.wanted.borrow_and_update().clone();
        let up = *self.up.borrow_and_update() && self.terms.set_network_unavailable;
        let plan = own.subnet(&self.terms.config).and_then(|subnet| {
            let names = &self.terms.annotations;
            Ok((subnet, publish::annotations(names, own, &attrs)?))
        });
        let (subnet, annotations) = match plan {
            Ok(plan) => plan,
            Err(why) => {
                let why = format!("Node {name}: {why}");
                self.lose(why).await?;
                return Ok(None);
            }
        };
        let now = Instant::now();
        let may = |last: Option<Instant>| last.is_none_or(|last| now >= last + CONTEST_PAUSE);
        let annotate = !annotations.is_empty();
        let condition = up && !own.is_up;
        let (annotate_now, condition_now) = (
            annotate && may(self.annotated),
            condition && may(self.conditioned),
        );
        let later = annotate != annotate_now || condition != condition_now;
        let mut due = later.then(|| now + CONTEST_PAUSE);
        if annotate_now || condition_now {
            let none = std::collections::BTreeMap::new();
            let changed = if annotate_now { &annotations } else { &none };
            let at = condition_now.then(timestamp);
            let patch = publish::patch(changed, at.as_deref());
            match self.nodes.patch_own(&patch).await {
                Ok(node) => self.own = Some(node),
                // The session goes on: the other Nodes are still followed.
                Err(Error::Refused(why)) => {
                    if self.complaint.replace(why.clone()).as_ref() != Some(&why) {
                        tracing::warn!("{why}; trying again");
                    }
                    due = Some(now + CONTEST_PAUSE);
                    if self.held.is_none() {
                        self.lose(why).await?;
                        return Ok(due);
                    }
                }
                Err(error) => return Err(error.into()),
            }
            if annotate_now {
                self.annotated = Some(now);
            }
            if condition_now {
                self.conditioned = Some(now);
            }
        } else {
            self.complaint = None;
        }
        self.published = Some(attrs.clone());
        self.hold(Lease { subnet, attrs }).await?;
        Ok(due)
    }

    async fn hold(&mut self, lease: Lease) -> Result<(), End> {
        if self.held.as_ref() == Some(&lease) {
            return Ok(());
        }
        let name = self.nodes.own_name();
        tracing::info!("{} is ours, the podCIDR of Node {name}", lease.subnet);
        (self.held, self.lost) = (Some(lease.clone()), None);
        self.tell(News::Own(lease)).await
    }

    async fn lose(&mut self, why: String) -> Result<(), End> {
        self.held = None;
        if self.lost.replace(why.clone()).as_ref() == Some(&why) {
            return Ok(());
        }
        tracing::warn!("{why}");
        self.tell(News::Lost(why)).await
    }

    /// True when the address to publish is not the one published last.
    fn has_moved(&self) -> bool {
        let wanted = self.wanted.borrow();
        self.published.as_ref().is_some_and(|published| {
            published.public_ip != wanted.public_ip || published.public_ipv6 != wanted.public_ipv6
        })
    }

    async fn report_up(&mut self) -> Result<(), End> {
        if self.is_up != Some(true) {
            if self.is_up == Some(false) {
                tracing::info!("the API server is back");
            }
            self.is_up = Some(true);
            self.tell(News::Store(Ok(()))).await?;
        }
        Ok(())
    }

    async fn tell(&self, news: News) -> Result<(), End> {
        self.news.send(news).await.map_err(|_| End::Closed)
    }
}

/// True when the server's revision went back. Revisions are numbers, though clients need not know it.
fn is_before(revision: &str, seen: &str) -> bool {
    let (Ok(revision), Ok(seen)) = (revision.parse::<u64>(), seen.parse::<u64>()) else {
        return false;
    };
    revision < seen
}

/// Now, to the second, as Kubernetes writes times.
fn timestamp() -> String {
    let seconds = k8s_openapi::jiff::Timestamp::now().as_second();
    k8s_openapi::jiff::Timestamp::from_second(seconds)
        .map_or_else(|_| String::new(), |at| at.to_string())
}
