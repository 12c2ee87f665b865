//! `vxlan`: the kernel's VXLAN device, programmed with one neighbour, forwarding entry and route per
//! peer; no flooding, no learning.
//!
//! Each family has a device of its own: `flannel.<VNI>` and `flannel-v6.<VNI>`. An outer IPv4 header
//! costs 50 bytes of MTU, an outer IPv6 header 70 (drivers/net/vxlan: 20 or 40 + 8 UDP + 8 VXLAN +
//! 14 Ethernet). flannel takes 50 for both, which leaves IPv6 packets too big for the underlay; Pods
//! get the smaller of the two, because one veth carries both families.

mod checksum;
mod data;
mod paths;
mod plan;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use anyhow::Context as _;
use ipnet::IpNet;
use kernel::{Change, Link, Mac, Netlink, RouteFilter, Vxlan as Options, sysctl};

use super::{
    Announcement, Backend, Desired, Report,
    apply::{CHUNK, apply, describe},
    peer_routes,
};
use crate::{
    config::{NetworkConfig, SubnetRange, backend::Vxlan as Config},
    lease::{Lease, Subnet},
    peers::PeerChange,
    uplink::Uplink,
};
use data::VxlanData;
pub use data::unusable;
use paths::{Paths, left_over, subnet_of};
use plan::{Device, DevicePlan, Entries};

/// The `BackendType` of its leases.
pub const NAME: &str = "vxlan";
/// The kernel's default port (older than the IANA's 4789), which flannel uses.
const DEFAULT_PORT: u16 = 8472;
/// Outer IPv4, UDP, VXLAN and inner Ethernet headers.
const OVERHEAD_V4: u32 = 50;
/// The same with an outer IPv6 header.
const OVERHEAD_V6: u32 = 70;

/// The backend.
pub struct Vxlan {
    config: Config,
    families: Vec<Family>,
    netlink: Netlink,
}

/// One family's part.
struct Family {
    range: SubnetRange,
    v6: bool,
    /// The announced MAC, kept for as long as the daemon lives.
    mac: Option<Mac>,
}

impl Vxlan {
    /// Opens the kernel; makes nothing yet.
    pub fn new(config: &NetworkConfig, backend: Config) -> anyhow::Result<Self> {
        let family = |v6| {
            move |range| Family {
                range,
                v6,
                mac: None,
            }
        };
        Ok(Self {
            config: backend,
            families: (config.v4.map(family(false)).into_iter())
                .chain(config.v6.map(family(true)))
                .collect(),
            netlink: Netlink::open()?,
        })
    }

    /// The configured MTU, but never more than the external interface carries: the kernel refuses
    /// a larger device, and would drop what is larger.
    fn base_mtu(&self, uplink: &Uplink) -> u32 {
        self.config.mtu.unwrap_or(u32::MAX).min(uplink.mtu)
    }

    /// The device that one family must have. `own` is our subnet, once we have one.
    fn device(&self, family: &Family, uplink: &Uplink, own: Option<&Subnet>) -> Device {
        let overhead = if family.v6 { OVERHEAD_V6 } else { OVERHEAD_V4 };
        let subnet = own.and_then(|own| family.subnet(own));
        Device {
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
            mtu: self.base_mtu(uplink).saturating_sub(overhead),
            mac: family.mac,
            address: subnet.map(|net| full_length(net.network())),
            network: family.range.network,
        }
    }

