//! One family's running data path: started, watched, started anew when its device or address changed.

use std::sync::Arc;

use arc_swap::ArcSwap;
use kernel::{Change, Link, LinkKind, Netlink, sysctl};
use tunnel::{
    Counters, Table,
    user::{Settings, UserPath},
};

use crate::backend::{Report, apply::apply};

/// What moves one family's packets.
#[derive(Default)]
pub struct End {
    table: Arc<ArcSwap<Table>>,
    running: Option<Running>,
}

struct Running {
    path: UserPath,
    /// Index of the device it has open.
    device: u32,
}

impl End {
    /// The workers read this table from now on.
    pub fn publish(&self, table: Table) {
        self.table.store(Arc::new(table));
    }

    /// It was started, and may have ended by itself since.
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Ends the workers; the device stays.
    pub fn stop(&mut self) {
        self.running = None;
    }

    /// Makes it run as `wanted` on a device that exists; a device of that name and another kind
    /// (the kernel's vxlan) goes first.
    pub fn ensure_running(
        &mut self,
        wanted: &Settings,
        counters: &Arc<Counters>,
        netlink: &mut Netlink,
        report: &mut Report,
    ) -> anyhow::Result<Link> {
        let name = &wanted.device;
        let found = netlink.link(name)?;
        if let Some(running) = &self.running
            && let Some(why) = running.is_over(wanted, found.as_ref())
        {
            tracing::info!("restarting the vxlan data path on {name}: {why}");
            self.running = None;
        }
        if self.running.is_none() {
            if let Some(Link { index, name, .. }) = found.filter(|link| link.kind != LinkKind::Tun)
            {
                let before = report.errors.len();
                let other = Change::DeleteLink { index, name };
                apply(netlink, &[other], report);
                if let Some(error) = report.errors.get(before) {
                    anyhow::bail!("{error}");
                }
            }
            let path = UserPath::start(wanted, Arc::clone(&self.table), Arc::clone(counters))?;
            tracing::info!("vxlan data path on {name} and {}", wanted.bind);
            report.changed("start datapath", || {
                format!("start datapath {name} on {}", wanted.bind)
            });
            // Peers' routes are ours to make; a router advertised inside the overlay is not.
            if let Err(error) = sysctl::ensure(&format!("net/ipv6/conf/{name}/accept_ra"), "0") {
                // Without IPv6 in the kernel there is nothing to switch off.
                tracing::debug!("{error}");
            }
            let device = netlink.expect_link(name)?.index;
            self.running = Some(Running { path, device });
        }
        Ok(netlink.expect_link(name)?)
    }
}

impl Running {
    /// Why it must be started anew, if so; `found` is the device of its name.
    fn is_over(&self, wanted: &Settings, found: Option<&Link>) -> Option<String> {
        if found.is_none_or(|link| link.index != self.device) {
            return Some("the device is gone".to_owned());
        }
        if self.path.settings() != wanted {
            return Some("address or MTU changed".to_owned());
        }
        self.path.ended()
    }
}
