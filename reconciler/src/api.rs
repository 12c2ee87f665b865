//! The Kubernetes API: what comes over the wire, and what it does to the store.
//!
//! A request's way: [`server`] (connection) → [`handler`] (who asks, may they) → [`rest`] (the verb) → [`body`],
//! [`patch`], [`conform`] → [`defaults`], [`validate`], [`services`], [`fields`] → the store; and back through
//! [`tables`] or as it is. Watches come from [`changes`]; streams of containers go to [`nodes`].

pub mod accept;
pub mod auth;
pub mod body;
pub mod certificates;
pub mod changes;
pub mod conform;
pub mod defaults;
pub mod discovery;
pub mod document;
pub mod fields;
pub mod handler;
pub mod health;
pub mod kinds;
pub mod metrics;
pub mod nodes;
pub mod object;
pub mod openapi;
pub mod patch;
pub mod pki;
pub mod quantity;
pub mod request;
pub mod rest;
pub mod reviews;
pub mod schema;
pub mod select;
pub mod server;
pub mod services;
pub mod status;
pub mod tables;
pub mod upkeep;
pub mod validate;
pub mod view;

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use ipnet::IpNet;
use rustls::RootCertStore;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, broadcast};
use tokio_rustls::TlsAcceptor;

use crate::store::{self, Store};

/// Requests that are worked on at a time; more wait.
const TURNS: usize = 256;
/// Bodies that are read or held at a time: this, by the largest body, bounds their memory.
const BODIES: usize = 128;

/// What an API server is started with.
#[derive(Clone, Debug)]
pub struct Config {
    /// The folder of its keys, and of the embedded store.
    pub data: PathBuf,
    /// `embedded`, `etcd://HOST:PORT`, `etcds://HOST:PORT`.
    pub store: String,
    /// For `etcds`.
    pub credentials: store::Credentials,
    /// Where it listens besides what it is handed; port 0 is a free one.
    pub listen: Vec<SocketAddr>,
    /// Addresses of Services: one network, or one of each family; the first is the primary one.
    pub service_networks: Vec<IpNet>,
    /// First and last.
    pub node_ports: (u16, u16),
    /// Whether the server empties namespaces that are being deleted: when no controller does.
    pub empties_namespaces: bool,
}

/// All that answers need.
pub struct Api {
    /// Where objects are.
    pub store: Arc<dyn Store>,
    /// What happens to them.
    pub changes: Arc<changes::Changes>,
    /// Gives out addresses and node ports.
    pub services: services::Services,
    /// Knows tokens.
    pub authenticator: auth::Authenticator,
    /// Counters.
    pub metrics: metrics::Metrics,
    /// Whose turn it is.
    pub turns: Semaphore,
    /// Places for bodies.
    pub bodies: Semaphore,
    /// The authority's certificate, PEM.
    pub authority: String,
    /// How nodes are spoken to.
    pub node_tls: Arc<rustls::ClientConfig>,
    /// Signs certificates of nodes.
    pub pki: pki::Pki,
}

/// A server that listens.
pub struct Server {
    api: Arc<Api>,
    listeners: Vec<TcpListener>,
    acceptor: TlsAcceptor,
    addresses: Vec<SocketAddr>,
    kubeconfig: PathBuf,
    empties_namespaces: bool,
}

impl Config {
    fn check(&self) -> anyhow::Result<()> {
        match self.service_networks.as_slice() {
            [_] => {}
            [one, other] if one.addr().is_ipv4() != other.addr().is_ipv4() => {}
            [_, _] => bail!(
                "the two networks of --service-cidr are of one family; name one of IPv4 and one of IPv6"
            ),
            others => bail!(
                "--service-cidr names {} networks; name one, or one of each family",
                others.len()
            ),
        }
        for network in &self.service_networks {
            if network.max_prefix_len() - network.prefix_len() < 3 {
                bail!("--service-cidr {network} has no room: it needs 8 addresses or more");
            }
        }
        let (first, last) = self.node_ports;
        if first == 0 || first > last {
            bail!(
                "--service-node-port-range {first}-{last} is empty; name FIRST-LAST, as in 30000-32767"
            );
        }
        Ok(())
    }
}

