//! The `Backend` object of the network configuration, typed.

use serde_json::value::RawValue;

use super::folded::Folded;
use super::{Error, get};

/// A backend and its own keys, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendConfig {
    /// VXLAN, by the kernel's device or in user space.
    Vxlan(Vxlan),
    /// Plain routes through the peers.
    HostGw,
    /// IP in UDP through a TUN device; also what a missing `Backend` means.
    Udp(Udp),
    /// A lease and nothing else.
    Alloc,
    /// The operator's commands.
    Extension(Extension),
}

/// Keys of `udp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Udp {
    /// `Port`, 8285.
    pub port: u16,
    /// `DataPath`, auto.
    pub data_path: UdpPath,
}

impl Default for Udp {
    fn default() -> Self {
        Self {
            port: 8285,
            data_path: UdpPath::Auto,
        }
    }
}

/// What moves the packets of `udp`; all kinds understand each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UdpPath {
    /// The first of the others that this kernel takes.
    #[default]
    Auto,
    /// Programs in the kernel, and `Offload` for what they leave.
    Ebpf,
    /// User space, many packets a system call.
    Offload,
    /// User space, one packet a system call.
    Plain,
}

impl UdpPath {
    const NAMES: [(&'static str, Self); 4] = [
        ("auto", Self::Auto),
        ("ebpf", Self::Ebpf),
        ("offload", Self::Offload),
        ("plain", Self::Plain),
    ];
}

/// Keys of `vxlan`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vxlan {
    /// `VNI`, 24 bits; 1.
    pub vni: u32,
    /// `Port`; `None` (0) is the kernel's default, 8472.
    pub port: Option<u16>,
    /// `MTU` of the underlay; `None` (0) is the external interface's.
    pub mtu: Option<u32>,
    /// `GBP`, group based policy.
    pub gbp: bool,
    /// `Learning` of source addresses.
    pub learning: bool,
    /// `DirectRouting`: plain routes to peers on the same link.
    pub direct_routing: bool,
    /// `DataPath`, auto.
    pub data_path: VxlanPath,
}

/// What moves the packets of `vxlan`; both kinds understand each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VxlanPath {
    /// The kernel's device, where the kernel has such; else `Tun`.
    #[default]
    Auto,
    /// The kernel's device.
    Kernel,
    /// A TUN device and user space.
    Tun,
}

impl VxlanPath {
    const NAMES: [(&'static str, Self); 3] = [
        ("auto", Self::Auto),
        ("kernel", Self::Kernel),
        ("tun", Self::Tun),
    ];
}

/// Keys of `extension`: commands, empty when absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extension {
    /// `PreStartupCommand`, whose output becomes BackendData.
    pub pre_startup: String,
    /// `PostStartupCommand`.
    pub post_startup: String,
    /// `SubnetAddCommand`, once per peer.
    pub subnet_add: String,
    /// `SubnetRemoveCommand`, once per peer that goes.
    pub subnet_remove: String,
}

/// flannel has these; this release has not.
const ABSENT: [&str; 4] = ["wireguard", "ipip", "ipsec", "tencent-vpc"];

