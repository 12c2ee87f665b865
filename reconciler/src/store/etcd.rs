//! Objects in etcd v3: keys as they are, revisions etcd's own.
//!
//! Other programs may share the etcd, so revisions grow by more than the changes that are seen here. One endpoint is
//! used at a time; a failure moves on to the next. Reads are tried again within [`PATIENCE`], writes only if they
//! surely have not left.

mod connect;
mod error;
mod watch;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use etcd_client::{
    Client, Compare, CompareOp, GetOptions, GetResponse, KeyValue, ResponseHeader, Txn, TxnOp,
    TxnOpResponse,
};
use tokio::sync::watch as signal;
use tokio::time::Instant;

use self::connect::Connection;
use self::error::Failure;
use super::{Entry, Error, Page, Range, Revision, Store, Watch};

pub use self::connect::{Access, Secret};

/// After that a request has failed, all attempts together.
const PATIENCE: Duration = Duration::from_secs(5);
/// For one attempt.
const ATTEMPT: Duration = Duration::from_millis(2400);
/// Between attempts on the same endpoint.
const PAUSE: Duration = Duration::from_millis(100);
/// Entries fetched by one request.
const PAGE: usize = 500;

/// A handle on one etcd cluster. It connects when first used.
pub struct Etcd {
    inner: Arc<Inner>,
}

/// What watches share with it.
struct Inner {
    connection: Connection,
    closed: signal::Sender<bool>,
}

impl Etcd {
    /// Checks the options without connecting.
    ///
    /// # Errors
    /// [`Error::Broken`] when there is no endpoint, or a certificate without its key.
    pub fn new(access: Access) -> Result<Self, Error> {
        let inner = Arc::new(Inner {
            connection: Connection::new(access)?,
            closed: signal::Sender::new(false),
        });
        Ok(Self { inner })
    }
}

