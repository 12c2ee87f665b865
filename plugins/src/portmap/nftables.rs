//! Port forwarding in nftables, in the reference's tables `ip cni_hostport` and `ip6 cni_hostport`.
//!
//! ```text
//! prerouting, output:  to a local address -> hostports_all
//! hostports_all:       all                -> hostip_hostports, then hostports
//! hostports:           a port             -> DNAT to the container
//! masquerading:        hairpin, localhost -> masquerade
//! ```
//! Rules of a container carry its ID as their comment. `hostip_hostports` is where older versions
//! of the reference kept the rules of one host address; we write none there, but serve, count and
//! remove them. What is not sent to the host itself must pass untouched (CVE-2025-67499).
//!
//! To collect garbage of one network we note in a chain of our own, which nothing jumps to, the
//! network of every container: a rule whose comment is the network's hash and the container's ID.
//!
//! The table has no comment: an nft before 0.9.7 refuses one.

use std::{fmt::Write as _, net::IpAddr};

use kernel::ipnet::IpNet;

use super::config::Config;
use crate::netfilter::{
    listed::{Listed, ListedRule},
    names,
};

/// Name of the table in both families.
pub const TABLE: &str = "cni_hostport";
const HOSTIP_HOSTPORTS: &str = "hostip_hostports";
const HOSTPORTS: &str = "hostports";
const HOSTPORTS_ALL: &str = "hostports_all";
const MASQUERADING: &str = "masquerading";
const OWNERS: &str = "weft-owners";
/// Longest comment that nft takes, in bytes.
const COMMENT_LENGTH: usize = 128;

/// nft's name of an address family.
pub fn family(ipv6: bool) -> &'static str {
    if ipv6 { "ip6" } else { "ip" }
}

/// A container's rules in one family: the chain of each, and the rule without its comment.
fn rules(config: &Config, address: IpAddr) -> Vec<(&'static str, String)> {
    let ip = family(address.is_ipv6());
    let mut rules = Vec::new();
    for mapping in &config.mappings {
        if !mapping.applies_to(address.is_ipv6()) {
            continue;
        }
        let target = match address {
            IpAddr::V4(ip) => format!("{ip}:{}", mapping.container_port),
            IpAddr::V6(ip) => format!("[{ip}]:{}", mapping.container_port),
        };
        let forward = format!(
            "meta l4proto {} th dport {} dnat to {target}",
            mapping.protocol.as_str(),
            mapping.host_port
        );
        let rule = match mapping.destination() {
            Some(host) => format!("{ip} daddr {host} {forward}"),
            None => forward,
        };
        rules.push((HOSTPORTS, rule));
    }
    if config.snat && config.masq_all {
        // Not what reaches the container without any mapping: that keeps its source.
        rules.push((
            MASQUERADING,
            format!("ct status dnat {ip} daddr {address} masquerade"),
        ));
    } else if config.snat {
        rules.push((
            MASQUERADING,
            format!("{ip} saddr {address} {ip} daddr {address} masquerade"),
        ));
        if address.is_ipv4() {
            rules.push((
                MASQUERADING,
                format!("ip saddr 127.0.0.1 ip daddr {address} masquerade"),
            ));
        }
    }
    rules
}

/// What comes before the container's ID in a note of [`OWNERS`].
fn of_network(network: &str) -> String {
    format!("{} ", names::hash(network, 16))
}

