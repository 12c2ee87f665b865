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
    match choose(backend.data_path, || why_lacking(&mut netlink, probe())) {
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

/// A vxlan device that none can be: of a VNI out of range.
fn probe() -> NewLinkKind {
    NewLinkKind::Vxlan(kernel::Vxlan {
        vni: 1 << 24,
        port: DEFAULT_PORT,
        ..kernel::Vxlan::default()
    })
}

/// The kernel's words if it does not know links of this kind. Nothing is made of a [`probe`], which a
/// kernel that knows the kind refuses for another reason (rtnetlink(7) answers EOPNOTSUPP for an
/// unknown kind, before it looks at the options of the kind).
fn why_lacking(netlink: &mut Netlink, kind: NewLinkKind) -> Option<String> {
    match netlink.apply(&Change::AddLink(NewLink::new("flannel-probe", kind))) {
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

    /// In a namespace of its own; needs root.
    #[test]
    fn a_kind_unknown_to_the_kernel_is_told_from_one_it_refuses_for_its_options() {
        let name = format!("weft-fv{}", std::process::id());
        let netns = match kernel::Netns::create(&name) {
            Ok(netns) => netns,
            Err(error) if std::env::var_os("WEFT_REQUIRE_ROOT").is_none() => {
                use std::io::Write as _;
                let line = format!("SKIPPED: which kinds of links the kernel knows: {error}\n");
                return std::io::stderr().write_all(line.as_bytes()).unwrap();
            }
            Err(error) => panic!("{error}"),
        };
        let answers = netns.run(|| {
            let mut netlink = Netlink::open().unwrap();
            let vxlan = why_lacking(&mut netlink, probe());
            let none = why_lacking(&mut netlink, NewLinkKind::Other("weft-none".to_owned()));
            let links = netlink.links().unwrap();
            let made = links.iter().any(|link| link.name == "flannel-probe");
            let options = kernel::Vxlan {
                vni: 1,
                port: DEFAULT_PORT,
                ..kernel::Vxlan::default()
            };
            let real = NewLink::new("real", NewLinkKind::Vxlan(options));
            let has_vxlan = netlink.apply(&Change::AddLink(real)).is_ok();
            (vxlan, none, made, has_vxlan)
        });
        kernel::Netns::delete(&name).unwrap();
        let (vxlan, none, made, has_vxlan) = answers.unwrap();
        assert_eq!(vxlan.is_none(), has_vxlan, "{vxlan:?}");
        assert!(
            none.is_some(),
            "the kernel took a kind of links that there is not"
        );
        assert!(!made, "a probe was made");
    }
}
