//! The daemon: what happens in which order, from the first list to the last signal.
//!
//! ```text
//!   source ──events──▶ state ──updates──▶ driver (a thread a family) ──▶ kernel
//!                        ▲                    │
//!         addresses of the node               └──done──▶ metrics, health, flows (a thread)
//! ```
//! Until Services and slices have been listed once nothing is written: what an earlier process has
//! programmed keeps working meanwhile. At the end everything stays as it is.

mod kube_proxy;
pub mod modes;
mod neighbourhood;
pub mod snapshot;
mod udp_flows;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use source::{Folder, Kube};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::config::{Checked, DetectLocal, ModeName};
use crate::driver::{Command, Done, Driver, Pace};
use crate::health::server::{Purpose, keep};
use crate::health::{About, Health, NodePortHealth, health_pages, metrics_pages};
use crate::metrics::{Metrics, TrafficPolicy};
use crate::model::{Event, Family, Kind, NodePortAddresses};
use crate::source::{Proxied, Source};
use crate::state::State;
use crate::{config, settings};
use neighbourhood::Neighbourhood;
use udp_flows::UdpFlows;

/// How long the own Node is waited for; with NodeCIDR, which is nothing without it, longer.
const NODE_PATIENCE: Duration = Duration::from_secs(5);
const NODE_CIDR_PATIENCE: Duration = Duration::from_secs(300);
/// How often objects are counted for the metrics.
const COUNT: Duration = Duration::from_secs(1);
/// Events that wait for us, in batches.
const QUEUE: usize = 64;

/// Runs until SIGTERM or SIGINT. An error means that it cannot work on this host.
pub async fn run(checked: Checked) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("install signal handlers")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("install signal handlers")?;
    let end = async {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!("{name}: exiting");
    };
    run_until(checked, end).await
}

/// Runs until `end` is ready, in the network namespace of the thread that calls, and installs neither signal
/// handlers nor a logger. Of the process it sets what the configuration says (oomScoreAdj) and nothing else.
/// An error means that it cannot work on this host.
pub async fn run_until(checked: Checked, end: impl Future<Output = ()>) -> anyhow::Result<()> {
    let started = SystemTime::now();
    set_up_node(&checked);
    let (mode, why) = modes::choose(&checked)?;
    let families = modes::families();
    let words: Vec<_> = families.iter().map(|family| family.label()).collect();
    tracing::info!("mode {} ({why}) for {}", mode.as_str(), words.join(" and "));
    for remark in checked.remarks(mode) {
        tracing::warn!("{remark}");
    }
    let metrics = Arc::new(Metrics::new().context("set up metrics")?);
    let health = Health::new(checked.sync_period, Arc::clone(&metrics));
    let about = About {
        mode,
        configuration: checked.as_configuration(),
        flags: checked.flags.clone(),
        started,
    };
    let mut daemon = Daemon::new(checked, mode, &families, metrics, health)?;
    let result = tokio::select! {
        result = daemon.serve(about) => result,
        () = end => Ok(()),
    };
    daemon.stop();
    if result.is_ok() {
        tracing::info!(
            "weft-proxy has stopped; what has been programmed stays (weft-proxy cleanup removes it)"
        );
    }
    result
}

/// Sysctls and the like, before anything else.
pub fn set_up_node(checked: &Checked) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    settings::run(&settings::wanted(
        &checked.conntrack,
        cores,
        checked.iptables_localhost_node_ports && checked.mode == Some(ModeName::Iptables),
        checked.oom_score_adj,
    ));
}

struct Daemon {
    checked: Checked,
    mode: ModeName,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    neighbourhood: Neighbourhood,
    state: State,
    drivers: BTreeMap<Family, Driver>,
    node_ports: BTreeMap<Family, NodePortHealth>,
    udp_flows: UdpFlows,
    done: mpsc::UnboundedReceiver<Done>,
    /// Errors that have been logged and are not over, by family.
    said: BTreeMap<Family, BTreeSet<String>>,
    /// Families of which the other modes' leftovers have been removed.
    cleaned: BTreeSet<Family>,
    /// Families that have been sent to their drivers.
    programmed: BTreeSet<Family>,
    node_listed: bool,
    /// When the objects were counted.
    counted: Option<Instant>,
    health_listener: Option<(SocketAddr, JoinHandle<()>)>,
    /// A listener that must not fail (`--bind-address-hard-fail`) has failed.
    fatal: watch::Sender<Option<String>>,
}

