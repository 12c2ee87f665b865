//! The kernel's VXLAN device, programmed with one neighbour, forwarding entry and route per peer; no
//! flooding, no learning.

use std::{collections::BTreeSet, sync::Arc};

use kernel::{Change, Link, Mac, Netlink, RouteFilter, Vxlan as Options, sysctl};

use super::{
    DEFAULT_PORT, NAME, checksum,
    family::{self, Family, device_name},
    paths::{self, Paths, left_over},
    plan::{self, DevicePlan, Entries},
    remove_devices,
};
use crate::{
    backend::{
        Announcement, Backend, Desired, Report,
        apply::{CHUNK, apply, describe},
        peer_routes,
    },
    config::{NetworkConfig, backend::Vxlan as Config},
    lease::{Lease, Subnet},
    peers::PeerChange,
    uplink::Uplink,
};

/// The backend on the kernel's device.
pub struct Device {
    config: Config,
    families: Vec<Family>,
    netlink: Netlink,
}

impl Device {
    /// Makes nothing yet.
    pub fn new(config: &NetworkConfig, backend: Config, netlink: Netlink) -> Self {
        Self {
            config: backend,
            families: Family::of(config),
            netlink,
        }
    }

    /// The device that one family must have. `own` is our subnet, once we have one.
    fn device(&self, family: &Family, uplink: &Uplink, own: Option<&Subnet>) -> plan::Device {
        plan::Device {
            name: device_name(family.v6, self.config.vni),
            options: Options {
                vni: self.config.vni,
                port: self.config.port.unwrap_or(DEFAULT_PORT),
                parent: Some(uplink.index),
                local: family.public_of(uplink),
                learning: self.config.learning,
                gbp: self.config.gbp,
                l2miss: false,
                l3miss: false,
            },
            mtu: family.mtu(&self.config, uplink),
            mac: family.mac,
            address: family.address(own),
            network: family.range.network,
        }
    }

    /// Makes or mends one family's device and returns it.
    fn ensure_device(
        &mut self,
        wanted: &plan::Device,
        report: &mut Report,
    ) -> anyhow::Result<Link> {
        let found = self.netlink.link(&wanted.name)?;
        match plan::device(wanted, found.as_ref()) {
            DevicePlan::Keep(changes) => apply(&mut self.netlink, &changes, report),
            DevicePlan::Make { first, link } => {
                let changes: Vec<Change> =
                    first.into_iter().chain([Change::AddLink(link)]).collect();
                let before = report.errors.len();
                apply(&mut self.netlink, &changes, report);
                if let Some(error) = report.errors.get(before) {
                    anyhow::bail!("{error}");
                }
                // Peers' routes are ours to make; a router advertised inside the overlay is not.
                let key = format!("net/ipv6/conf/{}/accept_ra", wanted.name);
                if let Err(error) = sysctl::ensure(&key, "0") {
                    // Without IPv6 in the kernel there is nothing to switch off.
                    tracing::debug!("{error}");
                }
                checksum::mend_offload(&wanted.name);
            }
        }
        let link = self.netlink.expect_link(&wanted.name)?;
        let present = self.netlink.addresses(Some(link.index))?;
        let changes = plan::addresses(wanted.network, wanted.address, &link, &present);
        apply(&mut self.netlink, &changes, report);
        Ok(link)
    }

