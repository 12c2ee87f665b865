//! ADD: the bridge if it is missing, a veth pair with one end on it and the other in the container,
//! addresses, rules. Everything has its reverse on the rollback list before the next step starts.
//!
//! Order: what other containers use (bridge, its address) is made before, and undone after, what is
//! this container's. The host's forwarding switch comes last, because it is never switched back.

use std::{
    cell::{Cell, RefCell},
    os::fd::AsFd as _,
    os::fd::AsRawFd as _,
};

use kernel::{Change, Link, LinkKind, Mac, Netlink, Netns, NewLink, NewLinkKind, SetLink};

use super::{
    config::Config,
    plan,
    spoofcheck::{self, Checked},
};
use crate::{
    cni::{Call, CniResult, Error, Interface, Result, Undo, Verb, delegate},
    interface::{self, Desired, set_quietly},
    masquerade,
};

/// A bridge that is just being removed by an ADD that failed is made anew this many times.
const TRIES: usize = 4;

/// What was changed on a bridge, to be taken back if no other container has come to rely on it.
#[derive(Default)]
pub struct BridgeChanges {
    made: Cell<bool>,
    /// Ports made for gateways in a VLAN, by name.
    gateway_ports: RefCell<Vec<String>>,
    reverse: RefCell<Vec<Change>>,
}

/// The veth pair: the name of its end on the bridge, and the container's hardware address.
struct Pair {
    port: String,
    mac: Mac,
}

/// Connects the container.
pub fn attach<'a>(
    call: &'a Call,
    config: &'a Config,
    changes: &'a BridgeChanges,
    undo: &mut Undo<'a>,
) -> Result<CniResult> {
    let netns = interface::open_netns(call)?;
    let mut host = Netlink::open()?;
    undo.push(format!("restore bridge {}", config.bridge), move || {
        restore_bridge(&config.bridge, changes)
    });
    let (bridge, pair) = join_bridge(&mut host, config, call, &netns, changes)?;
    let port = pair.port.clone();
    undo.push(format!("delete link {port}"), move || {
        interface::delete(&port)
    });
    set_quietly(&format!("net/ipv6/conf/{}/accept_ra", pair.port), "0");
    configure_port(&mut host, config, &pair.port)?;

    if config.mac_spoof_check {
        let checked = Checked {
            container: &call.container_id,
            interface: &call.ifname,
        };
        undo.push("remove MAC spoof check", move || spoofcheck::undo(checked));
        spoofcheck::apply(checked, &pair.port, pair.mac)?;
    }

    let mut result = CniResult::default();
    if let Some(ipam) = &config.ipam {
        result = delegate::add(call, ipam, call.config())?;
        undo.push(format!("release the addresses of {ipam}"), move || {
            delegate::run(call, Verb::Del, ipam, call.config())
        });
        if result.ips.is_empty() {
            return Err(Error::generic(format!(
                "IPAM plugin {ipam} returned no address"
            )));
        }
    }
    let gateways = plan::gateways(config, &mut result);
    let mut vlan_interface = None;
    if !gateways.is_empty() {
        let owner = match config.vlan {
            0 => bridge.clone(),
            vlan => {
                let link = ensure_vlan_interface(&mut host, config, &bridge, vlan, changes)?;
                vlan_interface = Some(Interface::of(&link, ""));
                link
            }
        };
        let observed = host.addresses(Some(owner.index))?;
        let force = config.force_address;
        let spare = interface::random_mac()?;
        for change in plan::gateway_addresses(&owner, &gateways, &observed, force, spare)? {
            changes.apply(&mut host, &owner, change)?;
        }
    }

    let (container, port) =
        netns.run(|| configure_container(config, call, &result, &mut host, &pair))??;

    if config.masquerade && config.ipam.is_some() {
        let owner = super::owner(call);
        let addresses: Vec<_> = result.ips.iter().map(|ip| ip.address).collect();
        undo.push("remove masquerade rules", move || {
            masquerade::teardown(owner, &[])
        });
        masquerade::setup(config.masquerade_backend, &addresses, owner)?;
    }
    interface::enable_forwarding(gateways.iter().map(|net| net.addr()))?;

    // A bridge's own address may have changed with its ports.
    result.interfaces = vec![
        Interface::of(&host.expect_link(&config.bridge)?, ""),
        Interface::of(&port, ""),
        Interface::of(&container, &call.netns),
    ];
    result.interfaces.extend(vlan_interface);
    if !config.dns.is_empty() {
        result.dns = config.dns.clone();
    }
    Ok(result)
}

