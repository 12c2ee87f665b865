//! One family's running data path: started, watched, started anew when its device or address changed.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::Arc,
};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use kernel::{Change, Link, LinkKind, Netlink, sysctl};
use tunnel::{
    Counters, Table,
    user::{self, Mode, Settings, UserPath},
};

use crate::backend::{Report, apply::apply};

/// What moves one family's packets.
#[derive(Default)]
pub struct End {
    table: Arc<ArcSwap<Table>>,
    running: Option<Running>,
    /// It ran once: the device is this process's.
    started: bool,
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

    /// Whether it ever ran, and so has made the device its own.
    pub fn was_started(&self) -> bool {
        self.started
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
    /// device of that name and another kind (the kernel's vxlan) goes first, if this can take its place.
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
            ensure_replaceable(wanted, netlink)?;
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
            self.started = true;
            let mode = path.settings().mode;
            report.changed("start datapath", || start_line(mode, wanted));
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
    /// With offloads if the kernel knows them, else without, from then on. What may pass is no reason.
    fn start(&mut self, wanted: &Settings, counters: &Arc<Counters>) -> anyhow::Result<UserPath> {
        let start = |mode| {
            let settings = Settings {
                mode,
                ..wanted.clone()
            };
            UserPath::start(&settings, Arc::clone(&self.table), Arc::clone(counters))
        };
        let (name, bind) = (&wanted.device, wanted.bind);
        let why = match &self.plain {
            Some(why) => why.clone(),
            None => match start(Mode::Offload) {
                Ok(path) => {
                    tracing::info!("vxlan data path: offload on {name} and {bind}");
                    return Ok(path);
                }
                Err(error) if error.is_refusal() => error.to_string(),
                Err(error) => anyhow::bail!("{error}"),
            },
        };
        let path = start(Mode::Plain).map_err(|error| match &self.plain {
            Some(_) => anyhow::anyhow!("{error}"),
            // What hinders both is told once, in the text for the better one.
            None => anyhow::anyhow!("{why}"),
        })?;
        tracing::info!("vxlan data path: plain on {name} and {bind} (offload refused: {why})");
        self.plain = Some(why);
        Ok(path)
    }
}

/// What a start of this process would do beyond the device, as a printable line; fails where it would.
/// A TUN device is made for the moment, to see what it takes.
pub fn plan(wanted: &Settings, netlink: &mut Netlink) -> anyhow::Result<String> {
    ensure_replaceable(wanted, netlink)?;
    let offers = user::probe().map_err(|error| anyhow::anyhow!("{error}"))?;
    let mode = match offers.tun_tso {
        true => Mode::Offload,
        false => Mode::Plain,
    };
    Ok(start_line(mode, wanted))
}

fn start_line(mode: Mode, wanted: &Settings) -> String {
    format!("start datapath {mode} {} on {}", wanted.device, wanted.bind)
}

/// Fails where a device of another kind has the name and user space could not take its place: what
/// carries traffic goes only for what will.
pub fn ensure_replaceable(wanted: &Settings, netlink: &mut Netlink) -> anyhow::Result<()> {
    let (name, bind) = (&wanted.device, wanted.bind);
    let found = netlink.link(name)?;
    let Some(old) = found.filter(|link| link.kind != LinkKind::Tun) else {
        return Ok(());
    };
    // The text has its cause.
    user::probe().map_err(|error| anyhow::anyhow!("{error}"))?;
    let others = netlink.links()?.into_iter();
    let mut others = others.filter(|link| link.index != old.index);
    if let Some(other) = others.find(|link| holds_port(link, bind)) {
        anyhow::bail!(
            "bind udp {bind}: the vxlan device {} uses the port: remove that device, or choose another \
             \"Port\"; {name} is left as it is until then",
            other.name
        );
    }
    if !holds_port(&old, bind) {
        UdpSocket::bind(bind)
            .with_context(|| format!("bind udp {bind}; {name} is left as it is until then"))?;
    }
    Ok(())
}

/// The kernel receives on this port for a vxlan device; all such devices share a socket.
fn holds_port(link: &Link, bind: SocketAddr) -> bool {
    let LinkKind::Vxlan(options) = &link.kind else {
        return false;
    };
    let is_v6 = options.local.is_some_and(|ip| ip.is_ipv6());
    link.up && options.port == bind.port() && is_v6 == bind.is_ipv6()
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

#[cfg(test)]
mod tests;
