//! A lease's value: flannel's JSON, byte for byte when written, tolerant when read.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::config::folded::Folded;

/// What a node announces to its peers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseAttrs {
    /// The address peers send to; also the identity by which a node finds its own lease again.
    pub public_ip: Option<Ipv4Addr>,
    /// The same for IPv6.
    pub public_ipv6: Option<Ipv6Addr>,
    /// `vxlan`, `host-gw`, `extension` …; empty for `udp` and `alloc`, as flannel has it.
    pub backend_type: String,
    /// The backend's own data for IPv4.
    pub backend_data: Option<BackendData>,
    /// The backend's own data for IPv6.
    pub backend_v6_data: Option<BackendData>,
}

/// A JSON text without insignificant blanks, kept as written otherwise (member order matters to flannel).
#[derive(Clone, PartialEq, Eq)]
pub struct BackendData(Box<str>);

/// Why a lease value is unusable.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not JSON, or not an object.
    #[error("not a JSON object: {0}")]
    Json(#[source] serde_json::Error),
    /// A member has the wrong type.
    #[error("{key}: {cause}")]
    Member {
        /// The member.
        key: &'static str,
        /// What serde says.
        cause: String,
    },
}

impl BackendData {
    /// Takes any JSON text; the caller has checked that it is JSON.
    fn from_raw(raw: &RawValue) -> Self {
        Self(compact(raw.get()).into())
    }

    /// Reads a text that may not be JSON.
    pub fn read(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str::<&RawValue>(text).map(Self::from_raw)
    }

    /// Makes the data from a value; members keep the order of the struct's fields.
    pub fn new<T: serde::Serialize>(value: &T) -> Self {
        // A struct of numbers and strings always serialises; an empty text would be left out.
        Self(escape_html(&serde_json::to_string(value).unwrap_or_default()).into())
    }

    /// Reads it into the backend's own type.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(&self.0)
    }

    /// The JSON text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for BackendData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl LeaseAttrs {
    /// Reads a stored value. Key case is ignored and unknown members are dropped, as flannel does.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let members: Folded = serde_json::from_str(text).map_err(Error::Json)?;
        let public_ip: Option<Ipv4Addr> = member(&members, "PublicIP")?;
        let public_ipv6: Option<Ipv6Addr> = member(&members, "PublicIPv6")?;
        let data = |key| {
            members
                .raw(key)
                .filter(|raw| raw.get() != "null")
                .map(BackendData::from_raw)
        };
        Ok(Self {
            public_ip: public_ip.filter(|ip| !ip.is_unspecified()),
            public_ipv6: public_ipv6.filter(|ip| !ip.is_unspecified()),
            backend_type: member(&members, "BackendType")?.unwrap_or_default(),
            backend_data: data("BackendData"),
            backend_v6_data: data("BackendV6Data"),
        })
    }

    /// The value as flannel writes it: both addresses always, the other members only when set.
    pub fn to_json(&self) -> String {
        let v4 = self.public_ip.unwrap_or(Ipv4Addr::UNSPECIFIED);
        let v6 = self
            .public_ipv6
            .map_or_else(|| "null".to_owned(), |ip| format!("\"{ip}\""));
        let mut out = format!("{{\"PublicIP\":\"{v4}\",\"PublicIPv6\":{v6}");
        if !self.backend_type.is_empty() {
            let text = serde_json::Value::from(self.backend_type.as_str()).to_string();
            out += &format!(",\"BackendType\":{}", escape_html(&text));
        }
        for (key, data) in [
            ("BackendData", &self.backend_data),
            ("BackendV6Data", &self.backend_v6_data),
        ] {
            if let Some(data) = data.as_ref().filter(|data| !data.0.is_empty()) {
                out += &format!(",\"{key}\":{}", escape_html(&data.0));
            }
        }
        out.push('}');
        out
    }
}

fn member<'a, T: Deserialize<'a>>(
    members: &'a Folded,
    key: &'static str,
) -> Result<Option<T>, Error> {
    members.get(key).map_err(|cause| Error::Member {
        key,
        cause: cause.to_string(),
    })
}

/// Drops blanks outside strings.
fn compact(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let (mut in_string, mut escaped) = (false, false);
    for c in json.chars() {
        if in_string {
            out.push(c);
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => in_string = false,
                _ => {}
            }
        } else if !c.is_ascii_whitespace() {
            in_string = c == '"';
            out.push(c);
        }
    }
    out
}

/// Go's `json.Marshal` escapes these five inside strings; they cannot occur outside one.
fn escape_html(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => out += &format!("\\u{:04x}", c as u32),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests;
