//! Who has a port: for the error of someone who wants it too.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The program and process that has the address, or all addresses, with this port, as `dnsmasq (pid 42)`. None if that cannot
/// be found out: another user's processes are only visible to root.
pub fn of(address: SocketAddr, protocol: &str) -> Option<String> {
    let inodes: Vec<u64> = [protocol.to_owned(), format!("{protocol}6")]
        .iter()
        .filter_map(|table| fs::read_to_string(format!("/proc/net/{table}")).ok())
        .flat_map(|text| {
            text.lines()
                .skip(1)
                .filter_map(|line| inode_of(line, address))
                .collect::<Vec<_>>()
        })
        .collect();
    let wanted: Vec<String> = inodes
        .iter()
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    let processes = fs::read_dir("/proc").ok()?;
    for process in processes.flatten() {
        let Some(pid) = process
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        let Ok(files) = fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        let links = files
            .flatten()
            .filter_map(|file| fs::read_link(file.path()).ok());
        if links.into_iter().any(|link| {
            wanted
                .iter()
                .any(|wanted| link.as_os_str() == wanted.as_str())
        }) {
            let name = fs::read_to_string(process.path().join("comm")).ok()?;
            return Some(format!("{} (pid {pid})", name.trim()));
        }
    }
    None
}

/// The inode of the socket in a line of `/proc/net/udp` or its like (proc(5)), if it is in the way of `address`.
fn inode_of(line: &str, address: SocketAddr) -> Option<u64> {
    const LISTEN: &str = "0A";
    const UNCONNECTED: &str = "07";
    let mut fields = line.split_whitespace();
    let (local, port) = fields.nth(1)?.split_once(':')?;
    let state = fields.nth(1)?;
    let inode = fields.nth(5)?.parse().ok()?;
    let local = parse_address(local)?;
    let in_the_way = local.is_unspecified()
        || local.to_canonical() == address.ip()
        || address.ip().is_unspecified();
    let same_port = u16::from_str_radix(port, 16).ok()? == address.port();
    (in_the_way && same_port && [LISTEN, UNCONNECTED].contains(&state)).then_some(inode)
}

/// An address as the kernel prints it: words of 32 bits in the host's order.
fn parse_address(text: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        Some(
            u32::from_str_radix(text.get(at * 8..at * 8 + 8)?, 16)
                .ok()?
                .to_ne_bytes(),
        )
    };
    match text.len() {
        8 => Some(IpAddr::V4(Ipv4Addr::from(word(0)?))),
        32 => {
            let mut octets = [0; 16];
            for (at, chunk) in octets.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(at)?);
            }
            Some(IpAddr::V6(Ipv6Addr::from(octets)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_endian = "little")]
    #[test]
    fn a_line_names_its_socket_if_that_is_in_the_way() {
        let line = "  123: 3500007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000   101        0 4711 2 0000000000000000 0";
        assert_eq!(inode_of(line, "127.0.0.53:53".parse().unwrap()), Some(4711));
        assert_eq!(inode_of(line, "0.0.0.0:53".parse().unwrap()), Some(4711));
        assert_eq!(inode_of(line, "127.0.0.1:53".parse().unwrap()), None);
        assert_eq!(inode_of(line, "127.0.0.53:54".parse().unwrap()), None);
        let any = "  1: 00000000000000000000000000000000:0035 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12 1 0 100 0 0 10 0";
        assert_eq!(inode_of(any, "[fd00::1]:53".parse().unwrap()), Some(12));
        assert_eq!(inode_of("nonsense", "127.0.0.1:53".parse().unwrap()), None);
        assert_eq!(inode_of("", "127.0.0.1:53".parse().unwrap()), None);
    }
}
