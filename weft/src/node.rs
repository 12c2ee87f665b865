//! `weft node`: the node agent, flanneld-rs, the Service proxy and the cluster DNS, in one process.

mod cni;
mod dns;
mod join;

use join::Credentials;
pub use join::{destroy, stage};

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ::node::agent;
use ::node::directory::Directory;
use ::node::runtime::Runtime;
use ::node::runtime::process::Process;
use ::node::serve;
use anyhow::{Context, bail};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::config::Kubeconfig;
use kube::{Api, Client};
use tokio::sync::watch;

use crate::parts::{self, End, Part};
use crate::server::{NETWORK_CONFIG, NETWORK_KEY, NETWORK_NAMESPACE, client};
use crate::{apiserver, limits, logging, place};

/// Before something that is not there yet is looked for again.
const PAUSE: Duration = Duration::from_millis(500);

/// What `weft node` understands.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// The node's name; the host's name in lower case if none.
    #[arg(long)]
    name: Option<String>,
    /// The address that others reach the node by; that of the default route's interface if none.
    #[arg(long, value_name = "ADDRESS")]
    node_ip: Option<IpAddr>,
    /// The folder of everything that this node keeps.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/weft/node")]
    data: PathBuf,
    /// How the API server is reached; DATA/node.kubeconfig if none, which --server and --token make.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The API server to join: https://ADDRESS:6443.
    #[arg(long, value_name = "URL", requires = "token")]
    server: Option<String>,
    /// What lets this node join: the line that `weft server` printed, or a file that holds it.
    #[arg(long, value_name = "TOKEN|FILE", requires = "server")]
    token: Option<String>,
    /// CNI configurations.
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    cni_conf_dir: PathBuf,
    /// CNI plugins; if the folder is not there it is made, with our own.
    #[arg(long, value_name = "DIR", default_value = "/opt/cni/bin")]
    cni_bin_dir: PathBuf,
    /// Root file systems and images: `image: NAME` is DIR/NAME, a folder, or DIR/NAME.tar.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/weft/images")]
    images: PathBuf,
    /// What else containers must not see of this host's files; may be given more than once.
    #[arg(long, value_name = "PATH")]
    mask: Vec<PathBuf>,
    /// How Services are made: auto, nftables, iptables, userspace.
    #[arg(long, default_value = "auto")]
    proxy_mode: String,
    /// Without flanneld-rs: another network is there.
    #[arg(long)]
    no_flanneld: bool,
    /// Without the Service proxy: weft-proxy or kube-proxy runs by itself.
    #[arg(long)]
    no_proxy: bool,
    /// Without the agent: a kubelet is there.
    #[arg(long)]
    no_agent: bool,
    /// Without the cluster DNS: Pods ask --cluster-dns, where another one answers.
    #[arg(long)]
    no_dns: bool,
    /// Where Pods ask for names, in place of the server on this node and Service kube-dns; "" is the node's own resolvers;
    /// may be given more than once.
    #[arg(long, value_name = "ADDRESS", value_parser = dns::server)]
    cluster_dns: Vec<dns::Given>,
    /// The zone of the cluster's names.
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    cluster_domain: String,
    /// Addresses of Pods, as the server has them.
    #[arg(
        long,
        value_name = "CIDR[,CIDR]",
        value_delimiter = ',',
        default_value = "10.244.0.0/16"
    )]
    cluster_cidr: Vec<IpNet>,
    /// Addresses of Services, as the server has them.
    #[arg(
        long,
        value_name = "CIDR[,CIDR]",
        value_delimiter = ',',
        default_value = "10.96.0.0/16"
    )]
    service_cidr: Vec<IpNet>,
    /// Seconds between two signs of life.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    renew_interval: u32,
    /// Leaves the terminal's session.
    #[arg(long, hide = true)]
    detached: bool,
    /// How much is logged: 1, or 2 and more.
    #[arg(short = 'v', value_name = "LEVEL", default_value_t = 1)]
    verbosity: u8,
}

/// What all parts need.
#[derive(Clone)]
struct Site {
    arguments: Arguments,
    name: String,
    ip: IpAddr,
    kubeconfig: PathBuf,
}

