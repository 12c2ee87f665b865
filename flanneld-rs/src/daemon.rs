//! The daemon: what happens in which order, from the first read of the configuration to the last
//! signal.
//!
//! ```text
//!   store ── registrar ──news──▶ node ──jobs──▶ datapath thread ──▶ kernel
//!              ▲                 │ ▲ ▲                │
//!              └────attributes───┘ │ └─────done───────┘
//!                       kernel events, timers
//! ```
//! The store is etcd, or Kubernetes with a registrar of its own ([`crate::kubernetes`]).
//!
//! A signal ends it, or at the start options that cannot work on this host. Whatever else fails is
//! logged once, shown by `/readyz` and tried again.
//! At the end the lease, the rules and what the kernel carries packets by are left as they are; a TUN device
//! of ours (udp, vxlan with `"DataPath": "tun"`) goes with its routes and programs, see
//! [`Backend::stop`](backend::Backend::stop).

pub mod cleanup;
pub mod datapath;
pub mod dry_run;
pub mod events;
mod node;
pub mod registrar;
mod retire;
mod startup;

use std::sync::Arc;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::blackhole::Blackhole;
use crate::cli::Options;
use crate::config::NetworkConfig;
use crate::health::Health;
use crate::lease::store::etcd::EtcdStore;
use crate::lease::store::{Error, LeaseStore};
use crate::lease::{Lease, LeaseAttrs};
use crate::metrics::Metrics;
use crate::uplink::Uplink;
use crate::{backend, firewall, kubernetes, notify};
use datapath::{Datapath, Done};
use node::Node;
use registrar::{LEASE_TTL, News, Registrar, Terms};
use startup::Started;

/// Runs until SIGTERM or SIGINT. An error means that the options cannot work on this host.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("install signal handlers")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("install signal handlers")?;
    let end = async {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!("{name}: exiting");
    };
    run_until(options, end).await
}

/// Runs until `end` is ready, in the network namespace of the thread that calls, and takes nothing else of
/// the process: no signal handlers, no logger, no environment. An error means that the options cannot work
/// on this host. The orderly stop blocks the thread for as long as the job in hand takes, 5 s at most.
pub async fn run_until(options: Options, end: impl Future<Output = ()>) -> anyhow::Result<()> {
    startup::check_privilege()?;
    let notify = options.notify.clone();
    let metrics = Arc::new(Metrics::default());
    let health = Health::new(Arc::clone(&metrics));
    let listener = match options.health {
        Some(address) => Some(Health::listen(address).await?),
        None => None,
    };
    let pages = async {
        match listener {
            Some(listener) => Arc::clone(&health).serve(listener).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        result = serve(options, &health) => return result,
        () = pages => anyhow::bail!("the health listener has ended"),
        () = end => {}
    }
    notify::notify(notify.as_deref(), "STOPPING=1");
    tracing::info!(
        "flanneld-rs has stopped; the lease and the rules stay as they are, devices and routes too, except TUN devices of ours"
    );
    Ok(())
}

async fn serve(options: Options, health: &Arc<Health>) -> anyhow::Result<()> {
    match &options.kubernetes {
        None => serve_etcd(&options, health).await,
        Some(settings) => {
            let settings = settings.clone();
            serve_kubernetes(options, &settings, health).await
        }
    }
}

async fn serve_etcd(options: &Options, health: &Arc<Health>) -> anyhow::Result<()> {
    let store = EtcdStore::new(options.etcd.clone(), Arc::clone(&health.metrics));
    let place = store.config_place();
    let (text, config) =
        startup::network_config(&place, async || store.config().await, health).await;
    let memory = startup::Memory::read(&options.subnet_file);
    let base = Base::new(options, text, config, health)?;
    let mut listing = None;
    let own_lease = async |uplink: &Uplink| {
        let listing = match &mut listing {
            Some(listing) => listing,
            None => listing.insert(store.list().await?),
        };
        let claimant = memory.claimant(&base.config, uplink);
        Ok(claimant.own_lease(&listing.entries).cloned())
    };
    let started = base.prepare(own_lease).await?;
    let terms = Terms {
        config: Arc::clone(&base.config),
        margin: options.renew_margin,
        ttl: LEASE_TTL,
        previous: (started.previous.as_ref())
            .map(|lease| lease.subnet)
            .or(memory.subnet),
        published: memory.published,
        metrics: Arc::clone(&health.metrics),
    };
    base.run(started, |wires| {
        Registrar::new(store, terms, wires.attrs, wires.news).run()
    })
    .await
}

async fn serve_kubernetes(
    mut options: Options,
    settings: &kubernetes::Settings,
    health: &Arc<Health>,
) -> anyhow::Result<()> {
    let path = settings.net_config.display().to_string();
    let read = async || startup::kubernetes::read_config(&settings.net_config);
    let (text, config) = startup::network_config(&path, read, health).await;
    let config = config.with_data_path(options.data_path.as_deref())?;
    let nodes = startup::kubernetes::connect(settings, health).await;
    let own = startup::kubernetes::own_node(&nodes, &config, health).await;
    startup::kubernetes::choose_addresses(&mut options.iface, &settings.annotations, &own);
    let previous = startup::kubernetes::previous(&settings.annotations, &config, &own);
    let base = Base::new(&options, text, config, health)?;
    let started = base
        .prepare(async |_: &Uplink| Ok(previous.clone()))
        .await?;
    let terms = kubernetes::registrar::Terms {
        config: Arc::clone(&base.config),
        annotations: settings.annotations.clone(),
        set_network_unavailable: settings.set_network_unavailable,
    };
    base.run(started, |wires| {
        kubernetes::Registrar::new(nodes, terms, wires.attrs, wires.up, wires.news).run()
    })
    .await
}

/// What there is once the configuration is known.
struct Base<'a> {
    options: &'a Options,
    health: &'a Arc<Health>,
    text: String,
    config: Arc<NetworkConfig>,
    earlier: Vec<String>,
    peer_types: &'static [&'static str],
    datapath: Datapath,
    done: mpsc::UnboundedReceiver<Done>,
}

