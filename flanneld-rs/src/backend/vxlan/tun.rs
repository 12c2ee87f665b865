//! VXLAN in user space: a TUN device per family, and the workers of the crate `tunnel`, which write and
//! read the VXLAN and Ethernet headers. For hosts whose kernel has no vxlan device.
//!
//! The control plane publishes an immutable table of peers with their VTEP MACs. A TUN is layer 3,
//! so there are no neighbours and no forwarding entries: a route per peer subnet leads into the device
//! (as with the kernel's device: what belongs to no peer takes the host's default route), and ARP and
//! neighbour discovery of the peers' kernels are answered by the workers.
//!
//! The device is persistent while the daemon lives, so that a killed daemon's successor finds device,
//! address and routes in place. An orderly stop removes it: without a process behind it a TUN swallows
//! what is sent there, and a Go flanneld started next would have to.
//!
//! Learning has nothing to do here and is let be. Group policies (GBP) are refused, because a TUN has no
//! place for the mark they need, and packets must not pass without their policy.

mod end;
mod plan;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use anyhow::Context as _;
use kernel::{Change, Link, LinkKind, Netlink, RouteFilter};
use tunnel::{
    Counters, Wire,
    user::{Mode, Settings},
};

use super::{
    DEFAULT_PORT, NAME,
    family::{self, Family, device_name},
    paths::{self, Paths},
    plan::addresses,
    remove_devices,
};
use crate::{
    backend::{
        Announcement, Backend, Desired, Report, Traffic,
        apply::{CHUNK, apply, describe},
        peer_routes,
    },
    config::{NetworkConfig, backend::Vxlan as Config},
    lease::{Lease, Subnet},
    peers::PeerChange,
    uplink::Uplink,
};
use end::{End, ensure_replaceable};

/// The backend in user space.
pub struct Tun {
    config: Config,
    families: Vec<Family>,
    /// One per family, in the same order.
    ends: Vec<End>,
    counters: Arc<Counters>,
    netlink: Netlink,
}

impl Tun {
    /// Refuses what a TUN cannot do; makes nothing yet.
    pub fn new(config: &NetworkConfig, backend: Config, netlink: Netlink) -> anyhow::Result<Self> {
        anyhow::ensure!(
            !backend.gbp,
            "\"GBP\" needs the kernel's vxlan device: a TUN device has no place for a packet's group \
             policy. Leave GBP out, or use \"DataPath\": \"kernel\""
        );
        if backend.learning {
            tracing::info!(
                "\"Learning\" has no effect with a TUN device: what peers have is known from their leases"
            );
        }
        let families = Family::of(config);
        Ok(Self {
            config: backend,
            ends: families.iter().map(|_| End::default()).collect(),
            families,
            counters: Arc::default(),
            netlink,
        })
    }

    fn name(&self, at: usize) -> String {
        device_name(self.families[at].v6, self.config.vni)
    }

    fn port(&self) -> u16 {
        self.config.port.unwrap_or(DEFAULT_PORT)
    }

    /// Where one family's datagrams arrive: at the announced address, if that is the host's own (it is
    /// not behind address translation), else at the external interface's.
    fn bind_address(&mut self, at: usize, uplink: &Uplink) -> anyhow::Result<SocketAddr> {
        let family = &self.families[at];
        let interface = if family.v6 {
            uplink.address_v6.map(IpAddr::from)
        } else {
            uplink.address_v4.map(IpAddr::from)
        };
        let mut public = family.public_of(uplink);
        if public != interface {
            let local = self.netlink.addresses(None)?;
            public = public.filter(|ip| local.iter().any(|address| address.net.addr() == *ip));
        }
        let ip = public.or(interface).with_context(|| {
            let family = if family.v6 { "IPv6" } else { "IPv4" };
            format!("{} has no {family} address", uplink.name)
        })?;
        Ok(SocketAddr::new(ip, self.port()))
    }

    /// What one family's workers are to do.
    fn settings(&mut self, at: usize, uplink: &Uplink) -> anyhow::Result<Settings> {
        Ok(Settings {
            device: self.name(at),
            bind: self.bind_address(at, uplink)?,
            wire: Wire::Vxlan {
                vni: self.config.vni,
            },
            mode: Mode::Offload,
            workers: None,
            // What large packets of a kernel sender are cut to: the Pods' MTU, which is not this
            // device's where the other family's is smaller.
            mtu: self.mtu(uplink),
        })
    }

    /// A running data path of one family on a device that exists.
    fn ensure_running(
        &mut self,
        at: usize,
        uplink: &Uplink,
        report: &mut Report,
    ) -> anyhow::Result<Link> {
        let settings = self.settings(at, uplink)?;
        self.ends[at].ensure_running(&settings, &self.counters, &mut self.netlink, report)
    }

