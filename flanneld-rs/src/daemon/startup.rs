//! The steps before the first lease. Each waits for what it needs and says so once.

pub mod kubernetes;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use kernel::Netlink;

use super::datapath::{Datapath, Prepared};
use crate::cli::Options;
use crate::config::{BackendConfig, NetworkConfig};
use crate::health::{Health, Part};
use crate::lease::claim::Claimant;
use crate::lease::store::Error;
use crate::lease::{Lease, LeaseAttrs, Subnet};
use crate::record::Record;
use crate::subnet_env::SubnetEnv;
use crate::uplink::{self, Families, Uplink};

/// Pause between attempts, as flannel's.
const PAUSE: Duration = Duration::from_secs(1);
/// A kind of waiting.
const NO_STORE: &str = "the lease store does not answer";

/// Logs why we wait: once for each kind of reason, whose wording may vary from attempt to attempt.
#[derive(Default)]
struct Waiting(Option<(Part, &'static str)>);

impl Waiting {
    fn say(&mut self, health: &Health, part: Part, kind: &'static str, why: String) {
        if self.0.replace((part, kind)) != Some((part, kind)) {
            tracing::warn!("waiting, {kind}: {why}");
        }
        health.set(part, Err(why));
    }

    async fn pause(&mut self, health: &Health, part: Part, kind: &'static str, why: String) {
        self.say(health, part, kind, why);
        tokio::time::sleep(PAUSE).await;
    }
}

/// Without CAP_NET_ADMIN nothing can work: say so instead of failing at the first device.
pub fn check_privilege() -> anyhow::Result<()> {
    const CAP_NET_ADMIN: u32 = 12;
    let status = std::fs::read_to_string("/proc/self/status").context("read /proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = line
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(u64::MAX);
    if effective >> CAP_NET_ADMIN & 1 == 0 {
        bail!("the capability CAP_NET_ADMIN is missing: run as root");
    }
    Ok(())
}

/// Bridged Pod traffic passes by the iptables rules only with br_netfilter; a missing module is a
/// warning here, not the end.
pub fn check_bridge_filter(config: &NetworkConfig) {
    if config.nftables {
        return;
    }
    for (wanted, name) in [
        (config.v4.is_some(), "bridge-nf-call-iptables"),
        (config.v6.is_some(), "bridge-nf-call-ip6tables"),
    ] {
        if wanted && !Path::new("/proc/sys/net/bridge").join(name).exists() {
            tracing::warn!(
                "/proc/sys/net/bridge/{name} is missing: load the module br_netfilter, or Services may not work between Pods of one node"
            );
        }
    }
}

/// The networks, for the log.
pub fn networks(config: &NetworkConfig) -> String {
    config
        .networks()
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(" and ")
}

/// Waits until there is a configuration that can be used. Returns its text too.
pub async fn network_config(
    place: &str,
    read: impl AsyncFn() -> Result<Option<String>, Error>,
    health: &Health,
) -> (String, NetworkConfig) {
    let mut waiting = Waiting::default();
    loop {
        let (kind, why) = match read().await {
            Ok(None) => ("no network configuration", format!("write one to {place}")),
            Ok(Some(text)) => match NetworkConfig::parse(&text) {
                Ok(config) => {
                    health.set(Part::Store, Ok(()));
                    health
                        .metrics
                        .store_up
                        .store(1, std::sync::atomic::Ordering::Relaxed);
                    return (text, config);
                }
                Err(error) => (
                    "the network configuration cannot be used",
                    error.to_string(),
                ),
            },
            Err(error) => (NO_STORE, error.to_string()),
        };
        waiting.pause(health, Part::Store, kind, why).await;
    }
}

/// Which families the external interface must have: those of the network, save that udp carries both
/// in IPv4 datagrams.
pub fn families(config: &NetworkConfig) -> Families {
    let inside_v4 = matches!(config.backend, BackendConfig::Udp(_));
    Families {
        v4: config.v4.is_some(),
        v6: config.v6.is_some() && !inside_v4,
    }
}

/// The announced addresses, for the log.
pub fn announced(uplink: &Uplink) -> String {
    let v4 = uplink.public_v4.map(|ip| ip.to_string());
    let v6 = uplink.public_v6.map(|ip| ip.to_string());
    v4.into_iter().chain(v6).collect::<Vec<_>>().join(" and ")
}

/// What an earlier life left on this host.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// The subnet held then.
    pub subnet: Option<Subnet>,
    /// The lease value published then, if it was for this subnet.
    pub published: Option<LeaseAttrs>,
}

impl Memory {
    /// Reads subnet.env and the record beside it.
    pub fn read(subnet_file: &Path) -> Self {
        let env = SubnetEnv::read(subnet_file).unwrap_or_else(|error| {
            tracing::warn!("read {}: {error}", subnet_file.display());
            None
        });
        let recorded = Record::read(subnet_file).and_then(|record| record.lease());
        let subnet = env
            .and_then(|env| env.subnet)
            .or(recorded.as_ref().map(|lease| lease.subnet));
        let published = recorded
            .filter(|lease| Some(lease.subnet) == subnet)
            .map(|lease| lease.attrs);
        Self { subnet, published }
    }

    /// Ourselves as claimant.
    pub fn claimant<'a>(&'a self, config: &'a NetworkConfig, uplink: &Uplink) -> Claimant<'a> {
        Claimant {
            config,
            public_ip: uplink.public_v4,
            public_ipv6: uplink.public_v6,
            previous: self.subnet,
            published: self.published.as_ref(),
        }
    }
}

/// What stands before the first lease is written.
pub struct Started {
    /// The external interface.
    pub uplink: Uplink,
    /// Our own lease as the store has it.
    pub previous: Option<Lease>,
    /// What the backend made and announces.
    pub prepared: Prepared,
}

/// Waits for an external interface, for the store and for the backend's device. The interface is
/// chosen anew at every attempt, because hosts change most while they boot. `own_lease` says what the
/// store has of us, who announce ourselves by this interface.
pub async fn prepare(
    options: &Options,
    config: &NetworkConfig,
    mut own_lease: impl AsyncFnMut(&Uplink) -> Result<Option<Lease>, Error>,
    datapath: &Datapath,
    health: &Health,
) -> anyhow::Result<Started> {
    let mut netlink = Netlink::open()?;
    let mut waiting = Waiting::default();
    let mut chosen = None;
    loop {
        let found = uplink::observe(&mut netlink, &options.iface)
            .map_err(|error| error.to_string())
            .and_then(|host| {
                uplink::choose(&host, &options.iface, families(config)).map_err(|e| e.to_string())
            });
        let uplink = match found {
            Ok(uplink) => uplink,
            Err(why) => {
                waiting
                    .pause(health, Part::Uplink, "no external interface", why)
                    .await;
                continue;
            }
        };
        health.set(Part::Uplink, Ok(()));
        if chosen.as_ref() != Some(&uplink) {
            tracing::info!(
                "external interface {}, MTU {}, announcing {}",
                uplink.name,
                uplink.mtu,
                announced(&uplink)
            );
            chosen = Some(uplink.clone());
        }
        // So that the backend can keep its MAC.
        let previous = match own_lease(&uplink).await {
            Ok(previous) => previous,
            Err(error) => {
                let why = error.to_string();
                waiting.pause(health, Part::Store, NO_STORE, why).await;
                continue;
            }
        };
        health.set(Part::Store, Ok(()));
        let mut preparation = datapath.prepare(uplink.clone(), previous.clone());
        match preparation.outcome().await {
            Ok(prepared) => {
                health.set(Part::Backend, Ok(()));
                return Ok(Started {
                    uplink,
                    previous,
                    prepared,
                });
            }
            Err(error) => {
                let why = format!("{error:#}");
                waiting
                    .pause(health, Part::Backend, "the backend cannot start", why)
                    .await;
            }
        }
    }
}
