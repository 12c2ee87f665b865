//! `host-gw`: no tunnel; a plain route to each peer's subnet through the peer, which must be on the
//! same link.

use std::{net::IpAddr, sync::Arc};

use kernel::{Change, Netlink, RouteFilter};

use super::{
    Announcement, Backend, Desired, Report,
    apply::{apply, describe},
    peer_routes::{self, Gateways},
};
use crate::{
    config::{NetworkConfig, SubnetRange},
    lease::Lease,
    peers::PeerChange,
    uplink::Uplink,
};

/// The `BackendType` of its leases.
const NAME: &str = "host-gw";

/// The backend.
pub struct HostGw {
    ranges: Vec<SubnetRange>,
    netlink: Netlink,
    /// The interface it last made routes through, for a change of interface and for cleanup.
    last_uplink: Option<u32>,
}

impl HostGw {
    /// Opens the kernel; makes nothing yet.
    pub fn new(config: &NetworkConfig) -> anyhow::Result<Self> {
        Ok(Self {
            ranges: config.v4.into_iter().chain(config.v6).collect(),
            netlink: Netlink::open()?,
            last_uplink: None,
        })
    }

    fn changes(&mut self, desired: &Desired) -> anyhow::Result<Vec<Change>> {
        let mut all = Vec::new();
        for range in &self.ranges {
            let v6 = range.network.addr().is_ipv6();
            let wanted = gateways(v6, desired.peers.iter());
            let mut interfaces = vec![(desired.uplink.index, wanted)];
            if let Some(old) = self.last_uplink.filter(|old| *old != desired.uplink.index) {
                interfaces.push((old, Gateways::new()));
            }
            for (dev, wanted) in interfaces {
                let observed = self.netlink.routes(RouteFilter {
                    dev: Some(dev),
                    table: Some(kernel::Route::TABLE_MAIN),
                    protocol: None,
                    ipv6: Some(v6),
                })?;
                all.extend(peer_routes::plan(
                    dev,
                    range.network,
                    range.subnet_len,
                    &wanted,
                    &observed,
                ));
            }
        }
        Ok(all)
    }
}

/// Peers of one family that have an address of it.
fn gateways<'a>(v6: bool, peers: impl Iterator<Item = &'a Arc<Lease>>) -> Gateways {
    peers
        .filter_map(|lease| {
            let subnet = lease.subnet.nets().find(|net| net.addr().is_ipv6() == v6)?;
            let public = if v6 {
                lease.attrs.public_ipv6.map(IpAddr::from)
            } else {
                lease.attrs.public_ip.map(IpAddr::from)
            };
            if public.is_none() {
                tracing::warn!("peer ignored: lease {subnet}: no public address");
            }
            Some((subnet, public?))
        })
        .collect()
}

/// Says what to do where the kernel says only that the network is unreachable.
fn explain(report: &mut Report) {
    for error in &mut report.errors {
        if error.contains("unreachable") {
            error.push_str(
                "; host-gw needs every node on one layer-2 network: use vxlan, or vxlan with \
                 DirectRouting",
            );
        }
    }
}

impl Backend for HostGw {
    fn peer_types(&self) -> &'static [&'static str] {
        &[NAME]
    }

    fn prepare(&mut self, uplink: &Uplink, _: Option<&Lease>) -> anyhow::Result<Announcement> {
        anyhow::ensure!(
            uplink.public_v4 == uplink.address_v4 && uplink.public_v6 == uplink.address_v6,
            "host-gw routes through the nodes themselves, so --public-ip must be the address of {}: \
             leave --public-ip out, or use vxlan",
            uplink.name
        );
        Ok(self.announcement())
    }

    fn announcement(&self) -> Announcement {
        Announcement {
            backend_type: NAME,
            ..Announcement::default()
        }
    }

    fn mtu(&self, uplink: &Uplink) -> u32 {
        uplink.mtu
    }

    fn plan(&mut self, desired: &Desired) -> anyhow::Result<Vec<String>> {
        let changes = self.changes(desired)?;
        Ok(describe(&mut self.netlink, &changes))
    }

    fn reconcile(&mut self, desired: &Desired) -> Report {
        let mut report = Report::default();
        match self.changes(desired) {
            Ok(changes) => apply(&mut self.netlink, &changes, &mut report),
            Err(error) => report.failed(format!("{error:#}")),
        }
        if report.errors.is_empty() {
            self.last_uplink = Some(desired.uplink.index);
        }
        explain(&mut report);
        report
    }

    fn update(&mut self, desired: &Desired, changes: &[PeerChange]) -> Report {
        let dev = desired.uplink.index;
        let mut report = Report::default();
        let mut steps = Vec::new();
        for v6 in [false, true] {
            let come = changes.iter().filter_map(|change| match change {
                PeerChange::Added(new) | PeerChange::Changed { new, .. } => Some(new),
                PeerChange::Removed(_) => None,
            });
            let gone = changes.iter().filter_map(|change| match change {
                PeerChange::Removed(old) => Some(old),
                _ => None,
            });
            let replace =
                |(subnet, gateway)| Change::ReplaceRoute(peer_routes::route(dev, subnet, gateway));
            let delete =
                |(subnet, gateway)| Change::DeleteRoute(peer_routes::route(dev, subnet, gateway));
            steps.extend(gateways(v6, come).into_iter().map(replace));
            steps.extend(gateways(v6, gone).into_iter().map(delete));
        }
        apply(&mut self.netlink, &steps, &mut report);
        explain(&mut report);
        report
    }

    fn cleanup(&mut self) -> Report {
        // Every interface: which one the daemon used is not recorded anywhere.
        let mut report = Report::default();
        let links = match self.netlink.links() {
            Ok(links) => links,
            Err(error) => {
                report.failed(error);
                return report;
            }
        };
        for range in &self.ranges {
            for link in links.iter().filter(|link| !link.loopback) {
                let filter = RouteFilter {
                    dev: Some(link.index),
                    table: Some(kernel::Route::TABLE_MAIN),
                    protocol: None,
                    ipv6: Some(range.network.addr().is_ipv6()),
                };
                match self.netlink.routes(filter) {
                    Ok(observed) => {
                        let stale = peer_routes::plan(
                            link.index,
                            range.network,
                            range.subnet_len,
                            &Gateways::new(),
                            &observed,
                        );
                        apply(&mut self.netlink, &stale, &mut report);
                    }
                    Err(error) => report.failed(error),
                }
            }
        }
        report
    }
}