    /// The workers know these peers from now on. All of them, also those with a direct route: what they
    /// send is taken whichever way they chose.
    fn publish(&self, at: usize, desired: &Desired) {
        let family = &self.families[at];
        let tunnels = Paths::new(family.v6, desired.peers.iter(), |_| false).tunnels;
        let own = family.subnet(&desired.own.subnet);
        let table = plan::table(own, family.mac, self.port(), &tunnels);
        self.ends[at].publish(table);
    }

    fn paths<'a>(
        &mut self,
        at: usize,
        uplink: &Uplink,
        peers: impl Iterator<Item = &'a Arc<Lease>>,
    ) -> Paths {
        let (direct, v6) = (self.config.direct_routing, self.families[at].v6);
        Paths::look_up(&mut self.netlink, direct, v6, uplink, peers)
    }

    /// What the device lacks: MTU, address, state.
    fn device_changes(
        &mut self,
        at: usize,
        uplink: &Uplink,
        own: Option<&Subnet>,
        link: &Link,
    ) -> anyhow::Result<Vec<Change>> {
        let family = &self.families[at];
        let present = self.netlink.addresses(Some(link.index))?;
        let mut changes = plan::mtu(link, family.mtu(&self.config, uplink));
        changes.extend(addresses(
            family.range.network,
            family.address(own),
            link,
            &present,
        ));
        Ok(changes)
    }

    /// What the routes lack, device present.
    fn route_changes(
        &mut self,
        at: usize,
        device: u32,
        uplink: &Uplink,
        paths: &Paths,
    ) -> anyhow::Result<Vec<Change>> {
        let Family { range, v6, .. } = self.families[at];
        let filter = |dev| RouteFilter {
            dev: Some(dev),
            table: Some(kernel::Route::TABLE_MAIN),
            protocol: None,
            ipv6: Some(v6),
        };
        let found = self.netlink.routes(filter(device))?;
        let outside = self.netlink.routes(filter(uplink.index))?;
        let direct = peer_routes::plan(
            uplink.index,
            range.network,
            range.subnet_len,
            &paths.direct,
            &outside,
        );
        let tunnels = plan::routes(device, range.network, &paths.tunnels, &found);
        Ok(paths::side_by_side(paths, direct, tunnels))
    }

    fn reconcile_family(
        &mut self,
        at: usize,
        desired: &Desired,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let own = Some(&desired.own.subnet);
        self.publish(at, desired);
        let link = self.ensure_running(at, &desired.uplink, report)?;
        let changes = self.device_changes(at, &desired.uplink, own, &link)?;
        apply(&mut self.netlink, &changes, report);
        let paths = self.paths(at, &desired.uplink, desired.peers.iter());
        paths.warn_unusable();
        let changes = self.route_changes(at, link.index, &desired.uplink, &paths)?;
        apply(&mut self.netlink, &changes, report);
        Ok(())
    }

    fn update_family(
        &mut self,
        at: usize,
        desired: &Desired,
        changes: &[PeerChange],
        report: &mut Report,
    ) -> anyhow::Result<()> {
        self.publish(at, desired);
        let link = self.netlink.expect_link(&self.name(at))?;
        for chunk in changes.chunks(CHUNK) {
            let gone = chunk.iter().filter_map(PeerChange::before);
            let come = chunk.iter().filter_map(PeerChange::now);
            let old = self.paths(at, &desired.uplink, gone);
            let new = self.paths(at, &desired.uplink, come);
            new.warn_unusable();
            let steps = plan::update(link.index, desired.uplink.index, &old, &new);
            apply(&mut self.netlink, &steps, report);
        }
        Ok(())
    }

    fn plan_family(&mut self, at: usize, desired: &Desired) -> anyhow::Result<Vec<String>> {
        let own = Some(&desired.own.subnet);
        let paths = self.paths(at, &desired.uplink, desired.peers.iter());
        let mut lines: Vec<String> = paths
            .unusable
            .iter()
            .map(|why| format!("# ignore {why}"))
            .collect();
        let name = self.name(at);
        let settings = self.settings(at, &desired.uplink)?;
        let start = match end::plan(&settings, &mut self.netlink) {
            Ok(start) => start,
            Err(error) => {
                lines.push(format!("# {name} cannot start: {error:#}"));
                return Ok(lines);
            }
        };
        let found = self.netlink.link(&name)?;
        if let Some(link) = found.as_ref().filter(|link| link.kind == LinkKind::Tun) {
            let mut changes = self.device_changes(at, &desired.uplink, own, link)?;
            changes.extend(self.route_changes(at, link.index, &desired.uplink, &paths)?);
            lines.push(start);
            lines.extend(describe(&mut self.netlink, &changes));
            return Ok(lines);
        }
        lines.extend(
            found.map(|Link { index, name, .. }| Change::DeleteLink { index, name }.to_string()),
        );
        let family = &self.families[at];
        let mtu = family.mtu(&self.config, &desired.uplink);
        lines.push(format!("add link {name} mtu {mtu} type tun"));
        lines.push(start);
        let address = family.address(own);
        lines.extend(address.map(|address| format!("add address {address} dev {name}")));
        // Index 0 stands for the device that is yet to be made.
        let steps = plan::update(0, desired.uplink.index, &Paths::default(), &paths);
        let uplink = &desired.uplink;
        lines.extend(steps.iter().map(|change| {
            change.describe(&|index| if index == 0 { &name } else { &uplink.name }.clone())
        }));
        Ok(lines)
    }
}