/// The script that forwards a container's ports to one of its addresses.
pub fn setup(config: &Config, address: IpNet, network: &str, container: &str) -> String {
    let address = address.addr();
    let ipv6 = address.is_ipv6();
    let table = format!("{} {TABLE}", family(ipv6));
    let conditions: String = config
        .conditions(ipv6)
        .iter()
        .map(|condition| format!("{condition} "))
        .collect();
    let mut script = format!(
        "add table {table}\n\
         add chain {table} {HOSTPORTS}\n\
         add chain {table} {HOSTIP_HOSTPORTS}\n\
         add chain {table} {HOSTPORTS_ALL}\n\
         flush chain {table} {HOSTPORTS_ALL}\n\
         add rule {table} {HOSTPORTS_ALL} jump {HOSTIP_HOSTPORTS}\n\
         add rule {table} {HOSTPORTS_ALL} jump {HOSTPORTS}\n"
    );
    for hook in ["prerouting", "output"] {
        let _ = write!(
            script,
            "add chain {table} {hook} {{ type nat hook {hook} priority -100 ; }}\n\
             flush chain {table} {hook}\n\
             add rule {table} {hook} {conditions}fib daddr type local jump {HOSTPORTS_ALL}\n"
        );
    }
    if config.snat {
        let _ = writeln!(
            script,
            "add chain {table} {MASQUERADING} {{ type nat hook postrouting priority 100 ; }}"
        );
    }
    for (chain, rule) in rules(config, address) {
        let _ = writeln!(
            script,
            "add rule {table} {chain} {rule} comment \"{container}\""
        );
    }
    let note = of_network(network) + container;
    // A container with a longer name can be forwarded to, but not be collected.
    if note.len() <= COMMENT_LENGTH {
        let _ = write!(
            script,
            "add chain {table} {OWNERS}\n\
             add rule {table} {OWNERS} return comment \"{note}\"\n"
        );
    }
    script
}

/// The script that removes a container's rules of one family; empty if there are none.
pub fn teardown(ipv6: bool, network: &str, container: &str, listed: &Listed) -> String {
    let note = of_network(network) + container;
    deletions(
        ipv6,
        listed.commented(|comment| comment == container || comment == note),
    )
}

/// The script that removes what every container of `network` has that is not among `valid`.
///
/// Of a container that another network has too no rule can be told to be this network's, so only
/// the note goes.
pub fn garbage(ipv6: bool, network: &str, valid: &[&str], listed: &Listed) -> String {
    let of_network = of_network(network);
    let notes = || {
        listed
            .rules
            .iter()
            .filter(|rule| rule.chain == OWNERS)
            .filter_map(|rule| rule.comment.as_deref())
    };
    let gone: Vec<_> = notes()
        .filter_map(|note| note.strip_prefix(&of_network))
        .filter(|container| !valid.contains(container))
        .collect();
    let of_another = |container: &str| {
        notes().any(|note| {
            !note.starts_with(&of_network)
                && note.split_once(' ').is_some_and(|(_, id)| id == container)
        })
    };
    let is_garbage = |rule: &&ListedRule| match rule.comment.as_deref() {
        Some(comment) if rule.chain == OWNERS => comment
            .strip_prefix(&of_network)
            .is_some_and(|container| gone.contains(&container)),
        Some(comment) => gone.contains(&comment) && !of_another(comment),
        None => false,
    };
    deletions(ipv6, listed.rules.iter().filter(is_garbage))
}

fn deletions<'a>(ipv6: bool, rules: impl Iterator<Item = &'a ListedRule>) -> String {
    let mut script = String::new();
    for rule in rules {
        let _ = writeln!(
            script,
            "delete rule {} {TABLE} {} handle {}",
            family(ipv6),
            rule.chain,
            rule.handle
        );
    }
    script
}

/// The chains in which a container has fewer rules than it needs.
pub fn missing(
    config: &Config,
    address: IpNet,
    container: &str,
    listed: &Listed,
) -> Vec<&'static str> {
    let desired = rules(config, address.addr());
    [
        (HOSTPORTS, &[HOSTPORTS, HOSTIP_HOSTPORTS][..]),
        (MASQUERADING, &[MASQUERADING]),
    ]
    .into_iter()
    .filter(|(chain, places)| {
        let wanted = desired.iter().filter(|(name, _)| name == chain).count();
        let there = listed
            .commented(|comment| comment == container)
            .filter(|rule| places.contains(&rule.chain.as_str()))
            .count();
        there < wanted
    })
    .map(|(chain, _)| chain)
    .collect()
}

#[cfg(test)]
mod tests;
