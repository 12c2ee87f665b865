//! Port forwarding in iptables, table `nat`: shared chains that every container uses, and one chain
//! per container.
//!
//! ```text
//! PREROUTING, OUTPUT:   to a local address       -> CNI-HOSTPORT-DNAT
//! CNI-HOSTPORT-DNAT:    the container's ports    -> CNI-DN-<hash>
//! CNI-DN-<hash>:        hairpin, localhost       -> CNI-HOSTPORT-SETMARK (goes on)
//!                       a port                   -> DNAT to the container
//! POSTROUTING, first:   all                      -> CNI-HOSTPORT-MASQ: marked -> MASQUERADE
//! ```
//! Names, order and comments are the reference plugin's: operators and upgrades rely on them.

use std::{collections::BTreeMap, net::IpAddr};

use kernel::ipnet::IpNet;

use super::config::{Config, Mapping, Mark};
use crate::netfilter::{line, names, saved::Saved};

const DNAT: &str = "CNI-HOSTPORT-DNAT";
const SETMARK: &str = "CNI-HOSTPORT-SETMARK";
const MASQ: &str = "CNI-HOSTPORT-MASQ";
/// `multiport` takes no more ports than these.
const PORTS_PER_RULE: usize = 15;
const COMMENT_LENGTH: usize = 255;

/// What one address of one container needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    shared: Vec<SharedRule>,
    chain: String,
    rules: Vec<Vec<String>>,
    entries: Vec<Vec<String>>,
}

/// A rule that all containers share.
#[derive(Clone, Debug, PartialEq, Eq)]
struct SharedRule {
    chain: &'static str,
    words: Vec<String>,
    /// It must stand before others (POSTROUTING: before the plugins' own masquerade rules).
    first: bool,
    /// Option and value by which it is known among saved rules, besides its target.
    mark: Option<(&'static str, String)>,
}

/// The name of a container's own chain.
pub fn chain_name(network: &str, container: &str) -> String {
    names::chain("DN-", network, container)
}

/// The rules for one address of a container; `address` has its subnet's prefix length.
pub fn desired(config: &Config, address: IpNet, network: &str, container: &str) -> Desired {
    let ipv6 = address.addr().is_ipv6();
    let chain = chain_name(network, container);
    Desired {
        shared: shared_rules(config),
        rules: config
            .mappings
            .iter()
            .filter(|mapping| mapping.applies_to(ipv6))
            .flat_map(|mapping| mapping_rules(config, mapping, address))
            .collect(),
        entries: entry_rules(config, ipv6, network, container, &chain),
        chain,
    }
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|&word| word.to_owned()).collect()
}

fn shared_rules(config: &Config) -> Vec<SharedRule> {
    let mut rules: Vec<_> = ["PREROUTING", "OUTPUT"]
        .into_iter()
        .map(|chain| SharedRule {
            chain,
            words: words(&["-m", "addrtype", "--dst-type", "LOCAL", "-j", DNAT]),
            first: false,
            mark: None,
        })
        .collect();
    if let (true, Mark::Bit(bit)) = (config.snat, &config.mark) {
        let mark = format!("{0:#x}/{0:#x}", 1u32 << bit);
        let comment = ["-m", "comment", "--comment"];
        rules.push(SharedRule {
            chain: SETMARK,
            words: words(
                &[
                    &comment[..],
                    &[
                        "CNI portfwd masquerade mark",
                        "-j",
                        "MARK",
                        "--set-xmark",
                        &mark,
                    ],
                ]
                .concat(),
            ),
            first: false,
            mark: Some(("--set-xmark", mark.clone())),
        });
        rules.push(SharedRule {
            chain: MASQ,
            words: words(&["-m", "mark", "--mark", &mark, "-j", "MASQUERADE"]),
            first: false,
            mark: Some(("--mark", mark)),
        });
        rules.push(SharedRule {
            chain: "POSTROUTING",
            words: words(
                &[
                    &comment[..],
                    &["CNI portfwd requiring masquerade", "-j", MASQ],
                ]
                .concat(),
            ),
            first: true,
            mark: None,
        });
    }
    rules
}

fn mapping_rules(config: &Config, mapping: &Mapping, address: IpNet) -> Vec<Vec<String>> {
    let port = mapping.host_port.to_string();
    let mut base = words(&["-p", mapping.protocol.as_str(), "--dport", &port]);
    if let Some(ip) = mapping.destination() {
        base.extend(["-d".to_owned(), ip.to_string()]);
    }
    let rule = |tail: &[&str]| [base.clone(), words(tail)].concat();
    let ipv6 = address.addr().is_ipv6();
    let set_mark = match &config.mark {
        Mark::Bit(_) => SETMARK,
        Mark::Chain(chain) => chain,
    };
    let mut rules = Vec::new();
    if config.snat {
        let from = match (config.masq_all, ipv6) {
            (true, true) => "::/0".to_owned(),
            (true, false) => "0.0.0.0/0".to_owned(),
            (false, _) => address.to_string(),
        };
        rules.push(rule(&["-s", &from, "-j", set_mark]));
        if !ipv6 && !config.masq_all {
            rules.push(rule(&["-s", "127.0.0.1", "-j", set_mark]));
        }
    }
    let target = match address.addr() {
        IpAddr::V4(ip) => format!("{ip}:{}", mapping.container_port),
        IpAddr::V6(ip) => format!("[{ip}]:{}", mapping.container_port),
    };
    rules.push(rule(&["-j", "DNAT", "--to-destination", &target]));
    rules
}

