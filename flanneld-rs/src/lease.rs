//! A lease: the subnet one node holds, where the node is, and what its backend announces to peers.

pub mod attrs;
pub mod claim;
pub mod key;
pub mod renew;
pub mod store;

use std::fmt;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

pub use attrs::{BackendData, LeaseAttrs};

/// The subnets of one lease, which are also its name in the store. At least one family is present.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnet {
    /// IPv4 part, host bits zero.
    pub v4: Option<Ipv4Net>,
    /// IPv6 part, host bits zero.
    pub v6: Option<Ipv6Net>,
}

impl Subnet {
    /// The networks present, IPv4 first.
    pub fn nets(&self) -> impl Iterator<Item = IpNet> + use<> {
        let v4 = self.v4.map(IpNet::V4);
        v4.into_iter().chain(self.v6.map(IpNet::V6))
    }

    /// True when any network of `self` shares an address with one of `other`.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.nets()
            .any(|a| other.nets().any(|b| nets_overlap(a, b)))
    }

    /// True when `ip` lies in one of the networks.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.nets().any(|net| net.contains(&ip))
    }
}

/// CIDR blocks overlap only when one holds the other.
fn nets_overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.v4, self.v6) {
            (Some(v4), Some(v6)) => write!(f, "{v4} and {v6}"),
            (Some(v4), None) => v4.fmt(f),
            (None, Some(v6)) => v6.fmt(f),
            (None, None) => f.write_str("no subnet"),
        }
    }
}

/// One node's claim on a subnet, as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// What is claimed.
    pub subnet: Subnet,
    /// By whom, and how to reach it.
    pub attrs: LeaseAttrs,
}