impl Server {
    /// Opens the store and the keys, and listens. `bound` already do, perhaps in another network namespace; the
    /// administrator's kubeconfig names the first of all.
    ///
    /// # Errors
    /// What is wrong with the configuration, the folder, the store or the addresses.
    pub async fn open(config: Config, bound: Vec<std::net::TcpListener>) -> anyhow::Result<Self> {
        config.check()?;
        if config.listen.is_empty() && bound.is_empty() {
            bail!("there is no address to listen on");
        }
        let empties_namespaces = config.empties_namespaces;
        std::fs::create_dir_all(&config.data)
            .with_context(|| format!("make {}", config.data.display()))?;
        let store = store::open(&config.store, &config.data, config.credentials.clone())?;
        let first = config
            .service_networks
            .iter()
            .map(|network| services::first_address(*network));
        let mut names: Vec<String> = first.map(|ip| ip.to_string()).collect();
        let mut listeners = Vec::new();
        let mut addresses = Vec::new();
        for listener in bound {
            listener
                .set_nonblocking(true)
                .context("take a listener over")?;
            let listener = TcpListener::from_std(listener).context("take a listener over")?;
            let address = listener.local_addr().context("take a listener over")?;
            names.push(address.ip().to_string());
            addresses.push(address);
            listeners.push(listener);
        }
        for address in &config.listen {
            let listener = TcpListener::bind(address).await.with_context(|| {
                format!(
                    "listen on {address} (is another server there? --listen names another place)"
                )
            })?;
            addresses.push(
                listener
                    .local_addr()
                    .with_context(|| format!("listen on {address}"))?,
            );
            names.push(address.ip().to_string());
            listeners.push(listener);
        }
        let pki = pki::Pki::open(&config.data, &names)?;
        let acceptor = TlsAcceptor::from(Arc::new(pki.server_config()?));
        let kubeconfig = pki.write_kubeconfig(&url(&addresses))?;
        let revision = store.revision().await?;
        let api = Arc::new(Api {
            changes: changes::Changes::new(revision),
            services: services::Services::new(
                Arc::clone(&store),
                services::Ranges {
                    networks: config.service_networks.clone(),
                    node_ports: config.node_ports,
                },
            ),
            authenticator: auth::Authenticator::new(&config.data, pki.token_key())?,
            metrics: metrics::Metrics::new()?,
            turns: Semaphore::new(TURNS),
            bodies: Semaphore::new(BODIES),
            authority: pki.authority().to_owned(),
            node_tls: Arc::new(node_tls(&pki)?),
            pki,
            store,
        });
        Ok(Self {
            api,
            listeners,
            acceptor,
            addresses,
            kubeconfig,
            empties_namespaces,
        })
    }

    /// Where it listens.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &PathBuf {
        &self.kubeconfig
    }

    /// What answers are made from.
    pub fn api(&self) -> &Arc<Api> {
        &self.api
    }

    /// Serves until `end` comes; then ends watches, lets answers finish, and closes the store. `ready` is called when
    /// requests are served and the first objects are there.
    ///
    /// # Errors
    /// The first objects could not be made.
    pub async fn run(
        self,
        end: impl Future<Output = ()>,
        ready: impl FnOnce(),
    ) -> anyhow::Result<()> {
        let Self {
            api,
            listeners,
            acceptor,
            addresses,
            empties_namespaces,
            ..
        } = self;
        let following = tokio::spawn(Arc::clone(&api.changes).follow(Arc::clone(&api.store)));
        upkeep::begin(&api, &addresses).await.map_err(|status| {
            anyhow::anyhow!(
                "make the objects that a cluster begins with: {}",
                status.message
            )
        })?;
        let upkeep = tokio::spawn(upkeep::run(Arc::clone(&api), empties_namespaces));
        let (stop, _) = broadcast::channel(1);
        let serving = tokio::spawn(server::serve(
            Arc::clone(&api),
            listeners,
            acceptor,
            stop.clone(),
        ));
        ready();
        end.await;
        upkeep.abort();
        // The receivers are the listeners' loops.
        let _ = stop.send(());
        serving.await.context("serve")?;
        api.store.close().await;
        following.abort();
        Ok(())
    }
}

/// The URL that the administrator's kubeconfig names.
fn url(addresses: &[SocketAddr]) -> String {
    let Some(address) = addresses.first() else {
        return String::new();
    };
    let mut address = *address;
    if address.ip().is_unspecified() {
        let ip: IpAddr = if address.is_ipv4() {
            [127, 0, 0, 1].into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        };
        address.set_ip(ip);
    }
    format!("https://{address}")
}

fn node_tls(pki: &pki::Pki) -> anyhow::Result<rustls::ClientConfig> {
    let mut roots = RootCertStore::empty();
    let authority = pki::Pair {
        certificate: pki.authority().to_owned(),
        key: pki.kubelet_client().key.clone(),
    };
    let (chain, _) = authority.der()?;
    for certificate in chain {
        roots.add(certificate).context("trust the authority")?;
    }
    let (chain, key) = pki.kubelet_client().der()?;
    rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .context("choose TLS versions")?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .context("use the certificate for nodes")
}
