//! How a Pod's worker is woken.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// One worker's bell. Ringing before it listens is not lost.
#[derive(Debug, Default)]
pub struct Wake {
    notify: Notify,
    retry: AtomicBool,
    stale: AtomicBool,
}

impl Wake {
    /// Something has changed.
    pub fn ring(&self) {
        self.notify.notify_one();
    }

    /// What failed before may work now: back-offs of images and sandboxes end.
    pub fn ring_to_retry(&self) {
        self.retry.store(true, Ordering::Relaxed);
        self.ring();
    }

    /// An object that its volumes or variables are made from has changed.
    pub fn ring_stale(&self) {
        self.stale.store(true, Ordering::Relaxed);
        self.ring();
    }

    /// Waits for the next ring.
    pub async fn rung(&self) {
        self.notify.notified().await;
    }

    /// Whether to try again at once; asked once.
    pub fn take_retry(&self) -> bool {
        self.retry.swap(false, Ordering::Relaxed)
    }

    /// Whether an object has changed; asked once.
    pub fn take_stale(&self) -> bool {
        self.stale.swap(false, Ordering::Relaxed)
    }
}
