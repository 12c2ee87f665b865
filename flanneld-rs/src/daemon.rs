//! The daemon: what happens in which order, from the first read of the configuration to the last
//! signal.
//!
//! ```text
//!   store ── registrar ──news──▶ node ──jobs──▶ datapath thread ──▶ kernel
//!              ▲                 │ ▲ ▲                │
//!              └────attributes───┘ │ └─────done───────┘
//!                       kernel events, timers
//! ```
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
use crate::health::Health;
use crate::lease::LeaseAttrs;
use crate::lease::store::etcd::EtcdStore;
use crate::metrics::Metrics;
use crate::{backend, firewall, notify};
use datapath::Datapath;
use node::Node;
use registrar::{LEASE_TTL, Registrar, Terms};

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
        result = serve(&options, &health) => return result,
        () = pages => anyhow::bail!("the health listener has ended"),
        () = end => {}
    }
    notify::notify(options.notify.as_deref(), "STOPPING=1");
    tracing::info!(
        "flanneld-rs has stopped; the lease and the rules stay as they are, devices and routes too, except TUN devices of ours"
    );
    Ok(())
}

async fn serve(options: &Options, health: &Arc<Health>) -> anyhow::Result<()> {
    let store = EtcdStore::new(options.etcd.clone(), Arc::clone(&health.metrics));
    let (text, config) = startup::network_config(&store, health).await;
    let config = Arc::new(config.with_data_path(options.data_path.as_deref())?);
    tracing::info!(
        "network {}, backend {}",
        startup::networks(&config),
        config.backend.name()
    );
    startup::check_bridge_filter(&config);
    let memory = startup::Memory::read(&options.subnet_file);

    let earlier = retire::retire(options, &text, &config);
    let backend = backend::build(&config).context("open the backend")?;
    let firewall = firewall::build(config.nftables);
    let peer_types = backend.peer_types();
    let blackhole = match options.blackhole_route {
        true => Some(Blackhole::open(config.networks()).context("open the blackhole route")?),
        false => None,
    };
    let (done_sender, done) = mpsc::unbounded_channel();
    let datapath = Datapath::start(
        backend,
        firewall,
        blackhole,
        Arc::clone(&health.metrics),
        done_sender,
    )
    .context("start the data path thread")?;

    let startup::Started {
        uplink,
        previous,
        prepared,
    } = startup::prepare(options, &store, &config, &memory, &datapath, health).await?;

    let (news_sender, news) = mpsc::channel(64);
    let (attrs_sender, attrs) = watch::channel(LeaseAttrs::default());
    let mut node = Node::new(node::Parts {
        options,
        config: Arc::clone(&config),
        config_text: text,
        earlier,
        health: Arc::clone(health),
        datapath,
        uplink,
        prepared,
        peer_types,
        attrs: attrs_sender,
    })?;
    node.publish();
    let terms = Terms {
        config,
        margin: options.renew_margin,
        ttl: LEASE_TTL,
        previous: previous.map(|lease| lease.subnet).or(memory.subnet),
        published: memory.published,
        metrics: Arc::clone(&health.metrics),
    };
    let registrar = Registrar::new(store, terms, attrs, news_sender);
    tokio::select! {
        () = registrar.run() => anyhow::bail!("the registrar has ended"),
        result = node.run(news, done) => result,
    }
}
