//! What a tunnel of our own has carried, for `/metrics`.
//!
//! A backend whose packets pass through this program (or through programs it put into the kernel)
//! hands out a [`Traffic`] that stays readable from any thread: nothing is copied on a timer, so that
//! the numbers are those of the moment of the scrape.

use std::sync::Arc;

use tunnel::{Counters, DropReason};

/// Who carries packets, and where each of them counts.
#[derive(Clone, Debug)]
pub struct Traffic {
    /// Labels of `tunnel_info`, such as `("data_path", "ebpf")`; values without quotes or backslashes.
    pub info: Vec<(&'static str, String)>,
    /// By the name of the path, `user` or `ebpf`. Sums never go down while the daemon lives, so a path
    /// that is out of use stays in the list.
    pub paths: Vec<(&'static str, Arc<dyn Count>)>,
}

/// Something that counts packets; read at every scrape.
pub trait Count: Send + Sync + std::fmt::Debug {
    /// As of now.
    fn sums(&self) -> Sums;
}

/// Packets and bytes of inner IP packets since the daemon's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Given to the underlay.
    pub sent: (u64, u64),
    /// Given to the device.
    pub received: (u64, u64),
    /// Packets that went nowhere, in the order of [`DropReason::ALL`].
    pub dropped: [u64; DropReason::ALL.len()],
}

impl Count for Counters {
    fn sums(&self) -> Sums {
        Sums {
            sent: self.sent(),
            received: self.received(),
            dropped: DropReason::ALL.map(|reason| self.dropped(reason)),
        }
    }
}