impl Backend for Tun {
    fn peer_types(&self) -> &'static [&'static str] {
        &[NAME]
    }

    /// Opens device and port before a lease is taken: a node that cannot carry packets must not
    /// draw them. The workers hear of nobody yet, not even of ourselves: knowing their own subnet and no
    /// peer, they would tell senders whom a former life's routes still lead here that there is no way.
    fn prepare(
        &mut self,
        uplink: &Uplink,
        previous: Option<&Lease>,
    ) -> anyhow::Result<Announcement> {
        let own = previous.map(|lease| &lease.subnet);
        // All families first: what works is not given up for half a start.
        for at in 0..self.families.len() {
            let settings = self.settings(at, uplink)?;
            if self.ends[at].mode().is_none() {
                ensure_replaceable(&settings, &mut self.netlink)?;
            }
        }
        for at in 0..self.families.len() {
            // The device's: a kernel's vxlan device that we are about to replace.
            let present = self.netlink.link(&self.name(at))?.and_then(|link| link.mac);
            self.families[at].settle_mac(present, previous)?;
            let mut report = Report::default();
            let link = self.ensure_running(at, uplink, &mut report)?;
            let changes = self.device_changes(at, uplink, own, &link)?;
            apply(&mut self.netlink, &changes, &mut report);
            if let Some(error) = report.errors.first() {
                anyhow::bail!("{error}");
            }
        }
        Ok(self.announcement())
    }

    fn announcement(&self) -> Announcement {
        family::announcement(&self.families, self.config.vni)
    }

    fn mtu(&self, uplink: &Uplink) -> u32 {
        family::mtu(&self.families, &self.config, uplink)
    }

    fn plan(&mut self, desired: &Desired) -> anyhow::Result<Vec<String>> {
        let mut lines = Vec::new();
        for at in 0..self.families.len() {
            lines.extend(self.plan_family(at, desired)?);
        }
        Ok(lines)
    }

    fn reconcile(&mut self, desired: &Desired) -> Report {
        let mut report = Report::default();
        for at in 0..self.families.len() {
            if let Err(error) = self.reconcile_family(at, desired, &mut report) {
                report.failed(format!("{error:#}"));
            }
        }
        report
    }

    fn update(&mut self, desired: &Desired, changes: &[PeerChange]) -> Report {
        let mut report = Report::default();
        for at in 0..self.families.len() {
            if let Err(error) = self.update_family(at, desired, changes, &mut report) {
                report.failed(format!("{error:#}"));
            }
        }
        report
    }

    fn traffic(&self) -> Option<Traffic> {
        let mode = self.ends.iter().find_map(End::mode)?;
        let info = [
            ("backend", NAME.to_owned()),
            ("device", self.name(0)),
            ("data_path", "tun".to_owned()),
            ("user", mode.to_string()),
        ];
        Some(Traffic {
            info: info.into(),
            paths: vec![("user", Arc::clone(&self.counters) as _)],
        })
    }

    fn has_ended(&self) -> bool {
        self.ends.iter().any(End::has_ended)
    }

    /// A device that this process never had, or that is the kernel's, carries traffic without us.
    fn stop(&mut self) {
        if !self.ends.iter().any(End::was_started) {
            return;
        }
        self.ends.iter_mut().for_each(End::stop);
        let mut report = Report::default();
        let is_ours = |kind: &LinkKind| *kind == LinkKind::Tun;
        remove_devices(&mut self.netlink, self.config.vni, is_ours, &mut report);
        for error in report.errors {
            tracing::warn!("{error}");
        }
    }

    fn cleanup(&mut self) -> Report {
        self.ends.iter_mut().for_each(End::stop);
        let mut report = Report::default();
        remove_devices(&mut self.netlink, self.config.vni, |_| true, &mut report);
        report
    }
}
