//! Where the API server is and as whom we come: the command line's choice as kube's settings.

use std::time::Duration;

use anyhow::Context;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use super::Settings;

/// The server sends a bookmark every minute: a connection that is silent for longer is dead.
const SILENCE: Duration = Duration::from_secs(150);
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// A client and the server's URL. Files are read; the server is not asked yet.
pub(super) async fn client(settings: &Settings) -> anyhow::Result<(Client, String)> {
    let mut config = match &settings.config {
        Some(config) => config.clone(),
        None => config(settings).await?,
    };
    config.read_timeout = Some(SILENCE);
    config.reset_reader_on_write = true;
    config.connect_timeout = Some(CONNECT);
    let server = config.cluster_url.to_string();
    let client = Client::try_from(config);
    let client = client.with_context(|| format!("prepare a client of {server}"))?;
    Ok((client, server))
}

async fn config(settings: &Settings) -> anyhow::Result<Config> {
    let mut config = match (&settings.kubeconfig, &settings.api_url) {
        (Some(path), _) => {
            let shown = path.display();
            let file = Kubeconfig::read_from(path);
            let file = file.with_context(|| format!("read --kubeconfig-file {shown}"))?;
            let options = KubeConfigOptions::default();
            let config = Config::from_custom_kubeconfig(file, &options).await;
            config.with_context(|| format!("use --kubeconfig-file {shown}"))?
        }
        (None, Some(_)) => Config::new(Default::default()),
        (None, None) => Config::incluster().context(
            "find the API server's address and account in the Pod; outside of a Pod give --kubeconfig-file",
        )?,
    };
    if let Some(url) = &settings.api_url {
        let read = url.parse();
        config.cluster_url = read.with_context(|| format!("read --kube-api-url {url:?}"))?;
    }
    Ok(config)
}
