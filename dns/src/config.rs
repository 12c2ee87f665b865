//! The configuration: flags and a file as written, then one checked value.
//!
//! Every setting is a flag and, by the same name, a key of the YAML file that `--config` names; a flag wins. The file is
//! ours, so a key that is not known is refused.

mod values;

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use hickory_proto::rr::Name;
use ipnet::IpNet;
use serde::Deserialize;

use crate::zone::PodMode;
pub use values::{Origin, Stub};
use values::{duration, pod_mode};

/// The port of DNS.
pub const PORT: u16 = 53;

/// What `weft-dns` understands.
#[derive(Parser, Clone, Debug, Default)]
#[command(name = "weft-dns", version, about = "The cluster DNS of a node")]
pub struct Flags {
    /// A file with settings (YAML); its keys are the names of these flags
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Take away the node-local addresses and the nftables table, and end
    #[arg(long)]
    pub cleanup: bool,
    #[command(flatten)]
    settings: Settings,
}

/// Settings as written.
#[derive(clap::Args, Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Settings {
    /// Where Services, EndpointSlices and Pods come from: kube, or dir:PATH for a folder of manifests [default: kube]
    #[arg(long, value_name = "SOURCE")]
    source: Option<Origin>,
    /// How the API server is reached; without it the account of the Pod that this runs in
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The API server's address, in place of the kubeconfig's
    #[arg(long, value_name = "URL")]
    master: Option<String>,
    /// The own node's name [default: the host name in lower case]
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// Where to answer; may be given more than once [default: 127.0.0.1:53, or nothing beside --local-address]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Vec<SocketAddr>,
    /// Give `lo` this address, answer there on port 53, and keep its packets out of the connection table; may be
    /// given more than once; usually 169.254.20.10
    #[arg(long, value_name = "ADDRESS")]
    local_address: Vec<IpAddr>,
    /// /metrics, /health and /ready; "" is none [default: 127.0.0.1:9153]
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics_bind_address: Option<String>,
    /// The zone of the cluster [default: cluster.local]
    #[arg(long, value_name = "DOMAIN")]
    cluster_domain: Option<String>,
    /// How long answers about the cluster may be kept, in seconds [default: 5]
    #[arg(long, value_name = "SECONDS")]
    ttl: Option<u32>,
    /// Names made of Pods' addresses, 1-2-3-4.NAMESPACE.pod.DOMAIN: disabled, insecure (any address), verified (there is
    /// such a Pod) [default: insecure]
    #[arg(long, value_name = "MODE", value_parser = pod_mode)]
    #[serde(deserialize_with = "values::written_pod_mode")]
    pods: Option<PodMode>,
    /// Networks of Pods and Services: who asks for the name of an unknown address in them is told that there is none;
    /// may be given more than once
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    own_network: Vec<IpNet>,
    /// A server to forward to, in place of the host's; may be given more than once
    #[arg(long, value_name = "ADDRESS[:PORT]", value_parser = values::server)]
    #[serde(deserialize_with = "values::written_servers")]
    upstream: Vec<SocketAddr>,
    /// Servers of a domain: DOMAIN=ADDRESS[:PORT][,…]; may be given more than once
    #[arg(long, value_name = "DOMAIN=SERVERS")]
    stub: Vec<Stub>,
    /// The host's resolvers and search list [default: /etc/resolv.conf]
    #[arg(long, value_name = "FILE")]
    resolv_conf: Option<PathBuf>,
    /// Answers kept of those that were forwarded, each of the positive and the negative; 0 is none [default: 9984]
    #[arg(long, value_name = "COUNT")]
    cache_entries: Option<usize>,
    /// How long past its time an answer serves while no upstream does; 0s is not at all [default: 1h]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    #[serde(deserialize_with = "values::written_duration")]
    serve_stale: Option<Duration>,
    /// Answer a name that a Pod's search list made with what the last name of the list would yield
    #[arg(long)]
    absorb_search: bool,
    /// Log every query; SIGUSR1 switches it
    #[arg(long)]
    log_queries: bool,
    /// Queries a second that a client may have forwarded; 0 is any number [default: 1000]
    #[arg(long, value_name = "COUNT")]
    client_forwards: Option<u32>,
    /// Queries a second that a client may ask in all; 0 is any number [default: 0]
    #[arg(long, value_name = "COUNT")]
    client_queries: Option<u32>,
    /// Where to keep what is known of the cluster, for a start without the API server; none if not given
    #[arg(long, value_name = "FILE")]
    snapshot: Option<PathBuf>,
    /// How old a snapshot may be to be used [default: 1h]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    #[serde(deserialize_with = "values::written_duration")]
    snapshot_age: Option<Duration>,
    /// Threads that answer [default: 1]
    #[arg(long, value_name = "COUNT")]
    threads: Option<usize>,
    /// How much is logged: 1, or 2 and more [default: 1]
    #[arg(short = 'v', value_name = "LEVEL")]
    #[serde(rename = "v")]
    verbosity: Option<u8>,
}

