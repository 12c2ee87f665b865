//! Round trips by ICMP echo, one after another. The far kernel answers in its receive path, so no
//! process there has to wake: what differs between subjects is the way, not the scheduler.

use ::tests::Namespace;
use anyhow::{Context, Result, ensure};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, SockaddrIn, bind, socket};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

/// An answer later than this is lost.
const PATIENCE: Duration = Duration::from_millis(250);
const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;
/// ICMP header and a payload of 56 bytes, as `ping` has it.
const LENGTH: usize = 64;

/// What came back, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RoundTrips {
    pub p50: f64,
    pub p99: f64,
}

/// Echoes from `source` in `from` to `to`: `count` of them, or as many as `limit` allows.
pub fn measure(
    from: &Namespace,
    source: Ipv4Addr,
    to: Ipv4Addr,
    count: usize,
    limit: Duration,
) -> Result<RoundTrips> {
    let socket = open(from, source, to)?;
    let end = Instant::now() + limit;
    let mut times = Vec::with_capacity(count);
    let mut lost = 0;
    for number in 0..count {
        if Instant::now() >= end {
            break;
        }
        match echo(&socket, number as u16)? {
            Some(time) => times.push(time),
            None => lost += 1,
        }
    }
    ensure!(
        times.len() > 20 && lost * 10 <= times.len(),
        "{} echoes of {to} came back, {lost} were lost",
        times.len()
    );
    summary(&mut times).context("no echoes")
}

/// An ICMP datagram socket (icmp(7)): the kernel fills identifier and checksum, and hands over only
/// the answers to this socket's own echoes.
fn open(from: &Namespace, source: Ipv4Addr, to: Ipv4Addr) -> Result<UdpSocket> {
    from.set_sysctl("net/ipv4/ping_group_range", "0 0")?;
    let socket = from.run(|| {
        let socket = socket(
            AddressFamily::Inet,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::Icmp,
        )
        .context("open an ICMP socket")?;
        let address = SockaddrIn::from(SocketAddrV4::new(source, 0));
        bind(socket.as_raw_fd(), &address).with_context(|| format!("bind ICMP to {source}"))?;
        // Send, receive, connect and time-out are those of any datagram socket.
        Ok(UdpSocket::from(socket))
    })?;
    socket.connect((to, 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// One echo; `None` when its answer did not come in time.
fn echo(socket: &UdpSocket, number: u16) -> Result<Option<Duration>> {
    let mut packet = [0x5a; LENGTH];
    packet[..6].copy_from_slice(&[ECHO_REQUEST, 0, 0, 0, 0, 0]);
    packet[6..8].copy_from_slice(&number.to_be_bytes());
    let sent = Instant::now();
    socket.send(&packet).context("send an ICMP echo")?;
    let mut answer = [0; 2 * LENGTH];
    while sent.elapsed() < PATIENCE {
        let length = match socket.recv(&mut answer) {
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error).context("receive an ICMP echo"),
        };
        let time = sent.elapsed();
        // The late answer to an echo given up before is not this one's.
        if length >= 8 && answer[0] == ECHO_REPLY && answer[6..8] == number.to_be_bytes() {
            return Ok(Some(time));
        }
    }
    Ok(None)
}

fn summary(times: &mut [Duration]) -> Option<RoundTrips> {
    times.sort_unstable();
    let at = |percent: usize| {
        let position = times.len().checked_sub(1)? * percent / 100;
        Some(times[position].as_secs_f64() * 1e6)
    };
    Some(RoundTrips {
        p50: at(50)?,
        p99: at(99)?,
    })
}

#[cfg(test)]
mod tests {
    use super::{RoundTrips, summary};
    use std::time::Duration;

    #[test]
    fn percentiles_are_of_the_sorted_times() {
        let mut times: Vec<_> = (0..=100).rev().map(Duration::from_micros).collect();
        assert_eq!(
            summary(&mut times),
            Some(RoundTrips {
                p50: 50.0,
                p99: 99.0
            })
        );
        assert_eq!(summary(&mut []), None);
    }
}
