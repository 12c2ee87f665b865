//! `udp`: a TUN device and a UDP socket; a packet travels as the bare payload of a datagram, which is
//! flannel's wire format. IPv4 only, as there.
//!
//! The control plane publishes an immutable [`Table`](table::Table) of peers; one plain thread moves
//! packets ([`datapath`]). Peers are sent to at our own configured port, whatever port they use: a
//! udp lease does not say.
//!
//! The device is persistent while the daemon lives, so that a killed daemon's successor finds device,
//! address and route in place and no packet takes another way meanwhile. An orderly stop removes it,
//! because a Go flanneld started next would make `flannel1` beside it.

mod datapath;
mod icmp;
mod table;

use std::{
    net::{IpAddr, SocketAddrV4},
    sync::{Arc, atomic::Ordering},
};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use ipnet::IpNet;
use kernel::{Address, Change, Link, LinkKind, Netlink, Route, RouteFilter, SetLink};

use super::{
    Announcement, Backend, Desired, Report,
    apply::{apply, describe},
};
use crate::{
    config::{NetworkConfig, SubnetRange},
    lease::Lease,
    peers::PeerChange,
    uplink::Uplink,
};
use datapath::DataPath;
use table::Table;

/// The device name that flannel's pattern `flannel%d` gives.
const DEVICE: &str = "flannel0";
/// Outer IPv4 and UDP headers.
const OVERHEAD: u32 = 28;

/// The backend.
pub struct Udp {
    range: SubnetRange,
    port: u16,
    netlink: Netlink,
    table: Arc<ArcSwap<Table>>,
    datapath: Option<DataPath>,
}

impl Udp {
    /// Checks that the network has the one family it can carry; makes nothing yet.
    pub fn new(config: &NetworkConfig, port: u16) -> anyhow::Result<Self> {
        anyhow::ensure!(
            config.v6.is_none(),
            "the udp backend carries IPv4 only: switch EnableIPv6 off, or use vxlan or host-gw"
        );
        Ok(Self {
            range: config.v4.context("the udp backend needs an IPv4 Network")?,
            port,
            netlink: Netlink::open()?,
            table: Arc::default(),
            datapath: None,
        })
    }

    fn publish(&self, desired: &Desired) {
        let peers = desired.peers.iter().filter_map(|lease| {
            let public = lease.attrs.public_ip?;
            Some((lease.subnet.v4?, SocketAddrV4::new(public, self.port)))
        });
        let own = desired.own.subnet.v4.map(|net| net.network());
        self.table.store(Arc::new(Table::new(own, peers)));
    }

    /// A running data path on a device that exists.
    fn ensure_running(&mut self, uplink: &Uplink, report: &mut Report) -> anyhow::Result<Link> {
        let bind = uplink
            .address_v4
            .with_context(|| format!("{} has no IPv4 address", uplink.name))?;
        let bind = SocketAddrV4::new(bind, self.port);
        let link = self.netlink.link(DEVICE)?;
        if let Some(path) = &self.datapath
            && (link.is_none() || path.bound_to() != bind || path.has_ended())
        {
            let why = path
                .ended()
                .unwrap_or_else(|| "device or address changed".into());
            tracing::info!("restarting the udp data path: {why}");
            self.datapath = None;
        }
        if self.datapath.is_none() {
            if let Some(other) = link.filter(|link| link.kind != LinkKind::Tun) {
                anyhow::bail!(
                    "{DEVICE} exists and is no TUN device ({:?}): remove it (ip link delete {DEVICE})",
                    other.kind
                );
            }
            let path = DataPath::start(DEVICE, bind, Arc::clone(&self.table))?;
            tracing::info!("udp data path on {DEVICE} and {bind}");
            self.datapath = Some(path);
            report.changed("start datapath", || {
                format!("start datapath {DEVICE} on {bind}")
            });
        }
        Ok(self.netlink.expect_link(DEVICE)?)
    }

    fn wanted_route(&self, dev: u32) -> Route {
        Route {
            dev: Some(dev),
            ..Route::new(self.range.network)
        }
    }

    /// What the device still lacks.
    fn changes(&mut self, link: &Link, desired: &Desired) -> anyhow::Result<Vec<Change>> {
        let addresses = self.netlink.addresses(Some(link.index))?;
        let routes = self.netlink.routes(RouteFilter {
            dev: Some(link.index),
            table: Some(Route::TABLE_MAIN),
            protocol: Some(Route::PROTOCOL_BOOT),
            ipv6: Some(false),
        })?;
        Ok(plan(
            link,
            self.mtu(&desired.uplink),
            desired
                .own
                .subnet
                .v4
                .map(|net| IpNet::from(IpAddr::V4(net.network()))),
            &self.wanted_route(link.index),
            &addresses,
            &routes,
        ))
    }

