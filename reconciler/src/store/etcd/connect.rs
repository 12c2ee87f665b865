//! How etcd is reached: endpoints, TLS, user.

use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use etcd_client::{
    Certificate, Client, ConnectOptions, Identity, KvClient, TlsOptions, WatchClient,
};
use tokio::time::{Instant, timeout_at};

use super::error::{Failure, translate};
use crate::store::Error;

/// For the TCP and TLS handshakes.
const CONNECT: Duration = Duration::from_secs(2);

/// A text that never shows itself.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps it.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Where etcd is and as whom it is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// `http://10.0.0.1:2379` or `https://…`, all members of one cluster.
    pub endpoints: Vec<String>,
    /// Certificate authority of the servers, PEM; the machine's own ones if absent.
    pub ca_file: Option<PathBuf>,
    /// Client certificate, PEM.
    pub cert_file: Option<PathBuf>,
    /// The certificate's key, PEM.
    pub key_file: Option<PathBuf>,
    /// Name and password.
    pub user: Option<(String, Secret)>,
}

/// The endpoint in use.
pub(super) struct Connection {
    access: Access,
    current: Mutex<Current>,
}

#[derive(Default)]
struct Current {
    client: Option<Client>,
    /// Counts failures; the endpoint is this one modulo their number.
    failures: usize,
}

impl Connection {
    pub(super) fn new(access: Access) -> Result<Self, Error> {
        if access.endpoints.is_empty() {
            return Err(Error::Broken("no etcd endpoint is given".to_owned()));
        }
        if access.cert_file.is_some() != access.key_file.is_some() {
            return Err(Error::Broken(
                "a client certificate for etcd needs its key and the key its certificate"
                    .to_owned(),
            ));
        }
        Ok(Self {
            access,
            current: Mutex::default(),
        })
    }

    /// Runs a request on the endpoint in use. After a failure of the connection the next call uses the next one.
    pub(super) async fn attempt<T, F>(
        &self,
        what: &str,
        limit: Instant,
        request: impl FnOnce(Client) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let (client, failures) = {
            let current = self.lock();
            (current.client.clone(), current.failures)
        };
        let endpoint = self.endpoint(failures);
        let what = format!("{what} etcd at {endpoint}");
        let run = async {
            let client = match client {
                Some(client) => client,
                None => self.connect(failures).await?,
            };
            request(client)
                .await
                .map_err(|error| translate(&what, &error))
        };
        let done = timeout_at(limit, run)
            .await
            .unwrap_or_else(|_| Err(Failure::Silent(format!("{what}: no answer in time"))));
        if matches!(&done, Err(failure) if failure.is_away()) {
            self.failed(failures);
        }
        done
    }

    /// Leaves the endpoint, if nobody else has.
    fn failed(&self, failures: usize) {
        let mut current = self.lock();
        if current.failures == failures {
            current.failures = failures.wrapping_add(1);
            current.client = None;
        }
    }

    /// Drops the connection.
    pub(super) fn forget(&self) {
        self.lock().client = None;
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn endpoint(&self, failures: usize) -> &str {
        let at = failures % self.access.endpoints.len().max(1);
        self.access.endpoints.get(at).map_or("", String::as_str)
    }

    /// Files are read on every connect, so renewed certificates are taken up.
    async fn connect(&self, failures: usize) -> Result<Client, Failure> {
        let endpoint = self.endpoint(failures);
        let what = format!("connect to etcd at {endpoint}");
        let mut options = ConnectOptions::new()
            .with_connect_timeout(CONNECT)
            // A server that vanished without a word is noticed within 15 s, also by watches.
            .with_keep_alive(Duration::from_secs(10), Duration::from_secs(5))
            .with_keep_alive_while_idle(true)
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        if let Some((name, Secret(password))) = &self.access.user {
            options = options.with_user(name, password);
        }
        if endpoint.starts_with("https://") {
            options = options.with_tls(self.tls()?);
        }
        let client = Client::connect([endpoint], Some(options))
            .await
            .map_err(|error| translate(&what, &error))?;
        let mut current = self.lock();
        if current.failures == failures {
            current.client = Some(client.clone());
        }
        Ok(client)
    }

    fn tls(&self) -> Result<TlsOptions, Failure> {
        let tls = TlsOptions::new();
        let tls = match &self.access.ca_file {
            Some(ca) => tls.ca_certificate(Certificate::from_pem(read(ca)?)),
            None => tls.with_native_roots(),
        };
        Ok(match (&self.access.cert_file, &self.access.key_file) {
            (Some(cert), Some(key)) => tls.identity(Identity::from_pem(read(cert)?, read(key)?)),
            _ => tls,
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path)
        .map_err(|error| Failure::Refused(format!("read {} for etcd: {error}", path.display())))
}

/// For reads and writes. tonic's limit of 4 MB for an answer is less than a page of large objects.
pub(super) fn kv(client: &Client) -> KvClient {
    client.kv_client().max_decoding_message_size(usize::MAX)
}

/// For watches.
pub(super) fn watch(client: &Client) -> WatchClient {
    client.watch_client().max_decoding_message_size(usize::MAX)
}
