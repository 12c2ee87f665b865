//! `weft apiserver`

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use ipnet::IpNet;
use reconciler::api::{Config, Server};
use reconciler::store::Credentials;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::{limits, logging, place};

/// What `weft apiserver` understands.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    pub(crate) flags: Flags,
    /// How much is logged: 1, or 2 and more for every request.
    #[arg(short = 'v', value_name = "LEVEL", default_value_t = 1)]
    verbosity: u8,
}

/// What an API server is told, alone and as a part of `weft server`.
#[derive(Debug, clap::Args)]
pub struct Flags {
    /// The folder of keys, of the administrator's kubeconfig, and of the embedded store.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/weft")]
    pub(crate) data: PathBuf,
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
    pub(crate) listen: Vec<SocketAddr>,
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
}

impl Flags {
    /// The networks that Services get their addresses from.
    pub fn service_networks(&self) -> &[IpNet] {
        &self.service_cidr
    }

    /// What the server is started with.
    pub fn config(&self) -> Config {
        Config {
            data: self.data.clone(),
            store: self.store.clone(),
            credentials: Credentials {
                ca_file: self.etcd_cafile.clone(),
                cert_file: self.etcd_certfile.clone(),
                key_file: self.etcd_keyfile.clone(),
                user: None,
            },
            listen: self.listen.clone(),
            service_networks: self.service_cidr.clone(),
            node_ports: self.service_node_port_range,
            // Alone it has no controllers beside it.
            empties_namespaces: true,
        }
    }
}

fn range(text: &str) -> Result<(u16, u16), String> {
    let wrong = || format!("{text:?} is not FIRST-LAST, as in 30000-32767");
    let (first, last) = text.split_once('-').ok_or_else(wrong)?;
    let number = |text: &str| text.trim().parse().map_err(|_| wrong());
    Ok((number(first)?, number(last)?))
}

/// Serves until SIGTERM or SIGINT.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    place::hear_signals()?;
    logging::init(arguments.verbosity, false);
    limits::keep_memory_low();
    limits::raise_descriptors();
    runtime()?.block_on(async {
        let end = ended()?;
        let server = Server::open(arguments.flags.config(), Vec::new()).await?;
        let told = readiness(&server);
        server.run(end, || tracing::info!("{told}")).await
    })
}

/// What requests are answered on.
pub fn runtime() -> anyhow::Result<Runtime> {
    // Lists are read on blocking threads: each more is one more heap that keeps what it once needed.
    tokio::runtime::Builder::new_multi_thread()
        .max_blocking_threads(4)
        .enable_all()
        // Bodies are nested up to 127 deep, and reading YAML takes more than 16 KiB of stack for each level.
        .thread_stack_size(8 << 20)
        .build()
        .context("start the runtime")
}

/// Comes with SIGTERM or SIGINT.
pub fn ended() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("ending");
    })
}

/// How a user goes on.
pub fn readiness(server: &Server) -> String {
    let addresses: Vec<_> = server
        .addresses()
        .iter()
        .map(SocketAddr::to_string)
        .collect();
    format!(
        "ready at {}; kubectl --kubeconfig {} …",
        addresses.join(", "),
        server.kubeconfig().display()
    )
}
