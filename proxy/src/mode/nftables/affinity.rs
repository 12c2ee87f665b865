//! Clients that the table of affinities leads to where they may not go any more.
//!
//! Packets write that table, so it is not in the book: it is read when an endpoint leaves a Service
//! with affinity, and what leads to the endpoint is deleted. The client's next connection chooses
//! anew.

use std::collections::{BTreeMap, BTreeSet};

use kernel::nft::{Element, Socket, Transaction};

use super::elements::at;
use super::layout::{At, Data, Key, Set};
use super::ruleset::table;
use super::slots::Target;
use super::write;
use crate::model::{Balancer, Family, PortName, Wanted};

/// Which clients have to go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Purge {
    /// By front: where its clients may still be led.
    allowed: BTreeMap<At, BTreeSet<Target>>,
    /// Fronts that are not in `allowed` have no clients at all.
    others: bool,
}

impl Purge {
    /// Notes the change of one port.
    pub fn port(&mut self, name: &PortName, old: Option<&Balancer>, new: Option<&Balancer>) {
        let Some(old) = old.filter(|old| old.affinity.is_some()) else {
            return;
        };
        // Another policy means other lists: which client is in which cannot be told from outside.
        let same = new.filter(|new| {
            new.affinity.is_some()
                && new.internal_policy == old.internal_policy
                && new.external_policy == old.external_policy
        });
        let allowed = same.map(reachable).unwrap_or_default();
        let fronts_stay = same.is_some_and(|new| {
            let stays = |front| new.fronts.contains(front);
            old.fronts.iter().all(stays)
        });
        if fronts_stay && reachable(old).is_subset(&allowed) {
            return;
        }
        for front in &old.fronts {
            let stays = same.is_some_and(|new| new.fronts.contains(front));
            let allowed = if stays {
                allowed.clone()
            } else {
                BTreeSet::new()
            };
            self.allowed.insert(at(front, name.protocol), allowed);
        }
    }

    /// Everything that `wanted` does not allow.
    pub fn everything(wanted: &Wanted) -> Self {
        let mut purge = Self {
            others: true,
            ..Self::default()
        };
        let sticky = wanted
            .balancers
            .iter()
            .filter(|(_, each)| each.affinity.is_some());
        for (name, balancer) in sticky {
            for front in &balancer.fronts {
                let front = at(front, name.protocol);
                purge.allowed.insert(front, reachable(balancer));
            }
        }
        purge
    }

    /// Nobody has to go.
    pub fn is_empty(&self) -> bool {
        self.allowed.is_empty() && !self.others
    }

    /// Whether a client of `front` may stay with `target`. A node port's clients are noted with the
    /// node's address.
    pub fn allows(&self, front: At, target: Target) -> bool {
        let node_port = At { ip: None, ..front };
        match self
            .allowed
            .get(&front)
            .or_else(|| self.allowed.get(&node_port))
        {
            Some(allowed) => allowed.contains(&target),
            None => !self.others,
        }
    }
}

fn reachable(balancer: &Balancer) -> BTreeSet<Target> {
    let all = balancer.cluster.iter().chain(&balancer.local);
    all.map(|each| (each.ip, each.port)).collect()
}

/// Deletes the clients that have to go.
pub fn purge(socket: &mut Socket, family: Family, purge: &Purge) -> kernel::Result<usize> {
    if purge.is_empty() {
        return Ok(0);
    }
    let (table, set) = (table(family), Set::Affinity);
    let gone = socket.fold_elements(
        &table,
        set.name(),
        Vec::new,
        |gone: &mut Vec<Element>, element| {
            let key = Key::decode(set, family, &element.key, None);
            let data = Data::decode(set, family, element.data.as_ref());
            let stays = match (key, data) {
                (Some(Key::From(_, front)), Some(Data::Endpoint(ip, port))) => {
                    purge.allows(front, (ip, port))
                }
                // Not of our form: nobody's client.
                _ => false,
            };
            if !stays {
                gone.push(element);
            }
        },
    )?;
    let gone = gone.unwrap_or_default();
    if gone.is_empty() {
        return Ok(0);
    }
    let mut transaction = Transaction::new(&table);
    for element in &gone {
        transaction.delete(set.name(), element);
    }
    match write::counted(socket, &transaction) {
        Ok(_) => {}
        // One has run out meanwhile, and took all others' deletion with it: one by one.
        Err(error) if error.is_not_found() => {
            for element in &gone {
                let mut single = Transaction::new(&table);
                single.delete(set.name(), element);
                match write::counted(socket, &single) {
                    Err(error) if !error.is_not_found() => return Err(error),
                    _ => {}
                }
            }
        }
        Err(error) => return Err(error),
    }
    Ok(gone.len())
}