/// The bridge, and whether it was made.
fn ensure_bridge(host: &mut Netlink, config: &Config) -> Result<(Link, bool)> {
    let (bridge, made) = match host.link(&config.bridge)? {
        Some(bridge) => (bridge, false),
        None => {
            let mac = interface::random_mac()?;
            host.ensure_link(&plan::new_bridge(config, mac))?
        }
    };
    if !matches!(bridge.kind, LinkKind::Bridge { .. }) {
        return Err(Error::generic(format!(
            "{:?} already exists but is not a bridge",
            config.bridge
        )));
    }
    // We want to own the routes of this interface.
    set_quietly(&format!("net/ipv6/conf/{}/accept_ra", config.bridge), "0");
    Ok((bridge, made))
}

impl BridgeChanges {
    /// Carries out a change of the bridge (or of a VLAN's interface on it) and remembers its reverse.
    fn apply(&self, host: &mut Netlink, link: &Link, change: Change) -> Result<()> {
        match host.apply(&change) {
            Ok(()) => {}
            // Two ADDs at once give the bridge the same address.
            Err(error) if matches!(change, Change::AddAddress(_)) && error.is_exists() => {
                return Ok(());
            }
            Err(error) if matches!(change, Change::DeleteAddress(_)) && error.is_not_found() => {
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
        let reverse = match change {
            Change::AddAddress(address) => Change::DeleteAddress(address),
            Change::DeleteAddress(address) => Change::AddAddress(address),
            Change::SetLink(set) => Change::SetLink(SetLink {
                index: set.index,
                up: set.up.map(|_| link.up),
                promisc: set.promisc.map(|_| link.promisc),
                ..SetLink::default()
            }),
            other => {
                return Err(Error::generic(format!(
                    "change bridge: {other} has no reverse"
                )));
            }
        };
        self.reverse.borrow_mut().push(reverse);
        Ok(())
    }
}

/// Takes back what was changed on the bridge, unless other containers are on it by now: they may
/// rely on it, and the next ADD finds it as it needs it.
fn restore_bridge(name: &str, changes: &BridgeChanges) -> Result<()> {
    let mut host = Netlink::open()?;
    let Some(bridge) = host.link(name)? else {
        return Ok(());
    };
    let ours = changes.gateway_ports.take();
    let links = host.links()?;
    let mut ports = links
        .iter()
        .filter(|link| link.master == Some(bridge.index));
    if ports.any(|port| !ours.contains(&port.name)) {
        return Ok(());
    }
    for port in ours {
        interface::delete(&port)?;
    }
    if changes.made.get() {
        return interface::delete(name);
    }
    let mut reverse = changes.reverse.take();
    reverse.reverse();
    interface::apply(&mut host, &reverse)
}

/// Makes the bridge if need be and puts a new port on it.
fn join_bridge(
    host: &mut Netlink,
    config: &Config,
    call: &Call,
    netns: &Netns,
    changes: &BridgeChanges,
) -> Result<(Link, Pair)> {
    let mut tries = 0;
    loop {
        let (bridge, made) = ensure_bridge(host, config)?;
        changes.made.set(changes.made.get() || made);
        for change in plan::bridge_flags(config, &bridge) {
            changes.apply(host, &bridge, change)?;
        }
        tries += 1;
        match add_pair(host, config, call, netns, &bridge) {
            Ok(pair) => return Ok((bridge, pair)),
            Err(error) => {
                let gone = host.link_by_index(bridge.index)?.is_none();
                if !gone || tries == TRIES {
                    return Err(error);
                }
            }
        }
    }
}

/// Makes the pair: one request puts one end on the bridge, up, and the other into the container
/// under its final name and address.
fn add_pair(
    host: &mut Netlink,
    config: &Config,
    call: &Call,
    netns: &Netns,
    bridge: &Link,
) -> Result<Pair> {
    let mac = match config.mac {
        Some(mac) => mac,
        None => interface::random_mac()?,
    };
    let peer = NewLink {
        mtu: config.mtu,
        mac: Some(mac),
        netns: Some(netns.as_fd().as_raw_fd()),
        ..NewLink::new(&call.ifname, NewLinkKind::Plain)
    };
    let port = add_veth(host, config.mtu, bridge, peer)?;
    Ok(Pair { port, mac })
}

/// A veth pair with one end on the bridge.
fn add_veth(host: &mut Netlink, mtu: Option<u32>, bridge: &Link, peer: NewLink) -> Result<String> {
    let added = interface::add_veth(host, peer, |name, peer| {
        Change::AddLink(NewLink {
            mtu,
            up: true,
            master: Some(bridge.index),
            ..NewLink::new(name, NewLinkKind::Veth { peer })
        })
    });
    added.map_err(|error| error.context(format!("join bridge {}", bridge.name)))
}

fn configure_port(host: &mut Netlink, config: &Config, name: &str) -> Result<()> {
    if !plan::has_port_options(config) {
        return Ok(());
    }
    let port = host.expect_link(name)?;
    let mut changes = plan::port_options(config, port.index);
    if config.vlan_filtering() {
        let trunk = config.trunk.clone().unwrap_or_default();
        changes.extend(vlan_changes(host, config, trunk, port.index)?);
    }
    interface::apply(host, &changes)
}

fn vlan_changes(
    host: &mut Netlink,
    config: &Config,
    trunk: impl IntoIterator<Item = u16>,
    port: u32,
) -> Result<Vec<Change>> {
    let observed = host.bridge_vlans(port)?;
    let preserve = config.preserve_default_vlan;
    Ok(plan::port_vlans(
        config.vlan,
        trunk,
        preserve,
        port,
        &observed,
    ))
}

/// The interface that has the gateway's address in a VLAN: one end of a veth pair whose other end
/// is a port of the bridge in that VLAN.
fn ensure_vlan_interface(
    host: &mut Netlink,
    config: &Config,
    bridge: &Link,
    vlan: u16,
    changes: &BridgeChanges,
) -> Result<Link> {
    let name = format!("{}.{vlan}", bridge.name);
    let link = match host.link(&name)? {
        Some(link) => link,
        None => {
            let peer = NewLink {
                mtu: Some(bridge.mtu),
                ..NewLink::new(&name, NewLinkKind::Plain)
            };
            match add_veth(host, Some(bridge.mtu), bridge, peer) {
                Ok(port) => {
                    set_quietly(&format!("net/ipv6/conf/{port}/accept_ra"), "0");
                    changes.gateway_ports.borrow_mut().push(port);
                    host.expect_link(&name)?
                }
                // Another ADD may have been quicker.
                Err(error) => host.link(&name)?.ok_or(error)?,
            }
        }
    };
    // Also of one that is there: an ADD may have been killed before it came so far.
    if let Some(port) = link.parent.filter(|_| link.kind == LinkKind::Veth) {
        let changes = vlan_changes(host, config, None, port)?;
        interface::apply(host, &changes)?;
    }
    // The kernel refuses to make the second end of a pair up, as it has no first end then.
    host.ensure_up(&link)?;
    Ok(link)
}

/// The container's end and the port, on a thread inside its namespace: switches, addresses, routes;
/// then, when the bridge forwards for it, an announcement.
fn configure_container(
    config: &Config,
    call: &Call,
    result: &CniResult,
    host: &mut Netlink,
    pair: &Pair,
) -> Result<(Link, Link)> {
    let mut netlink = Netlink::open()?;
    let link = netlink.expect_link(&call.ifname)?;
    if config.disable_container_interface {
        let port = host.expect_link(&pair.port)?;
        return Ok((link, port));
    }
    if config.ipam.is_some() {
        let ipv6 = |key: &str| format!("net/ipv6/conf/{}/{key}", call.ifname);
        if config.enable_dad {
            set_quietly(&ipv6("enhanced_dad"), "1");
            set_quietly(&ipv6("accept_dad"), "1");
        } else {
            set_quietly(&ipv6("accept_dad"), "0");
        }
        set_quietly(&format!("net/ipv4/conf/{}/arp_notify", call.ifname), "1");
        if result.ips.iter().any(|ip| ip.address.addr().is_ipv6()) {
            set_quietly(&ipv6("ndisc_notify"), "1");
        }
    }
    let desired = Desired {
        ips: &result.ips,
        routes: &result.routes,
        nodad: false,
    };
    interface::configure(&mut netlink, &link, desired)?;
    let port = interface::await_carrier(host, &pair.port)?;
    if config.ipam.is_some() {
        interface::announce(&mut netlink, &link)?;
    }
    Ok((link, port))
}
