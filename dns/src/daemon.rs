//! The daemon: what happens in which order, from the first list to the last signal.
//!
//! ```text
//!   source ──events──▶ zone ◀──reads── handler ◀──packets── sockets
//!                        │                └──foreign names──▶ forward ──▶ upstreams
//!                        └──now and then──▶ snapshot on disk
//! ```
//! A snapshot that is recent answers until the API server does.

mod settings;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, TryLockError};
use std::time::{Duration, SystemTime};

use ::source::{Folder, Kube};
use anyhow::Context;
use prometheus::Registry;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc};

use crate::config::{Config, Origin};
use crate::forward::Forward;
use crate::handler::{self, Handler};
use crate::listen::{self, Sockets};
use crate::metrics::Metrics;
use crate::model::{Event, Kind};
use crate::resolv_conf::ResolvConf;
use crate::source::{Named, Pods, Source};
use crate::zone::{self, PodMode, Zone};
use crate::{pages, snapshot};
use settings::{answering, forwarding, host, stamp, upstreams};

/// Batches of events that wait for us.
const QUEUE: usize = 64;
/// Between two looks at the host's resolv.conf.
const LOOK: Duration = Duration::from_secs(5);
/// Between two snapshots, if something has changed.
const SNAPSHOT: Duration = Duration::from_secs(30);
/// How long the sockets are left alone until the cluster is known; CoreDNS waits as long.
const PATIENCE: Duration = Duration::from_secs(5);
/// Before a lock that is taken is tried again: this thread has packets to answer meanwhile.
const AGAIN: Duration = Duration::from_millis(1);

/// What a running server can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Read the settings file and the host's resolv.conf again.
    Reload,
    /// Log every query from now on, or no longer.
    SwitchLog,
}

/// Commands by signals: SIGHUP reloads, SIGUSR1 switches the log of queries. Inside a tokio runtime.
///
/// # Errors
/// The handlers cannot be installed.
pub fn signals() -> anyhow::Result<mpsc::Receiver<Command>> {
    let mut reload = signal(SignalKind::hangup()).context("install signal handlers")?;
    let mut log = signal(SignalKind::user_defined1()).context("install signal handlers")?;
    let (sender, commands) = mpsc::channel(4);
    tokio::spawn(async move {
        loop {
            let command = tokio::select! {
                Some(()) = reload.recv() => Command::Reload,
                Some(()) = log.recv() => Command::SwitchLog,
                else => return,
            };
            if sender.send(command).await.is_err() {
                return;
            }
        }
    });
    Ok(commands)
}

/// Runs until `end`, in the network namespace of the thread that calls, and installs neither signal handlers nor a logger.
///
/// # Errors
/// It cannot work with this configuration or on this host.
pub async fn run_until(
    config: Config,
    sockets: Sockets,
    commands: mpsc::Receiver<Command>,
    end: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let registry = Registry::new();
    let metrics = Arc::new(Metrics::new(&registry, &config.domain).context("set up metrics")?);
    let mut daemon = Daemon::new(config, &sockets, metrics, &registry)?;
    daemon.use_snapshot();
    let (events, news) = mpsc::channel(QUEUE);
    let source = daemon.source().await?;
    let addresses = sockets.addresses();
    let handler = Arc::clone(&daemon.handler);
    let forward = Arc::clone(&daemon.forward);
    let zone = Arc::clone(&daemon.zone);
    let pages = daemon.config.pages;
    tracing::info!(
        "answer for {} on {}; {}",
        daemon.config.domain,
        addresses
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", "),
        daemon.upstreams_told(),
    );
    let known = Arc::clone(&daemon.known);
    let serve = async {
        tokio::pin!(end);
        // What is asked meanwhile waits in the sockets, and is answered by what is known then.
        tokio::select! {
            () = known.notified() => {}
            () = tokio::time::sleep(PATIENCE) => tracing::warn!(
                "the cluster is not known yet: its names are SERVFAIL until it is"
            ),
            () = &mut end => return Ok(()),
        }
        listen::serve(sockets, handler, end).await
    };
    tokio::select! {
        done = serve => {
            done?;
            daemon.save().await;
            tracing::info!("weft-dns has stopped");
            Ok(())
        }
        () = source.run(events) => anyhow::bail!("the source of objects ended by itself"),
        () = daemon.follow(news, commands) => anyhow::bail!("nobody tells of objects any more"),
        () = forward.run() => anyhow::bail!("the forwarder ended by itself"),
        () = async {
            match pages {
                Some(address) => pages::serve(address, registry, Arc::new(move || read(&zone).is_complete())).await,
                None => std::future::pending().await,
            }
        } => anyhow::bail!("nobody serves the metrics any more"),
    }
}

