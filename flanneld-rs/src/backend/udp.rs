//! `udp`: a TUN device and a UDP socket; a packet travels as the bare payload of a datagram, which is
//! flannel's wire format. IPv6 packets travel beside IPv4 ones, told apart by their version; the
//! datagrams themselves are IPv4, as flannel's.
//!
//! The control plane publishes an immutable table of peers ([`peers`]); what moves packets is chosen
//! and watched by [`path`]: programs in the kernel, user space with offloads, or plain user space.
//!
//! The device is persistent while the daemon lives, so that a killed daemon's successor finds device,
//! address, routes and programs in place: with programs, traffic goes on without a daemon. An orderly
//! stop removes all of it, because a Go flanneld started next would make `flannel1` beside it.

mod device;
mod parameters;
mod path;
mod peers;

use std::net::SocketAddrV4;

use anyhow::Context as _;
use ipnet::IpNet;
use kernel::{Change, Link, LinkKind, Netlink, Route, RouteFilter};

use super::{
    Announcement, Backend, Desired, Report, Traffic,
    apply::{apply, describe},
};
use crate::{
    config::{NetworkConfig, SubnetRange, backend},
    lease::{Lease, Subnet},
    peers::PeerChange,
    uplink::Uplink,
};
use device::Family;
use path::{DataPath, Place};

/// The device name that flannel's pattern `flannel%d` gives.
const DEVICE: &str = "flannel0";
/// Outer IPv4 and UDP headers.
const OVERHEAD: u32 = 28;

/// The backend.
pub struct Udp {
    /// The network's ranges, one or two.
    ranges: Vec<SubnetRange>,
    port: u16,
    netlink: Netlink,
    path: DataPath,
    /// Index of the device that user space holds.
    held: Option<u32>,
    /// What was last said of a parameter that cannot be set.
    told: String,
}

impl Udp {
    /// Checks that the network can be carried; makes nothing yet.
    pub fn new(config: &NetworkConfig, udp: backend::Udp) -> anyhow::Result<Self> {
        anyhow::ensure!(
            config.v4.is_some(),
            "the udp backend cannot carry a network without IPv4, because its datagrams are IPv4: \
             switch EnableIPv4 on, or use vxlan or host-gw"
        );
        Ok(Self {
            ranges: config.v4.into_iter().chain(config.v6).collect(),
            port: udp.port,
            netlink: Netlink::open()?,
            path: DataPath::new(DEVICE, udp.data_path),
            held: None,
            told: String::new(),
        })
    }

    fn families(&self, own: &Subnet) -> Vec<Family> {
        let family = |range: &SubnetRange| {
            let mut own = own.nets();
            let own = own.find(|net| net.addr().is_ipv4() == range.network.addr().is_ipv4());
            Family {
                network: range.network,
                own: own.map(|net| IpNet::from(net.network())),
            }
        };
        self.ranges.iter().map(family).collect()
    }

    fn is_v6(&self) -> bool {
        self.ranges.len() > 1
    }

    /// Packets are carried without it too: where `/proc/sys` is read-only (an unprivileged container), that
    /// is said once.
    fn ensure_parameters(&mut self, report: &mut Report) {
        if let Err(error) = parameters::ensure(DEVICE, self.is_v6(), report) {
            let text = error.to_string();
            if text != self.told {
                tracing::warn!("{text}; going on without it");
                self.told = text;
            }
        }
    }

    fn bind(&self, uplink: &Uplink) -> anyhow::Result<SocketAddrV4> {
        let address = uplink
            .address_v4
            .with_context(|| format!("{} has no IPv4 address", uplink.name))?;
        Ok(SocketAddrV4::new(address, self.port))
    }

    /// A running user-space path on a device that exists.
    fn ensure_running(&mut self, uplink: &Uplink, report: &mut Report) -> anyhow::Result<Link> {
        let (bind, mtu) = (self.bind(uplink)?, self.mtu(uplink));
        let link = self.netlink.link(DEVICE)?;
        let gone = self.held.is_some() && link.as_ref().map(|link| link.index) != self.held;
        let wrong = match gone {
            true => Some("the device is gone".to_owned()),
            false => self.path.wrong(bind, mtu),
        };
        if let Some(why) = wrong {
            if !gone && link.is_some() {
                self.path.downgrade();
            }
            check_kind(link.as_ref())?;
            if self.held.is_some() {
                tracing::info!("restarting the udp data path: {why}");
            }
            self.path.start(bind, mtu)?;
            report.changed("start datapath", || {
                format!("start datapath {DEVICE} on {bind}")
            });
        }
        let link = self.netlink.expect_link(DEVICE)?;
        self.held = Some(link.index);
        Ok(link)
    }

