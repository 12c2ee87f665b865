//! `--dry-run`: the plan of a start, printed; nothing is written to the store, the kernel or a file.

use std::io::Write;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use kernel::Netlink;

use super::startup::{self, Memory};
use crate::backend::Desired;
use crate::blackhole::Blackhole;
use crate::cli::{IfaceOptions, Options};
use crate::config::{BackendConfig, NetworkConfig};
use crate::firewall::Wanted;
use crate::kubernetes::api::Scope;
use crate::kubernetes::leases::Leases;
use crate::kubernetes::{self, Nodes, Settings, publish};
use crate::lease::claim::Claim;
use crate::lease::store::etcd::EtcdStore;
use crate::lease::store::{Entry, LeaseStore, Listing};
use crate::lease::{BackendData, Lease, LeaseAttrs, key};
use crate::metrics::Metrics;
use crate::peers::{Rules, Tracker};
use crate::subnet_env::SubnetEnv;
use crate::uplink::{self, Uplink};
use crate::{backend, firewall};

/// Prints to `out`. What a daemon would wait for is an error here.
pub async fn run(options: &Options, out: &mut impl Write) -> anyhow::Result<()> {
    match &options.kubernetes {
        None => etcd(options, out).await,
        Some(settings) => kubernetes(options, settings, out).await,
    }
}

async fn etcd<O: Write>(options: &Options, out: &mut O) -> anyhow::Result<()> {
    let store = EtcdStore::new(options.etcd.clone(), Arc::new(Metrics::default()));
    let text = store
        .config()
        .await?
        .ok_or_else(|| anyhow!("the network configuration is missing in the store"))?;
    let config = NetworkConfig::parse(&text)?.with_data_path(options.data_path.as_deref())?;
    let uplink = choose_uplink(&config, &options.iface)?;
    let listing = store.list().await?;
    let claim = |attrs, out: &mut O| claim(options, &config, &uplink, &listing, attrs, out);
    plan(options, &config, &uplink, &listing.entries, claim, out)
}

async fn kubernetes<O: Write>(
    options: &Options,
    settings: &Settings,
    out: &mut O,
) -> anyhow::Result<()> {
    let path = settings.net_config.display();
    let text = startup::kubernetes::read_config(&settings.net_config)?
        .ok_or_else(|| anyhow!("the network configuration is missing: write one to {path}"))?;
    let config = NetworkConfig::parse(&text)?.with_data_path(options.data_path.as_deref())?;
    let names = &settings.annotations;
    let nodes = Nodes::connect(settings, Arc::new(Metrics::default())).await?;
    let (name, mut own) = (nodes.own_name(), None);
    let mut leases = Leases::new(name);
    let each = |node: kubernetes::Node| {
        leases.set(names, &config, &node);
        if node.name() == name {
            own = Some(node);
        }
    };
    nodes.list(Scope::All, each).await?;
    let own = own.ok_or_else(|| anyhow!("Node {name} is not there"))?;
    let subnet = own.subnet(&config);
    let subnet = subnet.map_err(|why| anyhow!("Node {name}: {why}"))?;
    let mut iface = options.iface.clone();
    startup::kubernetes::choose_addresses(&mut iface, names, &own);
    let uplink = choose_uplink(&config, &iface)?;
    let previous = startup::kubernetes::previous(names, &config, &own);
    let publish = |mut attrs: LeaseAttrs, out: &mut O| {
        let lease = Lease {
            subnet,
            attrs: attrs.clone(),
        };
        let previous = previous.unwrap_or_else(|| lease.clone()).attrs;
        let later = later(&config);
        if !later.is_empty() {
            // What it was before, or a stand-in that can be told from all that a backend announces.
            let or = |data: Option<BackendData>| data.or_else(|| BackendData::read("\"…\"").ok());
            attrs.backend_data = config.v4.and_then(|_| or(previous.backend_data));
            attrs.backend_v6_data = config.v6.and_then(|_| or(previous.backend_v6_data));
        }
        let annotations = publish::annotations(names, &own, &attrs);
        let annotations = annotations.map_err(|why| anyhow!("Node {name}: {why}"))?;
        writeln!(out, "# {subnet} is the podCIDR of Node {name}")?;
        for (name, value) in annotations {
            match value.as_deref() {
                Some("\"…\"") => writeln!(out, "annotate {name}=…{later}")?,
                Some(value) => writeln!(out, "annotate {name}={value}")?,
                None => writeln!(out, "annotate {name}-")?,
            }
        }
        Ok(lease)
    };
    plan(options, &config, &uplink, &leases.entries(), publish, out)
}

fn choose_uplink(config: &NetworkConfig, iface: &IfaceOptions) -> anyhow::Result<Uplink> {
    let host = uplink::observe(&mut Netlink::open()?, iface)?;
    uplink::choose(&host, iface, startup::families(config)).context("external interface")
}

/// Prints the plan; `claim` prints how the lease is taken, and returns it.
fn plan<O: Write>(
    options: &Options,
    config: &NetworkConfig,
    uplink: &Uplink,
    entries: &[Entry],
    claim: impl FnOnce(LeaseAttrs, &mut O) -> anyhow::Result<Lease>,
    out: &mut O,
) -> anyhow::Result<()> {
    let mut backend = backend::build(config).context("open the backend")?;
    writeln!(
        out,
        "# network {}, backend {}",
        startup::networks(config),
        config.backend.name()
    )?;
    writeln!(
        out,
        "# external interface {}, MTU {}, announcing {}",
        uplink.name,
        uplink.mtu,
        startup::announced(uplink)
    )?;

    let announcement = backend.announcement();
    let attrs = LeaseAttrs {
        public_ip: uplink.public_v4,
        public_ipv6: uplink.public_v6,
        backend_type: announcement.backend_type.to_owned(),
        backend_data: announcement.data,
        backend_v6_data: announcement.data_v6,
    };
    let own = claim(attrs, out)?;
    let rules = Rules {
        own: Some(own.subnet),
        addresses: uplink.addresses(),
        networks: config.networks(),
        backend_types: backend.peer_types(),
    };
    let mut tracker = Tracker::new(rules);
    let outcome = tracker.replace(entries, std::time::Instant::now(), None);
    for (key, why) in &outcome.ignored {
        writeln!(out, "# lease {key} is ignored: {why}")?;
    }
    writeln!(out, "# {} peers", tracker.peers().len())?;

    let wanted = Wanted::new(config, &own.subnet, options);
    let env = SubnetEnv::new(config, own.subnet, backend.mtu(uplink), options.masquerade);
    let subnet = own.subnet;
    let desired = Desired {
        uplink: uplink.clone(),
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
    let later = later(config);
    writeln!(
        out,
        "etcd {verb} {} {}{later}",
        key_of(&subnet),
        attrs.to_json()
    )?;
    Ok(Lease { subnet, attrs })
}

/// What of the announcement is known only when the backend has been prepared, as a remark.
fn later(config: &NetworkConfig) -> &'static str {
    match &config.backend {
        BackendConfig::Vxlan(_) => " # BackendData: the device's MAC, chosen at start",
        BackendConfig::Extension(commands) if !commands.pre_startup.is_empty() => {
            " # BackendData: the output of PreStartupCommand"
        }
        _ => "",
    }
}
