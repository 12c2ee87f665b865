//! The plugin `ptp`: a veth pair between host and container and nothing else; the container sends
//! everything, even to its own subnet, by way of the host.

mod plan;

use std::os::fd::{AsFd as _, AsRawFd as _};

use kernel::{Change, Link, Netlink, Netns, NewLink, NewLinkKind};
use serde::Deserialize;

use crate::{
    cni::{
        Call, CniResult, Dns, Error, Interface, Plugin, Result, Undo, Verb, config::Ipam, delegate,
        with_undo,
    },
    interface::{self, Desired, set_quietly},
    masquerade::{self, Backend, Owner},
};

/// The plugin.
pub struct Ptp;

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Written {
    ip_masq: bool,
    ip_masq_backend: Option<String>,
    mtu: i64,
    ipam: Ipam,
    dns: Dns,
}

/// What the operator asks for, checked.
struct Config {
    masquerade: bool,
    masquerade_backend: Option<Backend>,
    mtu: Option<u32>,
    ipam: String,
    dns: Dns,
}

impl Config {
    fn read(call: &Call) -> Result<Self> {
        let written: Written = call.read()?;
        let mtu = u32::try_from(written.mtu)
            .map_err(|_| Error::config(format!("invalid mtu {}", written.mtu)))?;
        if written.ipam.kind.is_empty() {
            return Err(Error::config(
                "ptp needs an IPAM plugin: ipam.type is missing",
            ));
        }
        Ok(Self {
            masquerade: written.ip_masq,
            masquerade_backend: Backend::from_config(written.ip_masq_backend.as_deref())?,
            mtu: (mtu != 0).then_some(mtu),
            ipam: written.ipam.kind,
            dns: written.dns,
        })
    }
}

impl Plugin for Ptp {
    fn name(&self) -> &'static str {
        "ptp"
    }

    fn add(&self, call: &Call) -> Result<CniResult> {
        let config = Config::read(call)?;
        with_undo(|undo| attach(call, &config, undo))
    }

    fn del(&self, call: &Call) -> Result<()> {
        let config = Config::read(call)?;
        // While the container still has its interface, nobody else may get its address.
        let mut outcome = interface::remove_from(call);
        if outcome.is_ok() {
            outcome = delegate::run(call, Verb::Del, &config.ipam, call.config());
        }
        if config.masquerade {
            outcome = outcome.and(masquerade::teardown(
                owner(call),
                &masquerade::remembered(call),
            ));
        }
        outcome
    }

    fn check(&self, call: &Call) -> Result<()> {
        let config = Config::read(call)?;
        delegate::run(call, Verb::Check, &config.ipam, call.config())?;
        let result = call.required_prev_result()?;
        let listed = interface::listed(call, &result)?;
        interface::open_netns(call)?.run(|| {
            let mut netlink = Netlink::open()?;
            let link = interface::expect_veth(&mut netlink, listed)?;
            interface::check(&mut netlink, &link, desired(&result))
        })?
    }

    fn status(&self, call: &Call) -> Result<()> {
        let config = Config::read(call)?;
        delegate::run(call, Verb::Status, &config.ipam, call.config())
    }

    fn gc(&self, call: &Call) -> Result<()> {
        let config = Config::read(call)?;
        let outcome = delegate::run(call, Verb::Gc, &config.ipam, call.config());
        if config.masquerade {
            return outcome.and(masquerade::collect_garbage(call));
        }
        outcome
    }
}

fn owner(call: &Call) -> Owner<'_> {
    Owner {
        network: &call.network,
        interface: &call.ifname,
        container: &call.container_id,
    }
}

fn desired(result: &CniResult) -> Desired<'_> {
    Desired {
        ips: &result.ips,
        routes: &result.routes,
        // The host is the only neighbour there is, and it takes other addresses.
        nodad: true,
    }
}

fn attach<'a>(call: &'a Call, config: &'a Config, undo: &mut Undo<'a>) -> Result<CniResult> {
    let netns = interface::open_netns(call)?;
    let mut result = delegate::add(call, &config.ipam, call.config())?;
    undo.push(format!("release the addresses of {}", config.ipam), || {
        delegate::run(call, Verb::Del, &config.ipam, call.config())
    });
    for ip in &mut result.ips {
        ip.interface = Some(1);
    }
    let to_host = plan::Pairs::of(&result)?;

    let mut host = Netlink::open()?;
    let name = add_pair(&mut host, config, call, &netns)?;
    let made = name.clone();
    undo.push(format!("delete link {made}"), move || {
        interface::delete(&made)
    });
    // Before it comes up: without duplicate address detection on a link of two the host can ask for
    // the container's IPv6 address at once.
    for key in ["accept_ra", "accept_dad"] {
        set_quietly(&format!("net/ipv6/conf/{name}/{key}"), "0");
    }
    let index = host.expect_link(&name)?.index;
    interface::apply(&mut host, &to_host.on_host(index))?;

    let (container, host_link) = netns.run(|| -> Result<(Link, Link)> {
        let mut netlink = Netlink::open()?;
        let link = netlink.expect_link(&call.ifname)?;
        interface::configure(&mut netlink, &link, desired(&result))?;
        interface::apply(&mut netlink, &to_host.in_container(link.index))?;
        let host_link = interface::await_carrier(&mut host, &name)?;
        Ok((link, host_link))
    })??;

    if config.masquerade {
        let addresses: Vec<_> = result.ips.iter().map(|ip| ip.address).collect();
        undo.push("remove masquerade rules", || {
            masquerade::teardown(owner(call), &[])
        });
        masquerade::setup(config.masquerade_backend, &addresses, owner(call))?;
    }
    interface::enable_forwarding(result.ips.iter().map(|ip| ip.address.addr()))?;
    result.interfaces = vec![
        Interface::of(&host_link, ""),
        Interface::of(&container, &call.netns),
    ];
    if !config.dns.is_empty() {
        result.dns = config.dns.clone();
    }
    Ok(result)
}

fn add_pair(host: &mut Netlink, config: &Config, call: &Call, netns: &Netns) -> Result<String> {
    let peer = NewLink {
        mtu: config.mtu,
        netns: Some(netns.as_fd().as_raw_fd()),
        ..NewLink::new(&call.ifname, NewLinkKind::Plain)
    };
    interface::add_veth(host, peer, |name, peer| {
        Change::AddLink(NewLink {
            mtu: config.mtu,
            ..NewLink::new(name, NewLinkKind::Veth { peer })
        })
    })
}
