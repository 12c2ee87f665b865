//! The chain of IPv6 extension headers (RFC 8200, section 4).

/// Must be the first of the chain.
pub(super) const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;

/// Longer chains are not walked to their end: nobody honest makes them, and time is ours.
const MOST: usize = 8;

/// Where the chain ends, as far as we understand it.
pub(super) struct End {
    pub(super) at: usize,
    pub(super) protocol: u8,
    pub(super) is_fragment: bool,
    pub(super) is_later_fragment: bool,
    pub(super) has_transport: bool,
}

/// True for the headers that the chain is followed over.
pub(super) const fn is_extension(protocol: u8) -> bool {
    matches!(
        protocol,
        HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION
    )
}

/// Follows the chain in a whole packet, `first` being the fixed header's next-header field.
pub(super) fn walk(packet: &[u8], first: u8) -> End {
    let mut end = End {
        at: 40,
        protocol: first,
        is_fragment: false,
        is_later_fragment: false,
        has_transport: true,
    };
    for _ in 0..=MOST {
        if !is_extension(end.protocol) {
            return end;
        }
        if !step(packet, &mut end) {
            break;
        }
    }
    end.has_transport = false;
    end
}

/// Over one extension header; false when that is not possible.
fn step(packet: &[u8], end: &mut End) -> bool {
    let Some(header) = packet[end.at..].first_chunk::<8>() else {
        return false;
    };
    let len = match end.protocol {
        FRAGMENT => 8,
        AUTHENTICATION => (usize::from(header[1]) + 2) * 4,
        _ => (usize::from(header[1]) + 1) * 8,
    };
    if end.at + len > packet.len() {
        return false;
    }
    match end.protocol {
        FRAGMENT => {
            end.is_fragment = true;
            end.has_transport = false;
            end.is_later_fragment = u16::from_be_bytes([header[2], header[3]]) >> 3 != 0;
        }
        // Segments left: the pseudo header has the final destination, not the present one.
        ROUTING if header[3] != 0 => end.has_transport = false,
        _ => {}
    }
    end.at += len;
    end.protocol = header[0];
    // Behind a later fragment's header is data, whatever the first fragment has there.
    !end.is_later_fragment
}
