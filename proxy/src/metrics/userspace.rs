//! The forwarding process: its totals are kept there and copied here for each rendering.

use std::collections::BTreeMap;

use prometheus::IntCounterVec;

use super::series::Maker;
use super::set_total;

/// What the forwarding process has done since it began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserspaceTotals {
    /// TCP connections accepted.
    pub connections: u64,
    /// UDP flows begun.
    pub flows: u64,
    /// Bytes from clients to endpoints.
    pub bytes_to_endpoints: u64,
    /// Bytes from endpoints to clients.
    pub bytes_to_clients: u64,
    /// Errors by reason, a word from a fixed set.
    pub errors: BTreeMap<&'static str, u64>,
}

pub(super) struct Userspace {
    connections: IntCounterVec,
    flows: IntCounterVec,
    bytes: IntCounterVec,
    errors: IntCounterVec,
}

impl Userspace {
    pub(super) fn new(make: &Maker) -> prometheus::Result<Self> {
        let family = &["ip_family"];
        Ok(Self {
            connections: make.counters(
                "userspace_connections_total",
                "TCP connections accepted for forwarding",
                family,
            )?,
            flows: make.counters(
                "userspace_flows_total",
                "UDP flows begun by forwarding",
                family,
            )?,
            bytes: make.counters(
                "userspace_bytes_total",
                "Bytes forwarded",
                &["direction", "ip_family"],
            )?,
            errors: make.counters(
                "userspace_errors_total",
                "Errors of forwarding by reason",
                &["reason", "ip_family"],
            )?,
        })
    }

    pub(super) fn set(&self, family: &str, totals: &UserspaceTotals) {
        let only = &[family];
        set_total(
            &self.connections.with_label_values(only),
            totals.connections,
        );
        set_total(&self.flows.with_label_values(only), totals.flows);
        for (direction, bytes) in [
            ("to_endpoint", totals.bytes_to_endpoints),
            ("to_client", totals.bytes_to_clients),
        ] {
            let counter = self.bytes.with_label_values(&[direction, family]);
            set_total(&counter, bytes);
        }
        for (reason, count) in &totals.errors {
            let counter = self.errors.with_label_values(&[*reason, family]);
            set_total(&counter, *count);
        }
    }
}