    /// How the given peers are reached in one family.
    fn paths<'a>(
        &mut self,
        v6: bool,
        uplink: &Uplink,
        peers: impl Iterator<Item = &'a Arc<Lease>>,
    ) -> Paths {
        let direct = self.config.direct_routing;
        Paths::look_up(&mut self.netlink, direct, v6, uplink, peers)
    }

    /// What one family's entries and direct routes lack, device present.
    fn entry_changes(
        &mut self,
        device: u32,
        at: usize,
        uplink: &Uplink,
        paths: &Paths,
    ) -> anyhow::Result<Vec<Change>> {
        let v6 = self.families[at].v6;
        let filter = |dev| RouteFilter {
            dev: Some(dev),
            table: Some(kernel::Route::TABLE_MAIN),
            protocol: None,
            ipv6: Some(v6),
        };
        let found = Entries {
            routes: self.netlink.routes(filter(device))?,
            neighbours: self.netlink.neighbours(device)?,
            fdb: self.netlink.fdb(device)?,
        };
        let outside = self.netlink.routes(filter(uplink.index))?;
        let range = &self.families[at].range;
        let direct = peer_routes::plan(
            uplink.index,
            range.network,
            range.subnet_len,
            &paths.direct,
            &outside,
        );
        let tunnels = plan::entries(device, range.network, &paths.tunnels, &found);
        Ok(paths::side_by_side(paths, direct, tunnels))
    }

    fn reconcile_family(
        &mut self,
        at: usize,
        desired: &Desired,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let wanted = self.device(
            &self.families[at],
            &desired.uplink,
            Some(&desired.own.subnet),
        );
        let link = self.ensure_device(&wanted, report)?;
        let v6 = self.families[at].v6;
        let paths = self.paths(v6, &desired.uplink, desired.peers.iter());
        paths.warn_unusable();
        let changes = self.entry_changes(link.index, at, &desired.uplink, &paths)?;
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
        let v6 = self.families[at].v6;
        let name = device_name(v6, self.config.vni);
        let link = self.netlink.expect_link(&name)?;
        let in_use: BTreeSet<Mac> = if changes.iter().all(|c| matches!(c, PeerChange::Added(_))) {
            BTreeSet::new()
        } else {
            self.paths(v6, &desired.uplink, desired.peers.iter())
                .tunnels
                .values()
                .map(|tunnel| tunnel.mac)
                .collect()
        };
        for chunk in changes.chunks(CHUNK / 3) {
            let mut steps = Vec::with_capacity(CHUNK);
            let gone = chunk.iter().filter_map(PeerChange::before);
            let come = chunk.iter().filter_map(PeerChange::now);
            let old = self.paths(v6, &desired.uplink, gone);
            let new = self.paths(v6, &desired.uplink, come);
            new.warn_unusable();
            for (subnet, tunnel) in &new.tunnels {
                steps.extend(plan::entries_of(link.index, *subnet, *tunnel));
            }
            for (subnet, gateway) in &new.direct {
                let route = peer_routes::route(desired.uplink.index, *subnet, *gateway);
                steps.push(Change::ReplaceRoute(route));
            }
            steps.extend(left_over(
                link.index,
                desired.uplink.index,
                &old,
                &new,
                &in_use,
            ));
            apply(&mut self.netlink, &steps, report);
        }
        Ok(())
    }
}

impl Backend for Device {
    fn peer_types(&self) -> &'static [&'static str] {
        &[NAME]
    }

    fn prepare(
        &mut self,
        uplink: &Uplink,
        previous: Option<&Lease>,
    ) -> anyhow::Result<Announcement> {
        for at in 0..self.families.len() {
            let name = device_name(self.families[at].v6, self.config.vni);
            let present = self.netlink.link(&name)?.and_then(|link| link.mac);
            self.families[at].settle_mac(present, previous)?;
            let own = previous.map(|lease| &lease.subnet);
            let wanted = self.device(&self.families[at], uplink, own);
            let mut report = Report::default();
            self.ensure_device(&wanted, &mut report)?;
            for line in &report.samples {
                tracing::info!("{line}");
            }
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
            let wanted = self.device(
                &self.families[at],
                &desired.uplink,
                Some(&desired.own.subnet),
            );
            let v6 = self.families[at].v6;
            let paths = self.paths(v6, &desired.uplink, desired.peers.iter());
            lines.extend(paths.unusable.iter().map(|why| format!("# ignore {why}")));
            let found = self.netlink.link(&wanted.name)?;
            match (plan::device(&wanted, found.as_ref()), found) {
                (DevicePlan::Keep(changes), Some(link)) => {
                    lines.extend(describe(&mut self.netlink, &changes));
                    let present = self.netlink.addresses(Some(link.index))?;
                    let changes = plan::addresses(wanted.network, wanted.address, &link, &present);
                    lines.extend(describe(&mut self.netlink, &changes));
                    let changes = self.entry_changes(link.index, at, &desired.uplink, &paths)?;
                    lines.extend(describe(&mut self.netlink, &changes));
                }
                (DevicePlan::Make { first, link }, _) => {
                    let changes: Vec<Change> =
                        first.into_iter().chain([Change::AddLink(link)]).collect();
                    lines.extend(describe(&mut self.netlink, &changes));
                    // Index 0 stands for the device that is yet to be made.
                    let name = wanted.name.clone();
                    let entries =
                        plan::entries(0, wanted.network, &paths.tunnels, &Entries::default());
                    lines.extend(
                        wanted
                            .address
                            .map(|a| format!("add address {a} dev {name}")),
                    );
                    lines.extend(entries.iter().map(|c| c.describe(&|_| name.clone())));
                    lines.extend(paths.direct.iter().map(|(subnet, gateway)| {
                        format!(
                            "replace route {subnet} via {gateway} dev {}",
                            desired.uplink.name
                        )
                    }));
                }
                (DevicePlan::Keep(_), None) => {}
            }
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

    fn cleanup(&mut self) -> Report {
        let mut report = Report::default();
        remove_devices(&mut self.netlink, self.config.vni, |_| true, &mut report);
        report
    }
}
