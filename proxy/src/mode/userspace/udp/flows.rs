//! The flows of one thread: found by client and front, or by their socket's number.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use slab::Slab;

use crate::mode::userspace::aging::Aging;
use crate::mode::userspace::counters::Counters;
use crate::model::{Endpoint, List};

/// The number of the front, and the client.
pub(super) type FlowKey = (usize, SocketAddr);

/// What one client sends to one front.
pub(super) struct Flow {
    /// Connected to the endpoint.
    pub(super) socket: OwnedFd,
    /// Whose it is.
    pub(super) key: FlowKey,
    /// Who answers.
    pub(super) endpoint: Endpoint,
    /// Which list the endpoint was chosen from.
    pub(super) list: List,
}

/// See the module.
pub(super) struct Flows {
    flows: Slab<Flow>,
    table: Aging<FlowKey, usize>,
    counters: Arc<Counters>,
}

impl Flows {
    /// At most `limit`, each for `timeout` after its last datagram.
    pub(super) fn new(limit: usize, timeout: Duration, counters: Arc<Counters>) -> Self {
        Self {
            flows: Slab::new(),
            table: Aging::new(limit, timeout),
            counters,
        }
    }

    /// Finds a flow for a datagram of its client, and counts that as use.
    pub(super) fn find(&mut self, key: &FlowKey, now: Instant) -> Option<usize> {
        self.table.touch(key, now).copied()
    }

    /// A flow by number. Counts as use.
    pub(super) fn used(&mut self, number: usize, now: Instant) -> Option<&Flow> {
        let flow = self.flows.get(number)?;
        self.table.touch(&flow.key, now);
        Some(flow)
    }

    /// A flow by number.
    pub(super) fn get(&self, number: usize) -> Option<&Flow> {
        self.flows.get(number)
    }

    /// The number of the next flow that is begun.
    pub(super) fn next(&self) -> usize {
        self.flows.vacant_key()
    }

    /// Begins a flow, and ends another if there are too many.
    pub(super) fn begin(&mut self, flow: Flow, now: Instant) -> usize {
        let key = flow.key;
        let number = self.flows.insert(flow);
        self.counters.udp_flows.add(1);
        self.counters.open_udp.add(1);
        if let Some(gone) = self.table.insert(key, number, now) {
            // One of this key was due (nobody has swept yet); any other had to make room.
            if self.flows[gone].key != key {
                self.counters.udp_evicted.add(1);
            }
            self.remove(gone);
        }
        number
    }

    /// Ends a flow.
    pub(super) fn end(&mut self, number: usize) {
        if let Some(flow) = self.flows.get(number) {
            self.table.remove(&flow.key);
            self.remove(number);
        }
    }

    /// Ends all flows that `unwanted` names.
    pub(super) fn end_all(&mut self, mut unwanted: impl FnMut(&Flow) -> bool) {
        let flows = &self.flows;
        let gone = self.table.extract(|_, number| unwanted(&flows[*number]));
        for number in gone {
            self.remove(number);
        }
    }

    /// Ends the flows that are due. Answers when to look again.
    pub(super) fn expire(&mut self, now: Instant) -> Option<Instant> {
        while let Some(number) = self.table.expire(now) {
            self.remove(number);
        }
        self.table.deadline()
    }

    fn remove(&mut self, number: usize) {
        self.flows.remove(number);
        self.counters.open_udp.subtract(1);
    }
}

impl Drop for Flows {
    fn drop(&mut self) {
        self.counters.open_udp.subtract(self.flows.len() as u64);
    }
}
