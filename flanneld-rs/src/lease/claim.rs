//! Which subnet this node takes: a pure choice from what the store lists.
//!
//! Order: the lease that already carries our public address; the subnet we held before, if free; a
//! free one at random among the first hundred. Keys without expiry are reservations: theirs is the
//! subnet even when the value is unreadable, and only the node whose address they carry uses them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::store::Entry;
use super::{Lease, LeaseAttrs, Subnet};
use crate::config::{NetworkConfig, SubnetRange};

/// Free subnets gathered before one is picked at random, as flannel does.
const CANDIDATES: usize = 100;

/// Who claims.
#[derive(Clone, Copy, Debug)]
pub struct Claimant<'a> {
    /// The network's ranges.
    pub config: &'a NetworkConfig,
    /// Our identity in IPv4 networks.
    pub public_ip: Option<Ipv4Addr>,
    /// Our identity in IPv6-only networks.
    pub public_ipv6: Option<Ipv6Addr>,
    /// The subnet held last: in this life of the daemon, else as subnet.env has it.
    pub previous: Option<Subnet>,
    /// The value last published under `previous`, when it is known: proof that the key is ours even
    /// though the public address has changed since.
    pub published: Option<&'a LeaseAttrs>,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Leases of ours that no longer fit the configuration: subnet and revision.
    pub delete: Vec<(Subnet, i64)>,
    /// How to get a subnet.
    pub claim: Claim,
}

/// How to get a subnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Rewrite a key that is already ours.
    Adopt {
        /// Its subnet.
        subnet: Subnet,
        /// Its revision as listed.
        revision: i64,
        /// Keep it without expiry.
        reserved: bool,
    },
    /// Create a key.
    Create {
        /// A subnet nobody holds.
        subnet: Subnet,
    },
}

/// Every subnet of the range is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no free subnet is left in {network}: enlarge the network or delete leases of nodes that are gone"
)]
pub struct OutOfSubnets {
    /// The range without a free subnet.
    pub network: IpNet,
}