/// A configuration that needs no more checking.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where objects come from.
    pub source: Origin,
    /// How the API server is reached.
    pub kubeconfig: Option<PathBuf>,
    /// Its address in place of the kubeconfig's.
    pub master: Option<String>,
    /// The own node.
    pub node_name: String,
    /// Where to answer, node-local addresses included.
    pub listen: Vec<SocketAddr>,
    /// Addresses to be given to `lo`.
    pub local_addresses: Vec<IpAddr>,
    /// Where metrics, health and readiness are served.
    pub pages: Option<SocketAddr>,
    /// The zone.
    pub domain: Name,
    /// Seconds.
    pub ttl: u32,
    /// Names made of Pods' addresses.
    pub pods: PodMode,
    /// Networks of Pods and Services.
    pub own_networks: Vec<IpNet>,
    /// In place of the host's resolvers; may be empty.
    pub upstreams: Vec<SocketAddr>,
    /// Servers of domains.
    pub stubs: Vec<(Name, Vec<SocketAddr>)>,
    /// The host's resolvers.
    pub resolv_conf: PathBuf,
    /// Answers kept, of either sort.
    pub cache_entries: usize,
    /// How long past its time an answer serves.
    pub serve_stale: Duration,
    /// Search-path absorption.
    pub absorb_search: bool,
    /// Whether queries are logged from the start.
    pub log_queries: bool,
    /// Forwarded queries a second and client; 0 is any number.
    pub client_forwards: u32,
    /// Queries a second and client; 0 is any number.
    pub client_queries: u32,
    /// The snapshot's file.
    pub snapshot: Option<PathBuf>,
    /// How old it may be.
    pub snapshot_age: Duration,
    /// At least one.
    pub threads: usize,
    /// Of the log.
    pub verbosity: u8,
    /// The file that a reload reads again.
    pub file: Option<PathBuf>,
    flags: Settings,
}

/// What a command line asks for.
#[derive(Debug)]
pub enum Parsed {
    /// Run with this.
    Run(Box<Config>),
    /// Take the node-local addresses away.
    Cleanup(Vec<IpAddr>),
    /// Print this and end: help, or the version.
    Print(String),
}

/// Reads a command line (its first word is the program) and the file that it names. `host` is this host's name.
///
/// # Errors
/// What is wrong, and where.
pub fn parse(arguments: impl IntoIterator<Item = OsString>, host: &str) -> anyhow::Result<Parsed> {
    let flags = match Flags::try_parse_from(arguments) {
        Ok(flags) => flags,
        Err(error) if error.use_stderr() => {
            let text = error.to_string();
            anyhow::bail!("{}", text.trim_start_matches("error: ").trim_end());
        }
        Err(help) => return Ok(Parsed::Print(help.to_string())),
    };
    let config = Config::read(flags.settings, flags.config, host)?;
    Ok(if flags.cleanup {
        Parsed::Cleanup(config.local_addresses)
    } else {
        Parsed::Run(Box::new(config))
    })
}

impl Config {
    /// The flags over the file.
    fn read(flags: Settings, file: Option<PathBuf>, host: &str) -> anyhow::Result<Self> {
        let written = match &file {
            Some(path) => flags.clone().over(settings(path)?),
            None => flags.clone(),
        };
        written.check(flags, file, host)
    }

    /// The same command line with the file as it is now.
    ///
    /// # Errors
    /// The file is no good: what is in force stays.
    pub fn again(&self) -> anyhow::Result<Self> {
        Self::read(self.flags.clone(), self.file.clone(), &self.node_name)
    }

    /// Settings that only a restart changes and that differ, by name.
    pub fn needs_restart(&self, new: &Self) -> Vec<&'static str> {
        let differ = [
            ("source", self.source != new.source),
            ("kubeconfig", self.kubeconfig != new.kubeconfig),
            ("master", self.master != new.master),
            ("node-name", self.node_name != new.node_name),
            ("listen or local-address", self.listen != new.listen),
            ("metrics-bind-address", self.pages != new.pages),
            ("cluster-domain", self.domain != new.domain),
            ("pods", self.pods != new.pods),
            ("own-network", self.own_networks != new.own_networks),
            ("ttl", self.ttl != new.ttl),
            ("absorb-search", self.absorb_search != new.absorb_search),
            (
                "client-forwards",
                self.client_forwards != new.client_forwards,
            ),
            ("client-queries", self.client_queries != new.client_queries),
            ("snapshot", self.snapshot != new.snapshot),
            ("threads", self.threads != new.threads),
            ("v", self.verbosity != new.verbosity),
        ];
        differ
            .iter()
            .filter(|(_, differ)| *differ)
            .map(|(name, _)| *name)
            .collect()
    }
}

