//! A kernel mode with node ports on loopback beside it: what netfilter cannot do without
//! route_localnet, a small forwarder does (TCP only; KEP-6032's idea).

use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::userspace::Loopback;
use super::{Mode, Report};
use crate::model::{Changed, Wanted};

/// The two of them.
pub struct WithLoopback {
    mode: Box<dyn Mode>,
    loopback: Loopback,
}

impl WithLoopback {
    /// `mode` programs everything else.
    pub fn new(mode: Box<dyn Mode>, loopback: Loopback) -> Self {
        Self { mode, loopback }
    }
}

impl Mode for WithLoopback {
    fn name(&self) -> &'static str {
        self.mode.name()
    }

    fn sync(&mut self, wanted: &Wanted, changed: &Changed) -> Report {
        let mut report = self.mode.sync(wanted, changed);
        if wanted.site.localhost_node_ports {
            let loopback = self.loopback.sync(wanted, changed);
            report.changes += loopback.changes;
            report.errors.extend(loopback.errors);
        }
        report
    }

    fn disturbed(&mut self) -> Option<String> {
        self.mode.disturbed()
    }

    fn events(&self) -> Option<BorrowedFd<'_>> {
        self.mode.events()
    }

    fn plan(&mut self, wanted: &Wanted) -> anyhow::Result<String> {
        self.mode.plan(wanted)
    }

    fn drain(&mut self, limit: Duration) {
        self.loopback.drain(limit);
        self.mode.drain(limit);
    }

    fn cleanup(&mut self) -> Report {
        self.mode.cleanup()
    }
}
