//! Messages of a netlink datagram, and what the kernel says about one that it refuses
//! (struct nlmsghdr, nlmsgerr of linux/netlink.h; struct nfgenmsg of linux/netfilter/nfnetlink.h).

use std::io;

use super::attribute::{Attributes, attributes, value_of};

pub(crate) const NLMSG_ERROR: u16 = 2;
pub(crate) const NLMSG_DONE: u16 = 3;
/// struct nlmsghdr.
pub(crate) const HEADER: usize = 16;
/// struct nfgenmsg.
pub(crate) const FAMILY_HEADER: usize = 4;

/// The error repeats the refused message's header only.
const NLM_F_CAPPED: u16 = 0x100;
/// Attributes follow.
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;
const NLMSGERR_ATTR_OFFS: u16 = 2;

/// A message as received.
#[derive(Clone, Copy)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    /// nlmsg_pid: for whom it is, or who caused it.
    pub(crate) port: u32,
    /// What follows struct nlmsghdr.
    pub(crate) body: &'a [u8],
}

/// The kernel's word on one message; `code` 0 is an acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// An errno.
    pub(crate) code: i32,
    /// Where in the refused message the attribute at fault begins.
    pub(crate) offset: Option<usize>,
    /// In words.
    pub(crate) why: Option<String>,
}

impl<'a> Message<'a> {
    /// The address family of the object (nfgen_family).
    pub(crate) fn family(&self) -> u8 {
        self.body.first().copied().unwrap_or(0)
    }

    /// What follows struct nfgenmsg.
    pub(crate) fn payload(&self) -> &'a [u8] {
        self.body.get(FAMILY_HEADER..).unwrap_or_default()
    }

    pub(crate) fn attributes(&self) -> Attributes<'a> {
        attributes(self.payload())
    }

    /// The errno of an NLMSG_ERROR or NLMSG_DONE; 0 = well.
    pub(crate) fn code(&self) -> io::Result<i32> {
        match (read_i32(self.body), self.kind) {
            (Some(code), _) => Ok(code.saturating_neg()),
            (None, NLMSG_DONE) => Ok(0),
            (None, _) => Err(io::Error::other("short netlink error message")),
        }
    }

    /// An NLMSG_ERROR read whole.
    pub(crate) fn refusal(&self) -> io::Result<Refusal> {
        let mut refusal = Refusal {
            code: self.code()?,
            offset: None,
            why: None,
        };
        if self.flags & NLM_F_ACK_TLVS == 0 {
            return Ok(refusal);
        }
        let inner = self.body.get(4..).unwrap_or_default();
        let length = match read_u32(inner) {
            Some(length) if self.flags & NLM_F_CAPPED == 0 => length as usize,
            _ => HEADER,
        };
        let more = inner
            .get(length.min(inner.len()).next_multiple_of(4)..)
            .unwrap_or_default();
        refusal.offset = value_of(more, NLMSGERR_ATTR_OFFS)
            .and_then(read_u32)
            .map(|offset| offset as usize);
        refusal.why = value_of(more, NLMSGERR_ATTR_MSG)
            .map(|text| {
                String::from_utf8_lossy(text)
                    .trim_end_matches('\0')
                    .to_owned()
            })
            .filter(|text| !text.is_empty());
        Ok(refusal)
    }
}

/// The messages of a datagram; an impossible length is an error and the end.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = io::Result<Message<'_>>> {
    std::iter::from_fn(move || {
        if bytes.len() < HEADER {
            return None;
        }
        let field = |at: usize| {
            u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let length = field(0) as usize;
        if length < HEADER || length > bytes.len() {
            bytes = &[];
            return Some(Err(io::Error::other(
                "netlink message of impossible length",
            )));
        }
        let message = Message {
            kind: u16::from_ne_bytes([bytes[4], bytes[5]]),
            flags: u16::from_ne_bytes([bytes[6], bytes[7]]),
            sequence: field(8),
            port: field(12),
            body: &bytes[HEADER..length],
        };
        bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
        Some(Ok(message))
    })
}

/// Begins a message; [`set_length`] ends it.
pub(crate) fn push_header(
    buffer: &mut Vec<u8>,
    kind: u16,
    flags: u16,
    sequence: u32,
    family_header: [u8; FAMILY_HEADER],
) {
    let length = (HEADER + FAMILY_HEADER) as u32;
    buffer.extend_from_slice(&length.to_ne_bytes());
    buffer.extend_from_slice(&kind.to_ne_bytes());
    buffer.extend_from_slice(&flags.to_ne_bytes());
    buffer.extend_from_slice(&sequence.to_ne_bytes());
    buffer.extend_from_slice(&0u32.to_ne_bytes());
    buffer.extend_from_slice(&family_header);
}

/// Says that the message that begins at `at` reaches to the end of the buffer.
pub(crate) fn set_length(buffer: &mut [u8], at: usize) {
    let length = (buffer.len() - at) as u32;
    buffer[at..at + 4].copy_from_slice(&length.to_ne_bytes());
}

/// Changes the flags of the message that begins at `at`.
pub(crate) fn set_flags(buffer: &mut [u8], at: usize, flags: u16) {
    buffer[at + 6..at + 8].copy_from_slice(&flags.to_ne_bytes());
}

fn read_u32(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.first_chunk()?))
}

fn read_i32(bytes: &[u8]) -> Option<i32> {
    Some(i32::from_ne_bytes(*bytes.first_chunk()?))
}
