//! The host's resolv.conf: who answers for names that are not the cluster's (resolv.conf(5)).

use std::net::{IpAddr, SocketAddr, SocketAddrV6};
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
        let server = match server {
            ScopedIp::V4(ip) => SocketAddr::from((ip, 53)),
            ScopedIp::V6(ip, None) => SocketAddr::from((ip, 53)),
            ScopedIp::V6(ip, Some(zone)) => match scope(&zone) {
                Some(scope) => SocketAddr::V6(SocketAddrV6::new(ip, 53, 0, scope)),
                None => {
                    found.complaints.push(format!(
                        "nameserver {ip}%{zone}: there is no interface {zone}"
                    ));
                    continue;
                }
            },
        };
        if !found.nameservers.contains(&server) {
            found.nameservers.push(server);
        }
    }
    found
}

/// The interface of a link-local address, by number or name.
fn scope(zone: &str) -> Option<u32> {
    zone.parse()
        .ok()
        .or_else(|| nix::net::if_::if_nametoindex(zone).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(found: &ResolvConf) -> Vec<String> {
        found.nameservers.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn servers_and_search_come_in_the_order_of_the_file() {
        let found = parse(
            b"# of the host\n\
              nameserver 192.0.2.1\n\
              nameserver 2001:db8::1 ; comment\n\
              nameserver 192.0.2.1\n\
              domain gone.example\n\
              search a.example. b.example\n\
              options ndots:2 edns0\n",
        );
        assert_eq!(servers(&found), ["192.0.2.1:53", "[2001:db8::1]:53"]);
        assert_eq!(found.search, ["a.example", "b.example"]);
        assert_eq!(found.complaints, [""; 0]);
    }

    #[test]
    fn more_than_three_servers_are_kept() {
        let found = parse(
            b"nameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\nnameserver 192.0.2.4\n",
        );
        assert_eq!(found.nameservers.len(), 4);
    }

    #[test]
    fn a_line_that_cannot_be_read_is_passed_over_and_told() {
        let found = parse(b"nameserver 192.0.2.1\nnameserver nowhere\nsearch x.example\n");
        assert_eq!(servers(&found), ["192.0.2.1:53"]);
        assert_eq!(found.search, ["x.example"]);
        assert_eq!(found.complaints.len(), 1, "{:?}", found.complaints);
    }

    #[test]
    fn an_empty_file_names_nobody() {
        assert_eq!(parse(b""), ResolvConf::default());
        assert_eq!(parse(b"\n# nothing\nsearch .\n"), ResolvConf::default());
    }

    #[test]
    fn a_link_local_server_keeps_its_interface() {
        let found = parse(b"nameserver fe80::1%lo\nnameserver fe80::2%nosuch0\n");
        assert_eq!(servers(&found), ["[fe80::1%1]:53"]);
        assert!(
            found.complaints[0].contains("nosuch0"),
            "{:?}",
            found.complaints
        );
    }

    fn both(host: &str, behind: Option<&str>) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let (path, real) = (dir.path().join("host"), dir.path().join("real"));
        std::fs::write(&path, host).unwrap();
        if let Some(text) = behind {
            std::fs::write(&real, text).unwrap();
        }
        servers(&read(&path, &real).unwrap())
    }

    #[test]
    fn behind_the_stub_of_systemd_resolved_are_its_servers() {
        let stub = "nameserver 127.0.0.53\noptions edns0 trust-ad\n";
        assert_eq!(both(stub, Some("nameserver 192.0.2.7\n")), ["192.0.2.7:53"]);
        assert_eq!(both(stub, None), ["127.0.0.53:53"]);
        assert_eq!(both(stub, Some("# none yet\n")), ["127.0.0.53:53"]);
        let more = "nameserver 127.0.0.53\nnameserver 192.0.2.9\n";
        assert_eq!(
            both(more, Some("nameserver 192.0.2.7\n")),
            ["127.0.0.53:53", "192.0.2.9:53"]
        );
    }

    #[test]
    fn a_file_that_is_not_there_is_named_with_the_remedy() {
        let error = read(
            Path::new("/nowhere/resolv.conf"),
            Path::new("/nowhere/real"),
        )
        .unwrap_err()
        .to_string();
        assert!(error.contains("/nowhere/resolv.conf"), "{error}");
        assert!(error.contains("--upstream"), "{error}");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read(text in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            parse(&text);
        }

        #[test]
        fn any_lines_are_read(text in "((nameserver|search|domain|options|sortlist) [ a-z0-9.:%/]{0,40}\n){0,8}") {
            let found = parse(text.as_bytes());
            let servers: std::collections::BTreeSet<_> = found.nameservers.iter().collect();
            proptest::prop_assert_eq!(servers.len(), found.nameservers.len());
        }
    }
}
