//! The configuration of `portmap`: as written, then checked.

use std::net::IpAddr;

use serde::Deserialize;

use crate::{
    cni::{Call, Error, Result},
    masquerade::Backend,
};

/// Mark bit that means "masquerade", when none is configured (Kubernetes has 14 and 15).
const DEFAULT_MARK_BIT: u32 = 13;

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Written {
    backend: Option<String>,
    snat: Option<bool>,
    conditions_v4: Option<Vec<String>>,
    conditions_v6: Option<Vec<String>>,
    masq_all: bool,
    mark_masq_bit: Option<i64>,
    external_set_mark_chain: Option<String>,
    runtime_config: WrittenRuntime,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct WrittenRuntime {
    port_mappings: Vec<WrittenMapping>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct WrittenMapping {
    host_port: i64,
    container_port: i64,
    protocol: String,
    #[serde(rename = "hostIP")]
    host_ip: String,
}

/// What the operator and the runtime ask for, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Rule language; the one found on the host if none.
    pub backend: Option<Backend>,
    /// Masquerade hairpin and localhost traffic.
    pub snat: bool,
    /// Masquerade whatever comes in through a mapped port (iptables backend).
    pub masq_all: bool,
    /// How the iptables backend marks packets to be masqueraded.
    pub mark: Mark,
    /// Further conditions on forwarded packets, in the backend's language.
    pub conditions_v4: Vec<String>,
    /// The same for IPv6.
    pub conditions_v6: Vec<String>,
    /// The ports.
    pub mappings: Vec<Mapping>,
}

/// How packets to be masqueraded are marked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// By a bit of the packet mark, in chains of our own.
    Bit(u32),
    /// By a chain that someone else keeps (as kube-proxy's KUBE-MARK-MASQ).
    Chain(String),
}

/// One forwarded port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Port on the host.
    pub host_port: u16,
    /// Port in the container.
    pub container_port: u16,
    /// Transport.
    pub protocol: Protocol,
    /// The host's address that it is forwarded from; an unspecified one means all of its family.
    pub host_ip: Option<IpAddr>,
}

/// A transport with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// SCTP
    Sctp,
    /// TCP
    Tcp,
    /// UDP
    Udp,
}

impl Protocol {
    /// Its name in rules.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sctp => "sctp",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Sctp, Self::Tcp, Self::Udp]
            .into_iter()
            .find(|protocol| text.eq_ignore_ascii_case(protocol.as_str()))
    }
}

impl Mapping {
    /// Does it forward packets of this family?
    pub fn applies_to(&self, ipv6: bool) -> bool {
        self.host_ip.is_none_or(|ip| ip.is_ipv6() == ipv6)
    }

    /// The one destination address it is limited to.
    pub fn destination(&self) -> Option<IpAddr> {
        self.host_ip.filter(|ip| !ip.is_unspecified())
    }
}

impl Config {
    /// Reads and checks the network configuration.
    pub fn read(call: &Call) -> Result<Self> {
        call.read::<Written>()?.check()
    }

    /// The ports that an ADD with this configuration may have forwarded, for DEL, which minds no
    /// other option: what was set up must go even where the configuration has become wrong.
    pub fn read_mappings(call: &Call) -> Result<Option<Vec<Mapping>>> {
        #[derive(Deserialize, Default)]
        #[serde(default, rename_all = "camelCase")]
        struct Ports {
            runtime_config: WrittenRuntime,
        }
        let written = call.read::<Ports>()?.runtime_config.port_mappings;
        // No ADD accepted a mapping that is not valid.
        let valid = |mapping: WrittenMapping| mapping.check().ok();
        Ok((!written.is_empty()).then(|| written.into_iter().filter_map(valid).collect()))
    }

    /// The same from a text, for tests.
    #[cfg(test)]
    pub fn parse(json: &[u8]) -> Result<Self> {
        let written: Written =
            crate::cni::json::from_slice(json).map_err(|error| Error::config(error.to_string()))?;
        written.check()
    }

    /// The conditions for one family.
    pub fn conditions(&self, ipv6: bool) -> &[String] {
        if ipv6 {
            &self.conditions_v6
        } else {
            &self.conditions_v4
        }
    }
}