impl Claimant<'_> {
    /// Chooses. `pick` returns a number below its argument.
    pub fn plan(
        &self,
        entries: &[Entry],
        mut pick: impl FnMut(usize) -> usize,
    ) -> Result<Plan, OutOfSubnets> {
        let mine: Vec<(&Entry, Subnet)> = entries
            .iter()
            .filter_map(|entry| Some((entry, self.owned(entry)?)))
            .collect();
        let (fitting, unfit): (Vec<_>, Vec<_>) =
            mine.into_iter().partition(|(_, subnet)| self.fits(subnet));
        // A reservation is the operator's; it stays, fitting or not.
        let delete: Vec<_> = unfit
            .iter()
            .filter(|(entry, _)| !entry.reserved)
            .map(|(entry, subnet)| (*subnet, entry.revision))
            .collect();
        let preferred = fitting
            .iter()
            .find(|(_, subnet)| Some(*subnet) == self.previous);
        let reservation = fitting.iter().find(|(entry, _)| entry.reserved);
        if let Some((entry, subnet)) = preferred.or(reservation).or(fitting.first()) {
            let claim = Claim::Adopt {
                subnet: *subnet,
                revision: entry.revision,
                reserved: entry.reserved,
            };
            return Ok(Plan { delete, claim });
        }
        let held = entries
            .iter()
            .filter(|entry| !unfit.iter().any(|(mine, _)| mine.key == entry.key));
        let taken = Taken::new(held.filter_map(Entry::subnet));
        let again = self
            .previous
            .filter(|subnet| self.fits(subnet) && subnet.nets().all(|net| taken.is_free(net)));
        let subnet = match again {
            Some(subnet) => subnet,
            None => self.pick_free(&taken, &mut pick)?,
        };
        Ok(Plan {
            delete,
            claim: Claim::Create { subnet },
        })
    }

    /// Our own lease among the entries, if there is one that fits.
    pub fn own_lease<'e>(&self, entries: &'e [Entry]) -> Option<&'e Lease> {
        let Ok(Plan {
            claim: Claim::Adopt { subnet, .. },
            ..
        }) = self.plan(entries, |_| 0)
        else {
            return None;
        };
        entries
            .iter()
            .filter_map(|entry| entry.lease.as_ref().ok())
            .find(|lease| lease.subnet == subnet)
    }

    /// The subnet of an entry that is ours.
    fn owned(&self, entry: &Entry) -> Option<Subnet> {
        let lease = entry.lease.as_ref().ok()?;
        let by_address = if self.config.v4.is_some() {
            self.public_ip.is_some() && lease.attrs.public_ip == self.public_ip
        } else {
            self.public_ipv6.is_some() && lease.attrs.public_ipv6 == self.public_ipv6
        };
        let by_value = Some(lease.subnet) == self.previous && self.published == Some(&lease.attrs);
        (by_address || by_value).then_some(lease.subnet)
    }

    /// True when the subnet has just the families wanted, each within its range.
    fn fits(&self, subnet: &Subnet) -> bool {
        fn family(range: Option<SubnetRange>, net: Option<IpNet>) -> bool {
            match (range, net) {
                (Some(range), Some(net)) => range.allows(net),
                (None, None) => true,
                _ => false,
            }
        }
        family(self.config.v4, subnet.v4.map(IpNet::V4))
            && family(self.config.v6, subnet.v6.map(IpNet::V6))
    }

    fn pick_free(
        &self,
        taken: &Taken,
        pick: &mut impl FnMut(usize) -> usize,
    ) -> Result<Subnet, OutOfSubnets> {
        let mut one = |range: SubnetRange| {
            let free: Vec<IpNet> = range
                .subnets()
                .filter(|net| taken.is_free(*net))
                .take(CANDIDATES)
                .collect();
            match free.len() {
                0 => Err(OutOfSubnets {
                    network: range.network,
                }),
                n => Ok(free[pick(n) % n]),
            }
        };
        let v4 = self.config.v4.map(&mut one).transpose()?;
        let v6 = self.config.v6.map(&mut one).transpose()?;
        Ok(Subnet {
            v4: v4.and_then(|net| {
                if let IpNet::V4(net) = net {
                    Some(net)
                } else {
                    None
                }
            }),
            v6: v6.and_then(|net| {
                if let IpNet::V6(net) = net {
                    Some(net)
                } else {
                    None
                }
            }),
        })
    }
}

/// True when another key that was created earlier overlaps ours: two nodes took different keys that
/// share a family's subnet, and the later one must give way.
pub fn yields(own: &Subnet, created: i64, entries: &[Entry]) -> bool {
    entries.iter().any(|entry| {
        entry.created < created
            && entry
                .subnet()
                .is_some_and(|other| other != *own && other.overlaps(own))
    })
}

/// Address ranges in use, sorted and merged.
struct Taken(Vec<(IpAddr, IpAddr)>);

impl Taken {
    fn new(subnets: impl Iterator<Item = Subnet>) -> Self {
        let mut ranges: Vec<_> = subnets
            .flat_map(|subnet| subnet.nets())
            .map(|net| (net.network(), net.broadcast()))
            .collect();
        ranges.sort_unstable();
        let mut merged: Vec<(IpAddr, IpAddr)> = Vec::with_capacity(ranges.len());
        for (start, end) in ranges {
            match merged.last_mut() {
                // IPv4 sorts before IPv6, so ranges of two families never touch.
                Some(last) if start <= last.1 => last.1 = last.1.max(end),
                _ => merged.push((start, end)),
            }
        }
        Self(merged)
    }

    fn is_free(&self, net: IpNet) -> bool {
        let before = self
            .0
            .partition_point(|(start, _)| *start <= net.broadcast());
        before
            .checked_sub(1)
            .and_then(|at| self.0.get(at))
            .is_none_or(|(_, end)| *end < net.network())
    }
}

#[cfg(test)]
mod tests;
