//! A blocking rtnetlink socket that keeps many requests in flight.
//!
//! Theory: the kernel handles the messages of one `send` in order and before `send` returns, and it
//! always reports a failure; success it reports only where NLM_F_ACK asks for it. So a batch asks
//! for one acknowledgement, on its last message: when that has come, every request of the batch
//! without an error message of its own has succeeded. Five thousand routes cost a few dozen system
//! calls. See rtnetlink(7), netlink(7).

mod address;
mod filter;
mod link;
mod neigh;
mod route;

use std::{io, os::fd::AsRawFd as _};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL,
    NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::{Change, Error, Link, Netns, Result};
pub(crate) use address::parse as parse_address;
pub use filter::{Direction, Filter};
pub(crate) use link::parse as parse_link;
pub(crate) use neigh::{parse as parse_neigh, parse_fdb};
pub use route::RouteFilter;
pub(crate) use route::parse as parse_route;

/// Bytes of requests in one `send`; below the default send buffer of 208 KiB.
const BATCH_BYTES: usize = 48 * 1024;
/// Requests in one `send`: should each fail, the error messages (about 1 KiB of kernel memory
/// each) still fit the receive buffer.
const BATCH_REQUESTS: usize = 512;
/// A dump that the kernel marks as interrupted is read again this many times.
const DUMP_TRIES: usize = 32;

/// A route netlink socket in the namespace where it was opened, wherever it is used later.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
    receive: Vec<u8>,
    large: bool,
}

/// What the kernel said to one request.
#[derive(Default)]
struct Answer {
    /// An errno, 0 = done.
    code: i32,
    /// Its own words, where it has some (extended acknowledgement).
    why: Option<String>,
}

/// A request with its flags, ready to be sent.
pub(crate) struct Request {
    message: RouteNetlinkMessage,
    flags: u16,
}

impl Request {
    fn new(message: RouteNetlinkMessage, flags: u16) -> Self {
        Self { message, flags }
    }

    fn create(message: RouteNetlinkMessage) -> Self {
        Self::new(message, NLM_F_CREATE | NLM_F_EXCL)
    }

    fn replace(message: RouteNetlinkMessage) -> Self {
        Self::new(message, NLM_F_CREATE | NLM_F_REPLACE)
    }

    fn plain(message: RouteNetlinkMessage) -> Self {
        Self::new(message, 0)
    }
}

