//! The plugin `portmap`: ports of the host lead to ports of the container.
//!
//! It is called after the plugin that made the interface, learns the container's addresses from
//! that one's result and passes the result on. Without port mappings it starts no process and
//! changes nothing. No port is reserved: of several containers that ask for one, the first has it.

mod config;
mod iptables;
mod nftables;
mod removal;

use std::path::Path;

use kernel::{
    Netlink, conntrack, filelock::FileLock, ipnet::IpNet, iptables::Iptables, nft, sysctl,
};

use crate::{
    cni::{Call, CniResult, Error, Plugin, Result, with_undo},
    masquerade::Backend,
    netfilter::{change_nat, nat_transaction, saved::Saved},
};
use config::{Config, Mapping, Protocol};

/// The plugin.
pub struct Portmap;

const UDP: u8 = 17;
/// Held while the chains that all containers share are made.
const LOCK: &str = "/run/weft-portmap.lock";

impl Plugin for Portmap {
    fn name(&self) -> &'static str {
        "portmap"
    }

    fn add(&self, call: &Call) -> Result<CniResult> {
        let config = Config::read(call)?;
        let result = call.prev_result()?.ok_or_else(|| {
            Error::config("portmap must be called as chained plugin, with a prevResult")
        })?;
        if config.mappings.is_empty() {
            return Ok(result);
        }
        let backend = config.backend_in_use(Backend::detect)?;
        let addresses = container_addresses(&result, &call.ifname);
        if config.snat {
            route_localnet(&addresses)?;
        }
        forward(call, &config, backend, &addresses)?;
        forget_flows(&config.mappings, &addresses);
        Ok(result)
    }

    fn del(&self, call: &Call) -> Result<()> {
        let Some(mappings) = Config::read_mappings(call)? else {
            return Ok(());
        };
        let outcome = removal::remove(&call.network, &call.container_id);
        // Else a client that keeps its source port would be sent to the dead address on and on.
        let any: [IpNet; 2] = [
            ipnet::Ipv4Net::default().into(),
            ipnet::Ipv6Net::default().into(),
        ];
        forget_flows(&mappings, &any);
        outcome
    }

    fn check(&self, call: &Call) -> Result<()> {
        let config = Config::read(call)?;
        let result = call.required_prev_result()?;
        if config.mappings.is_empty() {
            return Ok(());
        }
        let backend = config.backend_in_use(Backend::detect)?;
        container_addresses(&result, &call.ifname)
            .into_iter()
            .try_for_each(|address| match backend {
                Backend::Iptables => check_iptables(call, &config, address),
                Backend::Nftables => check_nftables(call, &config, address),
            })
    }

    fn gc(&self, call: &Call) -> Result<()> {
        removal::collect_garbage(call)
    }
}

/// The first address of each family that is the container's on this network.
fn container_addresses(result: &CniResult, ifname: &str) -> Vec<IpNet> {
    let is_containers = |index: Option<usize>| match index.and_then(|at| result.interfaces.get(at))
    {
        Some(interface) => interface.name == ifname && !interface.sandbox.is_empty(),
        None => true,
    };
    [false, true]
        .into_iter()
        .filter_map(|ipv6| {
            result
                .ips
                .iter()
                .find(|ip| ip.address.addr().is_ipv6() == ipv6 && is_containers(ip.interface))
        })
        .map(|ip| ip.address)
        .collect()
}

/// Writes the rules. Each transaction is applied whole or not at all, so only those before the one
/// that fails are undone.
fn forward(call: &Call, config: &Config, backend: Backend, addresses: &[IpNet]) -> Result<()> {
    match backend {
        Backend::Iptables => with_undo(|undo| {
            for &address in addresses {
                let before = forward_iptables(call, config, address)?;
                undo.push("restore the ports forwarded before", move || {
                    change_nat(address.addr().is_ipv6(), |saved| {
                        let mut lines = iptables::removal(&call.network, &call.container_id, saved);
                        lines.extend(before);
                        lines
                    })
                });
            }
            Ok(())
        }),
        Backend::Nftables => {
            let script: String = addresses
                .iter()
                .map(|address| nftables::setup(config, *address, &call.network, &call.container_id))
                .collect();
            Ok(nft::apply(&script)?)
        }
    }
}