/// Runs until SIGTERM or SIGINT. What runs here then goes on, and is taken over by the next start.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    place::hear_signals()?;
    logging::init(arguments.verbosity, true);
    limits::keep_memory_low();
    limits::raise_descriptors();
    if arguments.detached {
        place::detach()?;
    }
    if !nix::unistd::geteuid().is_root() {
        bail!("weft node makes namespaces and sets up the network: it needs root");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(async {
        let end = apiserver::ended()?;
        let site = site(arguments)?;
        tokio::pin!(end);
        let credentials = tokio::select! {
            joined = join::join(&site) => Arc::new(joined?),
            () = &mut end => return Ok(()),
        };
        let (network, configured) = watch::channel(None);
        let mut all = Vec::new();
        if !arguments.no_flanneld {
            all.push(flanneld(site.clone(), network));
        }
        if !arguments.no_proxy {
            all.push(proxy(site.clone()));
        }
        if !arguments.no_dns {
            all.push(dns::part(site.clone()));
        }
        if !arguments.no_agent {
            if !arguments.no_flanneld {
                all.push(configure(site.clone(), configured));
            }
            all.push(pods(site.clone(), credentials));
        }
        if all.is_empty() {
            bail!(
                "--no-agent, --no-flanneld, --no-proxy and --no-dns together leave nothing to run"
            );
        }
        parts::run(all, end).await
    })
}

fn site(arguments: &Arguments) -> anyhow::Result<Site> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&arguments.data)
        .with_context(|| format!("make {}", arguments.data.display()))?;
    let name = match &arguments.name {
        Some(name) => name.clone(),
        None => {
            let host = nix::unistd::gethostname().context("ask for the host's name")?;
            host.to_string_lossy().to_lowercase()
        }
    };
    let ip = match arguments.node_ip {
        Some(ip) => ip,
        None => default_address()?,
    };
    let kubeconfig = match &arguments.kubeconfig {
        Some(path) => path.clone(),
        None => arguments.data.join("node.kubeconfig"),
    };
    Ok(Site {
        arguments: arguments.clone(),
        name,
        ip,
        kubeconfig,
    })
}

/// The address that packets to the world leave with.
fn default_address() -> anyhow::Result<IpAddr> {
    let mut netlink = kernel::Netlink::open()?;
    for world in ["1.1.1.1", "2606:4700:4700::1111"] {
        let Ok(world) = world.parse() else { continue };
        if let Ok(Some(route)) = netlink.route_to(world)
            && let Some(source) = route.src
        {
            return Ok(source);
        }
    }
    bail!("this host has no default route: name its address with --node-ip")
}

impl Site {
    async fn client(&self) -> anyhow::Result<Client> {
        let path = &self.kubeconfig;
        let config =
            Kubeconfig::read_from(path).with_context(|| format!("read {}", path.display()))?;
        client(config).await
    }

    fn file(&self, name: &str) -> PathBuf {
        self.arguments.data.join(name)
    }
}

/// flanneld-rs, with the network's configuration from the API.
fn flanneld(site: Site, network: watch::Sender<Option<PathBuf>>) -> Part {
    Part::new("flanneld", move |end| {
        let (site, network) = (site.clone(), network.clone());
        async move {
            let file = site.file("net-conf.json");
            tokio::select! {
                done = fetch_network(&site, &file) => done?,
                () = end.clone().wait() => return Ok(()),
            }
            let subnet = site.file("subnet.env");
            network.send_replace(Some(subnet.clone()));
            let arguments = [
                "--kube-subnet-mgr".to_owned(),
                format!("--kubeconfig-file={}", site.kubeconfig.display()),
                format!("--net-config-path={}", file.display()),
                format!("--subnet-file={}", subnet.display()),
                format!("--iface={}", site.ip),
                "--ip-masq".to_owned(),
            ];
            let name = site.name.clone();
            let environment = move |key: &str| (key == "NODE_NAME").then(|| name.clone());
            let parsed = flanneld_rs::cli::parse("flanneld-rs", &arguments, environment);
            match parsed.map_err(|error| anyhow::anyhow!("{error}"))? {
                flanneld_rs::cli::Command::Run(options) => {
                    flanneld_rs::daemon::run_until(options, end.wait()).await
                }
                _ => bail!("flanneld-rs does not understand {}", arguments.join(" ")),
            }
        }
    })
}

