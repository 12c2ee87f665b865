//! The objects, by Service: what is there, which Services are dirty, and what a new list no longer
//! names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::intern::Interner;
use crate::model::{Family, Kind, ObjectName, Service, Slice};

#[derive(Debug, Default)]
pub(super) struct Store {
    records: BTreeMap<ObjectName, Record>,
    /// Which Service a slice belongs to.
    owners: BTreeMap<ObjectName, ObjectName>,
    dirty: BTreeSet<ObjectName>,
    interner: Interner,
    /// Which list of Services is being read, or was read last.
    service_round: u32,
    slice_round: u32,
}

/// A Service with its slices, or slices whose Service is not there (yet).
#[derive(Debug, Default)]
struct Record {
    service: Option<Arc<Service>>,
    /// As it was when its addresses were claimed.
    claimed: Option<Arc<Service>>,
    service_round: u32,
    /// Sorted by name.
    slices: Vec<Held>,
}

/// A slice, and the last list that named it.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) slice: Arc<Slice>,
    round: u32,
}

impl Record {
    fn position(&self, slice: &ObjectName) -> Result<usize, usize> {
        self.slices
            .binary_search_by(|held| held.slice.name.cmp(slice))
    }
}

fn families(service: &Service) -> Vec<Family> {
    service
        .cluster_ips
        .iter()
        .map(|&ip| Family::of(ip))
        .collect()
}

impl Store {
    /// `None` if nothing has changed, else the families it had before.
    pub(super) fn put_service(&mut self, mut service: Arc<Service>) -> Option<Vec<Family>> {
        self.interner.service(&mut service);
        let record = self.records.entry(service.name.clone()).or_default();
        record.service_round = self.service_round;
        if record.service.as_ref() == Some(&service) {
            return None;
        }
        self.dirty.insert(service.name.clone());
        let before = record.service.replace(service);
        Some(before.map_or_else(Vec::new, |before| families(&before)))
    }

    /// `None` if it was not there, else the families it had.
    pub(super) fn remove_service(&mut self, name: &ObjectName) -> Option<Vec<Family>> {
        let service = self.records.get_mut(name)?.service.take()?;
        self.dirty.insert(name.clone());
        Some(families(&service))
    }

    /// Whether anything has changed.
    pub(super) fn put_slice(&mut self, mut slice: Arc<Slice>) -> bool {
        self.interner.slice(&mut slice);
        let owner = self.owners.get(&slice.name);
        if owner.is_some_and(|owner| *owner != slice.service) {
            let name = slice.name.clone();
            self.remove_slice(&name);
        }
        self.owners
            .insert(slice.name.clone(), slice.service.clone());
        let record = self.records.entry(slice.service.clone()).or_default();
        let round = self.slice_round;
        match record.position(&slice.name) {
            Ok(at) => {
                let held = &mut record.slices[at];
                held.round = round;
                if held.slice == slice {
                    return false;
                }
                self.dirty.insert(slice.service.clone());
                held.slice = slice;
            }
            Err(at) => {
                self.dirty.insert(slice.service.clone());
                if record.slices.is_empty() {
                    // Most Services have one slice a family; room for four would be wasted.
                    record.slices.reserve_exact(1);
                }
                record.slices.insert(at, Held { slice, round });
            }
        }
        true
    }

    /// `None` if it was not there, else its family.
    pub(super) fn remove_slice(&mut self, name: &ObjectName) -> Option<Family> {
        let service = self.owners.remove(name)?;
        let record = self.records.get_mut(&service)?;
        let at = record.position(name).ok()?;
        let held = record.slices.remove(at);
        self.dirty.insert(service);
        Some(held.slice.family)
    }

    /// A list begins; what it names from now on stays.
    pub(super) fn restarted(&mut self, kind: Kind) {
        match kind {
            Kind::Services => self.service_round += 1,
            Kind::Slices => self.slice_round += 1,
            Kind::Node => {}
        }
    }

    /// Removes Services that the last list did not name; returns the families each had.
    pub(super) fn sweep_services(&mut self) -> Vec<Vec<Family>> {
        let mut gone = Vec::new();
        for (name, record) in &self.records {
            if record.service.is_some() && record.service_round != self.service_round {
                gone.push(name.clone());
            }
        }
        gone.iter()
            .filter_map(|name| self.remove_service(name))
            .collect()
    }

    /// Removes slices that the last list did not name; returns the family of each.
    pub(super) fn sweep_slices(&mut self) -> Vec<Family> {
        let mut gone = Vec::new();
        for record in self.records.values() {
            let old = record
                .slices
                .iter()
                .filter(|held| held.round != self.slice_round);
            gone.extend(old.map(|held| held.slice.name.clone()));
        }
        gone.iter()
            .filter_map(|name| self.remove_slice(name))
            .collect()
    }

    /// Every Service has to be resolved anew.
    pub(super) fn touch_all(&mut self) {
        self.dirty = self.records.keys().cloned().collect();
    }

    pub(super) fn take_dirty(&mut self) -> BTreeSet<ObjectName> {
        std::mem::take(&mut self.dirty)
    }

    /// The Service whose addresses are claimed and the one that is there, if they differ; from now
    /// on the latter counts as the one whose addresses are claimed.
    #[expect(
        clippy::type_complexity,
        reason = "before and after, either may be absent"
    )]
    pub(super) fn replaced(
        &mut self,
        name: &ObjectName,
    ) -> Option<(Option<Arc<Service>>, Option<Arc<Service>>)> {
        let record = self.records.get_mut(name)?;
        let same = match (&record.claimed, &record.service) {
            (None, None) => true,
            (Some(before), Some(after)) => Arc::ptr_eq(before, after),
            _ => false,
        };
        if same {
            return None;
        }
        let before = std::mem::replace(&mut record.claimed, record.service.clone());
        Some((before, record.service.clone()))
    }

    pub(super) fn look_up(&self, name: &ObjectName) -> (Option<&Service>, &[Held]) {
        self.records.get(name).map_or((None, &[]), |record| {
            (record.service.as_deref(), &record.slices)
        })
    }

    /// Drops the records of these names that hold nothing.
    pub(super) fn forget_empty(&mut self, names: &BTreeSet<ObjectName>) {
        for name in names {
            let record = self.records.get(name);
            if record.is_some_and(|record| {
                record.service.is_none() && record.claimed.is_none() && record.slices.is_empty()
            }) {
                self.records.remove(name);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty() && self.owners.is_empty() && self.dirty.is_empty()
    }
}
