//! A thread that serves one direction of a queue until it is told to end, or cannot go on.

use std::{
    os::fd::{AsFd as _, BorrowedFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::eventfd::{EfdFlags, EventFd},
};

/// One direction of one queue.
pub(super) trait Side: Send {
    /// What to wait for.
    fn source(&self) -> BorrowedFd<'_>;

    /// Takes what is there, at most a fair share, and less when told to stop; answers whether there was anything. An error: the
    /// source is gone for good.
    fn turn(&mut self, stop: &Stop) -> Result<bool, String>;
}

/// Tells all workers to end.
#[derive(Debug)]
pub(super) struct Stop {
    /// For those that wait.
    event: EventFd,
    /// For those that never have to.
    told: AtomicBool,
}

impl Stop {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            event: EventFd::from_value_and_flags(
                0,
                EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK,
            )?,
            told: AtomicBool::new(false),
        })
    }

    pub(super) fn tell(&self) -> std::io::Result<()> {
        self.told.store(true, Ordering::Relaxed);
        self.event.write(1)?;
        Ok(())
    }

    pub(super) fn is_told(&self) -> bool {
        self.told.load(Ordering::Relaxed)
    }
}

/// Why a worker ended by itself; the first one's reason stays.
pub(super) type Ended = Arc<Mutex<Option<String>>>;

/// Starts the thread.
pub(super) fn spawn(
    name: String,
    mut side: Box<dyn Side>,
    stop: Arc<Stop>,
    ended: Ended,
) -> std::io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name).spawn(move || {
        if let Err(reason) = run(&mut *side, &stop) {
            tracing::error!("the user-space data path stops: {reason}");
            let mut ended = ended.lock().unwrap_or_else(PoisonError::into_inner);
            ended.get_or_insert(reason);
        }
    })
}

fn run(side: &mut dyn Side, stop: &Stop) -> Result<(), String> {
    loop {
        let mut waits = [
            PollFd::new(stop.event.as_fd(), PollFlags::POLLIN),
            PollFd::new(side.source(), PollFlags::POLLIN),
        ];
        match poll(&mut waits, PollTimeout::NONE) {
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(format!("wait for packets: {errno}")),
        }
        if waits[0].any() != Some(false) {
            return Ok(());
        }
        // Whoever fills the source may want this core: yielding instead of waiting makes batches larger and wake-ups fewer.
        while side.turn(stop)? && !stop.is_told() {
            thread::yield_now();
        }
    }
}