impl BackendConfig {
    /// Reads the object; `None` (no `Backend` key) is `udp`, as flannel's code has it.
    pub fn parse(raw: Option<&RawValue>) -> Result<Self, Error> {
        let Some(raw) = raw else {
            return Ok(Self::Udp(Udp::default()));
        };
        // `null` decodes to an empty object in Go, and so fails below for want of a Type.
        let keys: Option<Folded> =
            serde_json::from_str(raw.get()).map_err(|e| Error::Backend(e.to_string()))?;
        let keys = keys.unwrap_or_default();
        let name: String = get(&keys, "Type")?.unwrap_or_default();
        match name.to_lowercase().as_str() {
            "vxlan" => Ok(Self::Vxlan(Vxlan {
                vni: number(&keys, "VNI", 1, (1 << 24) - 1)?,
                port: optional(&keys, "Port", u32::from(u16::MAX))?
                    .and_then(|port| u16::try_from(port).ok()),
                mtu: optional(&keys, "MTU", 65535)?,
                gbp: get(&keys, "GBP")?.unwrap_or(false),
                learning: get(&keys, "Learning")?.unwrap_or(false),
                direct_routing: get(&keys, "DirectRouting")?.unwrap_or(false),
                data_path: choice(&keys, "DataPath", &VxlanPath::NAMES)?,
            })),
            "host-gw" => Ok(Self::HostGw),
            "udp" => match u16::try_from(number(&keys, "Port", 8285, 65535)?) {
                Ok(port) if port > 0 => Ok(Self::Udp(Udp {
                    port,
                    data_path: choice(&keys, "DataPath", &UdpPath::NAMES)?,
                })),
                _ => Err(Error::Backend("Port must not be 0".to_owned())),
            },
            "alloc" => Ok(Self::Alloc),
            "extension" => {
                let command = |key| get::<String>(&keys, key).map(Option::unwrap_or_default);
                Ok(Self::Extension(Extension {
                    pre_startup: command("PreStartupCommand")?,
                    post_startup: command("PostStartupCommand")?,
                    subnet_add: command("SubnetAddCommand")?,
                    subnet_remove: command("SubnetRemoveCommand")?,
                }))
            }
            "" => Err(Error::Backend("Type is missing".to_owned())),
            absent if ABSENT.contains(&absent) => Err(Error::Backend(format!(
                "\"{absent}\" is not in this release; use vxlan, host-gw, udp, alloc or extension"
            ))),
            _ => Err(Error::Backend(format!(
                "unknown Type \"{name}\"; use vxlan, host-gw, udp, alloc or extension"
            ))),
        }
    }

    /// True when what `old` made in the kernel is not taken over by this backend.
    pub fn supersedes(&self, old: &Self) -> bool {
        match (self, old) {
            (Self::Vxlan(new), Self::Vxlan(old)) => new.vni != old.vni,
            (new, old) => std::mem::discriminant(new) != std::mem::discriminant(old),
        }
    }

    /// The same with this node's own `DataPath` (`--data-path`).
    pub fn with_data_path(self, name: &str) -> Result<Self, String> {
        match self {
            Self::Udp(udp) => Ok(Self::Udp(Udp {
                data_path: named(name, &UdpPath::NAMES)?,
                ..udp
            })),
            Self::Vxlan(vxlan) => Ok(Self::Vxlan(Vxlan {
                data_path: named(name, &VxlanPath::NAMES)?,
                ..vxlan
            })),
            other => Err(format!(
                "the {} backend has one data path only",
                other.name()
            )),
        }
    }

    /// The backend's name as an operator writes it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Vxlan(_) => "vxlan",
            Self::HostGw => "host-gw",
            Self::Udp(_) => "udp",
            Self::Alloc => "alloc",
            Self::Extension(_) => "extension",
        }
    }
}

fn number(keys: &Folded, key: &'static str, default: u32, max: u32) -> Result<u32, Error> {
    let value: i64 = get(keys, key)?.unwrap_or(i64::from(default));
    u32::try_from(value)
        .ok()
        .filter(|&value| value <= max)
        .ok_or_else(|| Error::Key {
            key,
            cause: format!("{value} is not between 0 and {max}"),
        })
}

/// A number for which 0 means "not set".
fn optional(keys: &Folded, key: &'static str, max: u32) -> Result<Option<u32>, Error> {
    number(keys, key, 0, max).map(|value| Some(value).filter(|&value| value > 0))
}

/// One of several words, in any case; absent or empty is the type's default.
fn choice<T: Copy + Default>(
    keys: &Folded,
    key: &'static str,
    names: &[(&str, T)],
) -> Result<T, Error> {
    match get::<String>(keys, key)?.filter(|name| !name.is_empty()) {
        None => Ok(T::default()),
        Some(name) => named(&name, names).map_err(|cause| Error::Key { key, cause }),
    }
}

fn named<T: Copy>(name: &str, names: &[(&str, T)]) -> Result<T, String> {
    let found = names
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name));
    found.map(|(_, value)| *value).ok_or_else(|| {
        let known: Vec<&str> = names.iter().map(|(known, _)| *known).collect();
        format!("\"{name}\" is none of {}", known.join(", "))
    })
}
