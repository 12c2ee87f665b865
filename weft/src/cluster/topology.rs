//! The namespaces of a cluster and the bridge between them.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use anyhow::Context;
use ipnet::{IpNet, Ipv4Net};
use kernel::{Address, Change, Link, Netlink, Netns, NewLink, NewLinkKind, Route, SetLink, sysctl};

/// The API server's address, and the nodes' default gateway.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 66, 1);
const BRIDGE: &str = "br0";
const PREFIX: u8 = 24;

/// Address of node `number`: 192.168.66.11 is the first.
pub fn node_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 66, 10_u8.saturating_add(number))
}

/// The name of a node's namespace under /run/netns, or of the underlay's.
pub fn namespace(cluster: &str, node: Option<&str>) -> String {
    match node {
        Some(node) => format!("weft-{cluster}-{node}"),
        None => format!("weft-{cluster}"),
    }
}

/// Opens a namespace, or makes it.
fn ensure_namespace(name: &str) -> anyhow::Result<(Netns, bool)> {
    let path = Path::new("/run/netns").join(name);
    if path.exists()
        && let Ok(there) = Netns::open(&path)
    {
        return Ok((there, false));
    }
    if path.exists() {
        // Left half-made.
        Netns::delete(name)?;
    }
    Ok((Netns::create(name)?, true))
}

/// Makes the underlay unless it is there.
pub fn ensure_underlay(cluster: &str) -> anyhow::Result<Netns> {
    let (underlay, _) = ensure_namespace(&namespace(cluster, None))?;
    let made = underlay.run(|| -> anyhow::Result<()> {
        let mut netlink = Netlink::open()?;
        let loopback = netlink.expect_link("lo")?;
        netlink.ensure_up(&loopback)?;
        let mut bridge = NewLink::new(
            BRIDGE,
            NewLinkKind::Bridge {
                vlan_filtering: None,
            },
        );
        bridge.up = true;
        let (bridge, _) = netlink.ensure_link(&bridge)?;
        netlink.ensure_address(&address(bridge.index, SERVER))?;
        sysctl::ensure("net/ipv4/ip_forward", "1")?;
        Ok(())
    })?;
    made.context("make the underlay")?;
    Ok(underlay)
}

/// Makes a node's namespace and joins it to the underlay, unless that is so.
pub fn ensure_node(cluster: &str, underlay: &Netns, number: u8) -> anyhow::Result<Netns> {
    let name = format!("n{number}");
    let (node, _) = ensure_namespace(&namespace(cluster, Some(&name)))?;
    let joined =
        node.run(|| Ok::<_, kernel::Error>(Netlink::open()?.link("eth0")?.is_some()))??;
    if !joined {
        let far = node.as_fd().as_raw_fd();
        underlay
            .run(|| -> anyhow::Result<()> {
                let mut netlink = Netlink::open()?;
                let bridge = netlink.expect_link(BRIDGE)?;
                // The wire of a node that has failed: its namespace takes a while to go.
                if let Some(Link { index, name, .. }) = netlink.link(&name)? {
                    netlink.apply(&Change::DeleteLink { index, name })?;
                }
                let mut peer = NewLink::new("eth0", NewLinkKind::Plain);
                peer.netns = Some(far);
                let mut link = NewLink::new(
                    &name,
                    NewLinkKind::Veth {
                        peer: Box::new(peer),
                    },
                );
                link.up = true;
                link.master = Some(bridge.index);
                netlink.apply(&Change::AddLink(link))?;
                Ok(())
            })?
            .with_context(|| format!("join node {name} to the underlay"))?;
    }
    node.run(|| -> anyhow::Result<()> {
        let mut netlink = Netlink::open()?;
        for link in ["lo", "eth0"] {
            let link = netlink.expect_link(link)?;
            netlink.ensure_up(&link)?;
        }
        let eth0 = netlink.expect_link("eth0")?;
        netlink.ensure_address(&address(eth0.index, node_address(number)))?;
        let mut default = Route::new(IpNet::V4(Ipv4Net::default()));
        default.via = Some(SERVER.into());
        default.dev = Some(eth0.index);
        netlink.ensure_route(&default)?;
        Ok(())
    })?
    .with_context(|| format!("set up node {name}"))?;
    Ok(node)
}

/// Pulls a node's plug, or puts it in again.
pub fn plug(cluster: &str, number: u8, up: bool) -> anyhow::Result<()> {
    let path = Path::new("/run/netns").join(namespace(cluster, None));
    let changed = Netns::open(path)?.run(|| -> kernel::Result<()> {
        let mut netlink = Netlink::open()?;
        let link = netlink.expect_link(&format!("n{number}"))?;
        netlink.apply(&Change::SetLink(SetLink {
            index: link.index,
            up: Some(up),
            ..SetLink::default()
        }))
    })?;
    Ok(changed?)
}

fn address(dev: u32, ip: Ipv4Addr) -> Address {
    let net = Ipv4Net::new(ip, PREFIX).unwrap_or_default();
    Address::new(dev, IpNet::V4(net))
}

/// The namespaces under /run/netns that belong to a cluster, whether or not it is written down.
pub fn namespaces(cluster: &str) -> Vec<String> {
    let own = namespace(cluster, None);
    let nodes = format!("{own}-n");
    let Ok(entries) = std::fs::read_dir("/run/netns") else {
        return Vec::new();
    };
    let names = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    let number = |rest: &str| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit());
    names
        .filter(|name| *name == own || name.strip_prefix(&nodes).is_some_and(number))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_numbered_from_eleven() {
        assert_eq!(node_address(1).to_string(), "192.168.66.11");
        assert_eq!(namespace("weft", Some("n1")), "weft-weft-n1");
    }
}