/// Returns the lines that bring back what an earlier ADD of the container had made.
fn forward_iptables(call: &Call, config: &Config, address: IpNet) -> Result<Vec<String>> {
    let tables = Iptables::find(address.addr().is_ipv6())?;
    let desired = iptables::desired(config, address, &call.network, &call.container_id);
    if tables
        .restore(&nat_transaction(&desired.optimistic()))
        .is_ok()
    {
        return Ok(Vec::new());
    }
    // The shared chains are missing, or a former container's chain is there. One at a time from
    // here on: to look and then to add would be done twice by two at once.
    let _lock = FileLock::lock(Path::new(LOCK))?;
    let saved = Saved::parse(&tables.save("nat")?);
    let before = iptables::own_rules(&call.network, &call.container_id, &saved);
    tables.restore(&nat_transaction(&desired.plan(&saved)))?;
    Ok(before)
}

fn check_iptables(call: &Call, config: &Config, address: IpNet) -> Result<()> {
    let desired = iptables::desired(config, address, &call.network, &call.container_id);
    Iptables::find(address.addr().is_ipv6())
        .and_then(|tables| tables.restore(&nat_transaction(&desired.checks())))
        .map_err(|cause| {
            Error::from(cause).context(format!("rules that forward ports to {address} are missing"))
        })
}

fn check_nftables(call: &Call, config: &Config, address: IpNet) -> Result<()> {
    let listed = removal::list(address.addr().is_ipv6())?.unwrap_or_default();
    let missing = nftables::missing(config, address, &call.container_id, &listed);
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::generic(format!(
        "rules that forward ports to {address} are missing in the nft chains {}",
        missing.join(", ")
    )))
}

/// Forgets UDP flows to the ports: without a handshake an old one would live on with its old
/// translation. The rules stand by now, so a failure is only noted.
fn forget_flows(mappings: &[Mapping], addresses: &[IpNet]) {
    for mapping in mappings {
        for address in addresses {
            let ipv6 = address.addr().is_ipv6();
            if mapping.protocol != Protocol::Udp || !mapping.applies_to(ipv6) {
                continue;
            }
            if let Err(error) =
                conntrack::delete_flows_to(ipv6, UDP, mapping.destination(), mapping.host_port)
            {
                eprintln!("{error}");
            }
        }
    }
}

/// Lets connections from 127.0.0.1 leave by the interface that leads to the container.
fn route_localnet(addresses: &[IpNet]) -> Result<()> {
    let Some(address) = addresses.iter().find(|net| net.addr().is_ipv4()) else {
        return Ok(());
    };
    let mut netlink = Netlink::open()?;
    // A container that the host has no route to is not reached by way of it either.
    let route = netlink.route_to(address.addr()).ok().flatten();
    let Some(dev) = route.and_then(|route| route.dev) else {
        return Ok(());
    };
    if let Some(link) = netlink.link_by_index(dev)? {
        sysctl::ensure(&format!("net/ipv4/conf/{}/route_localnet", link.name), "1")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cni::{Interface, IpConfig};

    #[test]
    fn the_containers_own_addresses_are_taken_first_of_each_family() {
        let interface = |name: &str, sandbox: &str| Interface {
            name: name.into(),
            sandbox: sandbox.into(),
            ..Interface::default()
        };
        let ip = |text: &str, interface| IpConfig {
            interface,
            ..IpConfig::new(text.parse().unwrap(), None)
        };
        let result = CniResult {
            interfaces: vec![
                interface("cni0", ""),
                interface("eth0", "/ns"),
                interface("eth1", "/ns"),
            ],
            ips: vec![
                ip("10.9.0.1/24", Some(0)),
                ip("10.8.0.1/24", Some(2)),
                ip("10.1.0.5/24", Some(1)),
                ip("10.1.0.6/24", Some(1)),
                ip("fd00::5/64", None),
            ],
            ..CniResult::default()
        };
        let nets: Vec<_> = container_addresses(&result, "eth0")
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(nets, ["10.1.0.5/24", "fd00::5/64"]);
    }
}
