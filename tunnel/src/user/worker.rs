//! A thread that serves one direction of a queue until it is told to end, or cannot go on.

use std::{
    os::fd::{AsFd as _, BorrowedFd},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::eventfd::EventFd,
};

/// One direction of one queue.
pub(super) trait Side: Send {
    /// What to wait for.
    fn source(&self) -> BorrowedFd<'_>;

    /// Takes what is there, at most a fair share. An error: the source is gone for good.
    fn turn(&mut self) -> Result<(), String>;
}

/// Why a worker ended by itself; the first one's reason stays.
pub(super) type Ended = Arc<Mutex<Option<String>>>;

/// Starts the thread.
pub(super) fn spawn(
    name: String,
    mut side: Box<dyn Side>,
    stop: Arc<EventFd>,
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

fn run(side: &mut dyn Side, stop: &EventFd) -> Result<(), String> {
    loop {
        let mut waits = [
            PollFd::new(stop.as_fd(), PollFlags::POLLIN),
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
        side.turn()?;
    }
}
