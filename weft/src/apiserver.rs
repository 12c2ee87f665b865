//! `weft apiserver`

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use ipnet::IpNet;
use reconciler::api::{Config, Server};
use reconciler::store::Credentials;
use tokio::signal::unix::{SignalKind, signal};

use crate::{limits, logging};

/// What `weft apiserver` understands.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The folder of keys, of the administrator's kubeconfig, and of the embedded store.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/weft")]
    data: PathBuf,
    /// Where objects are kept: embedded, etcd://HOST:PORT[,HOST:PORT…], or etcds://… with TLS.
    #[arg(long, default_value = "embedded")]
    store: String,
    /// Certificate authority of etcd (PEM), for etcds.
    #[arg(long, value_name = "FILE")]
    etcd_cafile: Option<PathBuf>,
    /// Client certificate for etcd (PEM).
    #[arg(long, value_name = "FILE", requires = "etcd_keyfile")]
    etcd_certfile: Option<PathBuf>,
    /// The certificate's key (PEM).
    #[arg(long, value_name = "FILE", requires = "etcd_certfile")]
    etcd_keyfile: Option<PathBuf>,
    /// Where to listen; may be given more than once. Port 0 is a free one.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:6443")]
    listen: Vec<SocketAddr>,
    /// Addresses of Services: a network, or one of each family with a comma between; the first is the primary one.
    #[arg(
        long,
        value_name = "CIDR[,CIDR]",
        value_delimiter = ',',
        default_value = "10.96.0.0/16"
    )]
    service_cidr: Vec<IpNet>,
    /// Node ports of Services.
    #[arg(long, value_name = "FIRST-LAST", value_parser = range, default_value = "30000-32767")]
    service_node_port_range: (u16, u16),
    /// How much is logged: 1, or 2 and more for every request.
    #[arg(short = 'v', value_name = "LEVEL", default_value_t = 1)]
    verbosity: u8,
}

fn range(text: &str) -> Result<(u16, u16), String> {
    let wrong = || format!("{text:?} is not FIRST-LAST, as in 30000-32767");
    let (first, last) = text.split_once('-').ok_or_else(wrong)?;
    let number = |text: &str| text.trim().parse().map_err(|_| wrong());
    Ok((number(first)?, number(last)?))
}

/// Serves until SIGTERM or SIGINT.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    logging::init(arguments.verbosity);
    limits::keep_memory_low();
    limits::raise_descriptors();
    // Lists are read on blocking threads: each more is one more heap that keeps what it once needed.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .max_blocking_threads(4)
        .enable_all()
        // Bodies are nested up to 127 deep, and reading YAML takes more than 16 KiB of stack for each level.
        .thread_stack_size(8 << 20)
        .build()
        .context("start the runtime")?;
    runtime.block_on(serve(arguments))
}

async fn serve(arguments: &Arguments) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let server = Server::open(Config {
        data: arguments.data.clone(),
        store: arguments.store.clone(),
        credentials: Credentials {
            ca_file: arguments.etcd_cafile.clone(),
            cert_file: arguments.etcd_certfile.clone(),
            key_file: arguments.etcd_keyfile.clone(),
            user: None,
        },
        listen: arguments.listen.clone(),
        service_networks: arguments.service_cidr.clone(),
        node_ports: arguments.service_node_port_range,
        // Alone it has no controllers beside it.
        empties_namespaces: true,
    })
    .await?;
    let addresses: Vec<_> = server
        .addresses()
        .iter()
        .map(SocketAddr::to_string)
        .collect();
    let kubeconfig = server.kubeconfig().display().to_string();
    let end = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("ending");
    };
    let ready = || {
        tracing::info!(
            "ready at {}; kubectl --kubeconfig {kubeconfig} …",
            addresses.join(", ")
        );
    };
    server.run(end, ready).await
}
