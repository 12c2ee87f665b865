//! A real API server on loopback, in this process.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result};
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use reconciler::api::{Config, Server};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Starts it with what is in `folder`, to run until `end`; port 0 is a free one. It answers when this returns.
pub async fn serve(
    folder: &Path,
    address: SocketAddr,
    end: impl Future<Output = ()> + Send + 'static,
) -> Result<(JoinHandle<()>, Client)> {
    let config = Config {
        data: folder.to_owned(),
        store: "embedded".to_owned(),
        credentials: reconciler::store::Credentials::default(),
        listen: vec![address],
        service_networks: vec!["10.96.0.0/16".parse()?],
        node_ports: (30000, 32767),
        empties_namespaces: false,
    };
    let server = Server::open(config, Vec::new()).await?;
    let kubeconfig = Kubeconfig::read_from(server.kubeconfig())?;
    let (ready, is_ready) = oneshot::channel();
    let ended = tokio::spawn(async move {
        let ran = server.run(end, || _ = ready.send(())).await;
        ran.expect("the API server ran until its end");
    });
    is_ready.await.context("the API server ended")?;
    let options = KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?;
    Ok((ended, Client::try_from(config)?))
}
