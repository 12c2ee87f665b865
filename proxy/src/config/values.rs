//! Single values of flags and keys: each parser refuses what cannot be, with a remedy.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

use super::duration::parse_duration;

/// A mode by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ModeName {
    /// Maps of nftables.
    Nftables,
    /// kube-proxy's iptables chains.
    Iptables,
    /// A process that forwards.
    Userspace,
}

impl ModeName {
    /// As flags, logs and `/proxyMode` write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
            Self::Userspace => "userspace",
        }
    }
}

impl fmt::Display for ModeName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

/// `--proxy-mode`; `None`: the best that works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ModeChoice(pub Option<ModeName>);

pub(super) fn mode(text: &str) -> Result<ModeChoice, String> {
    Ok(ModeChoice(match text {
        "" | "auto" => None,
        "nftables" => Some(ModeName::Nftables),
        "iptables" => Some(ModeName::Iptables),
        "userspace" => Some(ModeName::Userspace),
        "ipvs" => {
            return Err(
                "ipvs is not offered here (kube-proxy has it deprecated): use nftables, whose \
                 lookups do not grow with the number of Services either, or iptables"
                    .to_owned(),
            );
        }
        _ => return Err("use auto, nftables, iptables or userspace".to_owned()),
    }))
}

/// `--detect-local-mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum LocalMode {
    /// By `--cluster-cidr`.
    #[default]
    ClusterCidr,
    /// By the Node's podCIDRs.
    NodeCidr,
    /// By `--pod-bridge-interface`.
    BridgeInterface,
    /// By `--pod-interface-name-prefix`.
    InterfaceNamePrefix,
}

pub(super) fn local_mode(text: &str) -> Result<LocalMode, String> {
    Ok(match text {
        "" | "ClusterCIDR" => LocalMode::ClusterCidr,
        "NodeCIDR" => LocalMode::NodeCidr,
        "BridgeInterface" => LocalMode::BridgeInterface,
        "InterfaceNamePrefix" => LocalMode::InterfaceNamePrefix,
        _ => {
            return Err(
                "use ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix".to_owned(),
            );
        }
    })
}

/// Which iptables programs to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IptablesVariant {
    /// Those that hold rules already, else the default of the machine.
    #[default]
    Auto,
    /// `iptables-nft`.
    Nft,
    /// `iptables-legacy`.
    Legacy,
}

pub(super) fn variant(text: &str) -> Result<IptablesVariant, String> {
    Ok(match text {
        "auto" => IptablesVariant::Auto,
        "nft" => IptablesVariant::Nft,
        "legacy" => IptablesVariant::Legacy,
        _ => return Err("use auto, nft or legacy".to_owned()),
    })
}

/// `--session-affinity`; true: by hash.
pub(super) fn affinity_by_hash(text: &str) -> Result<bool, String> {
    match text {
        "table" => Ok(false),
        "hash" => Ok(true),
        _ => Err(
            "use table (clients are remembered) or hash (chosen by the client's address)"
                .to_owned(),
        ),
    }
}

/// One item of `--nodeport-addresses`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodePortAddress {
    /// The node's primary address of each family.
    Primary,
    /// The local addresses in this network.
    Net(IpNet),
}

impl fmt::Display for NodePortAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Primary => out.write_str("primary"),
            Self::Net(net) => net.fmt(out),
        }
    }
}

/// A comma-separated list that may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct List<T>(pub Vec<T>);

fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
}

pub(super) fn node_port_addresses(text: &str) -> Result<List<NodePortAddress>, String> {
    const KEYWORDS: [(&str, [&str; 2]); 2] = [
        ("all", ["0.0.0.0/0", "::/0"]),
        ("localhost", ["127.0.0.0/8", "::1/128"]),
    ];
    let mut list = Vec::new();
    for item in items(text) {
        if item == "primary" {
            list.push(NodePortAddress::Primary);
        } else if let Some((_, nets)) = KEYWORDS.iter().find(|(word, _)| *word == item) {
            for net in nets {
                list.push(NodePortAddress::Net(network(net)?));
            }
        } else {
            let net = network(item).map_err(|why| format!("{why}, or the word primary"))?;
            list.push(NodePortAddress::Net(net));
        }
    }
    Ok(List(list))
}

pub(super) fn networks(text: &str) -> Result<List<IpNet>, String> {
    items(text).map(network).collect::<Result<_, _>>().map(List)
}

fn network(text: &str) -> Result<IpNet, String> {
    IpNet::from_str(text)
        .map(|net| net.trunc())
        .map_err(|_| format!("{text:?} is no network: write it like 10.244.0.0/16 or fd00::/64"))
}

/// An address to override the node's; an unspecified one overrides nothing.
pub(super) fn address(text: &str) -> Result<IpAddr, String> {
    text.parse()
        .map_err(|_| "it is no IP address: write it like 192.0.2.1 or 2001:db8::1".to_owned())
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text)
}

/// A duration that is not zero.
pub(super) fn period(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err("it must be greater than 0".to_owned()),
        period => Ok(period),
    }
}

/// As Go reads a truth value.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("use true or false".to_owned()),
    }
}

/// `a=true,b=false`.
pub(super) fn feature_gates(text: &str) -> Result<List<(String, bool)>, String> {
    items(text)
        .map(|item| {
            let (name, value) = item
                .split_once('=')
                .ok_or_else(|| format!("{item:?} has no value: write Name=true or Name=false"))?;
            let value = boolean(value.trim()).map_err(|why| format!("{}: {why}", name.trim()))?;
            Ok((name.trim().to_owned(), value))
        })
        .collect::<Result<_, _>>()
        .map(List)
}

/// A name of an interface, or the beginning of one, as the kernel allows them and as nftables and
/// iptables take them literally.
pub(super) fn interface(text: &str) -> Result<String, String> {
    const REFUSED: [char; 6] = ['/', ':', '"', '\\', '*', '+'];
    let odd = |c: char| c.is_whitespace() || c.is_control() || REFUSED.contains(&c);
    if text.len() > 15 || text == "." || text == ".." || text.contains(odd) {
        return Err(
            "it is no interface name: at most 15 bytes, without spaces, / : * +".to_owned(),
        );
    }
    Ok(text.to_owned())
}
