//! The node-local address: Pods ask their own node's server at an address that is the same everywhere.
//!
//! Nothing translates it, and its packets are not tracked, so two queries that a resolver sends at once from one port
//! (A and AAAA) cannot lose each other in the connection table, as they can on the way to a Service's address. It is an
//! address of `lo`: a packet to it ends on the node that it enters. The idea is Kubernetes' NodeLocal DNSCache (KEP-1024),
//! and so is the usual address, 169.254.20.10.
//!
//! At the end both stay: without a server a query is refused at once, and the resolver asks its next one.

use std::fmt::Write as _;
use std::net::IpAddr;

use kernel::{Address, Change, Netlink, nft};

/// The usual one.
pub const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(169, 254, 20, 10));
/// Our table, of family inet.
const TABLE: &str = "weft-dns";
const LINK: &str = "lo";

/// Gives the calling thread's network namespace the addresses. Packets are tracked all the same where nftables is
/// missing, which is logged.
///
/// # Errors
/// The address cannot be added.
pub fn set_up(addresses: &[IpAddr], port: u16) -> anyhow::Result<()> {
    if addresses.is_empty() {
        return Ok(());
    }
    let mut netlink = Netlink::open()?;
    let link = netlink.expect_link(LINK)?;
    netlink.ensure_up(&link)?;
    for address in addresses {
        netlink.ensure_address(&own(*address, link.index))?;
    }
    match nft::apply(&script(addresses, port)) {
        Ok(()) => tracing::info!("{} on {LINK}, port {port} not tracked", listed(addresses)),
        Err(error) => tracing::warn!(
            "{error}; {} works, but its packets are tracked: queries sent at once from one port may be lost",
            listed(addresses)
        ),
    }
    Ok(())
}

/// Takes away what [`set_up`] made.
///
/// # Errors
/// Something that is there cannot be taken away.
pub fn remove(addresses: &[IpAddr]) -> anyhow::Result<()> {
    let mut netlink = Netlink::open()?;
    let link = netlink.expect_link(LINK)?;
    let present = netlink.addresses(Some(link.index))?;
    let ours = present
        .into_iter()
        .filter(|found| addresses.contains(&found.net.addr()));
    let changes: Vec<_> = ours.map(Change::DeleteAddress).collect();
    netlink.apply_or_fail(&changes)?;
    if nft::list_table("inet", TABLE)?.is_some() {
        nft::apply(&format!("delete table inet {TABLE}\n"))?;
    }
    Ok(())
}

fn own(address: IpAddr, dev: u32) -> Address {
    Address {
        nodad: true,
        ..Address::new(dev, address.into())
    }
}

fn listed(addresses: &[IpAddr]) -> String {
    let texts: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    texts.join(", ")
}

/// Replaces our table, in one transaction.
fn script(addresses: &[IpAddr], port: u16) -> String {
    let mut arriving = String::new();
    let mut leaving = String::new();
    for address in addresses {
        let family = if address.is_ipv4() { "ip" } else { "ip6" };
        let asks = format!(
            "    {family} daddr {address} meta l4proto {{ tcp, udp }} th dport {port} notrack\n"
        );
        arriving.push_str(&asks);
        // Programs of the node itself ask too.
        leaving.push_str(&asks);
        // Writing to a String does not fail.
        let _ = writeln!(
            leaving,
            "    {family} saddr {address} meta l4proto {{ tcp, udp }} th sport {port} notrack"
        );
    }
    format!(
        "add table inet {TABLE}\ndelete table inet {TABLE}\ntable inet {TABLE} {{\n  chain prerouting {{\n    type filter hook prerouting priority raw; policy accept;\n{arriving}  }}\n  chain output {{\n    type filter hook output priority raw; policy accept;\n{leaving}  }}\n}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_and_answers_are_not_tracked() {
        let script = script(&[ADDRESS, "fd00::a".parse().unwrap()], 53);
        let expected = "\
add table inet weft-dns
delete table inet weft-dns
table inet weft-dns {
  chain prerouting {
    type filter hook prerouting priority raw; policy accept;
    ip daddr 169.254.20.10 meta l4proto { tcp, udp } th dport 53 notrack
    ip6 daddr fd00::a meta l4proto { tcp, udp } th dport 53 notrack
  }
  chain output {
    type filter hook output priority raw; policy accept;
    ip daddr 169.254.20.10 meta l4proto { tcp, udp } th dport 53 notrack
    ip saddr 169.254.20.10 meta l4proto { tcp, udp } th sport 53 notrack
    ip6 daddr fd00::a meta l4proto { tcp, udp } th dport 53 notrack
    ip6 saddr fd00::a meta l4proto { tcp, udp } th sport 53 notrack
  }
}
";
        assert_eq!(script, expected);
    }
}