impl Netlink {
    /// A socket in the calling thread's namespace.
    pub fn open() -> Result<Self> {
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            // Refinements that old kernels lack: short error messages that say why, filtered dumps.
            // Every reader filters for itself too.
            let _ = socket.set_cap_ack(true);
            let _ = socket.set_ext_ack(true);
            let _ = socket.set_netlink_get_strict_chk(true);
            Ok(socket)
        };
        let socket = open().map_err(|cause| Error::new("open netlink socket", cause))?;
        Ok(Self {
            socket,
            sequence: 0,
            receive: Vec::with_capacity(64 * 1024),
            large: false,
        })
    }

    /// A socket in another namespace.
    pub fn open_in(netns: &Netns) -> Result<Self> {
        netns.run(Self::open)?
    }

    /// Carries out one change.
    pub fn apply(&mut self, change: &Change) -> Result<()> {
        self.apply_all(std::slice::from_ref(change))
            .pop()
            .unwrap_or(Ok(()))
    }

    /// Carries out changes in order, many in flight; goes on past failures. One result per change.
    pub fn apply_all(&mut self, changes: &[Change]) -> Vec<Result<()>> {
        let answers = match self.transact(changes.iter().map(request)) {
            Ok(answers) => answers,
            Err(cause) => {
                let code = cause.raw_os_error().unwrap_or(libc::EIO);
                (0..changes.len())
                    .map(|_| Answer { code, why: None })
                    .collect()
            }
        };
        let mut results = Vec::with_capacity(changes.len());
        for (change, answer) in changes.iter().zip(answers) {
            results.push(match answer.code {
                0 => Ok(()),
                code => Err(
                    Error::new(self.describe(change), io::Error::from_raw_os_error(code))
                        .because(answer.why),
                ),
            });
        }
        results
    }

    /// Carries out changes in order and stops reporting at the first failure.
    pub fn apply_or_fail(&mut self, changes: &[Change]) -> Result<()> {
        self.apply_all(changes).into_iter().collect()
    }

    /// The change as an operator would type it, with this namespace's link names.
    pub fn describe(&mut self, change: &Change) -> String {
        let socket = std::cell::RefCell::new(self);
        change.describe(&|index| match socket.borrow_mut().link_by_index(index) {
            Ok(Some(Link { name, .. })) => name,
            Ok(None) | Err(_) => format!("#{index}"),
        })
    }

    /// Sends all requests in batches; returns one answer per request.
    fn transact(&mut self, requests: impl Iterator<Item = Request>) -> io::Result<Vec<Answer>> {
        let mut answers: Vec<Answer> = Vec::new();
        let mut batch: Vec<u8> = Vec::new();
        let mut first = self.sequence.wrapping_add(1);
        let mut last_at = 0;
        let mut count = 0;
        let mut requests = requests.peekable();
        while let Some(request) = requests.next() {
            self.sequence = self.sequence.wrapping_add(1);
            last_at = batch.len();
            encode(&mut batch, request, self.sequence);
            answers.push(Answer::default());
            count += 1;
            if count > 64 && !self.large {
                self.large = true;
                // Only many failures at once fill a receive buffer; without the right to enlarge
                // it, `collect` reports the overrun.
                let _ = crate::sys::force_receive_buffer(self.socket.as_raw_fd(), 2 << 20);
            }
            if requests.peek().is_none() || batch.len() > BATCH_BYTES || count == BATCH_REQUESTS {
                // nlmsg_flags is the 16-bit field at byte 6 of struct nlmsghdr.
                let flags = u16::from_ne_bytes([batch[last_at + 6], batch[last_at + 7]]);
                batch[last_at + 6..last_at + 8].copy_from_slice(&(flags | NLM_F_ACK).to_ne_bytes());
                self.socket.send(&batch, 0)?;
                let from = answers.len() - count;
                self.collect(first, self.sequence, &mut answers[from..])?;
                batch.clear();
                first = self.sequence.wrapping_add(1);
                count = 0;
            }
        }
        debug_assert!(batch.is_empty() || last_at == 0);
        Ok(answers)
    }

    /// Reads errors for the requests `first..=last` until `last` is acknowledged.
    fn collect(&mut self, first: u32, last: u32, answers: &mut [Answer]) -> io::Result<()> {
        loop {
            for message in self.receive_messages()? {
                let sequence = message.header.sequence_number;
                let position = sequence.wrapping_sub(first) as usize;
                if let NetlinkPayload::Error(error) = message.payload
                    && let Some(answer) = answers.get_mut(position)
                {
                    answer.code = -error.raw_code();
                    answer.why = explanation(message.header.flags, &error.header);
                    if sequence == last {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Sends one GET request that has one answer; `None` where the kernel knows no such object.
    fn get(&mut self, message: RouteNetlinkMessage) -> io::Result<Option<RouteNetlinkMessage>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut buffer = Vec::new();
        encode(&mut buffer, Request::plain(message), self.sequence);
        self.socket.send(&buffer, 0)?;
        loop {
            for message in self.receive_messages()? {
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => return Ok(Some(inner)),
                    NetlinkPayload::Error(error) => {
                        return match -error.raw_code() {
                            libc::ENODEV | libc::ESRCH | libc::ENOENT => Ok(None),
                            code => Err(io::Error::from_raw_os_error(code)),
                        };
                    }
                    _ => {}
                }
            }
        }
    }

    /// Lists objects; `keep` turns a message into a value or leaves it out.
    fn dump<T>(
        &mut self,
        what: &str,
        message: &RouteNetlinkMessage,
        keep: impl Fn(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Vec<T>> {
        for _ in 0..DUMP_TRIES {
            match self.dump_once(message, &keep) {
                Ok((values, false)) => return Ok(values),
                Ok((_, true)) => {}
                Err(cause) => return Err(Error::new(format!("list {what}"), cause)),
            }
        }
        // Half a list is worse than none: a planner would take what is missing for gone.
        Err(Error::other(
            format!("list {what}"),
            format!("it changed under each of {DUMP_TRIES} readings"),
        ))
    }

    /// One dump and whether something changed under it.
    fn dump_once<T>(
        &mut self,
        message: &RouteNetlinkMessage,
        keep: impl Fn(RouteNetlinkMessage) -> Option<T>,
    ) -> io::Result<(Vec<T>, bool)> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut buffer = Vec::new();
        let request = Request::new(message.clone(), NLM_F_DUMP);
        encode(&mut buffer, request, self.sequence);
        self.socket.send(&buffer, 0)?;
        let mut values = Vec::new();
        let mut interrupted = false;
        loop {
            for message in self.receive_messages()? {
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => values.extend(keep(inner)),
                    NetlinkPayload::Done(done) if done.code < 0 => {
                        return Err(io::Error::from_raw_os_error(-done.code));
                    }
                    NetlinkPayload::Done(_) => return Ok((values, interrupted)),
                    NetlinkPayload::Error(error) => {
                        return Err(io::Error::from_raw_os_error(-error.raw_code()));
                    }
                    _ => {}
                }
            }
        }
    }

    /// One datagram from the kernel, as messages.
    fn receive_messages(&mut self) -> io::Result<Vec<NetlinkMessage<RouteNetlinkMessage>>> {
        self.receive.clear();
        loop {
            match self.socket.recv(&mut self.receive, 0) {
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        parse_messages(&self.receive)
    }
}

/// Splits a datagram into messages. One that cannot be decoded is an error: a silent gap in what we
/// observe would make a planner remove or repeat things.
pub(crate) fn parse_messages(
    mut bytes: &[u8],
) -> io::Result<Vec<NetlinkMessage<RouteNetlinkMessage>>> {
    let mut messages = Vec::new();
    while bytes.len() >= 16 {
        let length = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
        if length < 16 || length > bytes.len() {
            return Err(io::Error::other("netlink message of impossible length"));
        }
        let message = NetlinkMessage::deserialize(&bytes[..length])
            .map_err(|error| io::Error::other(format!("decode netlink message: {error}")))?;
        messages.push(message);
        bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
    }
    Ok(messages)
}

/// The sentence in an extended acknowledgement: `body` is the request's header, then attributes.
fn explanation(flags: u16, body: &[u8]) -> Option<String> {
    const NLMSGERR_ATTR_MSG: u16 = 1;
    if flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    let (_, value) = crate::sys::netfilter::attributes(body.get(16..)?)
        .into_iter()
        .find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG)?;
    let text = String::from_utf8_lossy(value);
    Some(text.trim_end_matches('\0').to_owned())
}

fn encode(buffer: &mut Vec<u8>, request: Request, sequence: u32) {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | request.flags;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request.message));
    message.finalize();
    let start = buffer.len();
    buffer.resize(start + message.buffer_len().next_multiple_of(4), 0);
    message.serialize(&mut buffer[start..]);
}

/// The netlink request that carries out a change.
fn request(change: &Change) -> Request {
    use RouteNetlinkMessage as M;
    match change {
        Change::AddLink(new) => Request::create(M::NewLink(link::add(new))),
        Change::DeleteLink { index, .. } => Request::plain(M::DelLink(link::by_index(*index))),
        Change::SetLink(set) => Request::plain(M::NewLink(link::set(set))),
        Change::AddAddress(a) => Request::create(M::NewAddress(address::message(a))),
        Change::DeleteAddress(a) => Request::plain(M::DelAddress(address::message(a))),
        Change::AddRoute(r) => Request::create(M::NewRoute(route::message(r))),
        Change::AddRouteBeside(r) => Request::new(M::NewRoute(route::message(r)), NLM_F_CREATE),
        Change::ReplaceRoute(r) => Request::replace(M::NewRoute(route::message(r))),
        Change::DeleteRoute(r) => Request::plain(M::DelRoute(route::message(r))),
        Change::ReplaceNeigh(n) => Request::replace(M::NewNeighbour(neigh::message(n))),
        Change::DeleteNeigh(n) => Request::plain(M::DelNeighbour(neigh::message(n))),
        Change::ReplaceFdb(e) => Request::replace(M::NewNeighbour(neigh::fdb_message(e))),
        Change::DeleteFdb(e) => Request::plain(M::DelNeighbour(neigh::fdb_message(e))),
        Change::AddBridgeVlan {
            dev,
            vlan,
            on_bridge,
        } => Request::plain(M::SetLink(link::bridge_vlan(*dev, *vlan, *on_bridge))),
        Change::DeleteBridgeVlan {
            dev,
            vid,
            on_bridge,
        } => {
            let vlan = crate::BridgeVlan {
                vid: *vid,
                pvid: false,
                untagged: false,
            };
            Request::plain(M::DelLink(link::bridge_vlan(*dev, vlan, *on_bridge)))
        }
    }
}