impl Daemon {
    fn new(
        checked: Checked,
        mode: ModeName,
        families: &[Family],
        metrics: Arc<Metrics>,
        health: Arc<Health>,
    ) -> anyhow::Result<Self> {
        let neighbourhood = Neighbourhood::observe(&checked)?;
        let sites = families
            .iter()
            .map(|family| neighbourhood.site(&checked, mode, None, *family));
        let state = State::new(sites);
        let pace = Pace {
            min_sync: checked.min_sync_period.unwrap_or_default(),
            sync_period: checked.sync_period,
        };
        let (sender, done) = mpsc::unbounded_channel();
        let mut drivers = BTreeMap::new();
        for family in families {
            let programmer = modes::build(mode, &checked, *family, &metrics)?;
            let sender = sender.clone();
            let driver = Driver::start(*family, programmer, pace, move |done| {
                // Nobody listens any more when the process ends.
                let _ = sender.send(done);
            });
            drivers.insert(*family, driver.context("start a thread")?);
        }
        let node_ports = families
            .iter()
            .map(|family| (*family, NodePortHealth::new(*family, Arc::clone(&health))));
        Ok(Self {
            node_ports: node_ports.collect(),
            udp_flows: UdpFlows::start(Arc::clone(&metrics)).context("start a thread")?,
            checked,
            mode,
            metrics,
            health,
            neighbourhood,
            state,
            drivers,
            done,
            said: BTreeMap::new(),
            cleaned: BTreeSet::new(),
            programmed: BTreeSet::new(),
            node_listed: false,
            counted: None,
            health_listener: None,
            fatal: watch::Sender::new(None),
        })
    }

    async fn serve(&mut self, about: About) -> anyhow::Result<()> {
        let (sender, mut events) = mpsc::channel(QUEUE);
        let source = source_of(&self.checked).await?;
        tokio::spawn(source.run(sender));
        let hard_fail = self.checked.bind_address_hard_fail;
        let mut metrics_listener = std::pin::pin!(self.listen_for_metrics(about, hard_fail));
        let patience = match self.checked.detect_local {
            DetectLocal::NodeCidr => NODE_CIDR_PATIENCE,
            _ => NODE_PATIENCE,
        };
        let node_deadline = Instant::now() + patience;
        let mut fatal = self.fatal.subscribe();
        loop {
            tokio::select! {
                batch = events.recv() => {
                    let Some(batch) = batch else {
                        anyhow::bail!("the source of objects has ended");
                    };
                    self.take(batch);
                    while let Ok(batch) = events.try_recv() {
                        self.take(batch);
                    }
                    self.push().await;
                }
                Some(done) = self.done.recv() => self.note(done),
                changed = self.neighbourhood.changed() => {
                    if changed? {
                        self.set_sites();
                        self.push().await;
                    }
                }
                () = sleep_until(node_deadline), if !self.node_listed => {
                    tracing::warn!(
                        "the own Node {:?} is not known; going on without it",
                        self.checked.node
                    );
                    self.node_listed = true;
                    self.set_sites();
                    self.push().await;
                }
                result = &mut metrics_listener => return result,
                failed = fatal.wait_for(Option::is_some) => {
                    let why = failed.ok().and_then(|why| why.clone());
                    anyhow::bail!("{}", why.unwrap_or_default());
                }
            }
        }
    }

