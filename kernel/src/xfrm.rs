//! IPsec policies (XFRM): which of them a host's own packets have to obey (ip-xfrm(8), linux/xfrm.h).

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_XFRM};

use crate::{Error, Result};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const XFRM_MSG_NEWPOLICY: u16 = 0x13;
const XFRM_MSG_GETPOLICY: u16 = 0x15;
const XFRM_POLICY_OUT: u8 = 1;
/// struct nlmsghdr.
const HEADER: usize = 16;
/// struct xfrm_userpolicy_id, which a dump does not look at.
const POLICY_ID: usize = 64;
/// struct xfrm_userpolicy_info, which begins with struct xfrm_selector.
const POLICY_INFO: usize = 168;
/// Of `dir` in it, behind the selector (56), limits (64), use (32), priority and index.
const DIRECTION: usize = 160;

/// What a policy selects; prints as `src 192.0.2.1/32 dst 192.0.2.2/32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Sender and its prefix length.
    pub source: (IpAddr, u8),
    /// Receiver and its prefix length.
    pub destination: (IpAddr, u8),
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((source, from), (destination, to)) = (self.source, self.destination);
        write!(f, "src {source}/{from} dst {destination}/{to}")
    }
}

/// One of the policies for packets that leave the calling thread's namespace, if there are any;
/// those of single sockets do not count. A kernel without XFRM has none.
pub fn outbound_policy() -> Result<Option<Policy>> {
    match find() {
        Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => Ok(None),
        found => found.map_err(|cause| Error::new("list IPsec policies", cause)),
    }
}

/// Reads the list until one is found; the kernel ends a list whose socket is closed.
fn find() -> io::Result<Option<Policy>> {
    let mut socket = Socket::new(NETLINK_XFRM)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut request = [0; HEADER + POLICY_ID];
    request[..4].copy_from_slice(&((HEADER + POLICY_ID) as u32).to_ne_bytes());
    request[4..6].copy_from_slice(&XFRM_MSG_GETPOLICY.to_ne_bytes());
    request[6..8].copy_from_slice(&(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    socket.send(&request, 0)?;
    let mut buffer: Vec<u8> = Vec::with_capacity(64 * 1024);
    loop {
        buffer.clear();
        match socket.recv(&mut buffer, 0) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            received => received?,
        };
        match look(&buffer)? {
            Seen::Policy(policy) => return Ok(Some(policy)),
            Seen::End => return Ok(None),
            Seen::None => {}
        }
    }
}

/// What matters in one datagram of the list.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Policy(Policy),
    None,
    End,
}

fn look(mut bytes: &[u8]) -> io::Result<Seen> {
    let broken = || io::Error::other("netlink message of impossible length");
    while bytes.len() >= HEADER {
        let length = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
        let body = bytes.get(HEADER..length).ok_or_else(broken)?;
        match u16::from_ne_bytes([bytes[4], bytes[5]]) {
            kind @ (NLMSG_DONE | NLMSG_ERROR) => {
                let code = body.first_chunk().map(|code| i32::from_ne_bytes(*code));
                return match code.ok_or_else(broken)? {
                    0 if kind == NLMSG_DONE => Ok(Seen::End),
                    code => Err(io::Error::from_raw_os_error(-code)),
                };
            }
            XFRM_MSG_NEWPOLICY => {
                let policy = body.get(..POLICY_INFO).ok_or_else(broken)?;
                if policy[DIRECTION] == XFRM_POLICY_OUT {
                    return Ok(Seen::Policy(parse(policy)));
                }
            }
            _ => {}
        }
        bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
    }
    Ok(Seen::None)
}

/// The selector: destination, source (16 bytes each), four words of ports, family, prefix lengths.
fn parse(selector: &[u8]) -> Policy {
    let ipv6 = u16::from_ne_bytes([selector[40], selector[41]]) == libc::AF_INET6 as u16;
    let address = |at: usize| -> IpAddr {
        let bytes: [u8; 16] = std::array::from_fn(|n| selector[at + n]);
        match ipv6 {
            true => Ipv6Addr::from(bytes).into(),
            false => Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into(),
        }
    };
    Policy {
        source: (address(16), selector[43]),
        destination: (address(0), selector[42]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut message = vec![0; HEADER];
        message[..4].copy_from_slice(&((HEADER + body.len()) as u32).to_ne_bytes());
        message[4..6].copy_from_slice(&kind.to_ne_bytes());
        message.extend_from_slice(body);
        message
    }

    fn policy(direction: u8) -> Vec<u8> {
        let mut body = vec![0; POLICY_INFO];
        body[..4].copy_from_slice(&[192, 0, 2, 0]);
        body[16..20].copy_from_slice(&[198, 51, 100, 1]);
        body[40..42].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
        (body[42], body[43]) = (24, 32);
        body[DIRECTION] = direction;
        message(XFRM_MSG_NEWPOLICY, &body)
    }

    #[test]
    fn finds_the_outbound_one_among_others() {
        let others = [policy(0), policy(2), policy(4)].concat();
        assert_eq!(look(&others).unwrap(), Seen::None);
        let Seen::Policy(found) = look(&[others, policy(1)].concat()).unwrap() else {
            panic!("not found");
        };
        assert_eq!(found.to_string(), "src 198.51.100.1/32 dst 192.0.2.0/24");
    }

    #[test]
    fn ends_with_the_list_and_fails_with_an_error() {
        let end = message(NLMSG_DONE, &[0; 4]);
        assert_eq!(look(&end).unwrap(), Seen::End);
        let refusal = message(NLMSG_ERROR, &(-libc::EPERM).to_ne_bytes());
        let error = look(&refusal).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
        for length in 0..POLICY_INFO {
            let cut = message(XFRM_MSG_NEWPOLICY, &policy(1)[HEADER..][..length]);
            assert!(look(&cut).is_err(), "{length}");
        }
    }
}
