//! subnet.env: what the CNI plugin reads, and from which a restarted daemon learns its last subnet.

use std::io::Write;
use std::net::IpAddr;
use std::path::Path;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::config::NetworkConfig;
use crate::lease::Subnet;

/// The file's content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubnetEnv {
    /// FLANNEL_NETWORK.
    pub network_v4: Option<Ipv4Net>,
    /// FLANNEL_IPV6_NETWORK.
    pub network_v6: Option<Ipv6Net>,
    /// FLANNEL_SUBNET and FLANNEL_IPV6_SUBNET, host bits dropped.
    pub subnet: Option<Subnet>,
    /// FLANNEL_MTU.
    pub mtu: Option<u32>,
    /// FLANNEL_IPMASQ.
    pub masquerade: bool,
}

impl SubnetEnv {
    /// What to write for this lease.
    pub fn new(config: &NetworkConfig, subnet: Subnet, mtu: u32, masquerade: bool) -> Self {
        Self {
            network_v4: config.v4.and_then(|range| {
                if let IpNet::V4(net) = range.network {
                    Some(net)
                } else {
                    None
                }
            }),
            network_v6: config.v6.and_then(|range| {
                if let IpNet::V6(net) = range.network {
                    Some(net)
                } else {
                    None
                }
            }),
            subnet: Some(subnet),
            mtu: Some(mtu),
            masquerade,
        }
    }

    /// Reads the text; lines it does not know or cannot use are skipped, as they only cost the reuse
    /// of the last subnet.
    pub fn parse(text: &str) -> Self {
        let mut env = Self::default();
        let (mut v4, mut v6) = (None, None);
        for line in text.lines() {
            let Some((key, value)) = line.split_once('=') else {
                continue;
            };
            // A list of networks, as in Kubernetes mode, starts with the main one.
            let first = value.trim().split(',').next().unwrap_or_default();
            match key.trim() {
                "FLANNEL_NETWORK" => env.network_v4 = first.parse().ok(),
                "FLANNEL_IPV6_NETWORK" => env.network_v6 = first.parse().ok(),
                "FLANNEL_SUBNET" => v4 = first.parse::<Ipv4Net>().ok().map(|net| net.trunc()),
                "FLANNEL_IPV6_SUBNET" => v6 = first.parse::<Ipv6Net>().ok().map(|net| net.trunc()),
                "FLANNEL_MTU" => env.mtu = first.parse().ok(),
                "FLANNEL_IPMASQ" => env.masquerade = first == "true",
                _ => {}
            }
        }
        env.subnet = (v4.is_some() || v6.is_some()).then_some(Subnet { v4, v6 });
        env
    }

    /// The text, in flannel's order; a subnet is written with its first host address.
    pub fn render(&self) -> String {
        let mut out = String::new();
        let mut family = |key: &str, network: Option<IpNet>, subnet: Option<IpNet>| {
            if let (Some(network), Some(subnet)) = (network, subnet) {
                out += &format!("FLANNEL_{key}NETWORK={network}\n");
                out += &format!(
                    "FLANNEL_{key}SUBNET={}/{}\n",
                    first_host(subnet),
                    subnet.prefix_len()
                );
            }
        };
        let subnet = self.subnet.unwrap_or(Subnet { v4: None, v6: None });
        family("", self.network_v4.map(IpNet::V4), subnet.v4.map(IpNet::V4));
        family(
            "IPV6_",
            self.network_v6.map(IpNet::V6),
            subnet.v6.map(IpNet::V6),
        );
        out += &format!(
            "FLANNEL_MTU={}\nFLANNEL_IPMASQ={}\n",
            self.mtu.unwrap_or_default(),
            self.masquerade
        );
        out
    }

    /// The file at `path`; `None` when there is none.
    pub fn read(path: &Path) -> std::io::Result<Option<Self>> {
        match std::fs::read(path) {
            Ok(bytes) => Ok(Some(Self::parse(&String::from_utf8_lossy(&bytes)))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Puts the file in place in one step; makes its folder. False when it already says this.
    pub fn write(&self, path: &Path) -> std::io::Result<bool> {
        let text = self.render();
        if std::fs::read(path).is_ok_and(|present| present == text.as_bytes()) {
            return Ok(false);
        }
        write_atomically(path, text.as_bytes())?;
        Ok(true)
    }
}

/// Writes `path` by way of a temporary file beside it; mode 0644, folder 0755.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
    let dir = path
        .parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(dir)?;
    let name = path.file_name().ok_or(std::io::ErrorKind::InvalidInput)?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    let temporary = dir.join(temporary);
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o644)
        .open(&temporary)?;
    file.write_all(bytes)?;
    // The umask must not hide the file from the plugin.
    file.set_permissions(std::fs::Permissions::from_mode(0o644))?;
    std::fs::rename(&temporary, path)
}

fn first_host(net: IpNet) -> IpAddr {
    match net.network() {
        IpAddr::V4(ip) => IpAddr::V4(ip.to_bits().saturating_add(1).into()),
        IpAddr::V6(ip) => IpAddr::V6(ip.to_bits().saturating_add(1).into()),
    }
}

#[cfg(test)]
mod tests;
