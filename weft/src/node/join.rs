//! What the node's parts are configured with, and who the node is to the API server.

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ::node::agent;
use ::node::cni;
use ::node::directory::Directory;
use ::node::identity::{self, Identity};
use ::node::runtime::process;
use ::node::serve::server_config;
use anyhow::{Context, bail};
use nix::mount::{MntFlags, umount2};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::{Site, dns};

/// Where the API server asks for logs, exec, attach and port-forward.
const PORT: u16 = 10_250;
/// Before a server that does not answer is asked again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(5));
/// For one CNI plugin.
const PLUGIN_LIMIT: Duration = Duration::from_secs(30);

/// Who this node is, once the API server has said so.
pub enum Credentials {
    /// It has joined, and keeps its certificates.
    Joined(identity::Config, Box<Identity>),
    /// It was given them.
    Given,
}

/// Joins, or uses what it was given; waits for a server that does not answer yet.
///
/// # Errors
/// There is nothing to join with.
pub async fn join(site: &Site) -> anyhow::Result<Credentials> {
    let arguments = &site.arguments;
    let Some(server) = &arguments.server else {
        if site.kubeconfig.exists() {
            return Ok(Credentials::Given);
        }
        bail!(
            "there is no {}: --kubeconfig names another file, and --server with --token makes one",
            site.kubeconfig.display()
        );
    };
    let mut pause = PAUSE.0;
    loop {
        let config = identity::Config {
            server: server.clone(),
            token: token(arguments.token.as_deref()),
            node: site.name.clone(),
            addresses: vec![site.ip],
            folder: arguments.data.clone(),
        };
        match identity::obtain(&config).await {
            Ok(identity) => return Ok(Credentials::Joined(config, Box::new(identity))),
            Err(error) if pause == PAUSE.1 => {
                tracing::warn!("join {server}: {error:#}; trying again")
            }
            Err(error) => tracing::debug!("join {server}: {error:#}; trying again"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

/// A token, or what stands in the file of that name.
fn token(text: Option<&str>) -> Option<String> {
    let text = text?;
    match fs::read_to_string(text) {
        Ok(found) => Some(found.trim().to_owned()),
        // It is the token itself, or a file that a server which starts has yet to write.
        Err(_) => Some(text.to_owned()),
    }
}

/// The agent's configuration.
pub fn agent(site: &Site, directory: Directory) -> agent::Config {
    let renew = Duration::from_secs(site.arguments.renew_interval.max(1).into());
    agent::Config {
        claims: site.file("claims"),
        port: PORT,
        renew_interval: renew,
        lease_duration: renew * 4,
        directory,
        labels: dns::labels(site),
        cluster_dns: dns::servers(site),
        cluster_domain: site.arguments.cluster_domain.clone(),
        ..agent::Config::new(site.name.clone(), vec![site.ip], site.file("agent"))
    }
}

/// The runtime's configuration.
pub fn runtime(site: &Site) -> process::Config {
    let arguments = &site.arguments;
    process::Config {
        images: arguments.images.clone(),
        logs: site.file("logs"),
        masked: [vec![arguments.data.clone()], arguments.mask.clone()].concat(),
        cni: Some(cni::Config {
            conf_dir: arguments.cni_conf_dir.clone(),
            bin_dirs: vec![arguments.cni_bin_dir.clone()],
            cache_dir: site.file("cni/cache"),
            timeout: PLUGIN_LIMIT,
        }),
        node_ips: vec![site.ip],
        ..bare(&arguments.data)
    }
}

/// What tells whose containers are whose, of a node in `data`.
fn bare(data: &Path) -> process::Config {
    // The folder's own name would clash between clusters.
    let text = data.display().to_string();
    let cgroup = text.trim_matches('/').replace(['/', ' '], "-");
    process::Config {
        cgroup: format!("weft/{cgroup}"),
        logs: data.join("logs"),
        ..process::Config::new(data.join("runtime"))
    }
}

/// Takes away all that runs in a node whose agent is gone, and whose network namespace goes with it.
///
/// # Errors
/// What could not be taken away.
pub fn destroy(data: &Path) -> anyhow::Result<()> {
    // First those who could still change what is taken away.
    cni::end_strays(&data.join("cni/cache"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime
        .block_on(process::Process::destroy_all(bare(data)))
        .with_context(|| format!("take away what runs in {}", data.display()))?;
    unmount(data).with_context(|| format!("unmount what is below {}", data.display()))?;
    // Its network namespace goes too, and with it all that addresses and results were noted for.
    for notes in ["cni/networks", "cni/cache", "cni/flannel"] {
        let notes = data.join(notes);
        match fs::remove_dir_all(&notes) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("remove {}", notes.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Unmounts what is mounted below a folder: volumes in memory.
fn unmount(folder: &Path) -> anyhow::Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("read the mounts")?;
    let places = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(Path::new);
    // The newest first.
    let below: Vec<_> = places.filter(|at| at.starts_with(folder)).collect();
    for at in below.into_iter().rev() {
        umount2(at, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)
            .with_context(|| format!("unmount {}", at.display()))?;
    }
    Ok(())
}

/// Where the node serves.
///
/// # Errors
/// Another agent is there.
pub async fn listen(site: &Site) -> anyhow::Result<TcpListener> {
    let address = SocketAddr::new(site.ip, PORT);
    TcpListener::bind(address)
        .await
        .with_context(|| format!("listen on {address}"))
}

/// How the node serves: by its own certificate, or one that it was given beside the kubeconfig.
///
/// # Errors
/// They are missing or do not fit.
pub fn tls(site: &Site, credentials: &Credentials) -> anyhow::Result<Arc<rustls::ServerConfig>> {
    if let Credentials::Joined(_, identity) = credentials {
        return Ok(Arc::clone(&identity.tls));
    }
    let read = |name: &str| {
        let path = site.file(name);
        fs::read_to_string(&path)
            .with_context(|| format!("read {} (--server and --token make it)", path.display()))
    };
    server_config(
        &read("serving.crt")?,
        &read("serving.key")?,
        &read("ca.crt")?,
    )
}

/// Renews certificates for as long as it is run.
pub async fn keep(credentials: &Credentials, tls: &watch::Sender<Arc<rustls::ServerConfig>>) {
    match credentials {
        Credentials::Joined(config, identity) => identity::keep(config, identity, tls).await,
        Credentials::Given => std::future::pending().await,
    }
}

/// Runs a stage of a container, if this process was started as one.
pub fn stage(arguments: &[OsString]) -> Option<std::process::ExitCode> {
    process::stage(arguments)
}
