//! The plugin `portmap`: ports of the host lead to ports of the container.
//!
//! It is called after the plugin that made the interface, learns the container's addresses from
//! that one's result and passes the result on. Without port mappings it starts no process and
//! changes nothing. No port is reserved: the last ADD wins.

mod config;
mod iptables;
mod nftables;

use std::path::Path;

use kernel::{
    Netlink, conntrack, filelock::FileLock, ipnet::IpNet, iptables::Iptables, nft, sysctl,
};

use crate::{
    cni::{Call, CniResult, Error, Plugin, Result, with_undo},
    masquerade::Backend,
    netfilter::{change_nat, listed::Listed, nat_transaction, saved::Saved},
};
use config::{Config, Protocol};

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
        let backend = config.backend_in_use()?;
        let addresses = container_addresses(&result, &call.ifname);
        with_undo(|undo| {
            undo.push("remove the forwarded ports", || {
                remove(call, backend, &addresses)
            });
            forward(call, &config, backend, &addresses)?;
            forget_flows(&config, &addresses);
            if config.snat {
                route_localnet(&addresses)?;
            }
            Ok(())
        })?;
        Ok(result)
    }

    fn del(&self, call: &Call) -> Result<()> {
        let config = Config::read(call)?;
        if config.mappings.is_empty() {
            return Ok(());
        }
        // What the runtime remembers of ADD tells the families; unreadable, it is no reason to
        // leave rules behind.
        let result = call.prev_result().ok().flatten().unwrap_or_default();
        let addresses = container_addresses(&result, &call.ifname);
        let outcome = remove(call, config.backend_in_use()?, &addresses);
        // Else a client that keeps its source port would be sent to the dead address on and on.
        let any: [IpNet; 2] = [
            ipnet::Ipv4Net::default().into(),
            ipnet::Ipv6Net::default().into(),
        ];
        forget_flows(&config, &any);
        outcome
    }

    fn check(&self, call: &Call) -> Result<()> {
        let config = Config::read(call)?;
        let result = call.required_prev_result()?;
        if config.mappings.is_empty() {
            return Ok(());
        }
        let backend = config.backend_in_use()?;
        container_addresses(&result, &call.ifname)
            .into_iter()
            .try_for_each(|address| match backend {
                Backend::Iptables => check_iptables(call, &config, address),
                Backend::Nftables => check_nftables(call, &config, address),
            })
    }

    /// Of the nftables backend nothing can be collected: its rules, which are the reference's, name
    /// the container but not the network, so another network's look the same.
    fn gc(&self, call: &Call) -> Result<()> {
        let attachments = call.valid_attachments()?;
        if Config::read(call)?.backend == Some(Backend::Nftables) {
            return Ok(());
        }
        let valid: Vec<_> = attachments
            .iter()
            .map(|attachment| attachment.container_id.as_str())
            .collect();
        let garbage = |saved: &Saved| iptables::garbage(&call.network, &valid, saved);
        change_nat(false, garbage).and(change_nat(true, garbage))
    }
}

impl Config {
    /// The backend asked for, or the one found on the host.
    fn backend_in_use(&self) -> Result<Backend> {
        let backend = self.backend.unwrap_or_else(Backend::detect);
        self.check_backend(backend)?;
        Ok(backend)
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

fn forward(call: &Call, config: &Config, backend: Backend, addresses: &[IpNet]) -> Result<()> {
    match backend {
        Backend::Iptables => addresses
            .iter()
            .try_for_each(|address| forward_iptables(call, config, *address)),
        Backend::Nftables => {
            let script: String = addresses
                .iter()
                .map(|address| nftables::setup(config, *address, &call.container_id))
                .collect();
            Ok(nft::apply(&script)?)
        }
    }
}

fn forward_iptables(call: &Call, config: &Config, address: IpNet) -> Result<()> {
    let tables = Iptables::find(address.addr().is_ipv6())?;
    let desired = iptables::desired(config, address, &call.network, &call.container_id);
    if tables
        .restore(&nat_transaction(&desired.optimistic()))
        .is_ok()
    {
        return Ok(());
    }
    // The shared chains are missing, or a former container's chain is there. One at a time from
    // here on: to look and then to add would be done twice by two at once.
    let _lock = FileLock::lock(Path::new(LOCK))?;
    let saved = Saved::parse(&tables.save("nat")?);
    Ok(tables.restore(&nat_transaction(&desired.plan(&saved)))?)
}

/// Removes a container's rules, of the families of its addresses or, if it is not known to have
/// any, of both.
fn remove(call: &Call, backend: Backend, addresses: &[IpNet]) -> Result<()> {
    let has = |ipv6: bool| addresses.iter().any(|net| net.addr().is_ipv6() == ipv6);
    let families = [false, true]
        .into_iter()
        .filter(|&ipv6| addresses.is_empty() || has(ipv6));
    match backend {
        Backend::Iptables => {
            if let Err(error) = Iptables::find(false)
                && Iptables::find(true).is_err()
            {
                return Err(error.into());
            }
            let mut outcome = Ok(());
            for ipv6 in families {
                outcome = outcome.and(change_nat(ipv6, |saved| {
                    iptables::removal(&call.network, &call.container_id, saved)
                }));
            }
            outcome
        }
        Backend::Nftables => {
            let mut script = String::new();
            for ipv6 in families {
                if let Some(listed) = list(ipv6)? {
                    script += &nftables::teardown(ipv6, &call.container_id, &listed);
                }
            }
            if script.is_empty() {
                return Ok(());
            }
            Ok(nft::apply(&script)?)
        }
    }
}

fn list(ipv6: bool) -> Result<Option<Listed>> {
    let family = nftables::family(ipv6);
    nft::list_table_json(family, nftables::TABLE)?
        .map(|json| {
            Listed::parse(&json).map_err(|cause| {
                Error::generic(format!(
                    "read nft table {family} {}: {cause}",
                    nftables::TABLE
                ))
            })
        })
        .transpose()
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
    let listed = list(address.addr().is_ipv6())?.unwrap_or_default();
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
fn forget_flows(config: &Config, addresses: &[IpNet]) {
    for mapping in &config.mappings {
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