    fn take(&mut self, batch: Vec<Event>) {
        let mut node_news = false;
        for event in batch {
            match &event {
                Event::Node(_) => node_news = true,
                Event::Listed(Kind::Node) => {
                    self.node_listed = true;
                    node_news = true;
                }
                _ => {}
            }
            self.state.apply(event);
        }
        if node_news {
            let leaving = self.state.node().is_some_and(|node| node.leaving);
            self.health.set_node_eligible(!leaving);
            self.set_sites();
        }
    }

    fn set_sites(&mut self) {
        let families: Vec<Family> = self.drivers.keys().copied().collect();
        for family in families {
            let node = self.state.node();
            let site = self
                .neighbourhood
                .site(&self.checked, self.mode, node, family);
            self.state.set_site(site);
        }
        self.listen_for_health();
    }

    fn is_ready(&self) -> bool {
        let node_known = match self.checked.detect_local {
            DetectLocal::NodeCidr => {
                let node = self.state.node();
                self.node_listed && node.is_some_and(|node| !node.pod_cidrs.is_empty())
            }
            _ => self.node_listed,
        };
        self.state.ready() && node_known
    }

    /// Sends what has changed to the drivers.
    async fn push(&mut self) {
        if !self.is_ready() {
            return;
        }
        for (family, driver) in &self.drivers {
            let Some(update) = self.state.take(*family) else {
                continue;
            };
            let mut triggers = self.state.take_triggers(*family);
            if self.programmed.insert(*family) {
                // What was triggered before we were there tells nothing of us.
                triggers.clear();
            }
            self.health.queued(*family);
            driver.send(Command::Update(update, triggers));
        }
        self.say_clashes();
        let families: Vec<Family> = self.drivers.keys().copied().collect();
        let (mut services, mut endpoints) = (0, 0);
        for family in families {
            let counts = self.state.counts(family);
            services += counts.services_total;
            endpoints += counts.endpoints_total;
            let no_local = self.state.no_local(family);
            let metrics = &self.metrics;
            metrics.no_local_endpoints(family, TrafficPolicy::Internal, no_local.internal);
            metrics.no_local_endpoints(family, TrafficPolicy::External, no_local.external);
            let addresses = match self.state.wanted(family) {
                Some(wanted) => wanted.site.node_port_addresses.clone(),
                None => NodePortAddresses::Some(BTreeSet::new()),
            };
            let health = self.state.health(family).into_iter();
            let health = health.map(|(name, port)| (name, (port.port, port.local_endpoints)));
            if let Some(node_ports) = self.node_ports.get_mut(&family) {
                node_ports.update(&addresses, &health.collect()).await;
            }
        }
        self.metrics.changes(services, endpoints);
        self.count();
    }

    /// Counts the objects, not more often than once a second: there may be many.
    fn count(&mut self) {
        if self.counted.is_some_and(|at| at.elapsed() < COUNT) {
            return;
        }
        self.counted = Some(Instant::now());
        for family in self.drivers.keys() {
            if let Some(wanted) = self.state.wanted(*family) {
                let services: BTreeSet<_> =
                    wanted.balancers.keys().map(|name| &name.service).collect();
                let endpoints = wanted.balancers.values().map(|each| each.cluster.len());
                let (services, ports) = (services.len(), wanted.balancers.len());
                self.metrics
                    .sizes(*family, services, ports, endpoints.sum());
            }
        }
    }

    fn say_clashes(&mut self) {
        let news = self.state.take_clash_news();
        for clash in news.begun {
            tracing::warn!("{clash}");
        }
        for clash in news.ended {
            tracing::info!("over: {clash}");
        }
        for family in self.drivers.keys() {
            let count = self.state.clashes().filter(|clash| clash.family == *family);
            self.metrics.clashes(*family, count.count());
        }
    }

