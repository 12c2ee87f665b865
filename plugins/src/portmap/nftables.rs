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
//! The table has no comment: an nft before 0.9.7 refuses one.

use std::{fmt::Write as _, net::IpAddr};

use kernel::ipnet::IpNet;

use super::config::Config;
use crate::netfilter::listed::Listed;

/// Name of the table in both families.
pub const TABLE: &str = "cni_hostport";
const HOSTIP_HOSTPORTS: &str = "hostip_hostports";
const HOSTPORTS: &str = "hostports";
const HOSTPORTS_ALL: &str = "hostports_all";
const MASQUERADING: &str = "masquerading";

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

/// The script that forwards a container's ports to one of its addresses.
pub fn setup(config: &Config, address: IpNet, container: &str) -> String {
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
    script
}

/// The script that removes a container's rules of one family; empty if there are none.
pub fn teardown(ipv6: bool, container: &str, listed: &Listed) -> String {
    let mut script = String::new();
    for rule in listed.commented(|comment| comment == container) {
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
mod tests {
    use super::*;

    const JSON: &str = r#"{"conditionsV4": ["iifname", "!= \"lo\""], "runtimeConfig": {"portMappings": [
        {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
        {"hostPort": 53, "containerPort": 5353, "protocol": "udp", "hostIP": "192.168.0.2"},
        {"hostPort": 54, "containerPort": 54, "protocol": "udp", "hostIP": "::"}]}}"#;

    fn config() -> Config {
        Config::parse(JSON.as_bytes()).unwrap()
    }

    #[test]
    fn ipv4_golden() {
        assert_eq!(
            setup(&config(), "10.1.0.5/24".parse().unwrap(), "abc"),
            "add table ip cni_hostport\n\
             add chain ip cni_hostport hostports\n\
             add chain ip cni_hostport hostip_hostports\n\
             add chain ip cni_hostport hostports_all\n\
             flush chain ip cni_hostport hostports_all\n\
             add rule ip cni_hostport hostports_all jump hostip_hostports\n\
             add rule ip cni_hostport hostports_all jump hostports\n\
             add chain ip cni_hostport prerouting { type nat hook prerouting priority -100 ; }\n\
             flush chain ip cni_hostport prerouting\n\
             add rule ip cni_hostport prerouting iifname != \"lo\" fib daddr type local jump hostports_all\n\
             add chain ip cni_hostport output { type nat hook output priority -100 ; }\n\
             flush chain ip cni_hostport output\n\
             add rule ip cni_hostport output iifname != \"lo\" fib daddr type local jump hostports_all\n\
             add chain ip cni_hostport masquerading { type nat hook postrouting priority 100 ; }\n\
             add rule ip cni_hostport hostports meta l4proto tcp th dport 8080 dnat to 10.1.0.5:80 comment \"abc\"\n\
             add rule ip cni_hostport hostports ip daddr 192.168.0.2 meta l4proto udp th dport 53 dnat to 10.1.0.5:5353 comment \"abc\"\n\
             add rule ip cni_hostport masquerading ip saddr 10.1.0.5 ip daddr 10.1.0.5 masquerade comment \"abc\"\n\
             add rule ip cni_hostport masquerading ip saddr 127.0.0.1 ip daddr 10.1.0.5 masquerade comment \"abc\"\n"
        );
    }

    #[test]
    fn ipv6_takes_the_mappings_of_its_family() {
        let script = setup(&config(), "fd00::5/64".parse().unwrap(), "abc");
        let rules: Vec<_> = script
            .lines()
            .filter(|line| line.contains("comment \"abc\""))
            .collect();
        assert_eq!(
            rules,
            [
                "add rule ip6 cni_hostport hostports meta l4proto tcp th dport 8080 dnat to [fd00::5]:80 comment \"abc\"",
                "add rule ip6 cni_hostport hostports meta l4proto udp th dport 54 dnat to [fd00::5]:54 comment \"abc\"",
                "add rule ip6 cni_hostport masquerading ip6 saddr fd00::5 ip6 daddr fd00::5 masquerade comment \"abc\"",
            ]
        );
    }

    #[test]
    fn masq_all_takes_one_rule_whatever_the_source() {
        let json = JSON.replacen('{', r#"{"masqAll": true, "#, 1);
        let config = Config::parse(json.as_bytes()).unwrap();
        for (address, rule) in [
            ("10.1.0.5/24", "ct status dnat ip daddr 10.1.0.5 masquerade"),
            ("fd00::5/64", "ct status dnat ip6 daddr fd00::5 masquerade"),
        ] {
            let script = setup(&config, address.parse().unwrap(), "abc");
            let rules: Vec<_> = script
                .lines()
                .filter(|line| line.contains(" masquerade"))
                .collect();
            assert_eq!(rules.len(), 1, "{script}");
            assert!(rules[0].contains(rule), "{script}");
        }
    }

    #[test]
    fn teardown_and_check_go_by_the_comment() {
        let json = r#"{"nftables": [
            {"rule": {"chain": "hostports", "handle": 7, "comment": "abc"}},
            {"rule": {"chain": "hostports", "handle": 8, "comment": "abcd"}},
            {"rule": {"chain": "masquerading", "handle": 9, "comment": "abc"}}]}"#;
        let listed = Listed::parse(json).unwrap();
        assert_eq!(
            teardown(true, "abc", &listed),
            "delete rule ip6 cni_hostport hostports handle 7\n\
             delete rule ip6 cni_hostport masquerading handle 9\n"
        );
        let address = "10.1.0.5/24".parse().unwrap();
        assert_eq!(
            missing(&config(), address, "abc", &listed),
            ["hostports", "masquerading"]
        );
    }

    #[test]
    fn rules_in_either_chain_count() {
        let json = r#"{"nftables": [
            {"rule": {"chain": "hostports", "handle": 7, "comment": "abc"}},
            {"rule": {"chain": "hostip_hostports", "handle": 8, "comment": "abc"}},
            {"rule": {"chain": "masquerading", "handle": 9, "comment": "abc"}},
            {"rule": {"chain": "masquerading", "handle": 10, "comment": "abc"}}]}"#;
        let listed = Listed::parse(json).unwrap();
        let address = "10.1.0.5/24".parse().unwrap();
        assert!(missing(&config(), address, "abc", &listed).is_empty());
        assert_eq!(teardown(false, "abc", &listed).lines().count(), 4);
    }
}
