//! What the first packet of a flow costs: socket, bind, send, close, from inside the host.

use super::host::Host;
use super::world::PROBE_UDP;
use anyhow::{Context, Result, ensure};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Instant;

/// The first source port; each packet has the next, so that every one begins a flow of its own.
const FIRST_PORT: u16 = 1024;

/// Microseconds a packet, over `packets` new flows.
///
/// Connection tracking must have made an entry for each of them when `tracked`, else what was
/// measured is something else.
pub fn measure(host: &Host, packets: u16, tracked: bool) -> Result<f64> {
    if tracked {
        host.forget_flows()?;
    }
    let target = SocketAddr::V4(PROBE_UDP);
    let spent = host.namespace.run(|| {
        let started = Instant::now();
        for number in 0..packets {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, FIRST_PORT + number))?;
            socket.send_to(&[0; 8], target).context("send a probe")?;
        }
        Ok(started.elapsed())
    })?;
    if tracked {
        let count: u32 = host
            .namespace
            .sysctl("net/netfilter/nf_conntrack_count")?
            .parse()?;
        ensure!(
            count >= u32::from(packets) * 99 / 100,
            "{packets} packets made only {count} flows"
        );
    }
    Ok(spent.as_secs_f64() * 1e6 / f64::from(packets))
}
