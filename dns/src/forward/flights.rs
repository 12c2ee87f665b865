//! Questions on their way to upstreams: those who ask the same share one.
//!
//! That is also what stops a loop that nobody found yet: a question that comes back while it is on its way waits for
//! itself instead of going round again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::Shared;
use tokio::sync::oneshot;

use super::Failure;
use super::answer::Reply;
use super::key::Key;

/// How a question ended.
pub(super) type Outcome = Result<Arc<Reply>, Failure>;

/// The outcome to come.
pub(super) type Waiting = Shared<oneshot::Receiver<Outcome>>;

/// The questions on their way.
#[derive(Default)]
pub(super) struct Flights {
    waiting: Mutex<HashMap<Box<[u8]>, Waiting>>,
}

impl Flights {
    /// Whether such a question is on its way.
    pub(super) fn contains(&self, key: &Key) -> bool {
        self.lock().contains_key(&**key)
    }

    /// The flight of the question. If there is none, then what `start` makes is one, on a task of its own: it ends
    /// whoever still waits for it.
    pub(super) fn join<F>(self: &Arc<Self>, key: &Key, start: impl FnOnce() -> F) -> Waiting
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let mut waiting = self.lock();
        if let Some(flight) = waiting.get(&**key) {
            return flight.clone();
        }
        let (tell, told) = oneshot::channel();
        let flight = told.shared();
        let key: Box<[u8]> = Box::from(&**key);
        waiting.insert(key.clone(), flight.clone());
        let landing = Landing {
            flights: Arc::clone(self),
            key,
        };
        let flying = start();
        tokio::spawn(async move {
            let outcome = flying.await;
            drop(landing);
            // Nobody may wait any more.
            let _ = tell.send(outcome);
        });
        flight
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Box<[u8]>, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes the flight off the list, however it ends.
struct Landing {
    flights: Arc<Flights>,
    key: Box<[u8]>,
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.flights.lock().remove(&self.key);
    }
}
