//! Addresses and networks as Kubernetes writes them.

use std::net::IpAddr;

use ipnet::IpNet;

/// An address that can be a front or an endpoint: not unspecified, not multicast, not broadcast. An
/// IPv4-mapped IPv6 address is the IPv4 address, as it is for Go. The error is the cause alone.
pub fn parse_ip(text: &str) -> Result<IpAddr, String> {
    let ip: IpAddr = text
        .trim()
        .parse()
        .map_err(|_| format!("{text:?} is not an IP address"))?;
    let ip = ip.to_canonical();
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    if ip.is_unspecified() || ip.is_multicast() || broadcast {
        return Err(format!("{ip} is not the address of one host"));
    }
    Ok(ip)
}

/// A network; spaces around it and bits behind the prefix do not matter. The error is the cause
/// alone.
pub fn parse_net(text: &str) -> Result<IpNet, String> {
    let net: IpNet = text
        .trim()
        .parse()
        .map_err(|_| format!("{text:?} is not a network like 192.0.2.0/24"))?;
    Ok(net.trunc())
}
