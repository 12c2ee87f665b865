//! `flanneld-rs cleanup`: removes every device, route, rule and file this daemon made on this host.
//!
//! What it made is read from the record beside subnet.env; without one from the store (in Kubernetes the
//! file of the network configuration); without both, the default names of every backend are tried. The
//! lease stays in the store until it expires, a Node's annotations for ever: a node that comes back finds
//! its subnet again.

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;

use super::{retire, startup};
use crate::backend::Report;
use crate::blackhole::Blackhole;
use crate::cli::Options;
use crate::config::NetworkConfig;
use crate::lease::store::LeaseStore;
use crate::lease::store::etcd::EtcdStore;
use crate::metrics::Metrics;
use crate::record::Record;
use crate::subnet_env::SubnetEnv;
use crate::{backend, firewall};

/// Goes on past errors; at the end any error makes the exit code 1.
pub async fn run(options: &Options) -> anyhow::Result<()> {
    startup::check_privilege()?;
    let mut report = Report::default();
    let configs = configs(options).await;
    for config in configs.iter().flat_map(retire::traces) {
        match backend::cleanup(&config) {
            Ok(removed) => report.merge(removed),
            Err(error) => report.failed(format!("{error:#}")),
        }
    }
    let networks = configs.iter().flat_map(NetworkConfig::networks).collect();
    match Blackhole::open(networks) {
        Ok(mut blackhole) => report.merge(blackhole.cleanup()),
        Err(error) => report.failed(error),
    }
    report.merge(firewall::build(false).cleanup());
    // What could not be removed must be known to the next attempt.
    let record = Record::path(&options.subnet_file);
    let record = Some(record).filter(|_| report.errors.is_empty());
    for path in [options.subnet_file.clone()].into_iter().chain(record) {
        match std::fs::remove_file(&path) {
            Ok(()) => report.changed("remove file", || format!("rm {}", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => report.failed(format!("remove {}: {error}", path.display())),
        }
    }
    for (kind, count) in &report.changes {
        tracing::info!("cleanup: {count} × {kind}");
    }
    for error in &report.errors {
        tracing::error!("{error}");
    }
    match report.errors.len() {
        0 => Ok(()),
        n => bail!("cleanup: {n} things could not be removed"),
    }
}

/// The configurations whose traces may be on this host.
async fn configs(options: &Options) -> Vec<NetworkConfig> {
    let recorded = Record::read(&options.subnet_file).map(|record| record.configs());
    if let Some(known) = recorded.filter(|configs| !configs.is_empty()) {
        return known.into_iter().map(|(_, config)| config).collect();
    }
    let read = async {
        match &options.kubernetes {
            Some(settings) => startup::kubernetes::read_config(&settings.net_config),
            None => {
                let metrics = Arc::new(Metrics::default());
                EtcdStore::new(options.etcd.clone(), metrics).config().await
            }
        }
    };
    match tokio::time::timeout(Duration::from_secs(12), read).await {
        Ok(Ok(Some(text))) => match NetworkConfig::parse(&text) {
            Ok(config) => return vec![config],
            Err(error) => tracing::warn!("{error}"),
        },
        Ok(Ok(None)) => tracing::warn!("there is no network configuration"),
        Ok(Err(error)) => tracing::warn!("{error}"),
        Err(_) => tracing::warn!("the lease store does not answer"),
    }
    tracing::warn!("what to remove is not known: trying the default names of all backends");
    let env = SubnetEnv::read(&options.subnet_file)
        .ok()
        .flatten()
        .unwrap_or_default();
    let network = env
        .network_v4
        .map_or_else(|| "10.0.0.0/8".to_owned(), |net| net.to_string());
    // Without a known network no route can be told to be ours, so host-gw is left out.
    let kinds: &[&str] = if env.network_v4.is_some() {
        &["vxlan", "udp", "host-gw"]
    } else {
        &["vxlan", "udp"]
    };
    let texts = kinds
        .iter()
        .map(|kind| format!(r#"{{"Network":"{network}","Backend":{{"Type":"{kind}"}}}}"#));
    texts
        .filter_map(|text| NetworkConfig::parse(&text).ok())
        .collect()
}
