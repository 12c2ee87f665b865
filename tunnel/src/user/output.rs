//! Packets into the device: joined where that is possible, unfinished checksums left to the kernel or finished, large packets cut
//! where the device takes none.

use std::{
    fs::File,
    io::{IoSlice, Write as _},
};

use super::{device::Device, sender::gone, tally::Tally};
use crate::{
    DropReason,
    packet::{self, Checksum, Packet, protocol},
    segment::Segments,
    vnet::{self, VnetHeader},
};

/// One worker's writing end of the device.
pub(super) struct Output {
    device: Writer,
    has_header: bool,
    takes_uso: bool,
    mtu: usize,
    /// Room for one piece of a packet that has to be cut.
    piece: Box<[u8]>,
}

struct Writer {
    name: String,
    queue: File,
    /// Why nothing can be written any more.
    gone: Option<String>,
}

impl Output {
    /// Writes to `queue` of `device`, whose links carry packets of `mtu` bytes.
    pub(super) fn new(name: &str, queue: File, device: &Device, mtu: u32) -> Self {
        Self {
            device: Writer {
                name: name.to_owned(),
                queue,
                gone: None,
            },
            has_header: device.has_header,
            takes_uso: device.takes_uso,
            mtu: mtu as usize,
            piece: vec![0; usize::from(u16::MAX)].into(),
        }
    }

    /// Takes one packet as it came; `size`: what the kernel said of its segments, if it did.
    pub(super) fn packet(
        &mut self,
        packet: &Packet,
        bytes: &[u8],
        size: Option<u16>,
        tally: &mut Tally,
    ) {
        let state = packet::checksum_state(packet, bytes);
        match state {
            Checksum::Unfinished => self.unfinished(packet, bytes, size, tally),
            Checksum::Valid | Checksum::Wrong | Checksum::None => {
                self.device
                    .write(self.has_header, VnetHeader::default(), bytes, 1, tally);
            }
        }
    }

    /// A kernel left this to "the hardware", perhaps even the cutting; we are it, or our kernel is.
    fn unfinished(&mut self, packet: &Packet, bytes: &[u8], size: Option<u16>, tally: &mut Tally) {
        if self.has_header
            && let Some((header, packets)) = self.promise(packet, bytes, size)
        {
            return self.device.write(true, header, bytes, packets, tally);
        }
        match Segments::cut(bytes, self.mtu, size) {
            Ok(mut segments) => {
                while let Some(length) = segments.next_into(&mut self.piece) {
                    let piece = &self.piece[..length];
                    self.device
                        .write(self.has_header, VnetHeader::default(), piece, 1, tally);
                }
            }
            Err(reason) => tally.dropped(reason, 1),
        }
    }

    /// The header that lets the kernel finish the packet, and how many packets that makes; none if it cannot.
    fn promise(
        &self,
        packet: &Packet,
        bytes: &[u8],
        size: Option<u16>,
    ) -> Option<(VnetHeader, u64)> {
        let at = packet.transport_at;
        let (header_length, csum_offset) = match packet.protocol {
            protocol::TCP => (at + usize::from(bytes.get(at + 12)? >> 4) * 4, 16),
            protocol::UDP => (at + 8, 6),
            _ => return None,
        };
        let mut header = VnetHeader {
            flags: vnet::NEEDS_CSUM,
            csum_start: u16::try_from(at).ok()?,
            csum_offset,
            ..VnetHeader::default()
        };
        if packet.len <= self.mtu && size.is_none() {
            return Some((header, 1));
        }
        header.hdr_len = u16::try_from(header_length).ok()?;
        header.gso_size = match size {
            Some(size) => size,
            None => u16::try_from(self.mtu.checked_sub(header_length)?).ok()?,
        };
        header.gso_type = match (packet.protocol, packet.is_v6()) {
            (protocol::TCP, false) => vnet::GSO_TCPV4,
            (protocol::TCP, true) => vnet::GSO_TCPV6,
            // Where datagrams begin only the sender knows.
            _ if size.is_none() || !self.takes_uso => return None,
            _ => vnet::GSO_UDP_L4,
        };
        let payload = packet.len.checked_sub(header_length)?;
        let packets = payload.div_ceil(usize::from(header.gso_size).max(1)).max(1);
        Some((header, packets as u64))
    }

    /// Writes what waits for more of its kind.
    pub(super) fn flush(&mut self, _tally: &mut Tally) {}

    /// An error when the device is gone for good.
    pub(super) fn check(&self) -> Result<(), String> {
        self.device.gone.clone().map_or(Ok(()), Err)
    }
}

impl Writer {
    /// A packet that stands for `packets` on the wire, behind `header` if the device has headers.
    fn write(
        &mut self,
        has_header: bool,
        header: VnetHeader,
        bytes: &[u8],
        packets: u64,
        tally: &mut Tally,
    ) {
        let outcome = if has_header {
            let mut raw = [0; VnetHeader::LEN];
            header.encode(&mut raw);
            self.queue
                .write_vectored(&[IoSlice::new(&raw), IoSlice::new(bytes)])
        } else {
            self.queue.write(bytes)
        };
        match outcome {
            Ok(_) => tally.carried(packets, bytes.len() as u64),
            Err(error) => {
                tally.dropped(DropReason::DeviceError, packets);
                // EIO: it is down. Others are about this packet, or pass.
                if error.raw_os_error() == Some(libc::EBADFD) {
                    self.gone = Some(gone(&self.name, &error));
                }
            }
        }
    }
}