fn read(zone: &RwLock<Zone>) -> RwLockReadGuard<'_, Zone> {
    // A panic while an object was taken in left at worst that object half known.
    zone.read().unwrap_or_else(PoisonError::into_inner)
}

struct Daemon {
    config: Config,
    zone: Arc<RwLock<Zone>>,
    forward: Arc<Forward>,
    handler: Arc<Handler>,
    own: Vec<SocketAddr>,
    /// The host's resolv.conf as it was last read.
    host: ResolvConf,
    log: bool,
    /// Told once the cluster is known, by whatever source.
    known: Arc<Notify>,
    /// All was known, by the source itself.
    listed: bool,
    /// A list of slices is under way.
    listing: bool,
    /// Something has changed since the last snapshot.
    changed: bool,
}

impl Daemon {
    fn new(
        config: Config,
        sockets: &Sockets,
        metrics: Arc<Metrics>,
        registry: &Registry,
    ) -> anyhow::Result<Self> {
        let own = sockets.addresses();
        let zone = Arc::new(RwLock::new(Zone::new(zone::Settings {
            ttl: config.ttl,
            pods: config.pods,
            own_reverse: config.own_networks.clone(),
            servers: own
                .iter()
                .map(|address| address.ip())
                .filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
                .collect(),
            ..zone::Settings::new(config.domain.clone())
        })));
        let host = host(&config);
        let forward = Forward::new(forwarding(&config, &host, &own), registry)
            .context("set up metrics of the forwarder")?;
        let settings = answering(&config, &host)?;
        let handler = Handler::new(Arc::clone(&zone), Arc::clone(&forward), metrics, settings);
        Ok(Self {
            log: config.log_queries,
            config,
            zone,
            forward,
            handler,
            own,
            host,
            known: Arc::new(Notify::new()),
            listed: false,
            listing: true,
            changed: false,
        })
    }

    async fn source(&self) -> anyhow::Result<Source> {
        let config = &self.config;
        let pods = if config.pods == PodMode::Verified || config.absorb_search {
            Pods::All
        } else {
            // For the log of queries: those that can ask here.
            Pods::OfNode(config.node_name.as_str().into())
        };
        let consumer = Named { pods };
        Ok(match &config.source {
            Origin::Folder(path) => Source::Folder(Folder {
                path: path.clone(),
                consumer,
            }),
            Origin::Kube => {
                let kubeconfig = config.kubeconfig.as_deref();
                Source::Kube(Kube::new(kubeconfig, config.master.as_deref(), consumer).await?)
            }
        })
    }

    fn upstreams_told(&self) -> String {
        let servers = upstreams(&self.config, &self.host);
        if servers.is_empty() {
            return format!(
                "no upstream: other names are not found; --upstream or {} would name one",
                self.config.resolv_conf.display()
            );
        }
        let texts: Vec<_> = servers.iter().map(ToString::to_string).collect();
        format!("other names from {}", texts.join(", "))
    }

