//! Leases in etcd v3, in flannel's layout: `<prefix>/config` and `<prefix>/subnets/<key>`.
//!
//! Whether a key is a reservation is told by its lease number (0), so no TimeToLive call is ever
//! made. One endpoint is used at a time; a transport failure moves on to the next one.

mod connect;
mod watch;

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use etcd_client::{
    Client, Compare, CompareOp, DeleteOptions, GetOptions, KeyValue, PutOptions, ResponseHeader,
    Txn, TxnOp,
};

use super::{Entry, Error, LeaseStore, Listing, Probe, Written};
use crate::lease::{Lease, LeaseAttrs, Subnet, key};
use crate::metrics::Metrics;

pub use connect::{Access, Secret};
pub use watch::EtcdWatch;

/// Longest wait for one answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Entries fetched by one request.
const PAGE: i64 = 1000;

/// A handle on one etcd cluster.
pub struct EtcdStore {
    access: Access,
    metrics: Arc<Metrics>,
    connection: Mutex<Connection>,
}

/// The endpoint in use.
#[derive(Default)]
struct Connection {
    client: Option<Client>,
    endpoint: usize,
}

impl EtcdStore {
    /// Connects only when first used.
    pub fn new(access: Access, metrics: Arc<Metrics>) -> Self {
        Self {
            access,
            metrics,
            connection: Mutex::default(),
        }
    }

    fn config_key(&self) -> String {
        self.access.key("config")
    }

    fn subnets_prefix(&self) -> String {
        self.access.key("subnets/")
    }

    fn lease_key(&self, subnet: &Subnet) -> String {
        format!("{}{}", self.subnets_prefix(), key::render(subnet))
    }

    /// Runs one request with a time limit; on a transport failure the next call uses the next endpoint.
    async fn call<T, F>(&self, what: &str, request: impl FnOnce(Client) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let started = Instant::now();
        let result = match tokio::time::timeout(TIMEOUT, self.attempt(what, request)).await {
            Ok(result) => result,
            Err(_) => Err(Error::Unavailable(format!(
                "{what}: no answer within {} s",
                TIMEOUT.as_secs()
            ))),
        };
        if matches!(result, Err(Error::Unavailable(_))) {
            self.next_endpoint();
        }
        self.metrics.store_call(started.elapsed(), result.is_ok());
        result
    }

    /// Like [`EtcdStore::call`], for a request without effect: every endpoint is asked once before the
    /// store counts as unavailable.
    async fn read<T, F>(&self, what: &str, request: impl Fn(Client) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let mut failures = Vec::new();
        for _ in 0..self.access.endpoints.len().max(1) {
            match self.call(what, &request).await {
                Err(Error::Unavailable(why)) => failures.push(why),
                answer => return answer,
            }
        }
        Err(Error::Unavailable(failures.join("; ")))
    }

    async fn attempt<T, F>(&self, what: &str, request: impl FnOnce(Client) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let client = self.client().await?;
        let at = lock(&self.connection).endpoint;
        let what = format!("{what} at {}", self.access.endpoint(at));
        request(client)
            .await
            .map_err(|error| connect::translate(&what, &error))
    }

    /// The open client, or a new one on the current endpoint.
    async fn client(&self) -> Result<Client, Error> {
        let at = {
            let connection = lock(&self.connection);
            if let Some(client) = &connection.client {
                return Ok(client.clone());
            }
            connection.endpoint
        };
        let client = self.access.connect(at).await?;
        lock(&self.connection).client = Some(client.clone());
        Ok(client)
    }

    fn next_endpoint(&self) {
        let mut connection = lock(&self.connection);
        connection.client = None;
        connection.endpoint = (connection.endpoint + 1) % self.access.endpoints.len().max(1);
    }

    /// A new etcd lease, when a time to live is asked for.
    async fn grant(&self, ttl: Option<Duration>) -> Result<Option<(i64, Duration)>, Error> {
        let Some(ttl) = ttl else { return Ok(None) };
        let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
        let granted = self.call("grant an etcd lease", |mut client| async move {
            client.lease_grant(seconds, None).await
        });
        let granted = granted.await?;
        let ttl = Duration::from_secs(u64::try_from(granted.ttl()).unwrap_or_default());
        Ok(Some((granted.id(), ttl)))
    }

    /// Puts `lease` when `guard` holds.
    async fn put_if(
        &self,
        guard: Compare,
        subnet: &Subnet,
        attrs: &LeaseAttrs,
        ttl: Option<Duration>,
    ) -> Result<Option<Written>, Error> {
        let name = self.lease_key(subnet);
        let what = format!("write {name}");
        let granted = self.grant(ttl).await?;
        let options = granted.map(|(id, _)| PutOptions::new().with_lease(id));
        let txn = Txn::new()
            .when([guard])
            .and_then([TxnOp::put(name, attrs.to_json(), options)]);
        let done = self
            .call(&what, |mut client| async move { client.txn(txn).await })
            .await;
        let outcome = done.as_ref().map(etcd_client::TxnResponse::succeeded);
        if let (true, Some((id, _))) = (surely_not_applied(outcome), granted) {
            // Nothing hangs on this lease; left alone it would only expire later.
            let revoked = self.call("revoke an unused etcd lease", |mut client| async move {
                client.lease_revoke(id).await
            });
            if let Err(error) = revoked.await {
                tracing::debug!("{error}");
            }
        }
        let response = done?;
        let revision = revision(response.header());
        let ttl = granted.map(|(_, ttl)| ttl);
        Ok(response.succeeded().then_some(Written { revision, ttl }))
    }
}