/// What joins whoever keeps our lease with the node.
struct Wires {
    /// What to publish.
    attrs: watch::Receiver<LeaseAttrs>,
    /// True once packets can flow.
    up: watch::Receiver<bool>,
    news: mpsc::Sender<News>,
}

impl<'a> Base<'a> {
    fn new(
        options: &'a Options,
        text: String,
        config: NetworkConfig,
        health: &'a Arc<Health>,
    ) -> anyhow::Result<Self> {
        let config = Arc::new(config.with_data_path(options.data_path.as_deref())?);
        tracing::info!(
            "network {}, backend {}",
            startup::networks(&config),
            config.backend.name()
        );
        startup::check_bridge_filter(&config);
        let earlier = retire::retire(options, &text, &config);
        let backend = backend::build(&config).context("open the backend")?;
        let firewall = firewall::build(config.nftables);
        let peer_types = backend.peer_types();
        let blackhole = match options.blackhole_route {
            true => Some(Blackhole::open(config.networks()).context("open the blackhole route")?),
            false => None,
        };
        let (done_sender, done) = mpsc::unbounded_channel();
        let metrics = Arc::clone(&health.metrics);
        let datapath = Datapath::start(backend, firewall, blackhole, metrics, done_sender)
            .context("start the data path thread")?;
        Ok(Self {
            options,
            health,
            text,
            config,
            earlier,
            peer_types,
            datapath,
            done,
        })
    }

    async fn prepare(
        &self,
        own_lease: impl AsyncFnMut(&Uplink) -> Result<Option<Lease>, Error>,
    ) -> anyhow::Result<Started> {
        let (options, config) = (self.options, &self.config);
        startup::prepare(options, config, own_lease, &self.datapath, self.health).await
    }

    /// Runs the node and, beside it, whoever keeps its lease.
    async fn run<K: Future<Output = ()>>(
        self,
        started: Started,
        keeper: impl FnOnce(Wires) -> K,
    ) -> anyhow::Result<()> {
        let (news_sender, news) = mpsc::channel(64);
        let (attrs_sender, attrs) = watch::channel(LeaseAttrs::default());
        let (up_sender, up) = watch::channel(false);
        let mut node = Node::new(node::Parts {
            options: self.options,
            config: self.config,
            config_text: self.text,
            earlier: self.earlier,
            health: Arc::clone(self.health),
            datapath: self.datapath,
            uplink: started.uplink,
            prepared: started.prepared,
            peer_types: self.peer_types,
            attrs: attrs_sender,
            up: up_sender,
        })?;
        node.publish();
        let keeper = keeper(Wires {
            attrs,
            up,
            news: news_sender,
        });
        tokio::select! {
            () = keeper => anyhow::bail!("the registrar has ended"),
            result = node.run(news, self.done) => result,
        }
    }
}
