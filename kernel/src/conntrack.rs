//! Forgetting connections whose translation has changed (ctnetlink,
//! linux/netfilter/nfnetlink_conntrack.h).

use std::{io, net::IpAddr};

use netlink_packet_core::NLM_F_DUMP;

use crate::{
    Error, Result,
    sys::netfilter::{Socket, push_nested, value_of},
};

const NFNL_SUBSYS_CTNETLINK: u16 = 1;
const IPCTNL_MSG_CT_GET: u16 = 1;
const IPCTNL_MSG_CT_DELETE: u16 = 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_DST_PORT: u16 = 3;

/// Forgets the flows of `protocol` (IANA number, 17 = UDP) whose original destination is `port`,
/// and `ip` if given, of one family, in the calling thread's namespace. Returns how many.
///
/// A kernel without connection tracking has nothing to forget.
pub fn delete_flows_to(ipv6: bool, protocol: u8, ip: Option<IpAddr>, port: u16) -> Result<usize> {
    let family = if ipv6 { libc::AF_INET6 } else { libc::AF_INET } as u8;
    let run = || -> io::Result<usize> {
        let mut socket = Socket::open()?;
        let list = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET;
        let mut flows = Vec::new();
        match socket.request(list, NLM_F_DUMP, family, &[], |message| {
            flows.push(message.payload().to_vec());
        }) {
            Ok(_) => {}
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EINVAL | libc::EOPNOTSUPP | libc::EPROTONOSUPPORT)
                ) =>
            {
                return Ok(0);
            }
            Err(error) => return Err(error),
        };
        let mut deleted = 0;
        for flow in &flows {
            let Some(tuple) = value_of(flow, CTA_TUPLE_ORIG) else {
                continue;
            };
            if !is_to(tuple, protocol, ip, port) {
                continue;
            }
            let mut request = Vec::new();
            push_nested(&mut request, CTA_TUPLE_ORIG, tuple);
            let delete = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE;
            match socket.request(delete, 0, family, &request, |_| {}) {
                Ok(_) => deleted += 1,
                // It ended by itself meanwhile.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(deleted)
    };
    run().map_err(|cause| Error::new(format!("forget tracked flows to port {port}"), cause))
}

fn is_to(tuple: &[u8], protocol: u8, ip: Option<IpAddr>, port: u16) -> bool {
    let addresses = value_of(tuple, CTA_TUPLE_IP).unwrap_or_default();
    let transport = value_of(tuple, CTA_TUPLE_PROTO).unwrap_or_default();
    let ip_matches = match ip {
        None => true,
        Some(IpAddr::V4(ip)) => value_of(addresses, CTA_IP_V4_DST) == Some(&ip.octets()[..]),
        Some(IpAddr::V6(ip)) => value_of(addresses, CTA_IP_V6_DST) == Some(&ip.octets()[..]),
    };
    ip_matches
        && value_of(transport, CTA_PROTO_NUM) == Some(&[protocol][..])
        && value_of(transport, CTA_PROTO_DST_PORT) == Some(&port.to_be_bytes()[..])
}
