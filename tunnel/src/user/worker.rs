//! A thread that serves one or both directions of a queue until it is told to end, or cannot go on.

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
    mut sides: Vec<Box<dyn Side>>,
    stop: Arc<EventFd>,
    ended: Ended,
) -> std::io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name).spawn(move || {
        if let Err(reason) = run(&mut sides, &stop) {
            tracing::error!("the user-space data path stops: {reason}");
            let mut ended = ended.lock().unwrap_or_else(PoisonError::into_inner);
            ended.get_or_insert(reason);
        }
    })
}

fn run(sides: &mut [Box<dyn Side>], stop: &EventFd) -> Result<(), String> {
    loop {
        let wait = |fd| PollFd::new(fd, PollFlags::POLLIN);
        // At most one stop and two directions.
        let mut waits = [wait(stop.as_fd()), wait(stop.as_fd()), wait(stop.as_fd())];
        for (place, side) in waits[1..].iter_mut().zip(sides.iter()) {
            *place = wait(side.source());
        }
        match poll(&mut waits[..=sides.len()], PollTimeout::NONE) {
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(format!("wait for packets: {errno}")),
        }
        let ready = waits.map(|wait| wait.revents().is_some_and(|events| !events.is_empty()));
        if ready[0] {
            return Ok(());
        }
        for (side, _) in sides
            .iter_mut()
            .zip(&ready[1..])
            .filter(|(_, ready)| **ready)
        {
            side.turn()?;
        }
    }
}