fn entry_rules(
    config: &Config,
    ipv6: bool,
    network: &str,
    container: &str,
    chain: &str,
) -> Vec<Vec<String>> {
    let comment = comment(network, container);
    let mut by_protocol: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for mapping in &config.mappings {
        by_protocol
            .entry(mapping.protocol)
            .or_default()
            .push(mapping.host_port.to_string());
    }
    let mut rules = Vec::new();
    for (protocol, ports) in by_protocol {
        for ports in ports.chunks(PORTS_PER_RULE) {
            let mut rule = words(&["-m", "comment", "--comment", &comment]);
            rule.extend(words(&["-m", "multiport", "-p", protocol.as_str()]));
            rule.extend(["--destination-ports".to_owned(), ports.join(",")]);
            rule.extend_from_slice(config.conditions(ipv6));
            rule.extend(words(&["-j", chain]));
            rules.push(rule);
        }
    }
    rules
}

fn comment(network: &str, container: &str) -> String {
    let mut comment = format!("dnat {}", names::comment(network, container));
    if comment.len() > COMMENT_LENGTH {
        let mut end = COMMENT_LENGTH - 2;
        while !comment.is_char_boundary(end) {
            end -= 1;
        }
        comment.truncate(end);
        comment.push_str("...");
    }
    comment
}

impl Desired {
    /// Lines that succeed if the shared rules are all there and the container's chain is not: the
    /// usual case, in one process. Otherwise they change nothing, and [`Desired::plan`] must look.
    pub fn optimistic(&self) -> Vec<String> {
        let mut lines: Vec<_> = self.shared_checks().collect();
        lines.push(format!("-N {}", self.chain));
        lines.extend(self.own_lines("-A"));
        lines
    }

    /// Lines that lead from what is there to what is desired. The container's chain is made anew,
    /// whatever an earlier container of that name left in it.
    pub fn plan(&self, saved: &Saved) -> Vec<String> {
        let mut lines = saved.remove_chain(&self.chain);
        let mut made = vec![DNAT, SETMARK, MASQ];
        made.retain(|name| {
            !saved.has_chain(name)
                && (*name == DNAT || self.shared.iter().any(|r| r.chain == *name))
        });
        lines.extend(made.iter().map(|name| format!("-N {name}")));
        for rule in self.shared.iter().filter(|rule| !rule.is_in(saved)) {
            let command = if rule.first {
                format!("-I {} 1", rule.chain)
            } else {
                format!("-A {}", rule.chain)
            };
            lines.push(line(&command, &rule.words));
        }
        lines.push(format!("-N {}", self.chain));
        lines.extend(self.own_lines("-A"));
        lines
    }

    /// Lines that succeed if everything is there, and change nothing.
    pub fn checks(&self) -> Vec<String> {
        self.shared_checks().chain(self.own_lines("-C")).collect()
    }

    fn shared_checks(&self) -> impl Iterator<Item = String> {
        self.shared
            .iter()
            .map(|rule| line(&format!("-C {}", rule.chain), &rule.words))
    }

    fn own_lines(&self, command: &str) -> impl Iterator<Item = String> {
        let rules = self.rules.iter().map(|rule| (self.chain.as_str(), rule));
        let entries = self.entries.iter().map(|rule| (DNAT, rule));
        rules
            .chain(entries)
            .map(move |(chain, rule)| line(&format!("{command} {chain}"), rule))
    }
}

impl SharedRule {
    fn is_in(&self, saved: &Saved) -> bool {
        let target = self.words.iter().skip_while(|word| *word != "-j").nth(1);
        saved.chain(self.chain).any(|rule| {
            rule.option("-j") == target.map(String::as_str)
                && self
                    .mark
                    .as_ref()
                    .is_none_or(|(option, value)| rule.option(option) == Some(value))
        })
    }
}

/// Lines that remove what a container has, also what older versions of the reference made.
pub fn removal(network: &str, container: &str, saved: &Saved) -> Vec<String> {
    ["DN-", "SN-"]
        .iter()
        .flat_map(|prefix| saved.remove_chain(&names::chain(prefix, network, container)))
        .collect()
}

/// Lines that make a container's chain, and the jumps to it, as they are; none if it has none.
pub fn own_rules(network: &str, container: &str, saved: &Saved) -> Vec<String> {
    let chain = chain_name(network, container);
    if !saved.has_chain(&chain) {
        return Vec::new();
    }
    let mut lines = vec![format!("-N {chain}")];
    let rules = saved.chain(&chain).chain(saved.jumps_to(&chain));
    lines.extend(rules.map(|rule| format!("-A {} {}", rule.chain, rule.text)));
    lines
}

/// Lines that remove the chain of every container of `network` that is not among `valid`.
pub fn garbage(network: &str, valid: &[&str], saved: &Saved) -> Vec<String> {
    let mut containers: Vec<_> = saved
        .chain(DNAT)
        .filter_map(|rule| {
            let comment = rule.comment()?.strip_prefix("dnat ")?;
            let container = names::container_of(comment, network)?;
            let own = rule.option("-j") == Some(&chain_name(network, container));
            (own && !valid.contains(&container)).then_some(container)
        })
        .collect();
    containers.sort_unstable();
    containers.dedup();
    containers
        .iter()
        .flat_map(|container| removal(network, container, saved))
        .collect()
}

#[cfg(test)]
mod tests;
