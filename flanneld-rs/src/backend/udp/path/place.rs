//! Where programs belong.

use std::net::SocketAddrV4;

/// A link by index and name: one made anew under the same name is another one.
pub type LinkId = (u32, String);

/// Two links and our own address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The TUN device.
    pub device: LinkId,
    /// The external interface.
    pub underlay: LinkId,
    /// Its MTU in bytes.
    pub underlay_mtu: u32,
    /// Where datagrams come from, and the port they come to.
    pub local: SocketAddrV4,
}
