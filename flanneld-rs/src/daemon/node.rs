//! The running node: folds news of the store, kernel events and timers into goals for the data path.

mod follow;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use kernel::Netlink;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::datapath::{Datapath, Done, Goal, PATIENCE, Prepared};
use super::events::{Concern, Events, Scope};
use super::registrar::News;
use crate::backend::Desired;
use crate::cli::Options;
use crate::config::NetworkConfig;
use crate::firewall::Wanted;
use crate::health::{Health, Part};
use crate::lease::{Lease, LeaseAttrs, key};
use crate::notify;
use crate::peers::tracker::Outcome;
use crate::peers::{PeerChange, Rules, Tracker};
use crate::record::Record;
use crate::subnet_env::SubnetEnv;
use crate::uplink::Uplink;
use follow::{Preparing, outcome};

/// Everything is compared with the kernel at least this often.
const RECONCILE: Duration = Duration::from_secs(60);
/// How long the peers of a store that lost its data are kept.
const LINGER: Duration = Duration::from_secs(60);
/// How often the data path is asked whether it hangs.
const WATCH: Duration = Duration::from_secs(5);
/// Most lines logged for one batch.
const LINES: usize = 10;

/// What a node is made of.
pub struct Parts<'a> {
    pub options: &'a Options,
    pub config: Arc<NetworkConfig>,
    pub config_text: String,
    /// Configurations of earlier lives whose traces are still on this host.
    pub earlier: Vec<String>,
    pub health: Arc<Health>,
    pub datapath: Datapath,
    pub uplink: Uplink,
    pub prepared: Prepared,
    pub peer_types: &'static [&'static str],
    pub attrs: watch::Sender<LeaseAttrs>,
    /// Told once, when packets can flow.
    pub up: watch::Sender<bool>,
}

/// The state of the node.
pub struct Node<'a> {
    parts: Parts<'a>,
    netlink: Netlink,
    networks: Vec<ipnet::IpNet>,
    tracker: Tracker,
    own: Option<Lease>,
    /// The configuration text last seen in the store.
    last_config: Option<String>,
    listed: bool,
    /// The full look that decides readiness has been taken, and subnet.env written.
    settled: bool,
    errors: BTreeMap<Part, Vec<String>>,
    failures: u32,
    retry_at: Option<Instant>,
    /// The external interface cannot be used; the last one is kept.
    uplink_lost: bool,
    /// A changed external interface that the backend is being prepared for.
    preparing: Option<Preparing>,
    /// Why the backend could not be prepared for the external interface; tried again until it can.
    unprepared: Option<String>,
    /// The part whose job has not come back for long.
    overdue: Option<Part>,
}

impl<'a> Node<'a> {
    /// Holds no lease and knows no peers yet.
    pub fn new(parts: Parts<'a>) -> anyhow::Result<Self> {
        let rules = Rules {
            own: None,
            addresses: parts.uplink.addresses(),
            networks: parts.config.networks(),
            backend_types: parts.peer_types,
        };
        parts
            .health
            .set(Part::Lease, Err("no lease yet".to_owned()));
        Ok(Self {
            netlink: Netlink::open()?,
            networks: parts.config.networks(),
            tracker: Tracker::new(rules),
            last_config: Some(parts.config_text.clone()),
            parts,
            own: None,
            listed: false,
            settled: false,
            errors: BTreeMap::new(),
            failures: 0,
            retry_at: None,
            uplink_lost: false,
            preparing: None,
            unprepared: None,
            overdue: None,
        })
    }

    /// Tells the registrar what to publish, if that is news.
    pub fn publish(&self) {
        let Parts {
            uplink,
            prepared,
            attrs,
            ..
        } = &self.parts;
        let announcement = &prepared.announcement;
        let wanted = LeaseAttrs {
            public_ip: uplink.public_v4,
            public_ipv6: uplink.public_v6,
            backend_type: announcement.backend_type.to_owned(),
            backend_data: announcement.data.clone(),
            backend_v6_data: announcement.data_v6.clone(),
        };
        attrs.send_if_modified(|current| {
            let changed = *current != wanted;
            *current = wanted;
            changed
        });
    }