    fn use_snapshot(&mut self) {
        let Some(path) = &self.config.snapshot else {
            return;
        };
        match snapshot::read(path, SystemTime::now(), self.config.snapshot_age) {
            Ok(Some(found)) => {
                self.zone
                    .write()
                    .unwrap_or_else(PoisonError::into_inner)
                    .apply(found.events);
                self.known.notify_one();
                let seconds = found.age.as_secs();
                tracing::info!(
                    "answer by {}, {seconds} s old, until the source tells more",
                    path.display()
                );
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(
                "{:#}; waiting for the source instead",
                anyhow::Error::new(error)
            ),
        }
    }

    /// Takes in news and commands until nobody has any.
    async fn follow(
        &mut self,
        mut news: mpsc::Receiver<Vec<Event>>,
        mut commands: mpsc::Receiver<Command>,
    ) {
        let mut save = tokio::time::interval(SNAPSHOT);
        let mut look = tokio::time::interval(LOOK);
        let mut seen = stamp(&self.config.resolv_conf);
        loop {
            tokio::select! {
                batch = news.recv() => match batch {
                    Some(batch) => {
                        let whole = batch.iter().any(|event| matches!(event, Event::Listed(Kind::Services | Kind::Slices)));
                        self.take_in(batch).await;
                        // The first time all is known is worth a snapshot at once.
                        if whole && !self.listed && read(&self.zone).is_complete() {
                            self.listed = true;
                            self.known.notify_one();
                            let [services, slices, pods] = read(&self.zone).counts();
                            tracing::info!("the cluster is known: {services} Services, {slices} EndpointSlices, {pods} Pods");
                            self.save().await;
                        }
                    }
                    None => return,
                },
                Some(command) = commands.recv() => match command {
                    Command::Reload => self.reload(),
                    Command::SwitchLog => {
                        self.log = !self.log;
                        self.handler.log_queries(self.log);
                        tracing::info!("queries are {} logged", if self.log { "now" } else { "no longer" });
                    }
                },
                _ = look.tick() => {
                    let now = stamp(&self.config.resolv_conf);
                    if now != seen {
                        seen = now;
                        tracing::info!("{} has changed", self.config.resolv_conf.display());
                        self.reload();
                    }
                }
                _ = save.tick() => self.save().await,
            }
        }
    }

    async fn take_in(&mut self, batch: Vec<Event>) {
        // What a list tells has not changed just now; after its end it does.
        let told: Vec<_> = match self.listing {
            true => Vec::new(),
            false => batch.iter().filter_map(changed).collect(),
        };
        for event in &batch {
            match event {
                Event::Restarted(Kind::Slices) => self.listing = true,
                Event::Listed(Kind::Slices) => self.listing = false,
                _ => {}
            }
        }
        let mut zone = loop {
            // Only the snapshot holds the lock for more than a moment.
            match self.zone.try_write() {
                Ok(zone) => break zone,
                Err(TryLockError::Poisoned(zone)) => break zone.into_inner(),
                Err(TryLockError::WouldBlock) => {}
            }
            tokio::time::sleep(AGAIN).await;
        };
        zone.apply(batch);
        drop(zone);
        for (name, service, at) in told {
            let headless = read(&self.zone).is_headless(&name, &service);
            let kind = match headless {
                Some(true) => "headless_with_selector",
                Some(false) => "cluster_ip",
                None => continue,
            };
            // Clocks of two machines differ.
            self.handler
                .metrics()
                .programmed(kind, at.elapsed().unwrap_or_default());
        }
        self.changed = true;
    }

    /// Reads the file and the host's resolv.conf again. What is no good leaves all as it is.
    fn reload(&mut self) {
        match self.config.again() {
            Err(error) => tracing::error!("reload: {error}; going on as before"),
            Ok(new) => {
                for setting in self.config.needs_restart(&new) {
                    tracing::warn!(
                        "reload: {setting} has changed, which only a restart makes true"
                    );
                }
                let host = host(&new);
                self.forward.reload(forwarding(&new, &host, &self.own));
                self.config.upstreams = new.upstreams;
                self.config.stubs = new.stubs;
                self.config.resolv_conf = new.resolv_conf;
                self.config.cache_entries = new.cache_entries;
                self.config.serve_stale = new.serve_stale;
                // What a signal has switched stays, unless the settings say otherwise than before.
                if self.config.log_queries != new.log_queries {
                    self.config.log_queries = new.log_queries;
                    self.log = new.log_queries;
                }
                self.host = host;
                match answering(&self.config, &self.host) {
                    Ok(answering) => self.handler.reload(handler::Settings {
                        query_log: self.log,
                        ..answering
                    }),
                    Err(error) => tracing::error!("reload: {error:#}; going on as before"),
                }
                tracing::info!("reloaded; {}", self.upstreams_told());
            }
        }
    }

    /// Writes a snapshot if it would differ.
    async fn save(&mut self) {
        let Some(path) = self.config.snapshot.clone() else {
            return;
        };
        if !self.changed || !read(&self.zone).is_complete() {
            return;
        }
        self.changed = false;
        let zone = Arc::clone(&self.zone);
        if let Err(error) = saved(path, zone).await {
            tracing::warn!("{error:#}");
            self.changed = true;
        }
    }
}

async fn saved(path: PathBuf, zone: Arc<RwLock<Zone>>) -> anyhow::Result<()> {
    let write = move || {
        // The lock is not held while the disk works.
        let bytes = snapshot::render(&read(&zone), SystemTime::now())?;
        snapshot::store(&path, &bytes)?;
        Ok(())
    };
    tokio::task::spawn_blocking(write)
        .await
        .context("write a snapshot")?
}

/// Which Service's endpoints have changed, and when, if the controller of slices says so.
fn changed(event: &Event) -> Option<(Arc<str>, Arc<str>, SystemTime)> {
    match event {
        Event::Slice(slice) => Some((
            Arc::clone(&slice.name.namespace),
            Arc::clone(&slice.service),
            slice.changed?,
        )),
        _ => None,
    }
}
