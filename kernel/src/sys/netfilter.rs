//! The little of nfnetlink that we speak ourselves: requests, batches and their answers.
//!
//! nfnetlink carries out what one `send` brought before `send` returns, so all that it has to say
//! to a batch waits in the socket by then. See linux/netfilter/nfnetlink.h, netlink(7).

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, AsRawFd as _, BorrowedFd},
};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST};
use netlink_sys::{SocketAddr, protocols::NETLINK_NETFILTER};
use nix::sys::socket::{MsgFlags, sendmsg};

mod attribute;
mod message;

pub(crate) use attribute::{
    ATTRIBUTE_HEADER, attributes, begin_nested, end_nested, push_attribute, value_of,
};
use message::{FAMILY_HEADER, NLMSG_DONE};
pub(crate) use message::{
    HEADER, Message, NLMSG_ERROR, Refusal, messages, push_header, set_flags, set_length,
};

/// What netlink adds to a datagram when it compares it with the send buffer's size.
const SEND_OVERHEAD: usize = 32;
/// The kernel never writes a longer datagram of answers (NLMSG_GOODSIZE, or 32 KiB for dumps).
const RECEIVE_BYTES: usize = 64 * 1024;

/// A netfilter netlink socket in the namespace where it was opened.
pub(crate) struct Socket {
    socket: netlink_sys::Socket,
    sequence: u32,
    port: u32,
    send_room: usize,
    buffer: Vec<u8>,
}

/// How a list was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// Nothing changed under it.
    Whole,
    /// Something changed under it: read again.
    Interrupted,
}

impl Socket {
    /// Sequence numbers of requests stay below this one; batches number their messages from here.
    pub(crate) const BATCH_SEQUENCE: u32 = 1 << 31;

    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = netlink_sys::Socket::new(NETLINK_NETFILTER)?;
        let port = socket.bind_auto()?.port_number();
        socket.connect(&SocketAddr::new(0, 0))?;
        // Refinements that old kernels lack: short error messages that say what and why.
        let _ = socket.set_cap_ack(true);
        let _ = socket.set_ext_ack(true);
        Ok(Self {
            socket,
            sequence: 0,
            port,
            send_room: 0,
            buffer: Vec::with_capacity(RECEIVE_BYTES),
        })
    }

    /// The socket's address among netlink sockets (nlmsg_pid).
    pub(crate) fn port_id(&self) -> u32 {
        self.port
    }

    /// Joins a multicast group with a receive buffer of `bytes`, and never blocks from then on.
    pub(crate) fn join(&mut self, group: u32, bytes: i32) -> io::Result<()> {
        // A small buffer only means an earlier overrun.
        let _ = super::force_receive_buffer(self.socket.as_raw_fd(), bytes);
        self.socket.set_non_blocking(true)?;
        self.socket.add_membership(group)
    }

    /// Sends one request and shows every answer. With `NLM_F_DUMP` in `flags` it reads to the end
    /// of the list, else to the acknowledgement.
    pub(crate) fn request(
        &mut self,
        kind: u16,
        flags: u16,
        family: u8,
        attributes: &[u8],
        mut visit: impl FnMut(&Message<'_>),
    ) -> io::Result<Reading> {
        self.sequence = (self.sequence + 1) % Self::BATCH_SEQUENCE;
        let dump = flags & NLM_F_DUMP == NLM_F_DUMP;
        let ack = if dump { 0 } else { NLM_F_ACK };
        let mut message = Vec::with_capacity(HEADER + FAMILY_HEADER + attributes.len());
        let flags = NLM_F_REQUEST | ack | flags;
        push_header(&mut message, kind, flags, self.sequence, [family, 0, 0, 0]);
        message.extend_from_slice(attributes);
        set_length(&mut message, 0);
        self.socket.send(&message, 0)?;

        let mut reading = Reading::Whole;
        loop {
            self.receive(MsgFlags::empty())?;
            for message in messages(&self.buffer) {
                let message = message?;
                if message.sequence != self.sequence {
                    continue;
                }
                if message.flags & NLM_F_DUMP_INTR != 0 {
                    reading = Reading::Interrupted;
                }
                match message.kind {
                    NLMSG_DONE | NLMSG_ERROR => {
                        return match message.code()? {
                            0 => Ok(reading),
                            code => Err(io::Error::from_raw_os_error(code)),
                        };
                    }
                    _ => visit(&message),
                }
            }
        }
    }

    /// Sends the parts as one datagram and shows all that the kernel answered: errors, and what the
    /// messages asked for by NLM_F_ACK and NLM_F_ECHO. Returns whether answers were lost because
    /// there were too many.
    pub(crate) fn send_batch(
        &mut self,
        parts: &[&[u8]],
        mut visit: impl FnMut(&Message<'_>),
    ) -> io::Result<bool> {
        // What an earlier request that failed half-way left behind.
        self.read_waiting(|_| {})?;
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        self.make_room(bytes + SEND_OVERHEAD)?;
        let parts: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let fd = self.socket.as_raw_fd();
        sendmsg::<()>(fd, &parts, &[], MsgFlags::empty(), None)?;
        self.read_waiting(&mut visit)
    }

    /// Shows the messages of one datagram; false when there is none to read now.
    pub(crate) fn read_one(
        &mut self,
        visit: impl FnMut(io::Result<Message<'_>>),
    ) -> io::Result<bool> {
        match self.receive(MsgFlags::MSG_DONTWAIT) {
            Ok(()) => {
                messages(&self.buffer).for_each(visit);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn read_waiting(&mut self, mut visit: impl FnMut(&Message<'_>)) -> io::Result<bool> {
        let mut lost = false;
        loop {
            match self.receive(MsgFlags::MSG_DONTWAIT) {
                Ok(()) => {
                    for message in messages(&self.buffer) {
                        visit(&message?);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(lost),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => lost = true,
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads one datagram into the buffer.
    fn receive(&mut self, flags: MsgFlags) -> io::Result<()> {
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, flags.bits()) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Makes the send buffer large enough for one datagram of `bytes`.
    fn make_room(&mut self, bytes: usize) -> io::Result<()> {
        if bytes > self.send_room {
            let wanted = bytes.next_power_of_two().max(RECEIVE_BYTES);
            // The kernel doubles what it is given and keeps it below i32::MAX.
            let given = i32::try_from(wanted / 2).unwrap_or(i32::MAX / 2);
            super::force_send_buffer(self.socket.as_raw_fd(), given)?;
            self.send_room = wanted;
        }
        Ok(())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
