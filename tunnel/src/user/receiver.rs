//! Underlay → TUN.

use std::{
    io,
    net::{IpAddr, UdpSocket},
    os::fd::{AsFd as _, BorrowedFd},
    sync::Arc,
};

use arc_swap::ArcSwap;

use super::{
    Mode,
    encapsulation::{Encapsulation, Opened},
    output::Output,
    replies::Replies,
    tally::{Direction, Tally},
    worker::{Side, Stop},
};
use crate::{
    Counters, DropReason, Table,
    packet::{self, ecn},
    sys::{self, Receipt, ReceiveBatch},
    vxlan::{self, Question},
};

/// Messages a system call: enough for packets that nobody joined, few enough for the cache when they are large.
const MESSAGES: usize = 8;
/// System calls before the worker looks at anything else.
const ROUNDS: usize = 8;
/// Turns between two looks at what the socket lost; a turn that leaves something in the queue is followed by one at once.
const SELDOM: u32 = 64;

/// Takes datagrams from one socket, and gives their packets to the device.
pub(super) struct Receiver {
    socket: UdpSocket,
    batch: ReceiveBatch,
    table: Arc<ArcSwap<Table>>,
    counters: Arc<Counters>,
    /// As the socket counts, when it was last asked.
    lost: u32,
    /// Turns since then.
    turns: u32,
    intake: Intake,
}

/// What happens to a datagram's content.
struct Intake {
    encapsulation: Encapsulation,
    output: Output,
    tally: Tally,
    replies: Replies,
}

impl Receiver {
    pub(super) fn new(
        socket: UdpSocket,
        mode: Mode,
        encapsulation: Encapsulation,
        output: Output,
        table: Arc<ArcSwap<Table>>,
        counters: Arc<Counters>,
    ) -> io::Result<Self> {
        let replies = Replies::new(socket.try_clone()?)?;
        let messages = match mode {
            Mode::Offload => MESSAGES,
            Mode::Plain => 1,
        };
        Ok(Self {
            socket,
            batch: ReceiveBatch::new(messages),
            table,
            counters,
            lost: 0,
            turns: 0,
            intake: Intake {
                encapsulation,
                output,
                tally: Tally::default(),
                replies,
            },
        })
    }

    /// One system call's messages; answers how many.
    fn receive(&mut self, table: &Table) -> Result<usize, String> {
        let count = match self.batch.receive(self.socket.as_fd()) {
            Ok(count) => count,
            Err(error) => match error.raw_os_error() {
                Some(libc::EAGAIN) => return Ok(0),
                Some(libc::EBADF | libc::ENOTSOCK | libc::EINVAL | libc::EFAULT) => {
                    return Err(format!("receive from the underlay: {error}"));
                }
                // Memory is short, a signal, or an ICMP error about what was sent: says nothing about this socket.
                _ => return Ok(1),
            },
        };
        for at in 0..count {
            let (receipt, bytes) = self.batch.message(at);
            self.intake.message(receipt, bytes, table);
        }
        Ok(count)
    }

    /// Asks what the socket had no room for.
    fn count_lost(&mut self) {
        // A kernel without the option (before 4.12) cannot tell.
        let lost = sys::lost(self.socket.as_fd()).unwrap_or(self.lost);
        let new = u64::from(lost.wrapping_sub(self.lost));
        self.lost = lost;
        (self.intake.tally).dropped(DropReason::ReceiveBufferFull, new);
    }
}

impl Side for Receiver {
    fn source(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn turn(&mut self, _stop: &Stop) -> Result<bool, String> {
        let shared = Arc::clone(&self.table);
        let table = shared.load();
        let mut outcome = Ok(false);
        self.turns += 1;
        for round in 1..=ROUNDS {
            let more = self.receive(&table);
            self.intake.output.flush(&mut self.intake.tally);
            match more {
                Ok(0) => break,
                Ok(count) => {
                    outcome = Ok(true);
                    if count < self.batch.capacity() {
                        break;
                    }
                    if round == ROUNDS {
                        self.turns = SELDOM;
                    }
                }
                Err(reason) => {
                    outcome = Err(reason);
                    break;
                }
            }
        }
        if self.turns >= SELDOM {
            self.turns = 0;
            self.count_lost();
        }
        self.intake
            .tally
            .hand_over(Direction::Received, &self.counters);
        outcome.and_then(|any| self.intake.output.check().map(|()| any))
    }
}

impl Intake {
    /// One message: a datagram, or several of one size that the kernel joined.
    fn message(&mut self, receipt: Receipt, bytes: &mut [u8], table: &Table) {
        let (size, inside) = self.sizes(&receipt, bytes);
        let pieces = receipt.length.div_ceil(size).max(1) as u64;
        let Some(from) = receipt.from.filter(|from| table.knows(*from)) else {
            return self.tally.dropped(DropReason::UnknownPeer, pieces);
        };
        if bytes.is_empty() {
            return self.tally.dropped(DropReason::Malformed, 1);
        }
        for piece in bytes.chunks_mut(size) {
            if let Err(reason) = self.datagram(from, receipt.tos, piece, inside, table) {
                self.tally.dropped(reason, 1);
            }
        }
    }

    /// Bytes of each datagram in the message, and payload of each packet inside one large packet.
    ///
    /// Not always what the kernel says: when a kernel on the other side of a virtual link put one large unsegmented UDP packet
    /// (USO) into one datagram, its size is that of the *inner* packet's segments, and the datagram is one.
    fn sizes(&self, receipt: &Receipt, bytes: &[u8]) -> (usize, Option<u16>) {
        let whole = bytes.len().max(1);
        let Some(size) = receipt.segment else {
            return (whole, None);
        };
        let overhead = self.encapsulation.overhead();
        match bytes.get(overhead..).map(packet::parse) {
            Some(Ok(first)) if overhead + first.len > size => (whole, u16::try_from(size).ok()),
            _ => (size, None),
        }
    }

    fn datagram(
        &mut self,
        from: IpAddr,
        tos: u8,
        datagram: &mut [u8],
        inside: Option<u16>,
        table: &Table,
    ) -> Result<(), DropReason> {
        let inner = match self.encapsulation.open(datagram, table.own())? {
            Opened::Packet(at) => &mut datagram[at..],
            Opened::Question(question) => return self.answer(from, question),
        };
        let packet = packet::parse(inner)?;
        let sender = table.peer(packet.source);
        if sender.is_none_or(|peer| peer.address.ip() != from) {
            return Err(DropReason::ForeignSource);
        }
        let inner = &mut inner[..packet.len];
        let mark = ecn::combine(packet.traffic_class, tos);
        match mark {
            None => return Err(DropReason::CongestionUnmarkable),
            Some(mark) if mark != packet.traffic_class & 3 => ecn::set(inner, mark),
            Some(_) => {}
        }
        self.output.packet(&packet, inner, inside, &mut self.tally)
    }

    /// To the node that asked, at the port that all nodes of a VXLAN share.
    fn answer(&mut self, to: IpAddr, question: Question) -> Result<(), DropReason> {
        let mut answer = [0; vxlan::ANSWER];
        let length = question.answer(&mut answer);
        self.replies.send(&answer[..length], to)
    }
}
