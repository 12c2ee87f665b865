//! Packets on their way to peers: gathered in one buffer, those of one size to one peer in one UDP_SEGMENT send, all
//! together in one system call.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    os::fd::AsFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use super::{Mode, answers::Answers, notes::Notes, oversize::Oversize, tally::Tally};
use crate::{
    DropReason, Own,
    sys::{Datagram, SendBatch},
};

/// What a UDP datagram over IPv4 can hold, in one piece or many.
const LARGEST: usize = 65_507;
/// UDP_MAX_SEGMENTS of all kernels before 6.9.
const SEGMENTS: usize = 64;
/// Datagrams a system call.
const DATAGRAMS: usize = 64;
/// Sent when this much is gathered: about one large TCP packet, so that it is still in the cache.
const ENOUGH: usize = 48 << 10;
/// Room for several large packets, so that the end of one can travel with the beginning of the next.
const ROOM: usize = 256 << 10;

/// The state of one sending worker's batch.
pub(super) struct Outbox {
    /// [`SOCKETS`] of them.
    sockets: Vec<UdpSocket>,
    batch: SendBatch,
    buffer: Box<[u8]>,
    filled: usize,
    datagrams: Vec<Datagram>,
    /// Length of the last datagram's first piece, and how many it has.
    open: (usize, usize),
    /// Bytes in front of each inner packet.
    overhead: usize,
    /// At most so many pieces in one datagram, and datagrams in a call.
    limits: (usize, usize),
    /// Shared by all workers: the kernel has refused UDP_SEGMENT.
    unsegmented: Arc<AtomicBool>,
    notes: Arc<Notes>,
    oversize: Oversize,
    pub(super) answers: Answers,
    pub(super) tally: Tally,
}

impl Outbox {
    pub(super) fn new(
        sockets: Vec<UdpSocket>,
        mode: Mode,
        overhead: usize,
        unsegmented: Arc<AtomicBool>,
        notes: Arc<Notes>,
        oversize: Oversize,
        answers: Answers,
    ) -> Self {
        Self {
            sockets,
            batch: SendBatch::new(DATAGRAMS),
            buffer: vec![0; ROOM].into(),
            filled: 0,
            datagrams: Vec::with_capacity(DATAGRAMS),
            open: (0, 0),
            overhead,
            limits: match mode {
                Mode::Offload => (SEGMENTS, DATAGRAMS),
                Mode::Plain => (1, 1),
            },
            unsegmented,
            notes,
            oversize,
            answers,
            tally: Tally::default(),
        }
    }

    /// A turn of the worker begins. In each turn only one send waits in vain: one congested peer must not hold up the others.
    pub(super) fn begin_turn(&mut self) {
        self.batch.wait_again();
    }

    /// Room for one piece of at most `bytes` (with what the wire needs in front), to be filled and then [pushed](Self::push).
    pub(super) fn room(&mut self, bytes: usize, own: &Own) -> &mut [u8] {
        if self.filled + bytes > self.buffer.len() {
            self.flush(own);
        }
        &mut self.buffer[self.filled..]
    }

    /// Takes the first `length` bytes of the room for `to`, to be sent from one of the sockets.
    pub(super) fn push(
        &mut self,
        length: usize,
        socket: usize,
        to: SocketAddr,
        tos: u8,
        own: &Own,
    ) {
        let end = self.filled + length;
        let first = self.open.0;
        // Only the last piece may be shorter.
        let can_grow = self.can_grow() && length <= first && !self.unsegmented.load(Relaxed);
        if let Some(last) = self.datagrams.last_mut()
            && can_grow
            && last.socket == socket
            && last.to == to
            && last.tos == tos
        {
            last.segment = u16::try_from(first).ok();
            last.bytes.end = end;
            self.open.1 += 1;
        } else {
            self.datagrams.push(Datagram {
                bytes: self.filled..end,
                socket,
                to,
                tos,
                segment: None,
            });
            self.open = (length, 1);
        }
        self.filled = end;
        let is_full = self.datagrams.len() == DATAGRAMS;
        if is_full || self.datagrams.len() >= self.limits.1 && !self.can_grow() {
            self.flush(own);
        }
    }

    /// Sends what was gathered, if it is worth a system call; but not the last datagram while more may be added.
    pub(super) fn flush_if_enough(&mut self, own: &Own) {
        let start = self.datagrams.first().map_or(0, |first| first.bytes.start);
        if self.filled - start >= ENOUGH {
            self.send_first(self.datagrams.len() - usize::from(self.can_grow()), own);
        }
    }

    /// Another piece may be added to the last datagram.
    fn can_grow(&self) -> bool {
        let (first, pieces) = self.open;
        let length = self.datagrams.last().map_or(0, |last| last.bytes.len());
        length == first * pieces && pieces < self.limits.0 && length + first <= LARGEST
    }

    /// Sends everything.
    pub(super) fn flush(&mut self, own: &Own) {
        self.send_first(self.datagrams.len(), own);
    }

