//! What the kernel holds, as plain values: links, addresses, routes, neighbours, forwarding entries.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::Mac;

/// Address and route scopes, rtnetlink(7).
pub mod scope {
    /// Valid everywhere.
    pub const UNIVERSE: u8 = 0;
    /// Valid on the link only.
    pub const LINK: u8 = 253;
    /// Valid on this host only.
    pub const HOST: u8 = 254;
}

/// A network interface as the kernel reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Interface index, unique in its namespace.
    pub index: u32,
    /// Interface name, at most 15 bytes.
    pub name: String,
    /// Hardware address, where it has an Ethernet one.
    pub mac: Option<Mac>,
    /// Largest layer-3 packet in bytes.
    pub mtu: u32,
    /// Administratively up (IFF_UP).
    pub up: bool,
    /// Up and with a carrier (IFF_RUNNING).
    pub running: bool,
    /// It is the loopback device.
    pub loopback: bool,
    /// Promiscuous mode was asked for by a user (IFF_PROMISC).
    pub promisc: bool,
    /// Index of the bridge (or other master) it is a port of.
    pub master: Option<u32>,
    /// IFLA_LINK: the underlying device, or the other end of a veth pair.
    pub parent: Option<u32>,
    /// Kernel id of the namespace that `parent` lives in, if another one.
    pub parent_netns: Option<i32>,
    /// Transmit queue length in packets.
    pub txqlen: u32,
    /// What sort of device it is, with the options that matter to us.
    pub kind: LinkKind,
    /// Its options as a bridge port, if it is one.
    pub port: Option<BridgePort>,
}

/// The sort of a link (IFLA_INFO_KIND).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// A physical or otherwise kind-less device.
    Plain,
    /// A software bridge.
    Bridge {
        /// Ports have VLANs.
        vlan_filtering: bool,
    },
    /// One end of a veth pair.
    Veth,
    /// A VXLAN tunnel end.
    Vxlan(Vxlan),
    /// A TUN or TAP device.
    Tun,
    /// Any other kind, by the kernel's name.
    Other(String),
}

/// Options of a VXLAN device (drivers/net/vxlan).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vxlan {
    /// VXLAN network identifier, 24 bits.
    pub vni: u32,
    /// UDP destination port.
    pub port: u16,
    /// Index of the device that carries the outer packets.
    pub parent: Option<u32>,
    /// Outer source address.
    pub local: Option<IpAddr>,
    /// Learn the remote end of inner source addresses.
    pub learning: bool,
    /// Group-based policy extension.
    pub gbp: bool,
    /// Ask user space about unknown layer-2 destinations.
    pub l2miss: bool,
    /// Ask user space about unknown layer-3 destinations.
    pub l3miss: bool,
}

/// Options of a bridge port (IFLA_BRPORT_*).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BridgePort {
    /// Frames may go back out of the port they came in by.
    pub hairpin: bool,
    /// No frames between isolated ports.
    pub isolated: bool,
    /// Learn source addresses on this port.
    pub learning: bool,
}

/// An address on a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Index of the link.
    pub dev: u32,
    /// Address and prefix length; host bits are kept.
    pub net: IpNet,
    /// The far end of a point-to-point address, if it differs from `net`.
    pub peer: Option<IpAddr>,
    /// See [`scope`].
    pub scope: u8,
    /// Skip duplicate address detection (IPv6).
    pub nodad: bool,
    /// Make no route for the prefix.
    pub noprefixroute: bool,
    /// Duplicate address detection is still running (read only).
    pub tentative: bool,
    /// Duplicate address detection found another owner (read only).
    pub dadfailed: bool,
    /// It has no life time (read only).
    pub permanent: bool,
    /// Not to be used for new connections (read only).
    pub deprecated: bool,
    /// It is a secondary (IPv4) or temporary (IPv6) address (read only).
    pub secondary: bool,
}

impl Address {
    /// A plain permanent address of universe scope.
    pub fn new(dev: u32, net: IpNet) -> Self {
        Self {
            dev,
            net,
            peer: None,
            scope: scope::UNIVERSE,
            nodad: false,
            noprefixroute: false,
            tentative: false,
            dadfailed: false,
            permanent: true,
            deprecated: false,
            secondary: false,
        }
    }
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Destination; a zero-length prefix is the default route.
    pub dst: IpNet,
    /// Next hop.
    pub via: Option<IpAddr>,
    /// Index of the outgoing link.
    pub dev: Option<u32>,
    /// Take the next hop as on the link, whatever the addresses say.
    pub onlink: bool,
    /// Preferred source address.
    pub src: Option<IpAddr>,
    /// See [`scope`].
    pub scope: u8,
    /// Who made it, `/etc/iproute2/rt_protos` (3 = boot).
    pub protocol: u8,
    /// Routing table (254 = main).
    pub table: u32,
    /// Metric; lower wins.
    pub priority: Option<u32>,
    /// Path MTU in bytes.
    pub mtu: Option<u32>,
    /// Advertised TCP maximum segment size in bytes.
    pub advmss: Option<u32>,
    /// What happens to the packet.
    pub kind: RouteKind,
    /// It has several next hops, which we do not describe (read only).
    pub multipath: bool,
}

/// The type of a route (RTN_*).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteKind {
    /// Forwarded or sent.
    Unicast,
    /// Delivered on this host.
    Local,
    /// Silently dropped.
    Blackhole,
    /// Any other type, by number.
    Other(u8),
}

impl Route {
    /// Routing table `main`.
    pub const TABLE_MAIN: u32 = 254;
    /// RTPROT_KERNEL: made by the kernel itself, as for an address's prefix.
    pub const PROTOCOL_KERNEL: u8 = 2;
    /// RTPROT_BOOT: what `ip route add` and Go's netlink library use.
    pub const PROTOCOL_BOOT: u8 = 3;

    /// A unicast route in table main, protocol boot, scope universe.
    pub fn new(dst: IpNet) -> Self {
        Self {
            dst: dst.trunc(),
            via: None,
            dev: None,
            onlink: false,
            src: None,
            scope: scope::UNIVERSE,
            protocol: Self::PROTOCOL_BOOT,
            table: Self::TABLE_MAIN,
            priority: None,
            mtu: None,
            advmss: None,
            kind: RouteKind::Unicast,
            multipath: false,
        }
    }
}

/// A neighbour (ARP or NDP) entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neigh {
    /// Index of the link.
    pub dev: u32,
    /// The neighbour's address.
    pub ip: IpAddr,
    /// Its hardware address, once known.
    pub mac: Option<Mac>,
    /// NUD_PERMANENT: never resolved, never aged.
    pub permanent: bool,
}

/// A layer-2 forwarding entry of a VXLAN device or bridge port (`bridge fdb`, `self`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fdb {
    /// Index of the link.
    pub dev: u32,
    /// Inner destination.
    pub mac: Mac,
    /// Outer destination.
    pub dst: Option<IpAddr>,
    /// Never aged.
    pub permanent: bool,
}

/// A VLAN of a bridge port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BridgeVlan {
    /// VLAN id, 1 to 4094.
    pub vid: u16,
    /// Untagged frames that come in get this VLAN.
    pub pvid: bool,
    /// Frames leave untagged.
    pub untagged: bool,
}
