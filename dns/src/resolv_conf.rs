//! The host's resolv.conf: who answers for names that are not the cluster's (resolv.conf(5)).

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use resolv_conf::{Config, ScopedIp};

/// Where hosts have it.
pub const HOST: &str = "/etc/resolv.conf";

/// The servers behind systemd-resolved, whose stub 127.0.0.53 is nothing but an extra hop (systemd-resolved.service(8)).
pub const BEHIND_RESOLVED: &str = "/run/systemd/resolve/resolv.conf";

/// The addresses on which systemd-resolved listens for the host.
const RESOLVED: [[u8; 4]; 2] = [[127, 0, 0, 53], [127, 0, 0, 54]];

/// What a resolv.conf says, as far as forwarding needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// Servers, port 53, in the file's order, each once.
    pub nameservers: Vec<SocketAddr>,
    /// Domains that names are completed with.
    pub search: Vec<String>,
    /// Lines that were passed over, and why.
    pub complaints: Vec<String>,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
#[error("reading {path}: {source}; name servers with --upstream")]
pub struct Error {
    path: PathBuf,
    source: std::io::Error,
}

/// Reads the file at `path`. If it names systemd-resolved's stub and nobody else, and the file `behind`
/// ([`BEHIND_RESOLVED`]) can be read and names servers, then its servers, as a kubelet of kubeadm has it.
pub fn read(path: &Path, behind: &Path) -> Result<ResolvConf, Error> {
    let text = std::fs::read(path).map_err(|source| Error {
        path: path.to_owned(),
        source,
    })?;
    let found = parse(&text);
    if found.is_resolved()
        && let Ok(text) = std::fs::read(behind)
    {
        let real = parse(&text);
        if !real.nameservers.is_empty() && !real.is_resolved() {
            return Ok(real);
        }
    }
    Ok(found)
}

impl ResolvConf {
    /// Whether it names systemd-resolved's stub and nobody else.
    fn is_resolved(&self) -> bool {
        !self.nameservers.is_empty()
            && self.nameservers.iter().all(
                |server| matches!(server.ip(), IpAddr::V4(ip) if RESOLVED.contains(&ip.octets())),
            )
    }
}

/// Reads a text. Lines that cannot be read are complaints, as a resolver passes over them. Of several `search` and
/// `domain` lines the last counts.
pub fn parse(text: &[u8]) -> ResolvConf {
    let (config, errors) = Config::parse_with_errors(text);
    let mut found = ResolvConf {
        nameservers: Vec::new(),
        search: config
            .get_last_search_or_domain()
            .map(|domain| domain.trim_end_matches('.').to_owned())
            .filter(|domain| !domain.is_empty())
            .collect(),
        complaints: errors.iter().map(ToString::to_string).collect(),
    };
    for server in config.nameservers {
        let ip = match server {
            ScopedIp::V4(ip) => IpAddr::V4(ip),
            ScopedIp::V6(ip, None) => IpAddr::V6(ip),
            ScopedIp::V6(ip, Some(zone)) => {
                found.complaints.push(format!(
                    "nameserver {ip}%{zone}: a link-local server is not asked; name one of a wider scope"
                ));
                continue;
            }
        };
        let server = SocketAddr::new(ip, 53);
        if !found.nameservers.contains(&server) {
            found.nameservers.push(server);
        }
    }
    found
}
