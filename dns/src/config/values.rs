//! Values of settings, as written.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use hickory_proto::rr::Name;
use serde::{Deserialize, Deserializer, de::Error as _};

use super::PORT;
use crate::zone::PodMode;

/// Where objects come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A Kubernetes API server.
    Kube,
    /// A folder of manifests.
    Folder(PathBuf),
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "kube" => Ok(Self::Kube),
            Some(("dir", path)) if !path.is_empty() => Ok(Self::Folder(path.into())),
            _ => Err("kube or dir:PATH is wanted".to_owned()),
        }
    }
}

/// Servers of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stub {
    /// The domain.
    pub domain: Name,
    /// Its servers; at least one.
    pub servers: Vec<SocketAddr>,
}

impl FromStr for Stub {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, servers) = text
            .split_once('=')
            .ok_or("DOMAIN=ADDRESS[:PORT] is wanted")?;
        let servers = servers.split(',').map(server).collect::<Result<_, _>>()?;
        Ok(Self {
            domain: domain(name)?,
            servers,
        })
    }
}

/// A domain: absolute, with or without the dot at its end, and not the root.
pub(super) fn domain(text: &str) -> Result<Name, String> {
    let mut name =
        Name::from_ascii(text).map_err(|error| format!("{text:?} is no domain: {error}"))?;
    name.set_fqdn(true);
    if name.is_root() {
        return Err(format!("{text:?} is no domain"));
    }
    Ok(name.to_lowercase())
}

/// A server: an address, and its port if it is not 53.
pub(super) fn server(text: &str) -> Result<SocketAddr, String> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, PORT));
    }
    text.parse()
        .map_err(|_| format!("{text:?} is not ADDRESS or ADDRESS:PORT"))
}

pub(super) fn pod_mode(text: &str) -> Result<PodMode, String> {
    match text {
        "disabled" => Ok(PodMode::Disabled),
        "insecure" => Ok(PodMode::Insecure),
        "verified" => Ok(PodMode::Verified),
        _ => Err("disabled, insecure or verified is wanted".to_owned()),
    }
}

/// A number and a unit, as `90s`, `5m`, `1h`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration; 90s, 5m or 1h are");
    let end = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(end);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(wrong()),
    };
    number
        .checked_mul(seconds)
        .map(Duration::from_secs)
        .ok_or_else(wrong)
}

/// By its [`FromStr`].
macro_rules! from_text {
    ($kind:ty) => {
        impl<'de> Deserialize<'de> for $kind {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse()
                    .map_err(|why| D::Error::custom(format!("{text:?}: {why}")))
            }
        }
    };
}

from_text!(Origin);
from_text!(Stub);

pub(super) fn written_pod_mode<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<PodMode>, D::Error> {
    let text = String::deserialize(deserializer)?;
    pod_mode(&text).map(Some).map_err(D::Error::custom)
}

pub(super) fn written_duration<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    duration(&text).map(Some).map_err(D::Error::custom)
}

pub(super) fn written_servers<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<SocketAddr>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    let servers = texts.iter().map(|text| server(text));
    servers.collect::<Result<_, _>>().map_err(D::Error::custom)
}
