//! The programs in the kernel: attached once the table is complete, moved with the external interface,
//! put back when somebody removed them, given up at the first refusal.
//!
//! What a former process left works on until then, so that a restart loses no packet. A refusal stands
//! until the place changes (another interface, another device, another address), or for a while if its
//! cause may pass.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tunnel::Table;

use super::place::Place;
use crate::backend::{
    Report,
    traffic::{Count, Succession, Sums},
};

/// How long a refusal stands whose cause may pass; the daemon looks every minute, or earlier after kernel
/// events.
const AGAIN: Duration = Duration::from_secs(45);

/// Why the kernel does not take them.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// In one line.
    pub why: String,
    /// A later try may have another outcome.
    pub may_pass: bool,
}

/// Programs as the kernel takes them; a test has its own kernel.
pub trait Attach: Sized {
    /// Attaches them, taking over what a former process left at the same place.
    fn attach(place: &Place, table: &Table) -> Result<Self, Refusal>;
    /// Makes the kernel's table this one.
    fn publish(&mut self, table: &Table) -> Result<(), Refusal>;
    /// Whether they still are where they were attached.
    fn check(&self) -> Result<bool, String>;
    /// How and where they are attached.
    fn describe(&self) -> String;
    /// Where they count.
    fn counts(&self) -> Arc<dyn Count>;
    /// What of that they took over from those before them when they were attached.
    fn carried(&self) -> Sums;
    /// Removes these, or what another process left; says how many were there.
    fn remove(device: &str, underlay: Option<&str>) -> Result<usize, String>;
}

/// The state of the programs of one device.
pub struct Programs<A> {
    wanted: bool,
    attached: Option<(Place, A)>,
    refused: Option<Refused>,
    /// What a former process left has been taken over or removed.
    settled: bool,
    counts: Arc<Succession>,
}

struct Refused {
    place: Place,
    refusal: Refusal,
    at: Instant,
}

impl<A: Attach> Programs<A> {
    /// None are attached yet.
    pub fn new(wanted: bool) -> Self {
        Self {
            wanted,
            attached: None,
            refused: None,
            settled: false,
            counts: Arc::default(),
        }
    }

    /// Attached at `place` with this table, where that is wanted and not refused; nowhere else.
    pub fn ensure(&mut self, place: Place, table: &Table, report: &mut Report) {
        if !self.may_attach(&place) {
            if !self.settled {
                self.remove(&place.device.1, Some(&place.underlay.1), report);
            }
            return;
        }
        if let Some((at, programs)) = &mut self.attached {
            let lost = match programs.check() {
                _ if *at != place => "the external interface or the device has changed".to_owned(),
                Ok(true) => return self.publish(table, report),
                Ok(false) => "somebody removed them".to_owned(),
                Err(error) => error,
            };
            tracing::info!("attaching the udp programs again: {lost}");
            if at.underlay != place.underlay || at.device != place.device {
                let (device, underlay) = (at.device.1.clone(), at.underlay.1.clone());
                self.remove(&device, Some(&underlay), report);
            }
        }
        match A::attach(&place, table) {
            Ok(programs) => {
                report.changed("attach ebpf", || {
                    format!("attach ebpf {}", programs.describe())
                });
                self.counts.replace(programs.counts(), programs.carried());
                self.attached = Some((place, programs));
                (self.refused, self.settled) = (None, true);
            }
            Err(refusal) => self.give_up(place, refusal, report),
        }
    }

    /// Gives attached programs the new peers.
    pub fn publish(&mut self, table: &Table, report: &mut Report) {
        if let Some((place, programs)) = &mut self.attached
            && let Err(refusal) = programs.publish(table)
        {
            let place = place.clone();
            self.give_up(place, refusal, report);
        }
    }

    /// Programs with a table of yesterday would send packets astray: none rather than those.
    fn give_up(&mut self, place: Place, refusal: Refusal, report: &mut Report) {
        let (device, underlay) = (place.device.1.clone(), place.underlay.1.clone());
        self.refused = Some(Refused {
            place,
            refusal,
            at: Instant::now(),
        });
        self.remove(&device, Some(&underlay), report);
    }

    /// Detaches what runs or what another process left; as long as the latter may be there, on every link,
    /// because its underlay need not have been ours.
    pub fn remove(&mut self, device: &str, underlay: Option<&str>, report: &mut Report) {
        self.counts.end();
        self.attached = None;
        match A::remove(device, underlay.filter(|_| self.settled)) {
            Ok(0) => self.settled = true,
            Ok(_) => {
                self.settled = true;
                report.changed("detach ebpf", || format!("detach ebpf {device}"));
            }
            Err(error) => report.failed(error),
        }
    }

    /// They are wanted at `place`, and no refusal stands there.
    fn may_attach(&self, place: &Place) -> bool {
        let stands = |refused: &Refused| {
            let is_over = refused.refusal.may_pass && refused.at.elapsed() >= AGAIN;
            refused.place == *place && !is_over
        };
        self.wanted && !self.refused.as_ref().is_some_and(stands)
    }

    /// They are wanted, on whatever place.
    pub fn are_wanted(&self) -> bool {
        self.wanted
    }

    /// They carry packets now.
    pub fn are_attached(&self) -> bool {
        self.attached.is_some()
    }

    /// How and where they are attached, if they are.
    pub fn describe(&self) -> Option<String> {
        let (_, programs) = self.attached.as_ref()?;
        Some(programs.describe())
    }

    /// Why they are not attached though wanted.
    pub fn refused(&self) -> Option<&str> {
        let refused = self.refused.as_ref()?;
        Some(&refused.refusal.why)
    }

    /// Where they count, those of the past included.
    pub fn counts(&self) -> Arc<dyn Count> {
        Arc::clone(&self.counts) as _
    }
}

#[cfg(test)]
mod tests;
