//! What forwarding is told: servers, times, sizes.

use std::net::SocketAddr;
use std::time::Duration;

use hickory_proto::rr::Name;

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Servers for every name that no stub is for.
    pub upstreams: Vec<SocketAddr>,
    /// Servers for the names under a domain. The longest domain that fits decides.
    pub stubs: Vec<(Name, Vec<SocketAddr>)>,
    /// Addresses that this server listens on: never asked, whoever names them.
    pub own: Vec<SocketAddr>,
    /// How long to wait.
    pub timeouts: Timeouts,
    /// Queries that may wait for upstreams at one time; more are refused with SERVFAIL.
    pub max_concurrent: usize,
    /// What is remembered of answers.
    pub cache: CacheSettings,
    /// The `server` label of the cache's metrics: `dns://ADDRESS:PORT`, as CoreDNS writes it.
    pub server: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            upstreams: Vec::new(),
            stubs: Vec::new(),
            own: Vec::new(),
            timeouts: Timeouts::default(),
            max_concurrent: 1000,
            cache: CacheSettings::default(),
            server: "dns://:53".to_owned(),
        }
    }
}

/// How long to wait for upstreams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// An upstream that is silent this long has failed to answer; it may be asked again.
    pub first: Duration,
    /// A question that nobody answers in this time is given up. glibc's resolver gives up after five seconds.
    pub total: Duration,
    /// A stale answer, if there is one, is given after this time (RFC 8767 section 5: 1.8 s).
    pub stale: Duration,
    /// Between two probes of an upstream that is set aside, at first; the time doubles up to thirty times as much.
    pub health: Duration,
    /// Between two searches for loops.
    pub loops: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            total: Duration::from_millis(4500),
            stale: Duration::from_millis(1800),
            health: Duration::from_millis(500),
            loops: Duration::from_secs(300),
        }
    }
}

/// What is remembered of answers, for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheSettings {
    /// Answers with records, and as many without (NXDOMAIN, NODATA). 0: none.
    pub entries: usize,
    /// Bytes that each of the two may hold.
    pub bytes: usize,
    /// Shorter TTLs count as this. An answer whose TTL is 0 all the same is not remembered.
    pub min_ttl: Duration,
    /// Longer TTLs of answers with records count as this.
    pub max_ttl: Duration,
    /// Longer TTLs of answers without records count as this.
    pub max_denial_ttl: Duration,
    /// SERVFAIL is remembered for this long (RFC 2308 section 7.1: at most five minutes).
    pub servfail: Duration,
    /// An answer that was asked for so often, without a minute's gap, is asked for again before it ends. 0: none is.
    pub prefetch: u32,
    /// Answers with records may be given this long after their end if no upstream answers (RFC 8767). 0: never.
    /// Those without records: an hour at most.
    pub serve_stale: Duration,
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self {
            entries: 9984,
            bytes: 4 << 20,
            min_ttl: Duration::ZERO,
            max_ttl: Duration::from_secs(3600),
            max_denial_ttl: Duration::from_secs(1800),
            servfail: Duration::from_secs(5),
            prefetch: 5,
            serve_stale: Duration::from_secs(3600),
        }
    }
}
