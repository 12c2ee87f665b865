//! One family's running data path: started, watched, started anew when its device or address changed.

use std::sync::Arc;

use arc_swap::ArcSwap;
use kernel::{Change, Link, LinkKind, Netlink, sysctl};
use tunnel::{
    Counters, Table,
    user::{Mode, Settings, UserPath},
};

use crate::backend::{Report, apply::apply};

/// What moves one family's packets.
#[derive(Default)]
pub struct End {
    table: Arc<ArcSwap<Table>>,
    running: Option<Running>,
    /// Why the kernel does not do offloads for us, once that was seen.
    plain: Option<String>,
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

    /// How packets cross, if it was started (and may have ended by itself since).
    pub fn mode(&self) -> Option<Mode> {
        let running = self.running.as_ref()?;
        Some(running.path.settings().mode)
    }

    /// It was started, and a worker has ended by itself.
    pub fn has_ended(&self) -> bool {
        let ended = |running: &Running| running.path.ended().is_some();
        self.running.as_ref().is_some_and(ended)
    }

    /// Ends the workers; the device stays.
    pub fn stop(&mut self) {
        self.running = None;
    }

    /// Makes it run as `wanted` on a device that exists, without offloads where they were refused; a
    /// device of that name and another kind (the kernel's vxlan) goes first.
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
            if running.gave_up(found.as_ref()) {
                self.plain = Some(why);
            }
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
            let path = self.start(wanted, counters)?;
            let mode = path.settings().mode;
            report.changed("start datapath", || {
                format!("start datapath {mode} {name} on {}", wanted.bind)
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

impl End {
    /// With offloads if the kernel has them, else without.
    fn start(&mut self, wanted: &Settings, counters: &Arc<Counters>) -> anyhow::Result<UserPath> {
        let start = |mode| {
            let settings = Settings {
                mode,
                ..wanted.clone()
            };
            UserPath::start(&settings, Arc::clone(&self.table), Arc::clone(counters))
        };
        let offload = match &self.plain {
            None => start(Mode::Offload).map_err(|error| error.to_string()),
            Some(why) => Err(why.clone()),
        };
        let (path, why) = match offload {
            Ok(path) => (path, String::new()),
            Err(why) => match start(Mode::Plain) {
                Ok(path) => (path, why),
                // What hinders both is told once, in the text for the better one.
                Err(_) if self.plain.is_none() => anyhow::bail!("{why}"),
                Err(error) => anyhow::bail!("{error}"),
            },
        };
        let (name, bind) = (&wanted.device, wanted.bind);
        if why.is_empty() {
            tracing::info!("vxlan data path: offload on {name} and {bind}");
        } else {
            tracing::info!("vxlan data path: plain on {name} and {bind} (offload refused: {why})");
            self.plain = Some(why);
        }
        Ok(path)
    }
}

impl Running {
    /// It ended by itself on a device that is still there: offloads may be the reason.
    fn gave_up(&self, found: Option<&Link>) -> bool {
        found.is_some_and(|link| link.index == self.device)
            && self.path.settings().mode == Mode::Offload
            && self.path.ended().is_some()
    }

    /// Why it must be started anew, if so; `found` is the device of its name.
    fn is_over(&self, wanted: &Settings, found: Option<&Link>) -> Option<String> {
        if found.is_none_or(|link| link.index != self.device) {
            return Some("the device is gone".to_owned());
        }
        let running = self.path.settings();
        if (running.bind, running.mtu) != (wanted.bind, wanted.mtu) {
            return Some("address or MTU changed".to_owned());
        }
        self.path.ended()
    }
}