impl Written {
    fn check(self) -> Result<Config> {
        let mark = match (self.mark_masq_bit, self.external_set_mark_chain) {
            (Some(_), Some(_)) => {
                return Err(Error::config(
                    "cannot specify externalSetMarkChain and markMasqBit",
                ));
            }
            (None, Some(chain)) => Mark::Chain(chain),
            (None, None) => Mark::Bit(DEFAULT_MARK_BIT),
            (Some(bit @ 0..=31), None) => Mark::Bit(bit as u32),
            (Some(bit), None) => {
                return Err(Error::config(format!(
                    "markMasqBit {bit} is not between 0 and 31"
                )));
            }
        };
        let backend = match self.backend {
            None => None,
            Some(name) => Some(Backend::parse(&name).ok_or_else(|| {
                Error::config(format!(
                    "unrecognized backend {name:?} (iptables or nftables)"
                ))
            })?),
        };
        let config = Config {
            backend,
            snat: self.snat.unwrap_or(true),
            masq_all: self.masq_all,
            mark,
            conditions_v4: self.conditions_v4.unwrap_or_default(),
            conditions_v6: self.conditions_v6.unwrap_or_default(),
            mappings: self
                .runtime_config
                .port_mappings
                .into_iter()
                .map(WrittenMapping::check)
                .collect::<Result<_>>()?,
        };
        if let Some(backend) = backend {
            config.backend_in_use(|| backend)?;
        }
        Ok(config)
    }
}

impl Config {
    /// The backend to use: the one asked for, else the one whose options are given, else the one
    /// that `detect` finds on the host. Options of the other one are refused.
    pub fn backend_in_use(&self, detect: impl FnOnce() -> Backend) -> Result<Backend> {
        let options = self.options_of_one_backend();
        let backend = self
            .backend
            .or(options.first().map(|(backend, _)| *backend))
            .unwrap_or_else(detect);
        let foreign: Vec<_> = options
            .iter()
            .filter(|(language, _)| *language != backend)
            .map(|(_, name)| *name)
            .collect();
        if foreign.is_empty() {
            return Ok(backend);
        }
        Err(Error::config(format!(
            "{backend:?} backend is in use but these options are for the other one: {}",
            foreign.join(", ")
        )))
    }

    /// The options given that only one backend understands, with that backend.
    fn options_of_one_backend(&self) -> Vec<(Backend, &'static str)> {
        let mut options = Vec::new();
        if matches!(self.mark, Mark::Chain(_)) {
            options.push((Backend::Iptables, "externalSetMarkChain"));
        }
        for (name, conditions) in [
            ("conditionsV4", &self.conditions_v4),
            ("conditionsV6", &self.conditions_v6),
        ] {
            let language = match conditions.first().map(String::as_str) {
                None | Some("") => continue,
                // Every iptables condition starts with an option or its negation, as in
                // `! -s 10.0.0.0/8`; no nftables one does.
                Some(first) if first.starts_with(['-', '!']) => Backend::Iptables,
                Some(_) => Backend::Nftables,
            };
            options.push((language, name));
        }
        options
    }
}

impl WrittenMapping {
    fn check(self) -> Result<Mapping> {
        let port = |name: &str, number: i64| match u16::try_from(number) {
            Ok(port) if port != 0 => Ok(port),
            _ => Err(Error::config(format!(
                "invalid {name} port number: {number}"
            ))),
        };
        Ok(Mapping {
            host_port: port("host", self.host_port)?,
            container_port: port("container", self.container_port)?,
            protocol: Protocol::parse(&self.protocol).ok_or_else(|| {
                Error::config(format!(
                    "invalid protocol {:?} of host port {} (tcp, udp or sctp)",
                    self.protocol, self.host_port
                ))
            })?,
            host_ip: match self.host_ip.as_str() {
                "" => None,
                text => {
                    let ip = text.parse::<IpAddr>().map_err(|_| {
                        Error::config(format!(
                            "invalid hostIP {text:?} of host port {}",
                            self.host_port
                        ))
                    })?;
                    // ::ffff:192.0.2.1 is an IPv4 address.
                    Some(ip.to_canonical())
                }
            },
        })
    }
}

#[cfg(test)]
mod tests;
