//! Which service port has which sockets and addresses: the wish, kept so that a change of one service port costs
//! what that one costs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::fronts::{Claim, Door, Place};
use super::target::Id;
use crate::model::{Balancer, PortName};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    ports: HashMap<PortName, Port>,
    doors: BTreeMap<Place, Owned>,
    /// How many service ports have the address.
    addresses: BTreeMap<IpAddr, usize>,
    last_id: Id,
}

/// A service port as it was last told.
#[derive(Debug)]
pub(super) struct Port {
    /// Its number in the data threads.
    pub(super) id: Id,
    /// What was decided.
    pub(super) balancer: Arc<Balancer>,
    claim: Claim,
}

/// A door and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owned {
    /// The service port,
    pub(super) name: PortName,
    /// its number,
    pub(super) id: Id,
    /// and its door.
    pub(super) door: Door,
}

/// A service port's new state; `None`: it is gone.
pub(super) type News = (PortName, Option<(Arc<Balancer>, Claim)>);

impl Ledger {
    /// Enters the news. Answers the places that may have changed, and which claims could not be met.
    pub(super) fn enter(&mut self, news: Vec<News>) -> (BTreeSet<Place>, Vec<String>) {
        let mut touched = BTreeSet::new();
        let mut errors = Vec::new();
        // First everything out and then in, so that a place can pass from one to another.
        let mut ids = HashMap::new();
        for (name, _) in &news {
            if let Some(port) = self.ports.remove(name) {
                ids.insert(name.clone(), port.id);
                self.release(name, port, &mut touched);
            }
        }
        for (name, state) in news {
            if let Some((balancer, claim)) = state {
                let id = ids.remove(&name).unwrap_or_else(|| {
                    self.last_id += 1;
                    self.last_id
                });
                let port = Port {
                    id,
                    balancer,
                    claim,
                };
                self.claim(name, port, &mut touched, &mut errors);
            }
        }
        (touched, errors)
    }

    /// All names that are there.
    pub(super) fn names(&self) -> impl Iterator<Item = &PortName> {
        self.ports.keys()
    }

    /// A service port.
    pub(super) fn port(&self, name: &PortName) -> Option<&Port> {
        self.ports.get(name)
    }

    /// Whose a place shall be.
    pub(super) fn door(&self, place: &Place) -> Option<&Owned> {
        self.doors.get(place)
    }

    /// All places that shall be open.
    pub(super) fn places(&self) -> impl Iterator<Item = &Place> {
        self.doors.keys()
    }

    /// All addresses that some service port has.
    pub(super) fn addresses(&self) -> impl Iterator<Item = &IpAddr> {
        self.addresses.keys()
    }

    /// Whether some service port has the address.
    pub(super) fn has_address(&self, ip: IpAddr) -> bool {
        self.addresses.contains_key(&ip)
    }

    fn release(&mut self, name: &PortName, port: Port, touched: &mut BTreeSet<Place>) {
        for door in port.claim.doors {
            if self
                .doors
                .get(&door.place)
                .is_some_and(|owned| owned.name == *name)
            {
                self.doors.remove(&door.place);
                touched.insert(door.place);
            }
        }
        for ip in port.claim.addresses {
            if let Some(count) = self.addresses.get_mut(&ip) {
                *count -= 1;
                if *count == 0 {
                    self.addresses.remove(&ip);
                }
            }
        }
    }

    fn claim(
        &mut self,
        name: PortName,
        port: Port,
        touched: &mut BTreeSet<Place>,
        errors: &mut Vec<String>,
    ) {
        for (ip, why) in &port.claim.refused {
            errors.push(format!(
                "route {ip} of {name} to this node: {why}; give the Service another address"
            ));
        }
        for door in &port.claim.doors {
            if let Some(other) = self.doors.get(&door.place) {
                errors.push(format!(
                    "listen on {} for {name}: {} has it",
                    door.place, other.name
                ));
                continue;
            }
            touched.insert(door.place);
            let owned = Owned {
                name: name.clone(),
                id: port.id,
                door: door.clone(),
            };
            self.doors.insert(door.place, owned);
        }
        for ip in &port.claim.addresses {
            *self.addresses.entry(*ip).or_default() += 1;
        }
        self.ports.insert(name, port);
    }
}

/// A change of the sockets that are open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Close it.
    Close(Place),
    /// Bind it and listen.
    Open(Owned),
    /// Other clients are ignored at it.
    Guard(Owned),
}

impl fmt::Display for Step {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Close(place) => write!(out, "close {place}"),
            Self::Open(Owned { name, door, .. }) => {
                write!(out, "listen on {} for {name}", door.place)?;
                write_gate(out, door)
            }
            Self::Guard(Owned { door, .. }) => {
                write!(out, "admit at {}", door.place)?;
                write_gate(out, door)
            }
        }
    }
}

fn write_gate(out: &mut fmt::Formatter<'_>, door: &Door) -> fmt::Result {
    for group in &door.gate {
        let nets: Vec<String> = group.iter().map(ToString::to_string).collect();
        write!(out, " only from {{{}}}", nets.join(", "))?;
    }
    Ok(())
}

/// The steps from what is open to what the ledger wants, for these places: closing first.
pub(super) fn steps<'a>(
    open: &BTreeMap<Place, Owned>,
    ledger: &Ledger,
    places: impl IntoIterator<Item = &'a Place>,
) -> Vec<Step> {
    let (mut closing, mut others) = (Vec::new(), Vec::new());
    for place in places {
        match (open.get(place), ledger.door(place)) {
            (Some(_), None) => closing.push(Step::Close(*place)),
            (None, Some(wanted)) => others.push(Step::Open(wanted.clone())),
            (Some(there), Some(wanted)) => {
                if (there.id, there.door.kind) != (wanted.id, wanted.door.kind) {
                    // Its connections and flows are of another Service.
                    closing.push(Step::Close(*place));
                    others.push(Step::Open(wanted.clone()));
                } else if there.door.gate != wanted.door.gate {
                    others.push(Step::Guard(wanted.clone()));
                }
            }
            (None, None) => {}
        }
    }
    closing.append(&mut others);
    closing
}

#[cfg(test)]
mod tests;
