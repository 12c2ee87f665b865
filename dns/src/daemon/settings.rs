//! Settings of the parts, from the configuration and the host's resolv.conf.

use std::net::SocketAddr;
use std::path::Path;
use std::time::SystemTime;

use anyhow::Context;
use hickory_proto::rr::Name;

use crate::config::Config;
use crate::resolv_conf::{self, ResolvConf};
use crate::search::Search;
use crate::{forward, handler, limits};

/// Of a Pod's resolv.conf, as a kubelet writes it.
const NDOTS: usize = 5;

/// Tells one state of a file from another.
pub(super) fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// The host's resolv.conf; that it cannot be read matters where no upstream is named.
pub(super) fn host(config: &Config) -> ResolvConf {
    match resolv_conf::read(&config.resolv_conf, resolv_conf::BEHIND_RESOLVED.as_ref()) {
        Ok(found) => {
            for complaint in &found.complaints {
                tracing::warn!("{}: {complaint}", config.resolv_conf.display());
            }
            found
        }
        Err(error) => {
            if config.upstreams.is_empty() {
                tracing::warn!("{error}");
            }
            ResolvConf::default()
        }
    }
}

pub(super) fn upstreams<'a>(config: &'a Config, host: &'a ResolvConf) -> &'a [SocketAddr] {
    if config.upstreams.is_empty() {
        &host.nameservers
    } else {
        &config.upstreams
    }
}

pub(super) fn forwarding(
    config: &Config,
    host: &ResolvConf,
    own: &[SocketAddr],
) -> forward::Settings {
    forward::Settings {
        upstreams: upstreams(config, host).to_vec(),
        stubs: config.stubs.clone(),
        own: own.to_vec(),
        cache: forward::CacheSettings {
            entries: config.cache_entries,
            serve_stale: config.serve_stale,
            ..forward::CacheSettings::default()
        },
        server: own.first().map_or_else(
            || "dns://:53".to_owned(),
            |address| format!("dns://{address}"),
        ),
        ..forward::Settings::default()
    }
}

pub(super) fn answering(config: &Config, host: &ResolvConf) -> anyhow::Result<handler::Settings> {
    let search = if config.absorb_search {
        // What is no name no resolver tries either.
        let domains = host
            .search
            .iter()
            .filter_map(|domain| Name::from_ascii(domain).ok());
        Some(
            Search::new(config.domain.clone(), domains.collect(), NDOTS)
                .context("use --cluster-domain")?,
        )
    } else {
        None
    };
    Ok(handler::Settings {
        recursive: !upstreams(config, host).is_empty() || !config.stubs.is_empty(),
        search,
        limits: limits::Settings {
            queries: config.client_queries,
            forwards: config.client_forwards,
            ..limits::Settings::default()
        },
        query_log: config.log_queries,
    })
}
