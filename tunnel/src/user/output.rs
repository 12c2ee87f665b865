//! Packets into the device: joined where it takes large ones; else one by one, finished and cut where a peer's kernel left that
//! to "the hardware".

use std::fs::File;

use nix::{errno::Errno, unistd::write};

use super::{device::Device, sender::gone, tally::Tally};
use crate::{DropReason, join::Joiner, packet::Packet, segment::Segments, vnet::VnetHeader};

/// Flows that are joined side by side, 64 KiB of memory each.
const FLOWS: usize = 16;

/// One worker's writing end of the device.
pub(super) struct Output {
    writer: Writer,
    form: Form,
}

/// How packets cross the device.
enum Form {
    /// With a virtio_net_hdr.
    Joined(Joiner),
    /// Without.
    Single { mtu: usize, piece: Box<[u8]> },
}

struct Writer {
    name: String,
    queue: File,
    /// Why nothing can be written any more.
    gone: Option<String>,
}

impl Output {
    /// Writes to `queue` of `device`, whose MTU is `mtu` bytes.
    pub(super) fn new(name: &str, queue: File, device: &Device, mtu: u32) -> Self {
        let form = if device.has_header {
            Form::Joined(Joiner::new(FLOWS, mtu, device.takes_uso))
        } else {
            Form::Single {
                mtu: mtu as usize,
                piece: vec![0; usize::from(u16::MAX)].into(),
            }
        };
        Self {
            writer: Writer {
                name: name.to_owned(),
                queue,
                gone: None,
            },
            form,
        }
    }

    /// Takes one packet as it came; `size`: what the kernel said of the segments inside it, if it did.
    ///
    /// # Errors
    /// It went nowhere, and why. Whatever the device refuses is counted here.
    pub(super) fn packet(
        &mut self,
        packet: &Packet,
        bytes: &[u8],
        size: Option<u16>,
        tally: &mut Tally,
    ) -> Result<(), DropReason> {
        let writer = &mut self.writer;
        match &mut self.form {
            Form::Joined(joiner) => {
                let mut out = |bytes: &[u8], packets| writer.joined(bytes, packets, tally);
                joiner.push_sized(packet, bytes, size, &mut out)?;
            }
            Form::Single { mtu, piece } => {
                let mut segments = Segments::cut(bytes, *mtu, size)?;
                while let Some(length) = segments.next_into(piece) {
                    writer.write(&piece[..length], 1, length, tally);
                }
            }
        }
        Ok(())
    }

    /// Writes what waits for more of its kind.
    pub(super) fn flush(&mut self, tally: &mut Tally) {
        if let Form::Joined(joiner) = &mut self.form {
            joiner.flush(&mut |bytes, packets| self.writer.joined(bytes, packets, tally));
        }
    }

    /// An error when the device is gone for good.
    pub(super) fn check(&self) -> Result<(), String> {
        self.writer.gone.clone().map_or(Ok(()), Err)
    }
}

impl Writer {
    /// A virtio header and a packet that stands for `packets`.
    fn joined(&mut self, bytes: &[u8], packets: u64, tally: &mut Tally) {
        let header_length = VnetHeader::decode(bytes).map_or(0, |header| header.hdr_len.into());
        let more = packets.saturating_sub(1) as usize * header_length;
        self.write(bytes, packets, bytes.len() - VnetHeader::LEN + more, tally);
    }

    /// `bytes` as the device wants them, with `packets` of `content` bytes in all.
    fn write(&mut self, bytes: &[u8], packets: u64, content: usize, tally: &mut Tally) {
        match write(&self.queue, bytes) {
            Ok(_) => tally.carried(packets, content as u64),
            Err(errno) => {
                tally.dropped(DropReason::DeviceError, packets);
                // EIO: it is down. Others are about this packet, or pass.
                if errno == Errno::EBADFD {
                    self.gone = Some(gone(&self.name, &errno.into()));
                }
            }
        }
    }
}
