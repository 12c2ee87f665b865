//! Who has which address and port, where several Services claim it: the older one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use crate::model::{Family, Front, FrontKind, PortName, Protocol};

/// Two service ports claim one front.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Clash {
    /// Where (node ports have no address).
    pub family: Family,
    /// What the loser asked for and does not get.
    pub front: Front,
    /// The protocol of both.
    pub protocol: Protocol,
    /// The older one, which has it.
    pub winner: PortName,
    /// The younger one.
    pub loser: PortName,
}

impl fmt::Display for Clash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Front { kind, ip, port } = self.front;
        let (loser, winner, protocol) = (&self.loser, &self.winner, self.protocol);
        match ip {
            None => write!(out, "{} node port {port}/{protocol}", self.family.label())?,
            Some(ip) => write!(out, "{} {ip} port {port}/{protocol}", address_word(kind))?,
        }
        write!(out, " of {loser} belongs to {winner}, which is older")
    }
}

fn address_word(kind: FrontKind) -> &'static str {
    match kind {
        FrontKind::ClusterIp => "cluster IP",
        FrontKind::ExternalIp => "external IP",
        FrontKind::LoadBalancer => "load balancer IP",
        FrontKind::NodePort => "node port",
    }
}

/// One key for all kinds of addresses: a cluster IP can be another Service's external IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Spot {
    /// `None` for a node port.
    pub(super) ip: Option<IpAddr>,
    pub(super) port: u16,
    pub(super) protocol: Protocol,
}

/// Sorted by age, then name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claimant {
    pub(super) created: i64,
    pub(super) port: PortName,
    pub(super) kind: FrontKind,
}

/// The claims on one spot.
#[derive(Debug)]
struct Claimants {
    owner: Claimant,
    /// Those that claim in vain; nearly always empty.
    others: BTreeSet<Claimant>,
}

/// All claims of one family.
#[derive(Debug)]
pub(super) struct Claims {
    family: Family,
    spots: BTreeMap<Spot, Claimants>,
    clashes: BTreeSet<Clash>,
}

impl Claims {
    pub(super) fn new(family: Family) -> Self {
        Self {
            family,
            spots: BTreeMap::new(),
            clashes: BTreeSet::new(),
        }
    }

    pub(super) fn owner(&self, spot: &Spot) -> Option<&PortName> {
        self.spots.get(spot).map(|claimants| &claimants.owner.port)
    }

    pub(super) fn clashes(&self) -> &BTreeSet<Clash> {
        &self.clashes
    }

    /// Adds a claim; returns who has lost the spot by it.
    pub(super) fn add(&mut self, spot: Spot, claimant: Claimant) -> Option<PortName> {
        let Some(claimants) = self.spots.get_mut(&spot) else {
            let others = BTreeSet::new();
            let owner = claimant;
            self.spots.insert(spot, Claimants { owner, others });
            return None;
        };
        if claimant >= claimants.owner {
            let clash = clash(self.family, spot, &claimants.owner, &claimant);
            self.clashes.insert(clash);
            claimants.others.insert(claimant);
            return None;
        }
        for loser in &claimants.others {
            let before = clash(self.family, spot, &claimants.owner, loser);
            self.clashes.remove(&before);
        }
        let before = std::mem::replace(&mut claimants.owner, claimant);
        let displaced = before.port.clone();
        claimants.others.insert(before);
        for loser in &claimants.others {
            let after = clash(self.family, spot, &claimants.owner, loser);
            self.clashes.insert(after);
        }
        Some(displaced)
    }

    /// Takes a claim back; returns who gets the spot by it.
    pub(super) fn remove(&mut self, spot: Spot, claimant: &Claimant) -> Option<PortName> {
        let claimants = self.spots.get_mut(&spot)?;
        if claimants.owner != *claimant {
            if claimants.others.remove(claimant) {
                let before = clash(self.family, spot, &claimants.owner, claimant);
                self.clashes.remove(&before);
            }
            return None;
        }
        for loser in &claimants.others {
            let before = clash(self.family, spot, &claimants.owner, loser);
            self.clashes.remove(&before);
        }
        let Some(next) = claimants.others.pop_first() else {
            self.spots.remove(&spot);
            return None;
        };
        claimants.owner = next;
        for loser in &claimants.others {
            let after = clash(self.family, spot, &claimants.owner, loser);
            self.clashes.insert(after);
        }
        Some(claimants.owner.port.clone())
    }
}

fn clash(family: Family, spot: Spot, winner: &Claimant, loser: &Claimant) -> Clash {
    Clash {
        family,
        front: Front {
            kind: loser.kind,
            ip: spot.ip,
            port: spot.port,
        },
        protocol: spot.protocol,
        winner: winner.port.clone(),
        loser: loser.port.clone(),
    }
}
