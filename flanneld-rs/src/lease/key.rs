//! A lease's name in the store: `10.5.52.0-24`, or `10.5.52.0-24&2001:cafe:42:1::-64`.
//!
//! An IPv6-only lease carries flannel's empty IPv4 part: `0.0.0.0-0&2001:cafe:42:1::-64`.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use super::Subnet;

/// The last part of the key, below `<prefix>/subnets/`.
pub fn render(subnet: &Subnet) -> String {
    let v4 = subnet.v4.unwrap_or_default();
    let mut key = format!("{}-{}", v4.addr(), v4.prefix_len());
    if let Some(v6) = subnet.v6 {
        key += &format!("&{}-{}", v6.addr(), v6.prefix_len());
    }
    key
}

/// Reads such a name; host bits are dropped. `None` when it names no subnet.
pub fn parse(key: &str) -> Option<Subnet> {
    let (v4, v6) = match key.split_once('&') {
        Some((v4, v6)) => (v4, Some(v6)),
        None => (key, None),
    };
    let v4 = {
        let (addr, len) = part::<Ipv4Addr>(v4)?;
        // flannel reads a length of 5 bits here and 7 below.
        Ipv4Net::new(addr, len)
            .ok()
            .filter(|net| net.prefix_len() < 32)?
            .trunc()
    };
    let v6 = match v6 {
        Some(text) => {
            let (addr, len) = part::<Ipv6Addr>(text)?;
            let net = Ipv6Net::new(addr, len)
                .ok()
                .filter(|net| net.prefix_len() < 128)?;
            Some(net.trunc()).filter(|net| net.prefix_len() > 0)
        }
        None => None,
    };
    let v4 = Some(v4).filter(|net| net.prefix_len() > 0);
    (v4.is_some() || v6.is_some()).then_some(Subnet { v4, v6 })
}

fn part<A: std::str::FromStr>(text: &str) -> Option<(A, u8)> {
    let (addr, len) = text.split_once('-')?;
    if !len.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((addr.parse().ok()?, len.parse().ok()?))
}

#[cfg(test)]
mod tests;
