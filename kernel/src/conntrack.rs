//! Tracked connections: which there are, and forgetting those whose translation has changed
//! (ctnetlink, linux/netfilter/nfnetlink_conntrack.h).

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};

use crate::{
    Error, Result,
    sys::netfilter::{
        NLMSG_ERROR, Socket, attributes, begin_nested, end_nested, push_attribute, push_header,
        set_flags, set_length, value_of,
    },
};

const NFNL_SUBSYS_CTNETLINK: u16 = 1 << 8;
const IPCTNL_MSG_CT_GET: u16 = NFNL_SUBSYS_CTNETLINK | 1;
const IPCTNL_MSG_CT_DELETE: u16 = NFNL_SUBSYS_CTNETLINK | 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ZONE: u16 = 18;
const CTA_FILTER: u16 = 25;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
/// CTA_FILTER_FLAG(CTA_PROTO_NUM) of net/netfilter/nf_internals.h: the kernel compares the protocol.
const CTA_FILTER_FLAG_PROTO_NUM: u32 = 1 << 3;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_TUPLE_ZONE: u16 = 3;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;

/// Requests in one `send`: should each fail, the error messages still fit the receive buffer.
const BATCH_REQUESTS: usize = 128;

/// One direction of a connection; prints as `17 10.0.0.1:5000 > 10.96.0.10:53`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple {
    /// IANA number; 17 = UDP.
    pub protocol: u8,
    /// Who sends.
    pub source: SocketAddr,
    /// To whom.
    pub destination: SocketAddr,
}

/// A tracked connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow {
    /// As it came, before any translation.
    pub original: Tuple,
    /// As answers come: from whom its destination was translated to.
    pub reply: Tuple,
}

impl fmt::Display for Tuple {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{} {} > {}",
            self.protocol, self.source, self.destination
        )
    }
}

/// Shows every flow of one family and protocol with ports (IANA number, 17 = UDP) in the calling
/// thread's namespace, those of conntrack zones other than 0 left out. Linux 5.8 and later look at
/// the protocol in the kernel; flows are read one at a time.
///
/// Flows come and go meanwhile: one that lives all the time may, rarely, be shown twice.
/// A kernel without connection tracking has none.
pub fn flows(ipv6: bool, protocol: u8, mut visit: impl FnMut(&Flow)) -> Result<()> {
    let family = if ipv6 { libc::AF_INET6 } else { libc::AF_INET } as u8;
    let mut run = || -> io::Result<()> {
        let mut socket = Socket::open()?;
        let mut list = |filter: &[u8]| {
            socket.request(IPCTNL_MSG_CT_GET, NLM_F_DUMP, family, filter, |message| {
                if let Some(flow) = parse(message.payload())
                    && flow.original.protocol == protocol
                {
                    visit(&flow);
                }
            })
        };
        match list(&filter(protocol)) {
            Err(error) if is_unknown(&error) => match list(&[]) {
                Err(error) if is_unknown(&error) => Ok(()),
                other => other.map(drop),
            },
            other => other.map(drop),
        }
    };
    run().map_err(|cause| Error::new(format!("list tracked flows of protocol {protocol}"), cause))
}

/// Forgets the flows with these original tuples, in the calling thread's namespace and conntrack
/// zone 0. Returns how many there were; one that is gone already is no error. It goes on past
/// failures and returns the first.
pub fn delete(originals: &[Tuple]) -> Result<usize> {
    if originals.is_empty() {
        return Ok(0);
    }
    let mut socket = Socket::open().map_err(|cause| Error::new("open conntrack socket", cause))?;
    let mut deleted = 0;
    let mut failed = None;
    for batch in originals.chunks(BATCH_REQUESTS) {
        let mut refused = Vec::new();
        let lost = socket.send_batch(&[&deletions(batch)], |message| {
            if message.kind == NLMSG_ERROR {
                let index = message.sequence.wrapping_sub(Socket::BATCH_SEQUENCE);
                match message.code() {
                    Ok(0) => {}
                    Ok(code) => refused.push((index, io::Error::from_raw_os_error(code))),
                    Err(error) => refused.push((index, error)),
                }
            }
        });
        match lost {
            Ok(false) => {}
            Ok(true) => {
                return Err(Error::other(
                    "forget tracked flows",
                    "the kernel's answers were lost",
                ));
            }
            Err(cause) => return Err(Error::new("forget tracked flows", cause)),
        }
        deleted += batch.len().saturating_sub(refused.len());
        for (index, cause) in refused {
            // It ended by itself meanwhile.
            if cause.raw_os_error() != Some(libc::ENOENT) && failed.is_none() {
                let flow = batch.get(index as usize).map(|flow| format!(" {flow}"));
                let what = format!("forget tracked flow{}", flow.unwrap_or_default());
                failed = Some(Error::new(what, cause));
            }
        }
    }
    failed.map_or(Ok(deleted), Err)
}

/// Forgets the flows of `protocol` (IANA number, 17 = UDP) whose original destination is `port`,
/// and `ip` if given, of one family, in the calling thread's namespace. Returns how many.
///
/// A kernel without connection tracking has nothing to forget.
pub fn delete_flows_to(ipv6: bool, protocol: u8, ip: Option<IpAddr>, port: u16) -> Result<usize> {
    let mut found = Vec::new();
    flows(ipv6, protocol, |flow| {
        let to = flow.original.destination;
        if to.port() == port && ip.is_none_or(|ip| ip == to.ip()) {
            found.push(flow.original);
        }
    })?;
    delete(&found)
}

