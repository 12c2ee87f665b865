//! A namespace's network state as sorted lines of text, free of what differs by chance: MAC
//! addresses, random names, indices, link-local addresses.

use crate::namespace::Namespace;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::HashSet;
use std::path::Path;

/// Links with their addresses, routes, the rules of both firewalls, and forwarding.
pub fn of(namespace: &Namespace) -> Result<Vec<String>> {
    let links = namespace.sh("ip -j -d address show")?;
    let links: Value = serde_json::from_str(&links).context("output of ip -j")?;
    let links = links.as_array().context("ip -j printed no list")?;
    let mut lines: Vec<_> = links.iter().map(link).collect();
    for command in [
        "ip route show",
        "ip -6 route show",
        "iptables -w -t nat -S",
        "ip6tables -w -t nat -S",
        "iptables -w -S",
        "ip6tables -w -S",
        "bridge vlan show",
    ] {
        let output = namespace.sh(command)?;
        lines.extend(
            output
                .lines()
                .map(|line| format!("{command}: {}", normal(line))),
        );
    }
    for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
        lines.push(format!("{key} = {}", namespace.sysctl(key)?));
    }
    lines.sort();
    Ok(lines)
}

/// What a Service proxy may leave: rules, chains, sets and tables of nftables and of both kinds of
/// iptables, and local routes. Empty tables and built-in chains of iptables do not count, since
/// merely looking makes them.
pub fn of_firewall(namespace: &Namespace) -> Result<Vec<String>> {
    let ruleset = namespace.sh("nft -j -t list ruleset")?;
    let ruleset: Value = serde_json::from_str(&ruleset).context("output of nft -j")?;
    let objects = ruleset["nftables"].as_array().context("nft -j: no list")?;
    let mut lines: Vec<_> = objects.iter().filter_map(nft_object).collect();
    for program in ["iptables-legacy-save", "ip6tables-legacy-save"] {
        let text = namespace.sh(program)?;
        let is_ours = |line: &&str| line.starts_with("-A") || line.contains(" - [");
        let kept = text.lines().filter(is_ours);
        lines.extend(kept.map(|line| format!("{program}: {}", line.replace(" [0:0]", ""))));
    }
    for command in ["ip route show table local", "ip -6 route show table local"] {
        let text = namespace.sh(command)?;
        let kept = text.lines().filter(|line| !line.contains("fe80::"));
        lines.extend(kept.map(|line| format!("{command}: {}", line.trim())));
    }
    lines.sort();
    Ok(lines)
}

/// An object of `nft -j list ruleset` without what the kernel numbers, or `None` if it is only the
/// frame of iptables.
fn nft_object(object: &Value) -> Option<String> {
    let (kind, value) = object.as_object()?.iter().next()?;
    let of_iptables = |name: &Value| {
        matches!(
            name.as_str(),
            Some("nat" | "filter" | "mangle" | "raw" | "security")
        )
    };
    let is_frame = match kind.as_str() {
        "metainfo" => true,
        "table" => of_iptables(&value["name"]),
        "chain" => of_iptables(&value["table"]) && value.get("hook").is_some(),
        _ => false,
    };
    if is_frame {
        return None;
    }
    let mut value = value.clone();
    if let Some(fields) = value.as_object_mut() {
        fields.remove("handle");
        if let Some(parts) = fields.get_mut("expr").and_then(Value::as_array_mut) {
            // What it has counted is no part of a rule.
            parts.retain(|part| part.get("counter").is_none());
        }
    }
    Some(format!("nft {kind} {value}"))
}

/// The files below a folder with their contents.
pub fn of_folder(folder: &Path) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    let mut left = vec![folder.to_owned()];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            for entry in std::fs::read_dir(&path)? {
                left.push(entry?.path());
            }
        } else if path.exists() {
            let content =
                std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
            let name = path.strip_prefix(folder)?.display().to_string();
            lines.push(format!("{name}: {:?}", String::from_utf8_lossy(&content)));
        }
    }
    lines.sort();
    Ok(lines)
}

/// Fails and shows what differs.
pub fn ensure_same(what: &str, expected: &[String], found: &[String]) -> Result<()> {
    let only = |a: &[String], b: &[String]| -> Vec<String> {
        let known: HashSet<_> = b.iter().collect();
        let rest = a.iter().filter(|line| !known.contains(line));
        rest.cloned().collect()
    };
    let (missing, extra) = (only(expected, found), only(found, expected));
    ensure!(
        missing.is_empty() && extra.is_empty() && expected.len() == found.len(),
        "{what} differs\n  missing:\n    {}\n  not expected:\n    {}",
        missing.join("\n    "),
        extra.join("\n    ")
    );
    Ok(())
}

fn link(link: &Value) -> String {
    let data = &link["linkinfo"]["info_slave_data"];
    let mut addresses: Vec<_> = link["addr_info"]
        .as_array()
        .map_or(&[][..], Vec::as_slice)
        .iter()
        .filter(|address| address["scope"] != "link")
        .map(|address| {
            format!(
                "{}/{} {}",
                address["local"], address["prefixlen"], address["scope"]
            )
        })
        .collect();
    addresses.sort();
    normal(&format!(
        "link {} mtu {} {} {} master {} hairpin {} isolated {} promiscuity {} has {}",
        text(&link["ifname"]),
        link["mtu"],
        text(&link["operstate"]),
        text(&link["linkinfo"]["info_kind"]),
        text(&link["master"]),
        data["hairpin"],
        data["isolated"],
        link["promiscuity"],
        addresses.join(", ")
    ))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

/// Replaces in a line each word that is different in every run.
pub fn normal(line: &str) -> String {
    let words = line.split_whitespace().map(|word| {
        let hex = |c: char| c.is_ascii_hexdigit();
        let is_veth = word
            .strip_prefix("veth")
            .is_some_and(|rest| rest.len() == 8 && rest.chars().all(hex));
        let is_mac = word.len() == 17
            && word.split(':').count() == 6
            && word
                .split(':')
                .all(|part| part.len() == 2 && part.chars().all(hex));
        match word {
            _ if is_veth => "VETH",
            _ if is_mac => "MAC",
            _ if word.starts_with("fe80::") && word != "fe80::/64" => "LINK-LOCAL",
            word => word,
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::normal;

    #[test]
    fn only_chance_is_taken_out() {
        assert_eq!(
            normal("veth0a1b2c3d  lladdr 02:42:ac:11:00:02 dev cni0 via fe80::1 fe80::/64"),
            "VETH lladdr MAC dev cni0 via LINK-LOCAL fe80::/64"
        );
        assert_eq!(normal("vethernet 10.5.1.0/24"), "vethernet 10.5.1.0/24");
    }
}