    /// Runs for ever; an error is one of the machinery itself.
    pub async fn run(
        &mut self,
        mut news: mpsc::Receiver<News>,
        mut done: mpsc::UnboundedReceiver<Done>,
    ) -> anyhow::Result<()> {
        let mut events = Events::open()?;
        // What has changed before we listened.
        self.follow_uplink();
        let mut slow = interval(RECONCILE);
        slow.set_missed_tick_behavior(MissedTickBehavior::Delay);
        slow.reset();
        let mut resync = interval(self.parts.options.firewall_resync);
        resync.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut watchdog = interval(WATCH);
        watchdog.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let scope = Scope {
                uplink: &self.parts.uplink,
                uplink_lost: self.uplink_lost,
                networks: &self.networks,
                peers: self.tracker.peers(),
            };
            let wake_at = [
                self.retry_at,
                self.tracker.next_expiry().map(Instant::from_std),
            ]
            .into_iter()
            .flatten()
            .min();
            let wake = async {
                match wake_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(news) = news.recv() => self.take_news(news),
                Some(done) = done.recv() => self.take_done(done),
                concern = events.next(scope) => self.take_events(concern?),
                prepared = outcome(&mut self.preparing) => self.take_prepared(prepared),
                () = wake => self.wake(),
                _ = slow.tick() => {
                    self.follow_uplink();
                    self.reconcile("timer");
                }
                _ = watchdog.tick() => self.watch(),
                _ = resync.tick() => if let Some(goal) = self.goal().filter(|_| self.settled) {
                    self.parts.datapath.rules(&goal);
                },
            }
        }
    }

    fn take_news(&mut self, news: News) {
        match news {
            News::Store(state) => {
                self.parts
                    .health
                    .metrics
                    .store_up
                    .store(i64::from(state.is_ok()), Relaxed);
                self.parts.health.set(Part::Store, state);
            }
            News::Config(text) => self.take_config(text.as_deref()),
            News::Own(lease) => self.take_own(lease),
            News::Lost(why) => {
                self.parts.health.set(Part::Lease, Err(why));
            }
            News::Listed { entries, reset } => {
                let outcome = self.tracker.replace(
                    &entries,
                    std::time::Instant::now(),
                    reset.then_some(LINGER),
                );
                let first = !std::mem::replace(&mut self.listed, true);
                self.take_outcome(outcome, first);
            }
            News::Changed(events) => {
                let outcome = self.tracker.apply(&events);
                self.take_outcome(outcome, false);
            }
        }
    }

    /// A changed configuration is for the next start: half the nodes would run on either.
    fn take_config(&mut self, text: Option<&str>) {
        if text == self.last_config.as_deref() {
            return;
        }
        let running = &self.parts.config;
        let data_path = self.parts.options.data_path.as_deref();
        let parsed = text.map(|text| NetworkConfig::parse(text)?.with_data_path(data_path));
        match parsed {
            None => tracing::warn!(
                "the network configuration is gone from the store; running on with the last one"
            ),
            Some(Err(error)) => {
                tracing::warn!("{error}; running on with the configuration read at start")
            }
            Some(Ok(config)) if config == **running => {
                tracing::info!("the network configuration was rewritten; it means the same")
            }
            Some(Ok(_)) => {
                tracing::warn!(
                    "the network configuration has changed; it takes effect when this daemon is restarted"
                );
            }
        }
        self.last_config = text.map(str::to_owned);
    }

    fn take_own(&mut self, lease: Lease) {
        let before = self.own.replace(lease.clone());
        self.parts.health.set(Part::Lease, Ok(()));
        let record = Record {
            config: self.parts.config_text.clone(),
            earlier: self.parts.earlier.clone(),
            key: key::render(&lease.subnet),
            value: lease.attrs.to_json(),
            interface: self.parts.uplink.name.clone(),
        };
        if let Err(error) = record.write(&self.parts.options.subnet_file) {
            tracing::warn!(
                "write {}: {error}",
                Record::path(&self.parts.options.subnet_file).display()
            );
        }
        let outcome = self.tracker.set_rules(self.rules());
        self.log(&outcome);
        match before {
            Some(before) if before.subnet == lease.subnet && before.attrs == lease.attrs => {}
            Some(before) if before.subnet != lease.subnet => {
                tracing::warn!(
                    "this node's subnet is now {}, before {}: Pods made before keep addresses that are no longer routed; restart them",
                    lease.subnet,
                    before.subnet
                );
                self.reconcile("lease");
            }
            _ => self.reconcile("lease"),
        }
    }

    fn rules(&self) -> Rules {
        Rules {
            own: self.own.as_ref().map(|own| own.subnet),
            addresses: self.parts.uplink.addresses(),
            networks: self.networks.clone(),
            backend_types: self.parts.peer_types,
        }
    }

    fn take_outcome(&mut self, outcome: Outcome, first: bool) {
        self.log(&outcome);
        if first {
            self.reconcile("start");
        } else if let Some(goal) = self.goal().filter(|_| !outcome.changes.is_empty()) {
            self.parts.datapath.update(&goal, outcome.changes);
        }
    }

    fn log(&self, outcome: &Outcome) {
        let metrics = &self.parts.health.metrics;
        metrics.leases.store(
            self.tracker.leases().try_into().unwrap_or(i64::MAX),
            Relaxed,
        );
        metrics.peers.store(
            self.tracker.peers().len().try_into().unwrap_or(i64::MAX),
            Relaxed,
        );
        metrics.ignored_leases.store(
            self.tracker.ignored().try_into().unwrap_or(i64::MAX),
            Relaxed,
        );
        for (key, why) in outcome.ignored.iter().take(LINES) {
            tracing::warn!("lease {key} is ignored: {why}");
        }
        for change in outcome.changes.iter().take(LINES) {
            let (what, lease) = match change {
                PeerChange::Added(lease) => ("added", lease),
                PeerChange::Changed { new, .. } => ("changed", new),
                PeerChange::Removed(lease) => ("removed", lease),
            };
            tracing::info!("peer {what}: {} at {}", lease.subnet, at(&lease.attrs));
        }
        let more = outcome.ignored.len().saturating_sub(LINES)
            + outcome.changes.len().saturating_sub(LINES);
        if more > 0 {
            tracing::info!(
                "… and {more} more leases in this batch; {} peers now",
                self.tracker.peers().len()
            );
        }
    }

    /// What must be true now; `None` before the first lease and listing.
    fn goal(&self) -> Option<Arc<Goal>> {
        let own = self.own.clone().filter(|_| self.listed)?;
        let options = self.parts.options;
        let rules = Wanted::new(&self.parts.config, &own.subnet, options);
        let desired = Desired {
            uplink: self.parts.uplink.clone(),
            own,
            peers: self.tracker.peers().clone(),
        };
        Some(Arc::new(Goal { desired, rules }))
    }

    fn reconcile(&mut self, trigger: &'static str) {
        if let Some(goal) = self.goal() {
            if self.follows() {
                self.retry_at = None;
            }
            self.parts.datapath.reconcile(&goal, trigger);
        }
    }

    fn take_done(&mut self, done: Done) {
        for (part, errors) in done.errors {
            // A single change that worked does not prove that the rest is well.
            if errors.is_empty() && part == Part::Backend && !done.full {
                continue;
            }
            if self.errors.get(&part) != Some(&errors) {
                for error in errors.iter().take(LINES) {
                    tracing::warn!("{error}");
                }
                if errors.len() > LINES {
                    tracing::warn!("… and {} more errors", errors.len() - LINES);
                }
            }
            self.errors.insert(part, errors);
            self.show(part);
        }
        if done.announcement != self.parts.prepared.announcement {
            tracing::info!("the backend announces new data; publishing it");
            self.parts.prepared.announcement = done.announcement;
            self.publish();
        }
        if self.is_whole() {
            (self.failures, self.retry_at) = (0, None);
        } else if self.retry_at.is_none() {
            self.retry_later();
        }
        if done.full {
            self.write_subnet_file();
            if !std::mem::replace(&mut self.settled, true) {
                self.parts.health.set(Part::Start, Ok(()));
                tracing::info!("ready: {} peers", self.tracker.peers().len());
                notify::notify(self.parts.options.notify.as_deref(), "READY=1");
            }
            if self.is_whole() {
                self.parts
                    .up
                    .send_if_modified(|up| !std::mem::replace(up, true));
            }
        }
    }

    /// True when the data path is as it should be.
    fn is_whole(&self) -> bool {
        self.follows() && self.errors.values().all(Vec::is_empty)
    }

    /// True while the backend stands on an external interface that is there.
    fn follows(&self) -> bool {
        !self.uplink_lost && self.unprepared.is_none()
    }

    /// Puts what is known of a part of the data path into the readiness.
    fn show(&self, part: Part) {
        let errors = self.errors.get(&part).map_or(&[][..], Vec::as_slice);
        let state = if self.overdue == Some(part) {
            Err(format!(
                "its job has not come back for more than {} s",
                PATIENCE.as_secs()
            ))
        } else if let (Part::Backend, Some(why)) = (part, &self.unprepared) {
            Err(why.clone())
        } else if let Some(first) = errors.first() {
            Err(format!("{} errors, the first: {first}", errors.len()))
        } else {
            Ok(())
        };
        self.parts.health.set(part, state);
    }

    /// Notices a job that hangs, and that it does no more.
    fn watch(&mut self) {
        let now = self.parts.datapath.overdue(PATIENCE);
        let before = std::mem::replace(&mut self.overdue, now);
        if now == before {
            return;
        }
        for part in [before, now].into_iter().flatten() {
            self.show(part);
        }
        match (before, now) {
            (_, Some(part)) => tracing::warn!(
                "data path: {part:?}: the job in hand has not come back for more than {} s; everything else waits for it",
                PATIENCE.as_secs()
            ),
            (_, None) => tracing::info!("data path: the job in hand has come back"),
        }
    }

    fn retry_later(&mut self) {
        let pause = Duration::from_secs(1 << self.failures.min(6)).min(RECONCILE);
        self.failures += 1;
        self.retry_at = Some(Instant::now() + pause);
    }

    fn write_subnet_file(&self) {
        let Some(own) = &self.own else { return };
        let options = self.parts.options;
        let env = SubnetEnv::new(
            &self.parts.config,
            own.subnet,
            self.parts.prepared.mtu,
            options.masquerade,
        );
        let path = options.subnet_file.display();
        match env.write(&options.subnet_file) {
            Ok(true) => tracing::info!(
                "wrote {path}: {}, MTU {}",
                own.subnet,
                self.parts.prepared.mtu
            ),
            Ok(false) => {}
            Err(error) => {
                let why = format!("write {path}: {error}");
                if self.parts.health.set(Part::SubnetFile, Err(why.clone())) {
                    tracing::warn!("{why}; CNI plugins cannot work without it");
                }
                return;
            }
        }
        self.parts.health.set(Part::SubnetFile, Ok(()));
    }

    fn take_events(&mut self, concern: Concern) {
        let was_lost = self.uplink_lost;
        if concern.uplink && self.follow_uplink() {
            return;
        }
        if concern.datapath || was_lost && !self.uplink_lost {
            self.reconcile("event");
        }
    }

    fn wake(&mut self) {
        let outcome = self.tracker.expire(std::time::Instant::now());
        self.take_outcome(outcome, false);
        if self.retry_at.is_some_and(|at| at <= Instant::now()) {
            self.retry_at = None;
            self.follow_uplink();
            self.reconcile("retry");
        }
    }
}

/// Where a peer is, for the log.
fn at(attrs: &LeaseAttrs) -> String {
    let v4 = attrs.public_ip.map(|ip| ip.to_string());
    let v6 = attrs.public_ipv6.map(|ip| ip.to_string());
    v4.into_iter().chain(v6).collect::<Vec<_>>().join(" and ")
}
