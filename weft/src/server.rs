//! `weft server`: the API server, the controllers and the scheduler, in one process.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use reconciler::api::Server;
use serde_json::json;

use crate::parts::{self, Part};
use crate::{apiserver, limits, logging, place};

/// Where flannel's own manifest keeps the network's configuration, too.
pub const NETWORK_NAMESPACE: &str = "kube-flannel";
/// The ConfigMap there.
pub const NETWORK_CONFIG: &str = "kube-flannel-cfg";
/// The key in it.
pub const NETWORK_KEY: &str = "net-conf.json";

/// The file, among the server's data, of what lets nodes join.
pub const TOKEN: &str = "node-token";

/// What `weft server` understands.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    api: apiserver::Flags,
    /// Addresses of Pods: a network, or one of each family with a comma between. Each node gets a part of it.
    #[arg(
        long,
        value_name = "CIDR[,CIDR]",
        value_delimiter = ',',
        default_value = "10.244.0.0/16"
    )]
    cluster_cidr: Vec<IpNet>,
    /// How Pods on different nodes reach each other, for the network's configuration when the cluster is new: vxlan,
    /// udp, host-gw.
    #[arg(long, default_value = "vxlan", value_parser = ["vxlan", "udp", "host-gw"])]
    backend: String,
    /// Seconds without a word after which a node counts as lost.
    #[arg(long, value_name = "SECONDS", default_value_t = 40)]
    node_monitor_grace_period: u32,
    /// Enters this network namespace, but listens on addresses of loopback outside of it.
    #[arg(long, value_name = "PATH")]
    netns: Option<PathBuf>,
    /// Without Service kube-dns: another DNS brings its own.
    #[arg(long)]
    no_dns: bool,
    /// Leaves the terminal's session.
    #[arg(long, hide = true)]
    detached: bool,
    /// How much is logged: 1, or 2 and more for every request.
    #[arg(short = 'v', value_name = "LEVEL", default_value_t = 1)]
    verbosity: u8,
}

/// Where Service kube-dns is: the tenth address of each Service network, as everybody has it.
pub fn cluster_dns(networks: &[IpNet]) -> impl Iterator<Item = IpAddr> {
    networks.iter().filter_map(|network| network.hosts().nth(9))
}

/// Serves until SIGTERM or SIGINT.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    place::hear_signals()?;
    logging::init(arguments.verbosity, true);
    limits::keep_memory_low();
    limits::raise_descriptors();
    if arguments.detached {
        place::detach()?;
    }
    let mut config = arguments.api.config();
    config.empties_namespaces = false;
    let mut outside = Vec::new();
    if let Some(netns) = &arguments.netns {
        let (loopback, inside): (Vec<SocketAddr>, _) = config
            .listen
            .iter()
            .partition(|address| address.ip().is_loopback());
        for address in loopback {
            let listener =
                TcpListener::bind(address).with_context(|| format!("listen on {address}"))?;
            outside.push(listener);
        }
        config.listen = inside;
        place::enter(netns)?;
    }
    apiserver::runtime()?.block_on(async {
        let end = apiserver::ended()?;
        let data = config.data.clone();
        let server = Server::open(config, outside).await?;
        let token = data.join(TOKEN);
        reconciler::api::pki::private::write(&token, &format!("{}\n", server.join_token()?))?;
        let told = format!(
            "{}; nodes join by weft node --server … --token {}",
            apiserver::readiness(&server),
            token.display()
        );
        let kubeconfig = kubeconfig(
            server.kubeconfig(),
            server.addresses(),
            arguments.netns.is_some(),
        )?;
        let (ready, served) = tokio::sync::oneshot::channel();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = tokio::spawn(server.run(
            async {
                // Also when the other end is gone.
                let _ = stopped.await;
            },
            move || {
                tracing::info!("{told}");
                // Nobody waits any more: it is ending.
                let _ = ready.send(());
            },
        ));
        if served.await.is_ok() {
            let parts = vec![controllers(arguments, kubeconfig)];
            parts::run(parts, end).await?;
        }
        drop(stop);
        serving.await.context("serve")?
    })
}