impl LeaseStore for EtcdStore {
    type Watch = EtcdWatch;

    fn config_place(&self) -> String {
        format!("etcd key {}", self.config_key())
    }

    async fn config(&self) -> Result<Option<String>, Error> {
        let name = self.config_key();
        let what = format!("read {name}");
        let mut response = self
            .read(&what, |mut client| {
                let name = name.clone();
                async move { client.get(name, None).await }
            })
            .await?;
        let found = response.take_kvs().into_iter().next();
        Ok(found.map(|kv| String::from_utf8_lossy(kv.value()).into_owned()))
    }

    async fn list(&self) -> Result<Listing, Error> {
        let prefix = self.subnets_prefix();
        let what = format!("list {prefix}");
        let (mut start, end) = (prefix.clone().into_bytes(), prefix_end(&prefix));
        let mut listing = Listing::default();
        loop {
            // Later pages are read at the first one's revision.
            let options = GetOptions::new()
                .with_range(end.clone())
                .with_limit(PAGE)
                .with_revision(listing.revision);
            let page = self
                .read(&what, |mut client| {
                    let (from, options) = (start.clone(), options.clone());
                    async move { client.get(from, Some(options)).await }
                })
                .await?;
            if listing.revision == 0 {
                listing.revision = revision(page.header());
            }
            listing
                .entries
                .extend(page.kvs().iter().filter_map(|kv| entry(kv, &prefix)));
            match page.kvs().last().filter(|_| page.more()) {
                Some(last) => start = [last.key(), b"\0"].concat(),
                None => return Ok(listing),
            }
        }
    }

    async fn create(&self, lease: &Lease, ttl: Duration) -> Result<Option<Written>, Error> {
        let absent = Compare::version(self.lease_key(&lease.subnet), CompareOp::Equal, 0);
        self.put_if(absent, &lease.subnet, &lease.attrs, Some(ttl))
            .await
    }

    async fn replace(
        &self,
        subnet: &Subnet,
        revision: i64,
        attrs: &LeaseAttrs,
        ttl: Option<Duration>,
    ) -> Result<Option<Written>, Error> {
        let unchanged = Compare::mod_revision(self.lease_key(subnet), CompareOp::Equal, revision);
        self.put_if(unchanged, subnet, attrs, ttl).await
    }

    async fn delete(&self, subnet: &Subnet, revision: i64) -> Result<bool, Error> {
        let name = self.lease_key(subnet);
        let what = format!("delete {name}");
        let unchanged = Compare::mod_revision(name.as_str(), CompareOp::Equal, revision);
        let txn = Txn::new()
            .when([unchanged])
            .and_then([TxnOp::delete(name, None::<DeleteOptions>)]);
        let response = self
            .call(&what, |mut client| async move { client.txn(txn).await })
            .await?;
        Ok(response.succeeded())
    }

    async fn probe(&self, subnet: &Subnet) -> Result<Probe, Error> {
        let name = self.lease_key(subnet);
        let what = format!("read {name}");
        let options = GetOptions::new().with_keys_only();
        let response = self
            .read(&what, |mut client| {
                let (name, options) = (name.clone(), options.clone());
                async move { client.get(name, Some(options)).await }
            })
            .await?;
        Ok(Probe {
            store_revision: revision(response.header()),
            key_revision: response.kvs().first().map(KeyValue::mod_revision),
        })
    }

    fn reconnect(&self) {
        lock(&self.connection).client = None;
    }

    async fn watch(&self, revision: i64) -> Result<EtcdWatch, Error> {
        let (prefix, config) = (self.subnets_prefix(), self.config_key());
        let what = format!("watch {prefix}");
        let opened = self.call(&what, |client| {
            EtcdWatch::open(client, prefix, config, revision + 1)
        });
        opened.await
    }
}

/// Reads one key-value pair; `None` for a key outside the prefix.
fn entry(kv: &KeyValue, prefix: &str) -> Option<Entry> {
    let name = String::from_utf8_lossy(kv.key())
        .strip_prefix(prefix)?
        .to_owned();
    let lease = match key::parse(&name) {
        None => Err("the key names no subnet".to_owned()),
        Some(subnet) => match std::str::from_utf8(kv.value()) {
            Err(_) => Err("the value is not text".to_owned()),
            Ok(text) => LeaseAttrs::parse(text)
                .map(|attrs| Lease { subnet, attrs })
                .map_err(|e| e.to_string()),
        },
    };
    Some(Entry {
        key: name,
        lease,
        reserved: kv.lease() == 0,
        revision: kv.mod_revision(),
        created: kv.create_revision(),
    })
}

fn revision(header: Option<&ResponseHeader>) -> i64 {
    header.map(ResponseHeader::revision).unwrap_or_default()
}

/// False when the write may have happened though its answer was lost: revoking the etcd lease would
/// then delete the key just written.
fn surely_not_applied(outcome: Result<bool, &Error>) -> bool {
    match outcome {
        Ok(applied) => !applied,
        Err(Error::Refused(_)) => true,
        Err(Error::Unavailable(_) | Error::Compacted(_)) => false,
    }
}

/// The first key behind all keys with this prefix. The prefix ends in `/`, so its last byte can grow.
fn prefix_end(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

/// The value behind the lock; a panic elsewhere cannot leave it half-written.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
