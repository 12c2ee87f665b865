//! Which store: the value of `--store`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::etcd::{Access, Etcd, Secret};
use super::{Error, Store, embedded};

/// How to get into etcd; of no meaning for the embedded store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// Certificate authority of the servers, PEM; the machine's own ones if absent.
    pub ca_file: Option<PathBuf>,
    /// Client certificate, PEM.
    pub cert_file: Option<PathBuf>,
    /// The certificate's key, PEM.
    pub key_file: Option<PathBuf>,
    /// Name and password.
    pub user: Option<(String, Secret)>,
}

/// Opens a store: `embedded` (or nothing) in the folder `data`, `etcd://host:port[,host:port…]`, or `etcds://…` with
/// TLS. etcd is not connected to before it is used.
///
/// # Errors
/// [`Error::Broken`] for anything else, and what [`embedded::open`] and [`Etcd::new`] say.
pub fn open(spec: &str, data: &Path, credentials: Credentials) -> Result<Arc<dyn Store>, Error> {
    Ok(match endpoints(spec)? {
        None => Arc::new(embedded::open(data, embedded::Options::default())?),
        Some(endpoints) => Arc::new(Etcd::new(Access {
            endpoints,
            ca_file: credentials.ca_file,
            cert_file: credentials.cert_file,
            key_file: credentials.key_file,
            user: credentials.user,
        })?),
    })
}

/// The endpoints of etcd; `None` for the embedded store.
fn endpoints(spec: &str) -> Result<Option<Vec<String>>, Error> {
    let (scheme, hosts) = match spec.split_once("://") {
        None if matches!(spec, "" | "embedded") => return Ok(None),
        Some(("etcd", hosts)) => ("http", hosts),
        Some(("etcds", hosts)) => ("https", hosts),
        _ => {
            return Err(Error::Broken(format!(
                "the store {spec:?} is not known: use embedded, etcd://HOST:PORT[,HOST:PORT] or etcds://HOST:PORT"
            )));
        }
    };
    let endpoint = |host: &str| {
        let host = host.trim_end_matches('/');
        let port = host.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
        if !matches!(port, Some(Ok(1..))) || host.contains(['/', '@', '?', '#', ' ']) {
            return Err(Error::Broken(format!(
                "the store {scheme_of}://… names {shown:?}, which is not HOST:PORT",
                scheme_of = if scheme == "http" { "etcd" } else { "etcds" },
                // What stands before @ may be a password.
                shown = host.rsplit('@').next().unwrap_or_default()
            )));
        }
        Ok(format!("{scheme}://{host}"))
    };
    hosts
        .split(',')
        .map(endpoint)
        .collect::<Result<_, _>>()
        .map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_of_store_is_read() {
        assert_eq!(endpoints("").unwrap(), None);
        assert_eq!(endpoints("embedded").unwrap(), None);
        let found = endpoints("etcd://10.0.0.1:2379,[::1]:2379").unwrap();
        assert_eq!(
            found.unwrap(),
            ["http://10.0.0.1:2379", "http://[::1]:2379"]
        );
        let found = endpoints("etcds://etcd.example:2379/").unwrap();
        assert_eq!(found.unwrap(), ["https://etcd.example:2379"]);
    }

    #[test]
    fn other_values_are_refused_by_name() {
        for (spec, named) in [
            ("sqlite", "\"sqlite\""),
            ("http://a:1", "\"http://a:1\""),
            ("etcd://", "\"\""),
            ("etcd://a", "\"a\""),
            ("etcd://a:1,b", "\"b\""),
            ("etcd://a:0", "\"a:0\""),
            ("etcd://a:1/x", "\"a:1/x\""),
        ] {
            let error = endpoints(spec).unwrap_err().to_string();
            assert!(error.contains(named), "{spec}: {error}");
        }
        let error = endpoints("etcd://me:sesame@a:1").unwrap_err().to_string();
        assert!(!error.contains("sesame"), "{error}");
    }
}
