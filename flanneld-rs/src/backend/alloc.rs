//! `alloc`: takes a lease and writes subnet.env; how packets travel is somebody else's work.

use super::{Announcement, Backend, Desired, Report};
use crate::lease::Lease;
use crate::peers::PeerChange;
use crate::uplink::Uplink;

/// Has no state: nothing is ever made.
pub struct Alloc;

impl Backend for Alloc {
    fn peer_types(&self) -> &'static [&'static str] {
        &["", "alloc"]
    }

    fn prepare(
        &mut self,
        _uplink: &Uplink,
        _previous: Option<&Lease>,
    ) -> anyhow::Result<Announcement> {
        Ok(self.announcement())
    }

    fn announcement(&self) -> Announcement {
        Announcement::default()
    }

    fn mtu(&self, uplink: &Uplink) -> u32 {
        uplink.mtu
    }

    fn plan(&mut self, _desired: &Desired) -> anyhow::Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn reconcile(&mut self, _desired: &Desired) -> Report {
        Report::default()
    }

    fn update(&mut self, _desired: &Desired, _changes: &[PeerChange]) -> Report {
        Report::default()
    }

    fn cleanup(&mut self) -> Report {
        Report::default()
    }
}