    /// Makes or mends one family's device and returns it.
    fn ensure_device(&mut self, wanted: &Device, report: &mut Report) -> anyhow::Result<Link> {
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
        let changes = plan::addresses(wanted, &link, &present);
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
        let (netlink, wanted) = (&mut self.netlink, self.config.direct_routing);
        let mut known: BTreeMap<IpAddr, bool> = BTreeMap::new();
        Paths::new(v6, peers, |public| {
            wanted
                && *known.entry(public).or_insert_with(|| {
                    // No route, or a failed look-up, is not a direct neighbour.
                    let route = netlink.route_to(public).ok().flatten();
                    route
                        .is_some_and(|route| route.via.is_none() && route.dev == Some(uplink.index))
                })
        })
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
        // A direct route replaces the tunnel's in one step, and the other way round: both have the
        // same destination and metric. So the tunnel's left-over goes without a gap.
        let mut changes = peer_routes::plan(
            uplink.index,
            range.network,
            range.subnet_len,
            &paths.direct,
            &outside,
        );
        let tunnels = plan::entries(device, range.network, &paths.tunnels, &found);
        let replaced: BTreeSet<IpNet> = paths.tunnels.keys().copied().collect();
        changes.retain(|change| match change {
            Change::DeleteRoute(route) => !replaced.contains(&route.dst),
            _ => true,
        });
        changes.extend(tunnels.into_iter().filter(|change| match change {
            Change::DeleteRoute(route) => !paths.direct.contains_key(&route.dst),
            _ => true,
        }));
        Ok(changes)
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
            let gone = chunk.iter().filter_map(|change| match change {
                PeerChange::Removed(old) | PeerChange::Changed { old, .. } => Some(old),
                PeerChange::Added(_) => None,
            });
            let come = chunk.iter().filter_map(|change| match change {
                PeerChange::Added(new) | PeerChange::Changed { new, .. } => Some(new),
                PeerChange::Removed(_) => None,
            });
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

impl Family {
    fn subnet(&self, own: &Subnet) -> Option<IpNet> {
        subnet_of(self.v6, own)
    }

    fn public_of(&self, uplink: &Uplink) -> Option<IpAddr> {
        if self.v6 {
            uplink.public_v6.map(IpAddr::from)
        } else {
            uplink.public_v4.map(IpAddr::from)
        }
    }
}

/// The name of one family's device.
pub(crate) fn device_name(v6: bool, vni: u32) -> String {
    if v6 {
        format!("flannel-v6.{vni}")
    } else {
        format!("flannel.{vni}")
    }
}

fn full_length(ip: IpAddr) -> IpNet {
    IpNet::from(ip)
}

impl Backend for Vxlan {
    fn peer_types(&self) -> &'static [&'static str] {
        &[NAME]
    }

    fn prepare(
        &mut self,
        uplink: &Uplink,
        previous: Option<&Lease>,
    ) -> anyhow::Result<Announcement> {
        for at in 0..self.families.len() {
            let family = &self.families[at];
            if self.families[at].mac.is_none() {
                let name = device_name(family.v6, self.config.vni);
                let on_device = self.netlink.link(&name)?.and_then(|link| link.mac);
                let in_lease = previous.and_then(|lease| {
                    let data = if family.v6 {
                        &lease.attrs.backend_v6_data
                    } else {
                        &lease.attrs.backend_data
                    };
                    VxlanData::parse(data.as_ref()).ok().map(|data| data.mac)
                });
                let mac = match on_device.or(in_lease) {
                    Some(mac) => mac,
                    None => Mac::random_local().context("choose a MAC for the vxlan device")?,
                };
                self.families[at].mac = Some(mac);
            }
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
        let data = |v6| {
            let family = self.families.iter().find(|family| family.v6 == v6)?;
            Some(VxlanData::render(self.config.vni, family.mac?))
        };
        Announcement {
            backend_type: NAME,
            data: data(false),
            data_v6: data(true),
        }
    }

    fn mtu(&self, uplink: &Uplink) -> u32 {
        let v6 = self.families.iter().any(|family| family.v6);
        let overhead = if v6 { OVERHEAD_V6 } else { OVERHEAD_V4 };
        self.base_mtu(uplink).saturating_sub(overhead)
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
                    let changes = plan::addresses(&wanted, &link, &present);
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
        // Neighbours, forwarding entries and routes of a device go with it.
        let mut report = Report::default();
        for v6 in [false, true] {
            match self.netlink.link(&device_name(v6, self.config.vni)) {
                Ok(Some(Link { index, name, .. })) => {
                    apply(
                        &mut self.netlink,
                        &[Change::DeleteLink { index, name }],
                        &mut report,
                    );
                }
                Ok(None) => {}
                Err(error) => report.failed(error),
            }
        }
        report
    }
}
