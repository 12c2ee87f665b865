//! Which addresses an ADD gets; pure: from ranges and reservations to a choice.

use super::range::RangeSet;
use super::store::{Holder, Reservation};
use crate::cni::{Error, Result};
use ipnet::IpNet;
use std::collections::HashSet;
use std::net::IpAddr;

/// An address chosen out of one range set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocation {
    /// The address.
    pub ip: IpAddr,
    /// Prefix length of its subnet.
    pub prefix_len: u8,
    /// The subnet's gateway.
    pub gateway: IpAddr,
}

impl Allocation {
    /// The address with its prefix length.
    pub fn address(&self) -> IpNet {
        // A prefix length out of a subnet of the same family fits.
        IpNet::new(self.ip, self.prefix_len).unwrap_or_else(|_| self.ip.into())
    }
}

/// Chooses one address of each set: one asked for, or the next free one after the set's last.
pub fn plan(
    sets: &[RangeSet],
    requested: &[IpAddr],
    reservations: &[Reservation],
    last: &[Option<IpAddr>],
    holder: &Holder,
) -> Result<Vec<Allocation>> {
    let taken = taken(reservations);
    let mut waiting = requested.to_vec();
    let mut chosen = Vec::new();
    for (at, set) in sets.iter().enumerate() {
        let wanted = waiting
            .iter()
            .position(|ip| set.range_of(*ip).is_some())
            .map(|i| waiting.remove(i));
        let allocation = match wanted {
            Some(ip) => choose_requested(set, ip, &taken),
            None => choose_next(set, reservations, last[at], holder, &taken),
        };
        chosen.push(
            allocation
                .map_err(|e| Error::generic(format!("failed to allocate for range {at}: {e}")))?,
        );
    }
    if !waiting.is_empty() {
        let list: Vec<_> = waiting.iter().map(ToString::to_string).collect();
        return Err(Error::generic(format!(
            "failed to allocate all requested IPs: {}",
            list.join(" ")
        )));
    }
    Ok(chosen)
}

/// An error that names the first set without a free address.
pub fn any_free(sets: &[RangeSet], reservations: &[Reservation]) -> Result<()> {
    let taken = taken(reservations);
    for set in sets {
        if !set.candidates(None).any(|(ip, _)| !taken.contains(&ip)) {
            return Err(Error::generic(exhausted(set)));
        }
    }
    Ok(())
}

fn taken(reservations: &[Reservation]) -> HashSet<IpAddr> {
    reservations
        .iter()
        .filter(|r| r.holder.is_some())
        .map(|r| r.ip)
        .collect()
}

fn choose_requested(
    set: &RangeSet,
    ip: IpAddr,
    taken: &HashSet<IpAddr>,
) -> Result<Allocation, String> {
    let range = set
        .range_of(ip)
        .ok_or_else(|| format!("{ip} not in range set {set}"))?;
    if ip == range.gateway {
        return Err(format!("requested ip {ip} is subnet's gateway"));
    }
    if taken.contains(&ip) {
        return Err(format!(
            "requested IP address {ip} is not available in range set {set}"
        ));
    }
    Ok(Allocation {
        ip,
        prefix_len: range.subnet.prefix_len(),
        gateway: range.gateway,
    })
}

fn choose_next(
    set: &RangeSet,
    reservations: &[Reservation],
    last: Option<IpAddr>,
    holder: &Holder,
    taken: &HashSet<IpAddr>,
) -> Result<Allocation, String> {
    // A second ADD for the same interface is against the spec: it gets no second address.
    let own = reservations.iter().find(|r| {
        set.range_of(r.ip).is_some()
            && r.holder.as_ref().is_some_and(|h| {
                h.container_id == holder.container_id
                    && (h.ifname.is_none() || h.ifname == holder.ifname)
            })
    });
    if let Some(own) = own {
        return Err(format!(
            "{} has been allocated to {}, duplicate allocation is not allowed",
            own.ip, holder.container_id
        ));
    }
    let (ip, range) = set
        .candidates(last)
        .find(|(ip, _)| !taken.contains(ip))
        .ok_or_else(|| exhausted(set))?;
    Ok(Allocation {
        ip,
        prefix_len: range.subnet.prefix_len(),
        gateway: range.gateway,
    })
}

fn exhausted(set: &RangeSet) -> String {
    format!("no IP addresses available in range set: {set}")
}

#[cfg(test)]
mod tests;
