//! TUN → underlay.

use std::{
    fs::File,
    io::{ErrorKind, Read as _},
    os::fd::{AsFd as _, BorrowedFd},
    sync::Arc,
    thread,
    time::Duration,
};

use arc_swap::ArcSwap;

use super::{
    encapsulation::Encapsulation,
    outbox::Outbox,
    spread,
    tally::Direction,
    worker::{Side, Stop},
};
use crate::{Counters, DropReason, Table, segment::Segments, vnet::VnetHeader};

/// Reads from the device before the worker looks at anything else.
const BURST: usize = 256;
/// A whole packet with its header; a little more than the kernel can give.
const LARGEST: usize = VnetHeader::LEN + 65_536;
/// How long to leave a device alone that is down (old kernels answer EIO).
const DOWN_PAUSE: Duration = Duration::from_millis(50);

/// Takes packets from one queue of the device, and sends them to the peers.
pub(super) struct Sender {
    pub(super) name: String,
    pub(super) queue: File,
    pub(super) has_header: bool,
    pub(super) encapsulation: Encapsulation,
    pub(super) outbox: Outbox,
    pub(super) table: Arc<ArcSwap<Table>>,
    pub(super) counters: Arc<Counters>,
    pub(super) input: Box<[u8]>,
}

impl Sender {
    /// The buffer that [`input`](Self::input) has to be.
    pub(super) fn input() -> Box<[u8]> {
        vec![0; LARGEST].into()
    }

    fn take(&mut self, length: usize, table: &Table) {
        let Self { input, outbox, .. } = self;
        let own = table.own();
        let start = if self.has_header { VnetHeader::LEN } else { 0 };
        let header = if self.has_header {
            VnetHeader::decode(&input[..length])
        } else {
            Some(VnetHeader::default())
        };
        let (Some(header), Some(bytes)) = (header, input.get(start..length)) else {
            return outbox.tally.dropped(DropReason::Malformed, 1);
        };
        let mut segments = match cut(&header, bytes) {
            Ok(segments) => segments,
            Err(reason) => return outbox.tally.dropped(reason, 1),
        };
        let packet = *segments.packet();
        let Some(peer) = table.peer(packet.destination) else {
            outbox
                .tally
                .dropped(DropReason::NoPeer, segments.count() as u64);
            return outbox.answers.unreachable(bytes, own);
        };
        let socket = spread::place(&packet, bytes);
        let overhead = self.encapsulation.overhead();
        let most = overhead + segments.full_len();
        loop {
            let room = outbox.room(most, own);
            let Some(length) = segments.next_into(&mut room[overhead..]) else {
                return outbox.flush_if_enough(own);
            };
            let wrapped = self.encapsulation.wrap(room, packet.is_v6(), peer, own);
            if let Err(reason) = wrapped {
                outbox.tally.dropped(reason, 1);
                continue;
            }
            outbox.push(
                overhead + length,
                socket,
                peer.address,
                packet.traffic_class,
                own,
            );
        }
    }
}

/// The packet and what it is to be cut into, if it is for other nodes.
fn cut<'a>(header: &VnetHeader, bytes: &'a [u8]) -> Result<Segments<'a>, DropReason> {
    let segments = Segments::new(header, bytes)?;
    if segments.packet().stays_on_link() {
        return Err(DropReason::Unsupported);
    }
    Ok(segments)
}

impl Side for Sender {
    fn source(&self) -> BorrowedFd<'_> {
        self.queue.as_fd()
    }

    fn turn(&mut self, stop: &Stop) -> Result<bool, String> {
        let shared = Arc::clone(&self.table);
        let table = shared.load();
        let mut outcome = Ok(false);
        self.outbox.begin_turn();
        for _ in 0..BURST {
            // Sends may wait.
            if stop.is_told() {
                break;
            }
            match self.queue.read(&mut self.input) {
                Ok(length) => {
                    self.take(length, &table);
                    outcome = Ok(true);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::EIO) => {
                    thread::sleep(DOWN_PAUSE);
                    break;
                }
                Err(error) => {
                    outcome = Err(gone(&self.name, &error));
                    break;
                }
            }
        }
        self.outbox.flush(table.own());
        self.outbox.tally.hand_over(Direction::Sent, &self.counters);
        outcome
    }
}

/// The text for a device that does not answer any more.
pub(super) fn gone(name: &str, error: &std::io::Error) -> String {
    format!("TUN device {name} is gone ({error}): it was deleted, or its queue was taken away")
}
