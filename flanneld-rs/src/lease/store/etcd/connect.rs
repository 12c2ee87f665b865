//! How etcd is reached: endpoints, TLS, user. Secrets are kept out of every text.

use std::error::Error as _;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};

use super::Error;

/// A text that never shows itself.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps it.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// True when empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "\"\"" } else { "\"***\"" })
    }
}

/// flannel's `--etcd-*` options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// `http://host:port`, `https://host:port` or `host:port`.
    pub endpoints: Vec<String>,
    /// Key prefix in clean form: no slash at its end, except for `/` itself; may be empty.
    pub prefix: String,
    /// Client key, PEM.
    pub key_file: Option<PathBuf>,
    /// Client certificate, PEM.
    pub cert_file: Option<PathBuf>,
    /// Certificate authority of the servers, PEM.
    pub ca_file: Option<PathBuf>,
    /// User name; empty for none.
    pub username: String,
    /// Password.
    pub password: Secret,
}

impl Access {
    /// The full key of `name` below the prefix.
    pub fn key(&self, name: &str) -> String {
        match self.prefix.as_str() {
            "" => name.to_owned(),
            prefix if prefix.ends_with('/') => format!("{prefix}{name}"),
            prefix => format!("{prefix}/{name}"),
        }
    }

    /// Opens a client on the endpoint at this place in the list.
    pub(super) async fn connect(&self, at: usize) -> Result<Client, Error> {
        let Some(endpoint) = self.endpoints.get(at) else {
            return Err(Error::Refused("no etcd endpoint is given".to_owned()));
        };
        let what = format!("connect to etcd at {}", without_user(endpoint));
        let mut options = ConnectOptions::new()
            .with_connect_timeout(Duration::from_secs(2))
            // A server that vanished without a word is noticed within 15 s.
            .with_keep_alive(Duration::from_secs(10), Duration::from_secs(5))
            .with_keep_alive_while_idle(true)
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        if !self.username.is_empty() {
            options = options.with_user(self.username.clone(), self.password.0.clone());
        }
        if !endpoint.starts_with("http://")
            && let Some(tls) = self.tls(endpoint.starts_with("https://")).await?
        {
            options = options.with_tls(tls);
        }
        Client::connect([endpoint], Some(options))
            .await
            .map_err(|error| translate(&what, &error))
    }

    /// An endpoint for the log.
    pub(super) fn endpoint(&self, at: usize) -> String {
        self.endpoints
            .get(at)
            .map(|endpoint| without_user(endpoint))
            .unwrap_or_default()
    }

    /// Files are read on every connect, so renewed certificates are taken up. An endpoint without a
    /// scheme is `secure` when a client certificate or an authority is given.
    async fn tls(&self, secure: bool) -> Result<Option<TlsOptions>, Error> {
        let read = |path: PathBuf| async move {
            std::fs::read(&path)
                .map_err(|error| Error::Unavailable(format!("read {}: {error}", path.display())))
        };
        let mut tls = TlsOptions::new();
        tls = match self.ca_file.clone() {
            Some(ca) => tls.ca_certificate(Certificate::from_pem(read(ca).await?)),
            None => tls.with_native_roots(),
        };
        if let (Some(cert), Some(key)) = (self.cert_file.clone(), self.key_file.clone()) {
            tls = tls.identity(Identity::from_pem(read(cert).await?, read(key).await?));
        } else if !secure && self.ca_file.is_none() {
            return Ok(None);
        }
        Ok(Some(tls))
    }
}

/// An endpoint for the log: whatever stands before `@` is left out.
fn without_user(endpoint: &str) -> String {
    match endpoint.rsplit_once('@') {
        Some((before, host)) => {
            let scheme = before.find("://").map_or("", |at| &before[..at + 3]);
            format!("{scheme}{host}")
        }
        None => endpoint.to_owned(),
    }
}

/// One line: what was tried and the innermost cause.
pub(super) fn translate(what: &str, error: &etcd_client::Error) -> Error {
    use etcd_client::Error as E;
    match error {
        E::GRpcStatus(status) => {
            let mut cause = status.message().to_owned();
            let mut source = status.source();
            while let Some(inner) = source {
                cause = inner.to_string();
                source = inner.source();
            }
            let text = format!("{what}: {cause}");
            match i32::from(status.code()) {
                // OUT_OF_RANGE is etcd's answer for a compacted revision.
                11 => Error::Compacted(text),
                // INVALID_ARGUMENT, NOT_FOUND, ALREADY_EXISTS, PERMISSION_DENIED, RESOURCE_EXHAUSTED
                // (no space left in etcd's quota), FAILED_PRECONDITION, UNIMPLEMENTED.
                3 | 5..=9 | 12 => Error::Refused(text),
                _ => Error::Unavailable(text),
            }
        }
        E::TransportError(transport) => {
            let mut cause = transport.to_string();
            let mut source = transport.source();
            while let Some(inner) = source {
                cause = inner.to_string();
                source = inner.source();
            }
            Error::Unavailable(format!("{what}: {cause}"))
        }
        E::InvalidArgs(_) | E::InvalidUri(_) => Error::Refused(format!("{what}: {error}")),
        other => Error::Unavailable(format!("{what}: {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_shows_in_no_debug_text_and_no_endpoint() {
        let access = Access {
            endpoints: vec!["http://me:sesame@10.0.0.1:2379".to_owned()],
            password: Secret::new("sesame"),
            ..Access::default()
        };
        assert!(!format!("{:?}", access.password).contains("sesame"));
        assert_eq!(without_user(&access.endpoints[0]), "http://10.0.0.1:2379");
        assert_eq!(without_user("10.0.0.1:2379"), "10.0.0.1:2379");
    }
}