/// What a kernel says that has no connection tracking, or does not know a filter.
fn is_unknown(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINVAL | libc::EOPNOTSUPP | libc::EPROTONOSUPPORT)
    )
}

/// Asks the kernel to list one protocol only. Kernels before 5.8 skip the attributes.
fn filter(protocol: u8) -> Vec<u8> {
    let mut request = Vec::new();
    let tuple = begin_nested(&mut request, CTA_TUPLE_ORIG);
    let transport = begin_nested(&mut request, CTA_TUPLE_PROTO);
    push_attribute(&mut request, CTA_PROTO_NUM, &[protocol]);
    end_nested(&mut request, transport);
    end_nested(&mut request, tuple);
    let filter = begin_nested(&mut request, CTA_FILTER);
    let flags = CTA_FILTER_FLAG_PROTO_NUM.to_ne_bytes();
    push_attribute(&mut request, CTA_FILTER_ORIG_FLAGS, &flags);
    end_nested(&mut request, filter);
    request
}

/// One request for each tuple; the last asks for an answer in any case.
fn deletions(tuples: &[Tuple]) -> Vec<u8> {
    let mut requests = Vec::new();
    let mut last = 0;
    for (sequence, tuple) in (Socket::BATCH_SEQUENCE..).zip(tuples) {
        last = requests.len();
        let family = if tuple.source.is_ipv6() {
            libc::AF_INET6
        } else {
            libc::AF_INET
        } as u8;
        push_header(
            &mut requests,
            IPCTNL_MSG_CT_DELETE,
            NLM_F_REQUEST,
            sequence,
            [family, 0, 0, 0],
        );
        encode(&mut requests, tuple);
        set_length(&mut requests, last);
    }
    set_flags(&mut requests, last, NLM_F_REQUEST | NLM_F_ACK);
    requests
}

fn encode(buffer: &mut Vec<u8>, tuple: &Tuple) {
    let whole = begin_nested(buffer, CTA_TUPLE_ORIG);
    let addresses = begin_nested(buffer, CTA_TUPLE_IP);
    for (ip, v4, v6) in [
        (tuple.source.ip(), CTA_IP_V4_SRC, CTA_IP_V6_SRC),
        (tuple.destination.ip(), CTA_IP_V4_DST, CTA_IP_V6_DST),
    ] {
        match ip {
            IpAddr::V4(ip) => push_attribute(buffer, v4, &ip.octets()),
            IpAddr::V6(ip) => push_attribute(buffer, v6, &ip.octets()),
        }
    }
    end_nested(buffer, addresses);
    let transport = begin_nested(buffer, CTA_TUPLE_PROTO);
    let ports = [tuple.source.port(), tuple.destination.port()].map(u16::to_be_bytes);
    push_attribute(buffer, CTA_PROTO_NUM, &[tuple.protocol]);
    push_attribute(buffer, CTA_PROTO_SRC_PORT, &ports[0]);
    push_attribute(buffer, CTA_PROTO_DST_PORT, &ports[1]);
    end_nested(buffer, transport);
    end_nested(buffer, whole);
}

/// A flow of zone 0 whose protocol has ports.
fn parse(bytes: &[u8]) -> Option<Flow> {
    let mut original = None;
    let mut reply = None;
    for (kind, value) in attributes(bytes) {
        match kind {
            CTA_TUPLE_ORIG => original = Some(parse_tuple(value)?),
            CTA_TUPLE_REPLY => reply = Some(parse_tuple(value)?),
            CTA_ZONE if value.iter().any(|byte| *byte != 0) => return None,
            _ => {}
        }
    }
    Some(Flow {
        original: original?,
        reply: reply?,
    })
}

fn parse_tuple(bytes: &[u8]) -> Option<Tuple> {
    if value_of(bytes, CTA_TUPLE_ZONE).is_some_and(|zone| zone.iter().any(|byte| *byte != 0)) {
        return None;
    }
    let addresses = value_of(bytes, CTA_TUPLE_IP)?;
    let transport = value_of(bytes, CTA_TUPLE_PROTO)?;
    let address = |v4, v6, port| -> Option<SocketAddr> {
        let ip: IpAddr = match value_of(addresses, v4) {
            Some(ip) => <[u8; 4]>::try_from(ip).ok()?.into(),
            None => <[u8; 16]>::try_from(value_of(addresses, v6)?).ok()?.into(),
        };
        let port = u16::from_be_bytes(value_of(transport, port)?.try_into().ok()?);
        Some(SocketAddr::new(ip, port))
    };
    Some(Tuple {
        protocol: *value_of(transport, CTA_PROTO_NUM)?.first()?,
        source: address(CTA_IP_V4_SRC, CTA_IP_V6_SRC, CTA_PROTO_SRC_PORT)?,
        destination: address(CTA_IP_V4_DST, CTA_IP_V6_DST, CTA_PROTO_DST_PORT)?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_tuple_is_read_as_it_was_written() {
        for (source, destination) in [
            ("10.0.0.1:5000", "10.96.0.10:53"),
            ("[fd00::1]:5000", "[fd00::10]:53"),
        ] {
            let tuple = Tuple {
                protocol: 17,
                source: source.parse().unwrap(),
                destination: destination.parse().unwrap(),
            };
            let mut bytes = Vec::new();
            encode(&mut bytes, &tuple);
            let inner = value_of(&bytes, CTA_TUPLE_ORIG).unwrap();
            assert_eq!(parse_tuple(inner), Some(tuple));
            // One direction is no flow.
            assert_eq!(parse(&bytes), None);
        }
    }

    proptest! {
        #[test]
        fn garbage_does_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            parse(&bytes);
            parse_tuple(&bytes);
        }
    }
}
