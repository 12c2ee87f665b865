//! `vxlan`: RFC 7348, either by the kernel's device (`device`) or through a TUN device and user space
//! (`tun`), which is for kernels that have no vxlan device. Leases, addresses, names and MTU are the
//! same, so that nodes of both kinds, and flannel's, form one cluster.
//!
//! Each family has a device of its own: `flannel.<VNI>` and `flannel-v6.<VNI>`. An outer IPv4 header
//! costs 50 bytes of MTU, an outer IPv6 header 70 (drivers/net/vxlan: 20 or 40 + 8 UDP + 8 VXLAN +
//! 14 Ethernet). flannel takes 50 for both, which leaves IPv6 packets too big for the underlay; Pods
//! get the smaller of the two, because one veth carries both families.

mod checksum;
mod data;
mod device;
mod family;
mod paths;
mod plan;
mod tun;

use kernel::{Change, Link, LinkKind, Netlink, NewLink, NewLinkKind};

use super::{Backend, Report, apply::apply};
use crate::config::{
    NetworkConfig,
    backend::{Vxlan as Config, VxlanPath},
};
pub use data::unusable;
pub(crate) use family::device_name;

/// The `BackendType` of its leases.
pub const NAME: &str = "vxlan";
/// The kernel's default port (older than the IANA's 4789), which flannel uses.
const DEFAULT_PORT: u16 = 8472;

/// The backend on the data path that `DataPath` names; `auto` asks the kernel.
pub fn build(config: &NetworkConfig, backend: Config) -> anyhow::Result<Box<dyn Backend>> {
    let mut netlink = Netlink::open()?;
    match choose(backend.data_path, || lacks_device(&mut netlink)) {
        Choice::Kernel => Ok(Box::new(device::Device::new(config, backend, netlink))),
        Choice::UserSpace(why) => {
            if let Some(why) = why {
                tracing::info!("vxlan in user space: the kernel has no vxlan device ({why})");
            }
            Ok(Box::new(tun::Tun::new(config, backend, netlink)?))
        }
    }
}

/// Who moves the packets.
#[derive(Debug, PartialEq, Eq)]
enum Choice {
    /// The kernel's device.
    Kernel,
    /// The workers behind a TUN device; with the reason, where that was not asked for.
    UserSpace(Option<String>),
}

/// `lacks_device` answers why the kernel has no vxlan device, if it has none.
fn choose(wanted: VxlanPath, lacks_device: impl FnOnce() -> Option<String>) -> Choice {
    match wanted {
        VxlanPath::Kernel => Choice::Kernel,
        VxlanPath::Tun => Choice::UserSpace(None),
        VxlanPath::Auto => match lacks_device() {
            None => Choice::Kernel,
            why => Choice::UserSpace(why),
        },
    }
}

/// The kernel's words if it does not know vxlan devices. Makes nothing: it asks for a VNI that no
/// device can have, which a kernel that knows them refuses for another reason (rtnetlink(7) answers
/// EOPNOTSUPP for an unknown kind, before it looks at the options of the kind).
fn lacks_device(netlink: &mut Netlink) -> Option<String> {
    let options = kernel::Vxlan {
        vni: 1 << 24,
        port: DEFAULT_PORT,
        ..kernel::Vxlan::default()
    };
    let probe = NewLink::new("flannel-probe", NewLinkKind::Vxlan(options));
    match netlink.apply(&Change::AddLink(probe)) {
        Err(error) if error.is_not_supported() => Some(error.to_string()),
        Ok(()) | Err(_) => None,
    }
}

/// Removes what any data path made.
pub fn cleanup(vni: u32) -> kernel::Result<Report> {
    let mut report = Report::default();
    remove_devices(&mut Netlink::open()?, vni, |_| true, &mut report);
    Ok(report)
}

/// Removes both families' devices, where their kind is one of `which`; neighbours, forwarding entries
/// and routes of a device go with it.
fn remove_devices(
    netlink: &mut Netlink,
    vni: u32,
    which: impl Fn(&LinkKind) -> bool,
    report: &mut Report,
) {
    for v6 in [false, true] {
        match netlink.link(&device_name(v6, vni)) {
            Ok(Some(Link {
                index, name, kind, ..
            })) if which(&kind) => {
                apply(netlink, &[Change::DeleteLink { index, name }], report);
            }
            Ok(_) => {}
            Err(error) => report.failed(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_prefers_the_kernel_and_the_others_do_not_ask() {
        let lacks = || Some("operation not supported".to_owned());
        assert_eq!(choose(VxlanPath::Auto, || None), Choice::Kernel);
        assert_eq!(choose(VxlanPath::Auto, lacks), Choice::UserSpace(lacks()));
        let asked = || panic!("asked");
        assert_eq!(choose(VxlanPath::Kernel, asked), Choice::Kernel);
        assert_eq!(choose(VxlanPath::Tun, asked), Choice::UserSpace(None));
    }
}