    /// Notes a sync that is over.
    fn note(&mut self, done: Done) {
        let Done {
            family,
            began,
            took,
            report,
            repaired,
            triggers,
            udp,
        } = done;
        let now = SystemTime::now();
        let ok = report.errors.is_empty();
        self.metrics.synced(family, report.full, took, now, ok);
        if repaired {
            self.metrics.repaired(family);
        }
        let said = self.said.entry(family).or_default();
        for error in &report.errors {
            if said.insert(error.clone()) {
                tracing::error!("{}: {error}", family.label());
            }
        }
        if !ok {
            match self.mode {
                ModeName::Nftables => self.metrics.nftables_failed(family, false),
                ModeName::Iptables => self.metrics.iptables_restore_failed(family, !report.full),
                ModeName::Userspace => {}
            }
            return;
        }
        if !said.is_empty() {
            tracing::info!("{}: all is programmed again", family.label());
            said.clear();
        }
        self.health.updated(family, began);
        for millis in triggers {
            if let Ok(millis) = u64::try_from(millis) {
                let at = SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
                self.metrics.programmed(family, at, now);
            }
        }
        let changes = report.changes;
        match report.full {
            true => tracing::info!(
                "{}: everything compared, {changes} changes in {took:.1?}",
                family.label()
            ),
            false => tracing::debug!("{}: {changes} changes in {took:.1?}", family.label()),
        }
        if report.full {
            crate::sys::trim();
        }
        self.udp_flows
            .look(family, udp, self.neighbourhood.addresses());
        if self.cleaned.insert(family) {
            let mode = self.mode;
            // Starts programs and waits for them; the events must not wait with us.
            let iptables = modes::iptables_options(&self.checked);
            tokio::task::spawn_blocking(move || modes::remove_others(mode, family, &iptables));
        }
    }

    /// Listens for `/healthz` where the node's address says, and moves when that changes.
    fn listen_for_health(&mut self) {
        let address = self.neighbourhood.primary(&self.checked, self.state.node());
        let Some(address) = self.checked.healthz.resolve(address) else {
            return;
        };
        if let Some((at, task)) = &self.health_listener {
            if *at == address {
                return;
            }
            task.abort();
        }
        let purpose = Purpose {
            metric: "healthz",
            text: "health checks (--healthz-bind-address)".to_owned(),
            address,
            only_v6: false,
        };
        let pages = health_pages(Arc::clone(&self.health));
        let metrics = Arc::clone(&self.metrics);
        let hard_fail = self.checked.bind_address_hard_fail;
        let fatal = self.fatal.clone();
        let task = tokio::spawn(async move {
            match keep(purpose, pages, metrics, hard_fail).await {
                Ok(never) => match never {},
                Err(error) => {
                    fatal.send_replace(Some(format!("{error:#}")));
                }
            }
        });
        self.health_listener = Some((address, task));
    }

    fn listen_for_metrics(
        &self,
        about: About,
        hard_fail: bool,
    ) -> impl Future<Output = anyhow::Result<()>> + use<> {
        let address = self.checked.metrics.resolve(None);
        let pages = metrics_pages(Arc::clone(&self.health), about);
        let metrics = Arc::clone(&self.metrics);
        async move {
            let Some(address) = address else {
                return std::future::pending().await;
            };
            let purpose = Purpose {
                metric: "metrics",
                text: "metrics (--metrics-bind-address)".to_owned(),
                address,
                only_v6: false,
            };
            match keep(purpose, pages, metrics, hard_fail).await {
                Ok(never) => match never {},
                Err(error) => Err(error),
            }
        }
    }

    fn stop(self) {
        if let Some((_, listener)) = self.health_listener {
            listener.abort();
        }
        let drain = self.checked.graceful_timeout;
        for driver in self.drivers.into_values() {
            driver.stop(drain);
        }
    }
}

/// The source that the configuration names.
pub(crate) async fn source_of(checked: &Checked) -> anyhow::Result<Source> {
    let consumer = Proxied {
        node: Arc::clone(&checked.node),
    };
    Ok(match &checked.source {
        config::Source::Folder(path) => Source::Folder(Folder {
            path: path.clone(),
            consumer,
        }),
        config::Source::Kube { kubeconfig, master } => {
            let kube = Kube::new(kubeconfig.as_deref(), master.as_deref(), consumer).await?;
            tracing::info!("objects come from {}", kube.server());
            Source::Kube(kube)
        }
    })
}