/// How the controllers reach the server: as the administrator, but from where this process is.
fn kubeconfig(
    path: &PathBuf,
    addresses: &[SocketAddr],
    entered: bool,
) -> anyhow::Result<Kubeconfig> {
    let mut config =
        Kubeconfig::read_from(path).with_context(|| format!("read {}", path.display()))?;
    if entered {
        let inside = addresses
            .iter()
            .find(|address| !address.ip().is_loopback())
            .context("--netns wants an address inside: --listen 192.168.66.1:6443")?;
        for cluster in config
            .clusters
            .iter_mut()
            .filter_map(|cluster| cluster.cluster.as_mut())
        {
            cluster.server = Some(format!("https://{inside}"));
        }
    }
    Ok(config)
}

/// A client as a kubeconfig says.
///
/// # Errors
/// It is no good.
pub async fn client(config: Kubeconfig) -> anyhow::Result<Client> {
    let mut config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default())
        .await
        .context("read the kubeconfig")?;
    // A watch lives as long as the server sends; a server that is silent is noticed by its bookmarks.
    config.read_timeout = Some(Duration::from_secs(295));
    Client::try_from(config).context("make a client of the API server")
}

fn controllers(arguments: &Arguments, kubeconfig: Kubeconfig) -> Part {
    let networks = match arguments.no_dns {
        true => &[],
        false => arguments.api.service_networks(),
    };
    let settings = controllers::Settings {
        node_monitor_grace: Duration::from_secs(arguments.node_monitor_grace_period.into()),
        pod_network: arguments.cluster_cidr.clone(),
        cluster_dns: cluster_dns(networks).collect(),
        ..controllers::Settings::default()
    };
    let network = network(arguments);
    Part::new("controllers", move |end| {
        let (settings, kubeconfig, network) =
            (settings.clone(), kubeconfig.clone(), network.clone());
        async move {
            let client = client(kubeconfig).await?;
            publish(&client, &network).await?;
            controllers::run(client, settings, end.wait()).await
        }
    })
}

/// The network's configuration, as flanneld reads it.
fn network(arguments: &Arguments) -> String {
    let of = |v4: bool| {
        arguments
            .cluster_cidr
            .iter()
            .find(|net| net.addr().is_ipv4() == v4)
    };
    let mut config = json!({"Backend": {"Type": arguments.backend}});
    if let Some(network) = of(true) {
        config["Network"] = json!(network);
    } else {
        config["EnableIPv4"] = json!(false);
    }
    if let Some(network) = of(false) {
        config["EnableIPv6"] = json!(true);
        config["IPv6Network"] = json!(network);
    }
    config.to_string()
}

/// Puts the network's configuration where nodes look for it, unless it is there: it can be edited.
async fn publish(client: &Client, network: &str) -> anyhow::Result<()> {
    let made = |what: Result<(), kube::Error>| match what {
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => Ok(()),
        other => other,
    };
    let namespace: Namespace =
        serde_json::from_value(json!({"metadata": {"name": NETWORK_NAMESPACE}}))
            .context("a namespace")?;
    let config: ConfigMap = serde_json::from_value(json!({
        "metadata": {"name": NETWORK_CONFIG, "labels": {"app": "flannel"}},
        "data": {NETWORK_KEY: network},
    }))
    .context("a ConfigMap")?;
    let parameters = PostParams::default();
    let namespaces = Api::<Namespace>::all(client.clone());
    made(namespaces.create(&parameters, &namespace).await.map(drop))
        .context("make namespace kube-flannel")?;
    let configs = Api::<ConfigMap>::namespaced(client.clone(), NETWORK_NAMESPACE);
    made(configs.create(&parameters, &config).await.map(drop))
        .context("publish the network's configuration")
}
