//! Announcing an address: gratuitous ARP (RFC 5227) and unsolicited neighbour advertisement
//! (RFC 4861 section 7.2.6), so that neighbours drop what they remember of a former owner.
//!
//! The kernel sends them itself when a link's hardware address is set, also to the value it has
//! (`inetdev_event`, `ndisc_netdev_event`: NETDEV_CHANGEADDR), if the link's `arp_notify` or
//! `ndisc_notify` is on. A packet socket could send them too, but closing one makes the process
//! wait for an RCU grace period (`packet_release`): 10 ms, several times the rest of a CNI ADD.

use std::net::IpAddr;

use crate::{Change, Link, Netlink, Result, SetLink, sysctl};

/// Announces the addresses of `link` that are of the family of `ip`, in the calling thread's
/// namespace. A link without an Ethernet address has no one to tell.
pub fn announce(link: &Link, ip: IpAddr) -> Result<()> {
    let Some(mac) = link.mac else {
        return Ok(());
    };
    let switch = match ip {
        IpAddr::V4(_) => format!("net/ipv4/conf/{}/arp_notify", link.name),
        IpAddr::V6(_) => format!("net/ipv6/conf/{}/ndisc_notify", link.name),
    };
    sysctl::ensure(&switch, "1")?;
    Netlink::open()?.apply(&Change::SetLink(SetLink {
        index: link.index,
        mac: Some(mac),
        ..SetLink::default()
    }))
}
