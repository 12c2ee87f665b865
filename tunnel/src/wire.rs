//! What a datagram between two nodes holds.

/// The wire format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// A bare IP packet: flannel's udp backend. Told apart by the version nibble, so that IPv4 and IPv6
    /// travel side by side.
    Ip,
    /// VXLAN, RFC 7348: 8 bytes of header, then an Ethernet frame.
    Vxlan {
        /// 24 bits.
        vni: u32,
    },
}

impl Wire {
    /// Bytes between the UDP header and the inner IP header.
    pub const fn overhead(self) -> usize {
        match self {
            Self::Ip => 0,
            Self::Vxlan { .. } => 8 + 14,
        }
    }
}
