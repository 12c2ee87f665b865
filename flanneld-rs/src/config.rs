//! The network configuration all nodes share (`<prefix>/config`): flannel's JSON, checked once.

pub mod backend;
pub mod folded;
pub mod range;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

pub use backend::BackendConfig;
use folded::Folded;
pub use range::SubnetRange;

/// A checked configuration: at least one family is present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkConfig {
    /// The IPv4 network and how it is cut; `None` when IPv4 is off.
    pub v4: Option<SubnetRange>,
    /// The IPv6 network and how it is cut; `None` when IPv6 is off.
    pub v6: Option<SubnetRange>,
    /// Masquerade and forward rules by nftables rather than iptables.
    pub nftables: bool,
    /// The backend and its own keys.
    pub backend: BackendConfig,
}

/// Why a configuration is refused; the texts about ranges are flannel's own.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not JSON, or not an object.
    #[error("network config is not a JSON object: {0}")]
    Json(#[source] serde_json::Error),
    /// A key has a value of the wrong type.
    #[error("network config: {key}: {cause}")]
    Key {
        /// The key as documented.
        key: &'static str,
        /// What is wrong with it.
        cause: String,
    },
    /// A range does not fit.
    #[error("network config: {0}")]
    Range(String),
    /// `EnableIPv4` and `EnableIPv6` are both false.
    #[error("network config: neither EnableIPv4 nor EnableIPv6 is set")]
    NoFamily,
    /// No backend of that name.
    #[error("network config: Backend: {0}")]
    Backend(String),
    /// `--data-path` does not suit the backend.
    #[error("--data-path: {0}")]
    DataPath(String),
}

impl NetworkConfig {
    /// Parses and checks.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let raw: Folded = serde_json::from_str(text).map_err(Error::Json)?;
        let flag = |key, default| get(&raw, key).map(|value| value.unwrap_or(default));
        let enable_v4: bool = flag("EnableIPv4", true)?;
        let enable_v6: bool = flag("EnableIPv6", false)?;
        let nftables = flag("EnableNFTables", false)?;
        let v4 = range::Wanted::<Ipv4Net>::read(&raw)?;
        let v6 = range::Wanted::<Ipv6Net>::read(&raw)?;
        if !enable_v4 && !enable_v6 {
            return Err(Error::NoFamily);
        }
        Ok(Self {
            v4: if enable_v4 { Some(v4.check()?) } else { None },
            v6: if enable_v6 { Some(v6.check()?) } else { None },
            nftables,
            backend: BackendConfig::parse(raw.raw("Backend"))?,
        })
    }
}

impl NetworkConfig {
    /// The same with this node's own choice of data path, if it has one.
    pub fn with_data_path(mut self, name: Option<&str>) -> Result<Self, Error> {
        if let Some(name) = name {
            self.backend = self.backend.with_data_path(name).map_err(Error::DataPath)?;
        }
        Ok(self)
    }

    /// The networks, IPv4 first.
    pub fn networks(&self) -> Vec<IpNet> {
        self.v4
            .iter()
            .chain(&self.v6)
            .map(|range| range.network)
            .collect()
    }
}

fn get<'a, T: serde::Deserialize<'a>>(
    raw: &'a Folded,
    key: &'static str,
) -> Result<Option<T>, Error> {
    raw.get(key).map_err(|cause| Error::Key {
        key,
        cause: cause.to_string(),
    })
}

#[cfg(test)]
mod tests;
