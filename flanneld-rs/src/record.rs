//! What the daemon remembers on this host across restarts, beside subnet.env: the configuration it
//! ran with and the lease it last published.
//!
//! With it a node whose address changed while the daemon was down finds its own lease again, and
//! `cleanup` works without the store. Losing the file costs only that.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::NetworkConfig;
use crate::lease::{Lease, LeaseAttrs, key};
use crate::subnet_env::write_atomically;

/// The file's content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The network configuration as it stood in the store.
    pub config: String,
    /// Configurations it ran with before and whose traces it could not remove.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<String>,
    /// The lease's key.
    pub key: String,
    /// The lease's value.
    pub value: String,
    /// The external interface.
    pub interface: String,
}

impl Record {
    /// Where it lies.
    pub fn path(subnet_file: &Path) -> PathBuf {
        let mut name = subnet_file.as_os_str().to_owned();
        name.push(".record");
        PathBuf::from(name)
    }

    /// Reads it; anything unreadable counts as absent.
    pub fn read(subnet_file: &Path) -> Option<Self> {
        let path = Self::path(subnet_file);
        let bytes = std::fs::read(&path).ok()?;
        serde_json::from_slice(&bytes)
            .inspect_err(|error| tracing::warn!("{}: {error}", path.display()))
            .ok()
    }

    /// Writes it.
    pub fn write(&self, subnet_file: &Path) -> std::io::Result<()> {
        let text = serde_json::to_vec(self).map_err(std::io::Error::other)?;
        write_atomically(&Self::path(subnet_file), &text)
    }

    /// The lease last published.
    pub fn lease(&self) -> Option<Lease> {
        Some(Lease {
            subnet: key::parse(&self.key)?,
            attrs: LeaseAttrs::parse(&self.value).ok()?,
        })
    }

    /// The configurations whose traces may be on this host, as text and checked; the last one first.
    pub fn configs(&self) -> Vec<(String, NetworkConfig)> {
        let texts = std::iter::once(&self.config).chain(&self.earlier);
        texts
            .filter_map(|text| Some((text.clone(), NetworkConfig::parse(text).ok()?)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_and_garbage_counts_as_absent() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("subnet.env");
        assert_eq!(Record::read(&file), None);
        let record = Record {
            config: r#"{"Network":"10.3.0.0/16"}"#.to_owned(),
            earlier: vec![r#"{"Network":"10.4.0.0/16"}"#.to_owned()],
            key: "10.3.1.0-24".to_owned(),
            value: r#"{"PublicIP":"10.0.0.1","PublicIPv6":null}"#.to_owned(),
            interface: "eth0".to_owned(),
        };
        record.write(&file).unwrap();
        assert_eq!(Record::read(&file).as_ref(), Some(&record));
        assert_eq!(record.lease().unwrap().subnet.to_string(), "10.3.1.0/24");
        let networks = record.configs().into_iter().map(|(_, c)| c.networks());
        let networks: Vec<String> = networks.map(|nets| nets[0].to_string()).collect();
        assert_eq!(networks, ["10.3.0.0/16", "10.4.0.0/16"]);
        std::fs::write(Record::path(&file), "garbage").unwrap();
        assert_eq!(Record::read(&file), None);
    }
}
