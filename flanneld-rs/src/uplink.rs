//! The external interface: which one carries traffic between nodes, and which addresses we announce.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The chosen interface. Its addresses and MTU may change while the daemon runs; a changed value is a new `Uplink`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// Kernel index of the link.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MTU.
    pub mtu: u32,
    /// Its own address; present when the network has IPv4.
    pub address_v4: Option<Ipv4Addr>,
    /// Its own address; present when the network has IPv6.
    pub address_v6: Option<Ipv6Addr>,
    /// What peers send to: `--public-ip`, else the interface's own.
    pub public_v4: Option<Ipv4Addr>,
    /// What peers send to: `--public-ipv6`, else the interface's own.
    pub public_v6: Option<Ipv6Addr>,
}

impl Uplink {
    /// True when `ip` is one of this node's own announced or interface addresses.
    pub fn owns(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(ip) => [self.address_v4, self.public_v4].contains(&Some(ip)),
            IpAddr::V6(ip) => [self.address_v6, self.public_v6].contains(&Some(ip)),
        }
    }
}
