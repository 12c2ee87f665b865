//! `--dry-run`: the plan of a start, printed; nothing is written to the store, the kernel or a file.

use std::io::Write;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use kernel::Netlink;

use super::startup::{self, Memory};
use crate::backend::Desired;
use crate::blackhole::Blackhole;
use crate::cli::Options;
use crate::config::{BackendConfig, NetworkConfig};
use crate::firewall::Wanted;
use crate::lease::claim::Claim;
use crate::lease::store::etcd::EtcdStore;
use crate::lease::store::{LeaseStore, Listing};
use crate::lease::{Lease, LeaseAttrs, key};
use crate::metrics::Metrics;
use crate::peers::{Rules, Tracker};
use crate::subnet_env::SubnetEnv;
use crate::uplink::{self, Uplink};
use crate::{backend, firewall};

/// Prints to `out`. What a daemon would wait for is an error here.
pub async fn run(options: &Options, out: &mut impl Write) -> anyhow::Result<()> {
    let store = EtcdStore::new(options.etcd.clone(), Arc::new(Metrics::default()));
    let text = store
        .config()
        .await?
        .ok_or_else(|| anyhow!("the network configuration is missing in the store"))?;
    let config = NetworkConfig::parse(&text)?.with_data_path(options.data_path.as_deref())?;
    let host = uplink::observe(&mut Netlink::open()?, &options.iface)?;
    let uplink = uplink::choose(&host, &options.iface, startup::families(&config))
        .context("external interface")?;
    let listing = store.list().await?;

    let mut backend = backend::build(&config).context("open the backend")?;
    writeln!(
        out,
        "# network {}, backend {}",
        startup::networks(&config),
        config.backend.name()
    )?;
    writeln!(
        out,
        "# external interface {}, MTU {}, announcing {}",
        uplink.name,
        uplink.mtu,
        startup::announced(&uplink)
    )?;

    let announcement = backend.announcement();
    let attrs = LeaseAttrs {
        public_ip: uplink.public_v4,
        public_ipv6: uplink.public_v6,
        backend_type: announcement.backend_type.to_owned(),
        backend_data: announcement.data,
        backend_v6_data: announcement.data_v6,
    };
    let own = claim(options, &config, &uplink, &listing, attrs, out)?;
    let rules = Rules {
        own: Some(own.subnet),
        addresses: uplink.addresses(),
        networks: config.networks(),
        backend_types: backend.peer_types(),
    };
    let mut tracker = Tracker::new(rules);
    let outcome = tracker.replace(&listing.entries, std::time::Instant::now(), None);
    for (key, why) in &outcome.ignored {
        writeln!(out, "# lease {key} is ignored: {why}")?;
    }
    writeln!(out, "# {} peers", tracker.peers().len())?;

    let wanted = Wanted::new(&config, &own.subnet, options);
    let env = SubnetEnv::new(
        &config,
        own.subnet,
        backend.mtu(&uplink),
        options.masquerade,
    );
    let subnet = own.subnet;
    let desired = Desired {
        uplink,
        own,
        peers: tracker.peers().clone(),
    };
    let mut lines = backend.plan(&desired)?;
    lines.extend(firewall::build(config.nftables).plan(&wanted)?);
    if options.blackhole_route {
        let changes = Blackhole::open(config.networks())?.plan(Some(&subnet))?;
        lines.extend(changes.iter().map(ToString::to_string));
    }
    for line in lines {
        writeln!(out, "{line}")?;
    }
    writeln!(out, "# {}:", options.subnet_file.display())?;
    for line in env.render().lines() {
        writeln!(out, "#   {line}")?;
    }
    Ok(())
}

/// The lease a start would take now. A random choice may differ at the real start.
fn claim(
    options: &Options,
    config: &NetworkConfig,
    uplink: &Uplink,
    listing: &Listing,
    attrs: LeaseAttrs,
    out: &mut impl Write,
) -> anyhow::Result<Lease> {
    let memory = Memory::read(&options.subnet_file);
    let plan = memory
        .claimant(config, uplink)
        .plan(&listing.entries, |_| 0)?;
    let key_of = |subnet| {
        options
            .etcd
            .key(&format!("subnets/{}", key::render(subnet)))
    };
    for (subnet, _) in &plan.delete {
        writeln!(out, "etcd delete {}", key_of(subnet))?;
    }
    let (verb, subnet) = match plan.claim {
        Claim::Adopt {
            subnet,
            reserved: true,
            ..
        } => ("rewrite reserved", subnet),
        Claim::Adopt { subnet, .. } => ("rewrite", subnet),
        Claim::Create { subnet } => ("create", subnet),
    };
    let later = match &config.backend {
        BackendConfig::Vxlan(_) => " # BackendData: the device's MAC, chosen at start",
        BackendConfig::Extension(commands) if !commands.pre_startup.is_empty() => {
            " # BackendData: the output of PreStartupCommand"
        }
        _ => "",
    };
    writeln!(
        out,
        "etcd {verb} {} {}{later}",
        key_of(&subnet),
        attrs.to_json()
    )?;
    Ok(Lease { subnet, attrs })
}
