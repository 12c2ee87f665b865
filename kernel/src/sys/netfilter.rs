//! The little of nfnetlink that we speak ourselves: requests of plain attributes and their answers.
//! See linux/netfilter/nfnetlink.h.

use std::io;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use netlink_sys::{SocketAddr, protocols::NETLINK_NETFILTER};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// struct nlmsghdr.
const HEADER: usize = 16;
/// struct nfgenmsg.
const FAMILY_HEADER: usize = 4;
/// Type bits of struct nlattr, without the nested and byte-order flags.
const TYPE_MASK: u16 = 0x3fff;
const NESTED: u16 = 0x8000;

/// A netfilter netlink socket in the namespace where it was opened.
pub(crate) struct Socket {
    socket: netlink_sys::Socket,
    sequence: u32,
}

impl Socket {
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = netlink_sys::Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// Sends one request and returns the attributes of every answer. With `NLM_F_DUMP` in `flags`
    /// it reads to the end of the list, else to the acknowledgement.
    pub(crate) fn request(
        &mut self,
        kind: u16,
        flags: u16,
        family: u8,
        attributes: &[u8],
    ) -> io::Result<Vec<Vec<u8>>> {
        self.sequence += 1;
        let dump = flags & NLM_F_DUMP == NLM_F_DUMP;
        let ack = if dump { 0 } else { NLM_F_ACK };
        let length = (HEADER + FAMILY_HEADER + attributes.len()) as u32;
        let mut message = Vec::with_capacity(length as usize);
        message.extend_from_slice(&length.to_ne_bytes());
        message.extend_from_slice(&kind.to_ne_bytes());
        message.extend_from_slice(&(NLM_F_REQUEST | ack | flags).to_ne_bytes());
        message.extend_from_slice(&self.sequence.to_ne_bytes());
        message.extend_from_slice(&0u32.to_ne_bytes());
        message.extend_from_slice(&[family, 0, 0, 0]);
        message.extend_from_slice(attributes);
        self.socket.send(&message, 0)?;

        let mut answers = Vec::new();
        let mut buffer: Vec<u8> = Vec::with_capacity(64 * 1024);
        loop {
            buffer.clear();
            self.socket.recv(&mut buffer, 0)?;
            let mut bytes = &buffer[..];
            while bytes.len() >= HEADER {
                let length = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
                if length < HEADER || length > bytes.len() {
                    return Err(io::Error::other("netlink message of impossible length"));
                }
                let kind = u16::from_ne_bytes([bytes[4], bytes[5]]);
                let body = &bytes[HEADER..length];
                match kind {
                    NLMSG_DONE => return Ok(answers),
                    NLMSG_ERROR => {
                        let code: [u8; 4] = body
                            .get(..4)
                            .and_then(|code| code.try_into().ok())
                            .ok_or_else(|| io::Error::other("short netlink error"))?;
                        return match i32::from_ne_bytes(code) {
                            0 => Ok(answers),
                            code => Err(io::Error::from_raw_os_error(-code)),
                        };
                    }
                    _ => answers.extend(body.get(FAMILY_HEADER..).map(<[u8]>::to_vec)),
                }
                bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
            }
        }
    }
}

/// The attributes in a message body: (type, value). Stops at the first one that does not fit.
pub(crate) fn attributes(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut found = Vec::new();
    while bytes.len() >= 4 {
        let length = u16::from_ne_bytes([bytes[0], bytes[1]]) as usize;
        let kind = u16::from_ne_bytes([bytes[2], bytes[3]]) & TYPE_MASK;
        let Some(value) = bytes.get(4..length) else {
            break;
        };
        found.push((kind, value));
        bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
    }
    found
}

/// Appends one attribute with its padding.
pub(crate) fn push_attribute(buffer: &mut Vec<u8>, kind: u16, value: &[u8]) {
    buffer.extend_from_slice(&((4 + value.len()) as u16).to_ne_bytes());
    buffer.extend_from_slice(&kind.to_ne_bytes());
    buffer.extend_from_slice(value);
    buffer.resize(buffer.len().next_multiple_of(4), 0);
}

/// Appends one attribute made of attributes.
pub(crate) fn push_nested(buffer: &mut Vec<u8>, kind: u16, inner: &[u8]) {
    push_attribute(buffer, kind | NESTED, inner);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_round_trip() {
        let mut buffer = Vec::new();
        push_attribute(&mut buffer, 1, &[7]);
        push_nested(&mut buffer, 2, &[1, 2, 3, 4]);
        assert_eq!(attributes(&buffer), [(1, &[7][..]), (2, &[1, 2, 3, 4][..])]);
    }

    #[test]
    fn cut_attributes_do_not_panic() {
        let mut buffer = Vec::new();
        push_attribute(&mut buffer, 1, &[7, 8, 9]);
        for end in 0..buffer.len() {
            attributes(&buffer[..end]);
        }
        attributes(&[0, 0, 0, 0]);
    }
}