    fn send_first(&mut self, count: usize, own: &Own) {
        // Stable: a flow stays in order, as it has one socket.
        self.datagrams[..count].sort_by_key(|datagram| datagram.socket);
        let mut done = 0;
        let mut again = true;
        while done < count {
            let socket = self.datagrams[done].socket;
            let datagrams = &self.datagrams[done..count];
            let same = datagrams.partition_point(|datagram| datagram.socket == socket);
            match send(
                &mut self.batch,
                &self.sockets,
                &self.buffer,
                &datagrams[..same],
            ) {
                Ok(sent) => {
                    for datagram in &datagrams[..sent] {
                        let (packets, bytes) = content(datagram, self.overhead);
                        self.tally.carried(packets, bytes);
                    }
                    done += sent;
                    again = true;
                }
                // The error may be about an earlier datagram (ICMP): once more.
                Err(error) if again && is_about_earlier(&error) => again = false,
                Err(error) => {
                    let refused = self.datagrams[done].clone();
                    self.refused(&refused, &error, own);
                    done += 1;
                    again = true;
                }
            }
        }
        self.datagrams.drain(..count);
        if self.datagrams.is_empty() {
            self.filled = 0;
            self.open = (0, 0);
        }
    }

    /// The kernel did not take `datagram`.
    fn refused(&mut self, datagram: &Datagram, error: &io::Error, own: &Own) {
        let (packets, _) = content(datagram, self.overhead);
        match error.raw_os_error() {
            Some(libc::EMSGSIZE) => self.too_big(datagram, own),
            Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => {
                self.tally.dropped(DropReason::SendBufferFull, packets);
            }
            Some(libc::EIO | libc::EINVAL | libc::EOPNOTSUPP) if datagram.segment.is_some() => {
                self.send_unsegmented(datagram, error, own);
            }
            Some(libc::EHOSTUNREACH | libc::ENETUNREACH) => {
                self.tally.dropped(DropReason::SendError, packets);
                for piece in pieces(datagram) {
                    let inner = &self.buffer[piece.bytes][self.overhead..];
                    self.answers.host_unreachable(inner, own);
                }
            }
            _ => self.tally.dropped(DropReason::SendError, packets),
        }
    }

    /// UDP_SEGMENT was refused: piece by piece, and for good if that works.
    fn send_unsegmented(&mut self, datagram: &Datagram, cause: &io::Error, own: &Own) {
        let mut rest: Vec<_> = pieces(datagram).collect();
        let all = rest.len();
        let mut works = false;
        while !rest.is_empty() {
            let sent = match send(&mut self.batch, &self.sockets, &self.buffer, &rest) {
                Ok(sent) => {
                    // A last, shorter one says nothing: the others may be too large for the path.
                    works |= rest.len() == all;
                    for piece in &rest[..sent] {
                        self.tally
                            .carried(1, (piece.bytes.len() - self.overhead) as u64);
                    }
                    sent
                }
                Err(error) => {
                    self.refused(&rest[0].clone(), &error, own);
                    1
                }
            };
            rest.drain(..sent);
        }
        if works && !self.unsegmented.swap(true, Relaxed) {
            self.notes.note(format!(
                "the underlay refuses UDP segmentation ({cause}): one datagram a packet from now on"
            ));
        }
    }

    /// Larger than the path: fragmented where the sender allows it, else the sender is told.
    fn too_big(&mut self, datagram: &Datagram, own: &Own) {
        let limit = self.oversize.limit(datagram.to);
        for piece in pieces(datagram) {
            let wire = &self.buffer[piece.bytes.clone()];
            let inner = &wire[self.overhead..];
            let bytes = inner.len() as u64;
            let outcome = if inner.len() <= limit {
                let piece = std::slice::from_ref(&piece);
                send(&mut self.batch, &self.sockets, &self.buffer, piece).map(drop)
            } else if let Some(mtu) = Oversize::must_tell(inner, limit) {
                self.answers.too_big(inner, own, mtu);
                self.tally.dropped(DropReason::TooBig, 1);
                continue;
            } else {
                self.oversize
                    .send_fragmented(&mut self.batch, &self.buffer, &piece)
            };
            match outcome {
                Ok(()) => self.tally.carried(1, bytes),
                Err(error) => {
                    let reason = match error.raw_os_error() {
                        Some(libc::EMSGSIZE) => DropReason::TooBig,
                        Some(libc::EAGAIN | libc::ENOBUFS) => DropReason::SendBufferFull,
                        _ => DropReason::SendError,
                    };
                    self.tally.dropped(reason, 1);
                }
            }
        }
    }
}

/// Sends datagrams of one socket.
fn send(
    batch: &mut SendBatch,
    sockets: &[UdpSocket],
    buffer: &[u8],
    datagrams: &[Datagram],
) -> io::Result<usize> {
    batch.send(sockets[datagrams[0].socket].as_fd(), buffer, datagrams)
}

/// Packets and bytes of inner packets in `datagram`.
fn content(datagram: &Datagram, overhead: usize) -> (u64, u64) {
    let length = datagram.bytes.len();
    let packets = datagram
        .segment
        .map_or(1, |segment| length.div_ceil(usize::from(segment).max(1)));
    (packets as u64, (length - packets * overhead) as u64)
}

/// What the kernel would have cut it into.
fn pieces(datagram: &Datagram) -> impl Iterator<Item = Datagram> + use<> {
    let Datagram {
        bytes,
        socket,
        to,
        tos,
        ..
    } = datagram.clone();
    let size = datagram.segment.map_or(bytes.len(), usize::from).max(1);
    bytes.clone().step_by(size).map(move |start| Datagram {
        bytes: start..bytes.end.min(start + size),
        socket,
        to,
        tos,
        segment: None,
    })
}

/// Errors that a socket reports late.
fn is_about_earlier(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EINTR
                | libc::ECONNREFUSED
                | libc::EHOSTUNREACH
                | libc::ENOPROTOOPT
                | libc::EPROTO
        )
    )
}

#[cfg(test)]
mod tests;