/// Waits until the network's configuration is published, and keeps it: a node that starts without its API server goes
/// on with what it had.
async fn fetch_network(site: &Site, file: &Path) -> anyhow::Result<()> {
    let configs: Api<ConfigMap> = Api::namespaced(site.client().await?, NETWORK_NAMESPACE);
    let mut said = false;
    loop {
        let found = configs.get_opt(NETWORK_CONFIG).await;
        let text = match &found {
            Ok(found) => found
                .as_ref()
                .and_then(|map| map.data.as_ref()?.get(NETWORK_KEY)),
            Err(_) if file.exists() => return Ok(()),
            Err(_) => None,
        };
        if let Some(text) = text {
            return fs::write(file, text).with_context(|| format!("write {}", file.display()));
        }
        if !said {
            let why = found
                .err()
                .map_or("it is not there".to_owned(), |error| error.to_string());
            tracing::warn!(
                "wait for ConfigMap {NETWORK_NAMESPACE}/{NETWORK_CONFIG} with key {NETWORK_KEY}: {why}"
            );
            said = true;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The Service proxy.
fn proxy(site: Site) -> Part {
    Part::new("proxy", move |end| {
        let site = site.clone();
        async move {
            let mut arguments = vec![
                "weft-proxy".to_owned(),
                format!("--kubeconfig={}", site.kubeconfig.display()),
                format!("--hostname-override={}", site.name),
                format!("--healthz-bind-address={}:10256", show(site.ip)),
                "--metrics-bind-address=127.0.0.1:10249".to_owned(),
                "--detect-local-mode=NodeCIDR".to_owned(),
            ];
            if site.arguments.proxy_mode != "auto" {
                arguments.push(format!("--proxy-mode={}", site.arguments.proxy_mode));
            }
            match proxy::config::parse(arguments.into_iter().map(Into::into), &site.name, |path| {
                fs::read(path)
            })? {
                proxy::config::Parsed::Do(checked, _) => {
                    proxy::daemon::run_until(*checked, end.wait()).await
                }
                proxy::config::Parsed::Print(text) => bail!("{text}"),
            }
        }
    })
}

fn show(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

/// Writes the CNI configuration once flanneld knows the subnet: the node is ready for Pods then, and not before.
fn configure(site: Site, network: watch::Receiver<Option<PathBuf>>) -> Part {
    Part::new("cni", move |end: End| {
        let (site, mut network) = (site.clone(), network.clone());
        async move {
            let written = async {
                let subnet = network
                    .wait_for(Option::is_some)
                    .await
                    .context("wait for flanneld")?
                    .clone();
                cni::write(&site, &subnet.unwrap_or_default()).await
            };
            tokio::select! {
                done = written => done?,
                () = end.clone().wait() => return Ok(()),
            }
            end.wait().await;
            Ok(())
        }
    })
}

/// The agent, and the server that the API server calls.
fn pods(site: Site, credentials: Arc<Credentials>) -> Part {
    Part::new("agent", move |end| {
        let (site, credentials) = (site.clone(), Arc::clone(&credentials));
        async move {
            cni::plugins(&site)?;
            let client = site.client().await?;
            let runtime: Arc<dyn Runtime> = Arc::new(Process::open(join::runtime(&site)).await?);
            let directory = Directory::default();
            let listener = join::listen(&site).await?;
            let (renewed, tls) = watch::channel(join::tls(&site, &credentials)?);
            let serving = serve::Config {
                listeners: vec![listener],
                tls,
                runtime: Arc::clone(&runtime),
                directory: directory.clone(),
            };
            let ended = end.clone();
            let serve = async {
                let done = serve::serve(serving, ended.wait()).await;
                done.context("serve logs, exec, attach and port-forward")
            };
            let run = agent::run(join::agent(&site, directory), runtime, client, end.wait());
            tokio::select! {
                done = async { tokio::try_join!(serve, run) } => done.map(drop),
                () = join::keep(&credentials, &renewed) => bail!("nobody renews the certificates"),
            }
        }
    })
}
