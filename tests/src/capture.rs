//! What really is on a link, by tcpdump: UDP datagrams and what they hold, with an internet checksum of
//! the test bed's own.

use crate::namespace::Namespace;
use crate::process::Process;
use crate::wait::eventually;
use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A running tcpdump.
#[derive(Debug)]
pub struct Capture {
    file: PathBuf,
    process: Process,
}

/// A UDP datagram over IPv4, not a fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Outer source.
    pub source: (Ipv4Addr, u16),
    /// Outer destination.
    pub destination: (Ipv4Addr, u16),
    /// Type of service: DSCP and ECN.
    pub tos: u8,
    /// May not be fragmented.
    pub dont_fragment: bool,
    /// Payload.
    pub payload: Vec<u8>,
}

impl Capture {
    /// Begins to capture UDP port `port` on `link` in `namespace`; the file goes into `folder`.
    pub fn start(namespace: &Namespace, link: &str, port: u16, folder: &Path) -> Result<Self> {
        let file = folder.join(format!("{}-{link}-{port}.pcap", namespace.name()));
        let log = file.with_extension("log");
        let mut command = Command::new("tcpdump");
        command
            .args([
                "-i", link, "-n", "-U", "-s", "0", "-B", "16384", "-Z", "root", "-w",
            ])
            .arg(&file)
            .args(["udp", "port", &port.to_string()]);
        let process = namespace.spawn("tcpdump", &mut command, &log)?;
        eventually("tcpdump listens", Duration::from_secs(10), || {
            ensure!(
                process.log()?.contains("listening on"),
                "{}",
                process.log_tail()
            );
            Ok(())
        })?;
        Ok(Self { file, process })
    }

    /// Ends it and reads what was captured.
    pub fn finish(mut self) -> Result<Vec<Datagram>> {
        // tcpdump reads in batches: let the last one come.
        std::thread::sleep(Duration::from_millis(300));
        self.process.signal(Signal::SIGINT)?;
        self.process.wait(Duration::from_secs(10))?;
        let bytes =
            std::fs::read(&self.file).with_context(|| format!("read {}", self.file.display()))?;
        parse(&bytes).with_context(|| format!("capture file {}", self.file.display()))
    }
}

/// The pcap format of libpcap, `pcap-savefile(5)`, little endian as written on this machine.
fn parse(file: &[u8]) -> Result<Vec<Datagram>> {
    let word = |at: usize| -> Option<u32> {
        Some(u32::from_le_bytes(file.get(at..at + 4)?.try_into().ok()?))
    };
    ensure!(word(0) == Some(0xa1b2_c3d4), "not a pcap file");
    let mut datagrams = Vec::new();
    let mut at = 24;
    while let Some(length) = word(at + 8) {
        let end = at + 16 + usize::try_from(length)?;
        let Some(frame) = file.get(at + 16..end) else {
            bail!("cut short at byte {at}");
        };
        datagrams.extend(datagram(frame));
        at = end;
    }
    Ok(datagrams)
}

/// An Ethernet frame's UDP datagram.
fn datagram(frame: &[u8]) -> Option<Datagram> {
    let ip = frame.get(14..)?;
    let header = usize::from(ip.first()? & 15) * 4;
    if frame[12..14] != [8, 0] || *ip.get(9)? != 17 || u16_at(ip, 6)? & 0x3fff != 0 {
        return None;
    }
    let udp = ip.get(header..usize::from(u16_at(ip, 2)?))?;
    let address = |at: usize| {
        Some(Ipv4Addr::from(
            <[u8; 4]>::try_from(ip.get(at..at + 4)?).ok()?,
        ))
    };
    Some(Datagram {
        source: (address(12)?, u16_at(udp, 0)?),
        destination: (address(16)?, u16_at(udp, 2)?),
        tos: ip[1],
        dont_fragment: u16_at(ip, 6)? & 0x4000 != 0,
        payload: udp.get(8..)?.to_vec(),
    })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// Checks a bare IP packet that came out of a datagram: whole, its header checksum right (IPv4), and the
/// checksum of what it carries (TCP, UDP, ICMP, ICMPv6) right.
pub fn check_packet(packet: &[u8]) -> Result<()> {
    let version = packet.first().context("an empty packet")? >> 4;
    let (protocol, body, pseudo) = match version {
        4 => {
            let header = usize::from(packet[0] & 15) * 4;
            let total = usize::from(u16_at(packet, 2).context("a cut header")?);
            ensure!(
                total == packet.len(),
                "total length {total}, {} bytes",
                packet.len()
            );
            let (header, body) = packet.split_at_checked(header).context("a cut header")?;
            ensure!(sum(header) == 0xffff, "wrong IPv4 header checksum");
            if u16_at(header, 6).unwrap_or_default() & 0x3fff != 0 {
                return Ok(());
            }
            (header[9], body, sum(&header[12..20]))
        }
        6 => {
            let (header, body) = packet.split_at_checked(40).context("a cut header")?;
            let length = usize::from(u16_at(header, 4).unwrap_or_default());
            ensure!(
                length == body.len(),
                "payload length {length}, {} bytes",
                body.len()
            );
            (header[6], body, sum(&header[8..40]))
        }
        other => bail!("IP version {other}"),
    };
    let pseudo = match protocol {
        // An IPv6 fragment: its checksum is the whole packet's.
        44 if version == 6 => return Ok(()),
        1 => 0,
        6 | 58 => pseudo,
        17 if u16_at(body, 6) == Some(0) => return Ok(()),
        17 => pseudo,
        other => bail!("protocol {other} was not expected"),
    };
    let pseudo = if protocol == 1 {
        0
    } else {
        u32::from(pseudo) + u32::from(protocol) + u32::try_from(body.len())?
    };
    let total = fold(pseudo + u32::from(sum(body)));
    ensure!(
        total == 0xffff,
        "wrong checksum of protocol {protocol}, {} bytes",
        body.len()
    );
    Ok(())
}

/// The ones' complement sum, RFC 1071.
fn sum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    words.fold(0, |sum, word| fold(u32::from(sum) + word))
}

fn fold(sum: u32) -> u16 {
    let once = (sum >> 16) + (sum & 0xffff);
    // At most 17 bits are left.
    ((once >> 16) + (once & 0xffff)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1071's example, and an IPv4 header seen in the wild.
    #[test]
    fn checksums() {
        assert_eq!(
            sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]),
            0xddf2
        );
        let header = [
            0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8,
            0, 0xc7,
        ];
        assert_eq!(sum(&header), 0xffff);
    }

    #[test]
    fn a_changed_byte_is_noticed() {
        // An ICMP echo request without payload, checksum 0xf7ff - 0 = f7ff for type 8.
        let mut packet = vec![
            0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 8, 0, 0xf7, 0xff, 0,
            0, 0, 0,
        ];
        let checksum = !sum(&packet[..20]);
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        check_packet(&packet).unwrap();
        packet[27] = 1;
        assert!(check_packet(&packet).is_err());
    }
}
