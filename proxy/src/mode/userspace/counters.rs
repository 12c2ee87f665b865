//! What the userspace data path counts. Shared by its threads; written once for each burst, never for each packet.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that anyone may read at any time.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    pub(super) fn subtract(&self, amount: u64) {
        self.0.fetch_sub(amount, Ordering::Relaxed);
    }
}

/// All of them. Those named `open_…` go up and down, the others only up.
#[derive(Debug, Default)]
pub struct Counters {
    /// TCP connections accepted from clients.
    pub tcp_accepted: Counter,
    /// TCP connections of clients that are open, connected to an endpoint or not yet.
    pub open_tcp: Counter,
    /// Bytes of TCP streams sent on to endpoints.
    pub tcp_bytes_to_endpoints: Counter,
    /// Bytes of TCP streams sent on to clients.
    pub tcp_bytes_to_clients: Counter,
    /// Clients reset because they may not use the front, or nobody is behind it.
    pub tcp_refused: Counter,
    /// Attempts to connect to an endpoint that failed or took too long.
    pub tcp_connect_failures: Counter,
    /// Clients reset because none of the endpoints tried could be connected to.
    pub tcp_unserved: Counter,
    /// Connections that ended by an error of the client's side (a reset, mostly).
    pub tcp_client_errors: Counter,
    /// Connections that ended by an error of the endpoint's side.
    pub tcp_endpoint_errors: Counter,
    /// Connections that could not be accepted or served for want of descriptors or memory.
    pub tcp_exhausted: Counter,
    /// UDP flows begun.
    pub udp_flows: Counter,
    /// UDP flows that are open.
    pub open_udp: Counter,
    /// Datagrams sent on to endpoints.
    pub udp_to_endpoints: Counter,
    /// Datagrams sent on to clients.
    pub udp_to_clients: Counter,
    /// Datagrams dropped because the client may not use the front, or nobody is behind it.
    pub udp_refused: Counter,
    /// Datagrams dropped because the kernel would not send them on.
    pub udp_unsent: Counter,
    /// Flows ended because the endpoint answered that nobody listens there.
    pub udp_unreachable: Counter,
    /// Flows ended to make room for newer ones.
    pub udp_evicted: Counter,
    /// Flows that could not begin for want of descriptors, memory or a route.
    pub udp_exhausted: Counter,
}
