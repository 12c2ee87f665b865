//! Threads that wait on an epoll instance and take orders: how the control side speaks to the data side.
//!
//! An order is rare (a connection, a change of configuration), so a queue behind a lock and an eventfd will do;
//! no packet ever touches them.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

/// The epoll token of the mailbox itself.
const BELL: u64 = u64::MAX;
/// Events taken from the kernel in one call.
const EVENTS: usize = 256;

enum Letter<O> {
    Order(O),
    Confirm(SyncSender<()>),
    Stop,
}

struct Shared<O> {
    /// `None` once the thread has ended: what is posted then is lost.
    queue: Mutex<Option<VecDeque<Letter<O>>>>,
    bell: EventFd,
}

impl<O> Shared<O> {
    fn queue(&self) -> MutexGuard<'_, Option<VecDeque<Letter<O>>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where orders for a thread are put in; any number of hands may hold one.
pub(super) struct Mailbox<O>(Arc<Shared<O>>);

impl<O> Clone for Mailbox<O> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<O> Mailbox<O> {
    /// Hands an order over; it is carried out soon, in the order of posting.
    pub(super) fn post(&self, order: O) {
        self.put([Letter::Order(order)]);
    }

    fn put(&self, letters: impl IntoIterator<Item = Letter<O>>) {
        let mut queue = self.0.queue();
        if let Some(queue) = &mut *queue {
            queue.extend(letters);
        }
        drop(queue);
        // Fails only when the counter is full, and then the bell is ringing.
        let _ = self.0.bell.write(1);
    }
}

/// What a thread does with its orders and with its sockets.
pub(super) trait Work: Send + 'static {
    /// What it is told.
    type Order: Send + 'static;

    /// Carries out an order.
    fn obey(&mut self, order: Self::Order, epoll: &Epoll);

    /// The socket registered with this token is ready.
    fn ready(&mut self, token: u64, events: EpollFlags, now: Instant, epoll: &Epoll);

    /// Called after each round of events. Answers when to be called again at the latest.
    fn tick(&mut self, now: Instant, epoll: &Epoll) -> Option<Instant>;
}

/// A running thread. Ends, and with it what it holds, when dropped.
pub(super) struct Worker<O: Send + 'static> {
    mailbox: Mailbox<O>,
    thread: Option<JoinHandle<()>>,
    name: String,
}

impl<O: Send + 'static> Worker<O> {
    /// Starts a thread; it stays in the network namespace of the calling one.
    pub(super) fn start(name: &str, mut work: impl Work<Order = O>) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let bell = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        epoll.add(&bell, EpollEvent::new(EpollFlags::EPOLLIN, BELL))?;
        let shared = Arc::new(Shared {
            queue: Mutex::new(Some(VecDeque::new())),
            bell,
        });
        let mailbox = Mailbox(Arc::clone(&shared));
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || run(&mut work, &shared, &epoll))?;
        Ok(Self {
            mailbox,
            thread: Some(thread),
            name: name.to_owned(),
        })
    }

    /// For others to post into.
    pub(super) fn mailbox(&self) -> &Mailbox<O> {
        &self.mailbox
    }

    /// Posts orders and waits until they have been carried out.
    pub(super) fn command(&self, orders: impl IntoIterator<Item = O>) -> io::Result<()> {
        let (confirm, confirmed) = sync_channel(1);
        let orders = orders.into_iter().map(Letter::Order);
        self.mailbox.put(orders.chain([Letter::Confirm(confirm)]));
        confirmed
            .recv()
            .map_err(|_| io::Error::other(format!("thread {} has ended by a panic", self.name)))
    }
}

impl<O: Send + 'static> Drop for Worker<O> {
    fn drop(&mut self) {
        self.mailbox.put([Letter::Stop]);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("thread {} had ended by a panic", self.name);
        }
    }
}

fn run<W: Work>(work: &mut W, shared: &Shared<W::Order>, epoll: &Epoll) {
    // On every way out, also by a panic, nobody may wait for a confirmation any more.
    struct Closing<'a, O>(&'a Shared<O>);
    impl<O> Drop for Closing<'_, O> {
        fn drop(&mut self) {
            *self.0.queue() = None;
        }
    }
    let _closing = Closing(shared);
    let mut events = vec![EpollEvent::empty(); EVENTS];
    let mut wake = None;
    loop {
        let count = match epoll.wait(&mut events, until(wake)) {
            Ok(count) => count,
            Err(Errno::EINTR) => continue,
            Err(errno) => {
                tracing::error!("wait for sockets: {}", errno.desc());
                return;
            }
        };
        let now = Instant::now();
        for event in &events[..count] {
            if event.data() != BELL {
                work.ready(event.data(), event.events(), now, epoll);
            }
        }
        // Orders after events, so that no event of this round can meet a socket newer than itself.
        if events[..count].iter().any(|event| event.data() == BELL) {
            // Only resets the counter; would block if it is zero already.
            let _ = shared.bell.read();
            let letters = shared.queue().as_mut().map(std::mem::take);
            for letter in letters.into_iter().flatten() {
                match letter {
                    Letter::Order(order) => work.obey(order, epoll),
                    // Whoever asked may have given up.
                    Letter::Confirm(done) => drop(done.try_send(())),
                    Letter::Stop => return,
                }
            }
        }
        wake = work.tick(now, epoll);
    }
}

fn until(wake: Option<Instant>) -> EpollTimeout {
    let Some(wake) = wake else {
        return EpollTimeout::NONE;
    };
    let left = wake.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return EpollTimeout::ZERO;
    }
    // Rounded up, so that it is due when we wake.
    let left = left.min(Duration::from_secs(3600)) + Duration::from_millis(1);
    EpollTimeout::try_from(left).unwrap_or(EpollTimeout::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Counting {
        sum: Arc<Mutex<u64>>,
        due: Option<Instant>,
    }

    impl Work for Counting {
        type Order = u64;

        fn obey(&mut self, order: u64, _: &Epoll) {
            assert_ne!(order, 13, "as the test wants it");
            *self.sum.lock().unwrap() += order;
            self.due = Some(Instant::now() + Duration::from_millis(5));
        }

        fn ready(&mut self, _: u64, _: EpollFlags, _: Instant, _: &Epoll) {}

        fn tick(&mut self, now: Instant, _: &Epoll) -> Option<Instant> {
            if self.due.is_some_and(|due| due <= now) {
                self.due = None;
                *self.sum.lock().unwrap() += 1000;
            }
            self.due
        }
    }

    fn counting() -> (Arc<Mutex<u64>>, Worker<u64>) {
        let sum = Arc::new(Mutex::new(0));
        let work = Counting {
            sum: Arc::clone(&sum),
            due: None,
        };
        (sum, Worker::start("counting", work).unwrap())
    }

    #[test]
    fn orders_are_done_when_the_command_returns_and_timers_fire() {
        let (sum, worker) = counting();
        worker.mailbox().post(1);
        worker.command([2, 3]).unwrap();
        assert_eq!(*sum.lock().unwrap(), 6);
        let start = Instant::now();
        while *sum.lock().unwrap() != 1006 {
            assert!(
                start.elapsed() < Duration::from_secs(5),
                "the timer is late"
            );
            thread::yield_now();
        }
    }

    #[test]
    fn a_command_to_a_thread_that_panicked_is_an_error() {
        let (_, worker) = counting();
        let error = worker.command([13]).unwrap_err();
        assert_eq!(error.to_string(), "thread counting has ended by a panic");
        assert!(
            worker.command([1]).is_err(),
            "nor does a later one wait for ever"
        );
    }
}
