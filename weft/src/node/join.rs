//! What the node's parts are configured with, and who the node is to the API server.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use ::node::agent;
use ::node::cni;
use ::node::directory::Directory;
use ::node::runtime::process;
use ::node::serve::server_config;
use nix::mount::{MntFlags, umount2};
use tokio::net::TcpListener;

use super::Site;

/// Where the API server asks for logs, exec, attach and port-forward.
const PORT: u16 = 10_250;
/// For one CNI plugin.
const PLUGIN_LIMIT: Duration = Duration::from_secs(30);

/// Waits for nothing when the node has its kubeconfig.
pub async fn join(site: &Site) -> anyhow::Result<()> {
    if site.kubeconfig.exists() {
        return Ok(());
    }
    bail!(
        "there is no {}: --kubeconfig names another file, and --server with --token makes it",
        site.kubeconfig.display()
    )
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

/// Takes away all that runs in a node whose agent is gone.
///
/// # Errors
/// What could not be taken away.
pub fn destroy(data: &Path) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime
        .block_on(process::Process::destroy_all(bare(data)))
        .with_context(|| format!("take away what runs in {}", data.display()))?;
    unmount(data).with_context(|| format!("unmount what is below {}", data.display()))
}

/// Unmounts what is mounted below a folder: volumes in memory.
fn unmount(folder: &Path) -> anyhow::Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("read the mounts")?;
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(Path::new);
    // The newest first.
    let below: Vec<_> = places.filter(|at| at.starts_with(folder)).collect();
    for at in below.into_iter().rev() {
        umount2(at, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)
            .with_context(|| format!("unmount {}", at.display()))?;
    }
    Ok(())
}

/// How the node serves.
pub async fn serving(site: &Site) -> anyhow::Result<(TcpListener, Arc<rustls::ServerConfig>)> {
    let read = |name: &str| {
        let path = site.file(name);
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    };
    let config = server_config(&read("serving.crt")?, &read("serving.key")?, &read("ca.crt")?)?;
    let address = SocketAddr::new(site.ip, PORT);
    let listener = TcpListener::bind(address).await.with_context(|| format!("listen on {address}"))?;
    Ok((listener, config))
}

/// Runs a stage of a container, if this process was started as one.
pub fn stage(arguments: &[OsString]) -> Option<std::process::ExitCode> {
    process::stage(arguments)
}