    /// What the device still lacks.
    fn changes(&mut self, link: &Link, desired: &Desired) -> anyhow::Result<Vec<Change>> {
        let addresses = self.netlink.addresses(Some(link.index))?;
        let routes = self.netlink.routes(RouteFilter {
            dev: Some(link.index),
            table: Some(Route::TABLE_MAIN),
            protocol: Some(Route::PROTOCOL_BOOT),
            ipv6: None,
        })?;
        let families = self.families(&desired.own.subnet);
        let mtu = self.mtu(&desired.uplink);
        Ok(device::plan(link, mtu, &families, &addresses, &routes))
    }

    fn place(&self, device: u32, uplink: &Uplink) -> anyhow::Result<Place> {
        Ok(Place {
            device: (device, DEVICE.to_owned()),
            underlay: (uplink.index, uplink.name.clone()),
            underlay_mtu: uplink.mtu,
            local: self.bind(uplink)?,
        })
    }

    /// Programs come last: the table is complete, the device is up and has its parameters.
    fn try_reconcile(&mut self, desired: &Desired, report: &mut Report) -> anyhow::Result<()> {
        self.path.publish(peers::table(desired, self.port), report);
        let link = self.ensure_running(&desired.uplink, report)?;
        let changes = self.changes(&link, desired)?;
        apply(&mut self.netlink, &changes, report);
        let place = self.place(link.index, &desired.uplink)?;
        self.ensure_parameters(report);
        self.path.ensure_programs(place, report);
        self.path.tell();
        Ok(())
    }
}

/// A device of our name must be a TUN device.
fn check_kind(link: Option<&Link>) -> anyhow::Result<()> {
    if let Some(other) = link.filter(|link| link.kind != LinkKind::Tun) {
        anyhow::bail!(
            "{DEVICE} exists and is no TUN device ({:?}): remove it (ip link delete {DEVICE})",
            other.kind
        );
    }
    Ok(())
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

    fn announcement(&self) -> Announcement {
        peers::announcement()
    }

    fn mtu(&self, uplink: &Uplink) -> u32 {
        uplink.mtu.saturating_sub(OVERHEAD)
    }

    fn plan(&mut self, desired: &Desired) -> anyhow::Result<Vec<String>> {
        let link = self.netlink.link(DEVICE)?;
        check_kind(link.as_ref())?;
        let index = link.as_ref().map_or(0, |link| link.index);
        let place = self.place(index, &desired.uplink)?;
        let mut lines = match link {
            Some(link) => {
                let changes = self.changes(&link, desired)?;
                let settings = parameters::wanted(DEVICE, self.is_v6())?;
                let mut lines = describe(&mut self.netlink, &changes);
                lines.extend(settings.iter().map(parameters::describe));
                lines
            }
            None => {
                let families = self.families(&desired.own.subnet);
                device::made(DEVICE, self.mtu(&desired.uplink), &families)
            }
        };
        lines.extend(self.path.plan(&place));
        Ok(lines)
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
        self.path
            .publish(peers::table(desired, self.port), &mut report);
        self.path.tell();
        report.changed("publish peers", || {
            format!(
                "publish peers ({} changed, {} in all)",
                changes.len(),
                desired.peers.len()
            )
        });
        report
    }

    fn traffic(&self) -> Option<Traffic> {
        self.path.traffic()
    }

    fn has_ended(&self) -> bool {
        self.path.has_ended()
    }

    fn stop(&mut self) {
        if self.held.is_none() {
            return;
        }
        tracing::info!(
            "udp data path: removing {DEVICE} with its routes and programs; {}",
            self.path.totals()
        );
        for error in self.cleanup().errors {
            tracing::warn!("{error}");
        }
    }

    fn cleanup(&mut self) -> Report {
        let mut report = Report::default();
        self.held = None;
        self.path.remove(&mut report);
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
