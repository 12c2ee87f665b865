//! What each address family of the backend has for itself, whatever moves its packets.

use std::net::IpAddr;

use anyhow::Context as _;
use ipnet::IpNet;
use kernel::Mac;

use super::{NAME, data::VxlanData, paths::subnet_of};
use crate::{
    backend::Announcement,
    config::{NetworkConfig, SubnetRange, backend::Vxlan as Config},
    lease::{Lease, Subnet},
    uplink::Uplink,
};

/// Outer IPv4, UDP, VXLAN and inner Ethernet headers.
const OVERHEAD_V4: u32 = 50;
/// The same with an outer IPv6 header.
const OVERHEAD_V6: u32 = 70;

/// One family's part.
pub struct Family {
    /// Which subnets the nodes have.
    pub range: SubnetRange,
    /// It is IPv6, inside and outside.
    pub v6: bool,
    /// The announced MAC, kept for as long as the daemon lives.
    pub mac: Option<Mac>,
}

impl Family {
    /// Those that the network has, IPv4 first.
    pub fn of(config: &NetworkConfig) -> Vec<Self> {
        let family = |v6| {
            move |range| Self {
                range,
                v6,
                mac: None,
            }
        };
        let v4 = config.v4.map(family(false)).into_iter();
        v4.chain(config.v6.map(family(true))).collect()
    }

    /// This family's part of a lease's subnet.
    pub fn subnet(&self, own: &Subnet) -> Option<IpNet> {
        subnet_of(self.v6, own)
    }

    /// The address of its device, full length: the first of our subnet.
    pub fn address(&self, own: Option<&Subnet>) -> Option<IpNet> {
        let subnet = self.subnet(own?)?;
        Some(IpNet::from(subnet.network()))
    }

    /// Where peers send outer packets to.
    pub fn public_of(&self, uplink: &Uplink) -> Option<IpAddr> {
        if self.v6 {
            uplink.public_v6.map(IpAddr::from)
        } else {
            uplink.public_v4.map(IpAddr::from)
        }
    }

    /// MTU of its device: of the configured one, but never more than the external interface carries (the
    /// kernel refuses a larger device, and would drop what is larger).
    pub fn mtu(&self, config: &Config, uplink: &Uplink) -> u32 {
        let overhead = if self.v6 { OVERHEAD_V6 } else { OVERHEAD_V4 };
        let outer = config.mtu.unwrap_or(u32::MAX).min(uplink.mtu);
        outer.saturating_sub(overhead)
    }

    /// Keeps the MAC that peers may know, from the device (`present`) or our `previous` lease; else
    /// takes a random one.
    pub fn settle_mac(
        &mut self,
        present: Option<Mac>,
        previous: Option<&Lease>,
    ) -> anyhow::Result<()> {
        if self.mac.is_none() {
            let in_lease = previous.and_then(|lease| {
                let data = if self.v6 {
                    &lease.attrs.backend_v6_data
                } else {
                    &lease.attrs.backend_data
                };
                VxlanData::parse(data.as_ref()).ok().map(|data| data.mac)
            });
            self.mac = Some(match present.or(in_lease) {
                Some(mac) => mac,
                None => Mac::random_local().context("choose a MAC for the vxlan device")?,
            });
        }
        Ok(())
    }
}

/// The MTU for Pods, which have one for all families.
pub fn mtu(families: &[Family], config: &Config, uplink: &Uplink) -> u32 {
    let mtus = families.iter().map(|family| family.mtu(config, uplink));
    mtus.min().unwrap_or(uplink.mtu)
}

/// What the families announce.
pub fn announcement(families: &[Family], vni: u32) -> Announcement {
    let data = |v6| {
        let family = families.iter().find(|family| family.v6 == v6)?;
        Some(VxlanData::render(vni, family.mac?))
    };
    Announcement {
        backend_type: NAME,
        data: data(false),
        data_v6: data(true),
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
