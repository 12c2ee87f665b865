//! The underlay: a bridge in a namespace of its own, nodes on it, and an "outside" behind a router.
//!
//! ```text
//!   outside 203.0.113.1 ── .254 underlay 192.168.66.1 ═ br0 ═╦═ n1 192.168.66.11 (eth0)
//!   2001:db8:113::1        ::254         fd66::1             ╠═ n2 192.168.66.12
//!                                                            ╚═ …
//! ```
//! The underlay namespace is the nodes' default gateway. The outside knows the way to the nodes,
//! not to any Pod: what it can answer has been masqueraded.

use crate::namespace::Namespace;
use crate::run::Run;
use anyhow::{Context, Result};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The address of the router and of etcd, IPv4.
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 168, 66, 1);
/// The address of the router and of etcd, IPv6.
pub const ROUTER6: Ipv6Addr = Ipv6Addr::new(0xfd66, 0, 0, 0, 0, 0, 0, 1);
/// The address of the outside, IPv4.
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// The address of the outside, IPv6.
pub const OUTSIDE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 1);

/// The underlay namespace and the outside.
#[derive(Debug)]
pub struct Underlay {
    /// Holds the bridge; also where etcd runs.
    pub namespace: Namespace,
    /// Plays the world beyond the site.
    pub outside: Namespace,
}

impl Underlay {
    /// Makes both namespaces and joins them.
    pub fn new(run: &Run) -> Result<Self> {
        let namespace = run.namespace("underlay")?;
        let outside = run.namespace("outside")?;
        for each in [&namespace, &outside] {
            trust_addresses(each, true)?;
        }
        namespace.ip_batch(&format!(
            "link add br0 type bridge
             link set br0 up
             address add {ROUTER}/24 dev br0
             address add {ROUTER6}/64 dev br0 nodad
             link add world type veth peer name eth0 netns {outside}
             link set world up
             address add 203.0.113.254/24 dev world
             address add 2001:db8:113::254/64 dev world nodad",
            outside = outside.name()
        ))?;
        namespace.set_sysctl("net/ipv4/ip_forward", "1")?;
        namespace.set_sysctl("net/ipv6/conf/all/forwarding", "1")?;
        outside.ip_batch(&format!(
            "link set eth0 up
             address add {OUTSIDE}/24 dev eth0
             address add {OUTSIDE6}/64 dev eth0 nodad
             route add 192.168.66.0/24 via 203.0.113.254
             route add fd66::/64 via 2001:db8:113::254"
        ))?;
        Ok(Self { namespace, outside })
    }

    /// Makes node number `number` (1 …) and joins it by a veth pair, its end called `eth0`.
    pub fn join(&self, run: &Run, number: u8) -> Result<Namespace> {
        let node = run.namespace(&format!("n{number}"))?;
        trust_addresses(&node, true)?;
        self.namespace.ip_batch(&format!(
            "link add n{number} type veth peer name eth0 netns {node}
             link set n{number} master br0 up",
            node = node.name()
        ))?;
        let (v4, v6) = node_addresses(number);
        node.ip_batch(&format!(
            "link set eth0 up
             address add {v4}/24 dev eth0
             address add {v6}/64 dev eth0 nodad
             route add default via {ROUTER}
             route add default via {ROUTER6}"
        ))
        .with_context(|| format!("address node n{number}"))?;
        trust_addresses(&node, false)?;
        Ok(node)
    }
}

/// Lets links made from now on skip duplicate address detection, also of their link-local address:
/// neighbour discovery is silent for a second otherwise.
fn trust_addresses(namespace: &Namespace, yes: bool) -> Result<()> {
    namespace.set_sysctl(
        "net/ipv6/conf/default/accept_dad",
        if yes { "0" } else { "1" },
    )
}

/// The underlay addresses of node `number`: 192.168.66.11 and fd66::11 for the first.
pub fn node_addresses(number: u8) -> (Ipv4Addr, Ipv6Addr) {
    let v4 = Ipv4Addr::new(192, 168, 66, 10 + number);
    // The same digits in both families: n2 is .12 and ::12.
    let digits = u16::from(number / 10 + 1) * 16 + u16::from(number % 10);
    (v4, Ipv6Addr::new(0xfd66, 0, 0, 0, 0, 0, 0, digits))
}

/// The outside's address in the family of `like`.
pub fn outside_for(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => OUTSIDE.into(),
        IpAddr::V6(_) => OUTSIDE6.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::node_addresses;

    #[test]
    fn both_families_show_the_same_digits() {
        let (v4, v6) = node_addresses(1);
        assert_eq!(
            (v4.to_string().as_str(), v6.to_string().as_str()),
            ("192.168.66.11", "fd66::11")
        );
        let (v4, v6) = node_addresses(12);
        assert_eq!(
            (v4.to_string().as_str(), v6.to_string().as_str()),
            ("192.168.66.22", "fd66::22")
        );
    }
}