    fn try_reconcile(&mut self, desired: &Desired, report: &mut Report) -> anyhow::Result<()> {
        self.publish(desired);
        let link = self.ensure_running(&desired.uplink, report)?;
        let changes = self.changes(&link, desired)?;
        apply(&mut self.netlink, &changes, report);
        Ok(())
    }
}

/// Pure: what makes the device carry `own` (a full-length address) and the route to the network.
fn plan(
    link: &Link,
    mtu: u32,
    own: Option<IpNet>,
    wanted: &Route,
    addresses: &[Address],
    routes: &[Route],
) -> Vec<Change> {
    let mut changes = Vec::new();
    let set = SetLink {
        index: link.index,
        mtu: Some(mtu).filter(|mtu| *mtu != link.mtu),
        up: (!link.up).then_some(true),
        ..SetLink::default()
    };
    if set.mtu.is_some() || set.up.is_some() {
        changes.push(Change::SetLink(set));
    }
    let v4 = addresses.iter().filter(|a| a.net.addr().is_ipv4());
    let foreign = v4.filter(|a| Some(a.net) != own);
    if let Some(net) = own
        && !addresses.iter().any(|a| a.net == net)
    {
        changes.push(Change::AddAddress(Address::new(link.index, net)));
    }
    // After the new one: with its last address a device loses its routes.
    changes.extend(foreign.cloned().map(Change::DeleteAddress));
    let stale = routes.iter().filter(|route| route.dst != wanted.dst);
    changes.extend(stale.cloned().map(Change::DeleteRoute));
    if !routes
        .iter()
        .any(|route| route.dst == wanted.dst && route.via.is_none())
    {
        changes.push(Change::ReplaceRoute(wanted.clone()));
    }
    changes
}

impl Backend for Udp {
    fn peer_types(&self) -> &'static [&'static str] {
        &["", "udp"]
    }

    /// Opens device and port before a lease is taken: a node that cannot carry packets must not
    /// draw them.
    fn prepare(&mut self, uplink: &Uplink, _: Option<&Lease>) -> anyhow::Result<Announcement> {
        self.ensure_running(uplink, &mut Report::default())?;
        Ok(self.announcement())
    }

    /// Nothing: flannel's udp leases have neither type nor data.
    fn announcement(&self) -> Announcement {
        Announcement::default()
    }

    fn mtu(&self, uplink: &Uplink) -> u32 {
        uplink.mtu.saturating_sub(OVERHEAD)
    }

    fn plan(&mut self, desired: &Desired) -> anyhow::Result<Vec<String>> {
        let mtu = self.mtu(&desired.uplink);
        match self.netlink.link(DEVICE)? {
            Some(link) => {
                let changes = self.changes(&link, desired)?;
                Ok(describe(&mut self.netlink, &changes))
            }
            None => {
                let mut lines = vec![format!("add link {DEVICE} mtu {mtu} type tun")];
                if let Some(net) = desired.own.subnet.v4 {
                    lines.push(format!("add address {}/32 dev {DEVICE}", net.network()));
                }
                let route = Change::ReplaceRoute(self.wanted_route(0));
                lines.push(route.describe(&|_| DEVICE.to_owned()));
                Ok(lines)
            }
        }
    }

    fn reconcile(&mut self, desired: &Desired) -> Report {
        let mut report = Report::default();
        if let Err(error) = self.try_reconcile(desired, &mut report) {
            report.failed(format!("{error:#}"));
        }
        report
    }

    fn update(&mut self, desired: &Desired, changes: &[PeerChange]) -> Report {
        let mut report = Report::default();
        self.publish(desired);
        report.changed("publish peers", || {
            format!(
                "publish peers ({} changed, {} in all)",
                changes.len(),
                desired.peers.len()
            )
        });
        report
    }

    fn stop(&mut self) {
        let Some(path) = self.datapath.take() else {
            return;
        };
        let counters = path.counters();
        tracing::info!(
            "udp data path: sent {} packets, received {}, dropped {} (no peer {}, malformed {}, \
             send errors {}, device errors {})",
            counters.sent.load(Ordering::Relaxed),
            counters.received.load(Ordering::Relaxed),
            counters.dropped(),
            counters.no_peer.load(Ordering::Relaxed),
            counters.malformed.load(Ordering::Relaxed),
            counters.send_errors.load(Ordering::Relaxed),
            counters.device_errors.load(Ordering::Relaxed),
        );
        drop(path);
        for error in self.cleanup().errors {
            tracing::warn!("{error}");
        }
    }

    fn cleanup(&mut self) -> Report {
        self.datapath = None;
        let mut report = Report::default();
        match self.netlink.link(DEVICE) {
            Ok(Some(Link {
                index,
                name,
                kind: LinkKind::Tun,
                ..
            })) => {
                let delete = Change::DeleteLink { index, name };
                apply(&mut self.netlink, &[delete], &mut report);
            }
            Ok(_) => {}
            Err(error) => report.failed(error),
        }
        report
    }
}
