//! A worker's own counts, given to the shared counters once a batch.

use crate::{Counters, DropReason};

/// Counts since the last [`hand_over`](Self::hand_over).
#[derive(Debug, Default)]
pub(super) struct Tally {
    packets: u64,
    bytes: u64,
    dropped: [u64; DropReason::ALL.len()],
    has_drops: bool,
}

/// Which way the packets that were carried went.
#[derive(Clone, Copy)]
pub(super) enum Direction {
    Sent,
    Received,
}

impl Tally {
    /// Packets and bytes of inner packets that were carried.
    pub(super) fn carried(&mut self, packets: u64, bytes: u64) {
        self.packets += packets;
        self.bytes += bytes;
    }

    /// Packets that went nowhere.
    pub(super) fn dropped(&mut self, reason: DropReason, packets: u64) {
        self.dropped[reason as usize] += packets;
        self.has_drops = true;
    }

    /// Adds everything to `counters` and begins anew.
    pub(super) fn hand_over(&mut self, direction: Direction, counters: &Counters) {
        if self.packets > 0 {
            match direction {
                Direction::Sent => counters.count_sent(self.packets, self.bytes),
                Direction::Received => counters.count_received(self.packets, self.bytes),
            }
        }
        if self.has_drops {
            for reason in DropReason::ALL {
                let packets = self.dropped[reason as usize];
                if packets > 0 {
                    counters.count_dropped(reason, packets);
                }
            }
        }
        *self = Self::default();
    }
}