fn settings(path: &Path) -> anyhow::Result<Settings> {
    let shown = path.display();
    let text =
        std::fs::read_to_string(path).map_err(|error| anyhow::anyhow!("read {shown}: {error}"))?;
    if text.trim().is_empty() {
        return Ok(Settings::default());
    }
    serde_saphyr::from_str(&text).map_err(|error| anyhow::anyhow!("read {shown}: {error}"))
}

fn either<T>(first: Vec<T>, second: Vec<T>) -> Vec<T> {
    if first.is_empty() { second } else { first }
}

impl Settings {
    /// These, and what they lack from others.
    fn over(self, other: Self) -> Self {
        Self {
            source: self.source.or(other.source),
            kubeconfig: self.kubeconfig.or(other.kubeconfig),
            master: self.master.or(other.master),
            node_name: self.node_name.or(other.node_name),
            listen: either(self.listen, other.listen),
            local_address: either(self.local_address, other.local_address),
            metrics_bind_address: self.metrics_bind_address.or(other.metrics_bind_address),
            cluster_domain: self.cluster_domain.or(other.cluster_domain),
            ttl: self.ttl.or(other.ttl),
            pods: self.pods.or(other.pods),
            own_network: either(self.own_network, other.own_network),
            upstream: either(self.upstream, other.upstream),
            stub: either(self.stub, other.stub),
            resolv_conf: self.resolv_conf.or(other.resolv_conf),
            cache_entries: self.cache_entries.or(other.cache_entries),
            serve_stale: self.serve_stale.or(other.serve_stale),
            absorb_search: self.absorb_search || other.absorb_search,
            log_queries: self.log_queries || other.log_queries,
            client_forwards: self.client_forwards.or(other.client_forwards),
            client_queries: self.client_queries.or(other.client_queries),
            snapshot: self.snapshot.or(other.snapshot),
            snapshot_age: self.snapshot_age.or(other.snapshot_age),
            threads: self.threads.or(other.threads),
            verbosity: self.verbosity.or(other.verbosity),
        }
    }

    fn check(self, flags: Self, file: Option<PathBuf>, host: &str) -> anyhow::Result<Config> {
        let mut listen = self.listen;
        listen.extend(
            self.local_address
                .iter()
                .map(|ip| SocketAddr::new(*ip, PORT)),
        );
        if listen.is_empty() {
            listen.push(SocketAddr::from(([127, 0, 0, 1], PORT)));
        }
        listen.sort();
        listen.dedup();
        if let Some(wide) = self
            .local_address
            .iter()
            .find(|ip| ip.is_unspecified() || ip.is_multicast())
        {
            anyhow::bail!(
                "--local-address {wide}: not an address of one host; usual is {}",
                crate::local::ADDRESS
            );
        }
        let pages = match self.metrics_bind_address.as_deref() {
            Some("") => None,
            Some(text) => Some(text.parse().map_err(|error| {
                anyhow::anyhow!(
                    "--metrics-bind-address {text:?}: {error}; ADDRESS:PORT is wanted, or \"\""
                )
            })?),
            None => Some(SocketAddr::from(([127, 0, 0, 1], 9153))),
        };
        let domain = self.cluster_domain.as_deref().unwrap_or("cluster.local");
        let threads = self.threads.unwrap_or(1);
        anyhow::ensure!(
            threads > 0,
            "--threads 0: at least one thread has to answer"
        );
        let hour = Duration::from_secs(3600);
        Ok(Config {
            source: self.source.unwrap_or(Origin::Kube),
            kubeconfig: self.kubeconfig,
            master: self.master,
            node_name: self.node_name.unwrap_or_else(|| host.to_lowercase()),
            listen,
            local_addresses: self.local_address,
            pages,
            domain: values::domain(domain)
                .map_err(|why| anyhow::anyhow!("--cluster-domain: {why}"))?,
            ttl: self.ttl.unwrap_or(5),
            pods: self.pods.unwrap_or(PodMode::Insecure),
            own_networks: self.own_network,
            upstreams: self.upstream,
            stubs: self
                .stub
                .into_iter()
                .map(|stub| (stub.domain, stub.servers))
                .collect(),
            resolv_conf: self
                .resolv_conf
                .unwrap_or_else(|| "/etc/resolv.conf".into()),
            cache_entries: self.cache_entries.unwrap_or(9984),
            serve_stale: self.serve_stale.unwrap_or(hour),
            absorb_search: self.absorb_search,
            log_queries: self.log_queries,
            client_forwards: self.client_forwards.unwrap_or(1000),
            client_queries: self.client_queries.unwrap_or(0),
            snapshot: self.snapshot,
            snapshot_age: self.snapshot_age.unwrap_or(hour),
            threads,
            verbosity: self.verbosity.unwrap_or(1),
            file,
            flags,
        })
    }
}

#[cfg(test)]
mod tests;