impl Inner {
    /// Runs a request, again if it failed without effect: always so when `reading`.
    async fn call<T, F>(
        &self,
        what: &str,
        reading: bool,
        request: impl Fn(Client) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let end = Instant::now() + PATIENCE;
        let mut closed = self.closed.subscribe();
        let mut told = None;
        loop {
            if *closed.borrow_and_update() {
                return Err(Failure::Away("it has been closed".to_owned()));
            }
            let limit = (Instant::now() + ATTEMPT).min(end);
            let attempt = self.connection.attempt(what, limit, &request);
            let done = tokio::select! {
                done = attempt => done,
                _ = closed.changed() => continue,
            };
            let failed = match done {
                Err(failure) if failure.is_unsent() || (reading && failure.is_away()) => failure,
                done => return done,
            };
            // What an earlier attempt was told says more than the silence of one that the end cut short.
            let known = match failed {
                Failure::Silent(_) => told.unwrap_or(failed),
                failed => failed,
            };
            if Instant::now() + PAUSE >= end {
                return Err(known);
            }
            told = Some(known);
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// A range of keys `[start, end)` at a revision (0: now).
    async fn range(
        &self,
        what: &str,
        start: &[u8],
        options: GetOptions,
    ) -> Result<GetResponse, Failure> {
        self.call(what, true, |client| {
            let (start, options) = (start.to_vec(), options.clone());
            async move { connect::kv(&client).get(start, Some(options)).await }
        })
        .await
    }

    /// The newest revision, and whether the history reaches back to `asked`.
    async fn newest(&self, asked: Option<Revision>) -> Result<Revision, Failure> {
        let options = GetOptions::new()
            .with_count_only()
            .with_revision(asked.map_or(0, wire));
        let answer = self.range("read the revision of", b"/", options).await?;
        Ok(revision(answer.header()))
    }

    /// What a failure of a read at revision `asked` means.
    async fn explain(&self, failure: Failure, asked: Revision) -> Error {
        let told = match failure {
            Failure::Compacted => watch::oldest(self)
                .await
                .map(|oldest| Error::Compacted { asked, oldest }),
            Failure::Future => self
                .newest(None)
                .await
                .map(|newest| Error::Future { asked, newest }),
            other => Err(other),
        };
        told.unwrap_or_else(Error::from)
    }

    /// Runs `then` if all of `guards` hold, and reads the key otherwise.
    async fn swap(
        &self,
        what: &str,
        key: &str,
        guards: Vec<Compare>,
        then: TxnOp,
    ) -> Result<Result<Revision, Option<Entry>>, Error> {
        let txn = Txn::new()
            .when(guards)
            .and_then([then])
            .or_else([TxnOp::get(key, None)]);
        let what = format!("{what} {key}:");
        let done = self.call(&what, false, |client| {
            let txn = txn.clone();
            async move { connect::kv(&client).txn(txn).await }
        });
        let answer = done.await?;
        if answer.succeeded() {
            return Ok(Ok(revision(answer.header())));
        }
        let found = answer.op_responses().into_iter().next();
        Ok(Err(match found {
            Some(TxnOpResponse::Get(mut found)) => {
                found.take_kvs().into_iter().next().map(entry).transpose()?
            }
            _ => None,
        }))
    }
}

#[async_trait]
impl Store for Etcd {
    async fn revision(&self) -> Result<Revision, Error> {
        Ok(self.inner.newest(None).await?)
    }

    async fn get(&self, key: &str) -> Result<Option<Entry>, Error> {
        let what = format!("read {key}:");
        let found = self
            .inner
            .range(&what, key.as_bytes(), GetOptions::new())
            .await;
        found?.take_kvs().into_iter().next().map(entry).transpose()
    }

    async fn list(&self, range: Range) -> Result<Page, Error> {
        let what = format!("list {}:", range.prefix);
        let asked = range.at.unwrap_or_default();
        let end = end(&range.prefix);
        let mut start = match &range.after {
            Some(after) if *after >= range.prefix => behind(after.as_bytes()),
            _ => range.prefix.clone().into_bytes(),
        };
        if start.is_empty() {
            start.push(0);
        }
        // 0 is "now" for etcd; its own history begins at 1.
        let mut at = range.at.map_or(0, |at| wire(at.max(1)));
        let limit = range.limit.unwrap_or(usize::MAX);
        let mut page = Page::default();
        loop {
            let wanted = (limit - page.entries.len()).min(PAGE);
            let mut options = GetOptions::new().with_range(end.clone()).with_revision(at);
            options = match i64::try_from(wanted) {
                Ok(wanted @ 1..) => options.with_limit(wanted),
                _ => options.with_count_only(),
            };
            let mut answer = match self.inner.range(&what, &start, options).await {
                Ok(answer) => answer,
                Err(failure) => return Err(self.inner.explain(failure, asked).await),
            };
            if page.revision == 0 {
                page.revision = range.at.unwrap_or_else(|| revision(answer.header()));
                at = wire(page.revision.max(1));
            }
            let count = u64::try_from(answer.count()).unwrap_or_default();
            let kvs = answer.take_kvs();
            page.remaining = count.saturating_sub(kvs.len() as u64);
            if let Some(last) = kvs.last() {
                start = behind(last.key());
            }
            for kv in kvs {
                page.entries.push(entry(kv)?);
            }
            if page.remaining == 0 || page.entries.len() >= limit {
                return Ok(page);
            }
        }
    }

    async fn create(&self, key: &str, value: Bytes) -> Result<Revision, Error> {
        let absent = vec![Compare::version(key, CompareOp::Equal, 0)];
        let put = TxnOp::put(key, value, None);
        let done = self.inner.swap("create", key, absent, put).await?;
        done.map_err(|_| Error::Exists(key.to_owned()))
    }

    async fn update(&self, key: &str, value: Bytes, expected: Revision) -> Result<Revision, Error> {
        let put = TxnOp::put(key, value, None);
        let done = self
            .inner
            .swap("update", key, unchanged(key, expected), put);
        done.await?.map_err(|now| changed(key, now))
    }

    async fn delete(&self, key: &str, expected: Revision) -> Result<Revision, Error> {
        let delete = TxnOp::delete(key, None);
        let done = self
            .inner
            .swap("delete", key, unchanged(key, expected), delete);
        done.await?.map_err(|now| changed(key, now))
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, Error> {
        watch::start(&self.inner, prefix, after).await
    }

    async fn compact(&self, upto: Revision) -> Result<(), Error> {
        let done = self.inner.call("compact", false, |client| async move {
            client.kv_client().compact(wire(upto), None).await
        });
        match done.await {
            Ok(_) | Err(Failure::Compacted) => Ok(()),
            Err(failure) => Err(self.inner.explain(failure, upto).await),
        }
    }

    async fn close(&self) {
        self.inner.closed.send_replace(true);
        self.inner.connection.forget();
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.inner.closed.send_replace(true);
    }
}

/// A key that is not there has mod revision 0, which nobody may expect.
fn unchanged(key: &str, expected: Revision) -> Vec<Compare> {
    vec![
        Compare::version(key, CompareOp::Greater, 0),
        Compare::mod_revision(key, CompareOp::Equal, wire(expected)),
    ]
}

fn changed(key: &str, now: Option<Entry>) -> Error {
    let key = key.to_owned();
    Error::Changed { key, now }
}

fn entry(kv: KeyValue) -> Result<Entry, Error> {
    let revision = number(kv.mod_revision());
    let (key, value) = kv.into_key_value();
    Ok(Entry {
        key: text(key)?,
        value: value.into(),
        revision,
    })
}

fn text(key: Vec<u8>) -> Result<String, Error> {
    String::from_utf8(key).map_err(|error| {
        let key = String::from_utf8_lossy(error.as_bytes()).into_owned();
        Error::Broken(format!(
            "the key {key:?} in etcd is not text: another program wrote it: remove it with etcdctl del"
        ))
    })
}

fn revision(header: Option<&ResponseHeader>) -> Revision {
    header.map_or(0, |header| number(header.revision()))
}

fn number(revision: i64) -> Revision {
    Revision::try_from(revision).unwrap_or_default()
}

/// As etcd takes it; what is beyond its numbers is in the future anyway.
fn wire(revision: Revision) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

/// The first key behind all keys with this prefix: none of UTF-8's bytes is 255.
fn end(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    match end.last_mut() {
        Some(last) => *last += 1,
        // etcd's way to say "no end".
        None => end.push(0),
    }
    end
}

/// The first key behind this one.
fn behind(key: &[u8]) -> Vec<u8> {
    [key, b"\0"].concat()
}
