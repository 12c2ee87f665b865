//! Ranges of addresses, and sets of them; pure.

use crate::cni::result::{Address, Cidr};
use ipnet::IpNet;
use serde::Deserialize;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A range as written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Written {
    range_start: Address,
    range_end: Address,
    subnet: Option<Cidr>,
    gateway: Address,
}

impl Written {
    /// Whether it says anything: without a subnet the reference ignores the rest.
    pub fn has_subnet(&self) -> bool {
        self.subnet.is_some()
    }
}

/// A part of a subnet from which addresses are given out, both ends included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// The subnet, without host bits.
    pub subnet: IpNet,
    /// First address.
    pub start: IpAddr,
    /// Last address, not before the first.
    pub end: IpAddr,
    /// Never given out.
    pub gateway: IpAddr,
}

impl Range {
    /// Fills in what is not written and refuses what does not fit together.
    pub fn check(written: Written) -> Result<Self, String> {
        let Some(Cidr(subnet)) = written.subnet else {
            return Err("range without subnet".to_owned());
        };
        if subnet.prefix_len() + 2 > subnet.max_prefix_len() {
            return Err(format!("Network {subnet} too small to allocate from"));
        }
        if subnet.addr() != subnet.network() {
            return Err(format!(
                "Network has host bits set. For a subnet mask of length {} the network address is {}",
                subnet.prefix_len(),
                subnet.network()
            ));
        }
        let first = ip(number(subnet.network()) + 1, subnet);
        // The last address of an IPv4 subnet is its broadcast address.
        let spare = u128::from(subnet.addr().is_ipv4());
        let last = ip(number(subnet.broadcast()) - spare, subnet);
        let outside = |name, ip| format!("{name} {ip} not in network {subnet}");
        let start = written.range_start.0.unwrap_or(first);
        if !subnet.contains(&start) {
            return Err(outside("RangeStart", start));
        }
        let end = written.range_end.0.unwrap_or(last);
        if !subnet.contains(&end) || end < start {
            return Err(outside("RangeEnd", end));
        }
        Ok(Self {
            subnet,
            start,
            end,
            gateway: written.gateway.0.unwrap_or(first),
        })
    }

    /// Whether the address lies between both ends.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.subnet.contains(&ip) && self.start <= ip && ip <= self.end
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.start)
            || self.contains(other.end)
            || other.contains(self.start)
            || other.contains(self.end)
    }

    /// The addresses from `from` to `to`, both included; empty if `to` is before `from`.
    fn span(&self, from: u128, to: u128) -> impl Iterator<Item = (IpAddr, &Self)> {
        (from..=to).map(move |n| (ip(n, self.subnet), self))
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.start, self.end)
    }
}

/// Ranges of one family out of which one address is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeSet(Vec<Range>);

impl RangeSet {
    /// Refuses an empty set, mixed families and overlaps.
    pub fn check(ranges: Vec<Range>) -> Result<Self, String> {
        let Some(first) = ranges.first() else {
            return Err("empty range set".to_owned());
        };
        if ranges
            .iter()
            .any(|r| r.start.is_ipv4() != first.start.is_ipv4())
        {
            return Err("mixed address families".to_owned());
        }
        for (i, one) in ranges.iter().enumerate() {
            if let Some(other) = ranges[i + 1..].iter().find(|other| one.overlaps(other)) {
                return Err(format!("subnets {one} and {other} overlap"));
            }
        }
        Ok(Self(ranges))
    }

    /// Whether its addresses are IPv4.
    pub fn is_ipv4(&self) -> bool {
        self.0.iter().any(|range| range.start.is_ipv4())
    }

    /// The range that holds an address.
    pub fn range_of(&self, ip: IpAddr) -> Option<&Range> {
        self.0.iter().find(|range| range.contains(ip))
    }

    /// Whether some address is in both sets.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.0
            .iter()
            .any(|one| other.0.iter().any(|two| one.overlaps(two)))
    }

    /// Every address that may be given out, each once, beginning after `last` and round to it.
    pub fn candidates(&self, last: Option<IpAddr>) -> impl Iterator<Item = (IpAddr, &Range)> {
        let at = last.and_then(|ip| self.0.iter().position(|range| range.contains(ip)));
        let pivot = at.unwrap_or(0);
        let resume = at.and(last).map(number);
        let first = &self.0[pivot];
        let (start, end) = (number(first.start), number(first.end));
        let rest = self.0[pivot + 1..].iter().chain(&self.0[..pivot]);
        first
            .span(resume.unwrap_or(start), end)
            .skip(usize::from(resume.is_some()))
            .chain(rest.flat_map(|r| r.span(number(r.start), number(r.end))))
            .chain(resume.into_iter().flat_map(move |n| first.span(start, n)))
            .filter(|(ip, range)| *ip != range.gateway)
    }
}

impl fmt::Display for RangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, range) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{range}")?;
        }
        Ok(())
    }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u32::from(ip).into(),
        IpAddr::V6(ip) => ip.into(),
    }
}

/// The address with that number in the family of `like`.
fn ip(number: u128, like: IpNet) -> IpAddr {
    match like {
        // A number that comes from an IPv4 subnet has 32 bits.
        IpNet::V4(_) => Ipv4Addr::from(number as u32).into(),
        IpNet::V6(_) => Ipv6Addr::from(number).into(),
    }
}

#[cfg(test)]
mod tests;
