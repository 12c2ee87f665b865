//! The thread of one family: takes what has changed, has the mode write it, and mends what others
//! disturb.
//!
//! A change that comes alone is written at once; those that come while the mode is writing are
//! written together, so the batches grow with the load by themselves. After a failure everything is
//! compared, soon and then less often.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::health::Moment;
use crate::mode::{Mode, Report};
use crate::model::{Balancer, Changed, Family, PortName, Protocol, Wanted};
use crate::state::Update;

/// How often a mode is asked whether it was disturbed, where no event tells.
const LOOK: Duration = Duration::from_millis(250);
/// The least time between two repairs: somebody may be at it with a whole script.
const REPAIR: Duration = Duration::from_millis(200);
/// Everything is compared at least so often.
const FULL: Duration = Duration::from_secs(3600);
/// The first retry after a failure; doubled up to the sync period.
const RETRY: Duration = Duration::from_secs(1);

/// How the thread behaves.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The least time from the end of a sync to the next one.
    pub min_sync: Duration,
    /// The longest time to a retry.
    pub sync_period: Duration,
}

/// What goes to the thread.
#[derive(Debug)]
pub enum Command {
    /// News, and the trigger times of the slices in it (milliseconds since 1970).
    Update(Update, Vec<i64>),
    /// The end. Everything stays in the kernel; what the process itself carries goes on for so long
    /// at the most.
    Stop(Duration),
}

/// A service port before and after a sync; `None`: it was not, or is no more.
#[derive(Clone, Debug)]
pub struct PortChange {
    /// Which.
    pub name: PortName,
    /// As it was.
    pub old: Option<Arc<Balancer>>,
    /// As it is.
    pub new: Option<Arc<Balancer>>,
}

/// A sync that is over.
#[derive(Debug)]
pub struct Done {
    /// Whose.
    pub family: Family,
    /// When it began.
    pub began: Moment,
    /// How long it took.
    pub took: Duration,
    /// What it did.
    pub report: Report,
    /// It mended what someone had disturbed.
    pub repaired: bool,
    /// Trigger times of the slices that are in force now.
    pub triggers: Vec<i64>,
    /// UDP ports that have changed, when the sync went well.
    pub udp: Vec<PortChange>,
}

/// The handle of the thread.
#[derive(Debug)]
pub struct Driver {
    queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Queue {
    commands: Mutex<Vec<Command>>,
    wake: EventFd,
}

impl Queue {
    fn take(&self) -> Vec<Command> {
        // Not readable: it was woken by something else.
        let _ = self.wake.read();
        let mut commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *commands)
    }
}

impl Driver {
    /// Starts the thread, in the calling thread's network namespace. `done` hears of each sync.
    pub fn start(
        family: Family,
        mode: Box<dyn Mode>,
        pace: Pace,
        done: impl FnMut(Done) + Send + 'static,
    ) -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let queue = Arc::new(Queue {
            commands: Mutex::default(),
            wake: EventFd::from_value_and_flags(0, flags)?,
        });
        let work = Work {
            family,
            mode,
            pace,
            queue: Arc::clone(&queue),
            done,
            wanted: None,
            changed: None,
            triggers: Vec::new(),
            udp: BTreeMap::new(),
            repairing: false,
            failures: 0,
            last: None,
            last_full: Instant::now(),
        };
        let name = match family {
            Family::V4 => "proxy-ipv4",
            Family::V6 => "proxy-ipv6",
        };
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || work.run())?;
        Ok(Self {
            queue,
            thread: Some(thread),
        })
    }

    /// Sends a command.
    pub fn send(&self, command: Command) {
        let mut commands = self
            .queue
            .commands
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        commands.push(command);
        // Full means that it is awake.
        let _ = self.queue.wake.write(1);
    }

    /// Ends the thread and waits for it.
    pub fn stop(mut self, drain: Duration) {
        self.send(Command::Stop(drain));
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that programs a family has panicked");
        }
    }
}

struct Work<F> {
    family: Family,
    mode: Box<dyn Mode>,
    pace: Pace,
    queue: Arc<Queue>,
    done: F,
    wanted: Option<Wanted>,
    changed: Option<Changed>,
    triggers: Vec<i64>,
    /// UDP ports as they were at the last sync that went well.
    udp: BTreeMap<PortName, Option<Arc<Balancer>>>,
    repairing: bool,
    failures: u32,
    last: Option<Instant>,
    last_full: Instant,
}

impl<F: FnMut(Done)> Work<F> {
    fn run(mut self) {
        loop {
            self.wait();
            for command in self.queue.take() {
                match command {
                    Command::Update(update, triggers) => self.take(update, triggers),
                    Command::Stop(drain) => return self.mode.drain(drain),
                }
            }
            self.look();
            if self.is_due() {
                self.sync();
            }
        }
    }

    fn wait(&self) {
        let timeout = match self.changed {
            Some(_) => self.not_before().min(LOOK),
            None => LOOK,
        };
        let mut fds: Vec<PollFd<'_>> =
            vec![PollFd::new(self.queue.wake.as_fd(), PollFlags::POLLIN)];
        let events: Option<BorrowedFd<'_>> = self.mode.events();
        fds.extend(events.map(|events| PollFd::new(events, PollFlags::POLLIN)));
        // Rounded up: a wait of less than a millisecond would be none at all, again and again.
        let millis = timeout.as_micros().div_ceil(1000);
        let timeout = PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX);
        if let Err(error) = poll(&mut fds, timeout)
            && error != nix::errno::Errno::EINTR
        {
            tracing::error!("wait for changes: {error}");
            std::thread::sleep(LOOK);
        }
    }

    /// How long the next sync has to wait.
    fn not_before(&self) -> Duration {
        let Some(last) = self.last else {
            return Duration::ZERO;
        };
        let pause = match self.failures {
            0 if self.repairing => self.pace.min_sync.max(REPAIR),
            0 => self.pace.min_sync,
            // New news do not wait for the end of an old failure's patience.
            failures => (RETRY * 2u32.saturating_pow(failures - 1)).min(self.pace.sync_period),
        };
        pause.saturating_sub(last.elapsed())
    }

    fn take(&mut self, update: Update, triggers: Vec<i64>) {
        self.remember_udp(&update);
        self.triggers.extend(triggers);
        let changed = update.apply(&mut self.wanted);
        self.changed = Some(merge(self.changed.take(), changed));
        if self.failures > 1 {
            self.failures = 1;
        }
    }

    /// Before an update: what the UDP ports in it were, unless that is known already.
    fn remember_udp(&mut self, update: &Update) {
        let before = self.wanted.as_ref().map(|wanted| &wanted.balancers);
        let udp = |name: &&PortName| name.protocol == Protocol::Udp;
        let mut note = |name: &PortName| {
            let old = before.and_then(|before| before.get(name)).cloned();
            self.udp.entry(name.clone()).or_insert(old);
        };
        match update {
            Update::Ports(ports) => ports.keys().filter(udp).for_each(&mut note),
            Update::All(wanted) => {
                wanted.balancers.keys().filter(udp).for_each(&mut note);
                let before = before.into_iter().flat_map(BTreeMap::keys);
                before.filter(udp).for_each(note);
            }
        }
    }

    fn look(&mut self) {
        if let Some(what) = self.mode.disturbed() {
            tracing::warn!(
                "{}: someone else changed {what}; mending",
                self.family.label()
            );
            self.changed = Some(Changed::All);
            self.repairing = true;
        }
        let quiet = self.changed.is_none() && self.wanted.is_some();
        if quiet && (self.failures > 0 || self.last_full.elapsed() > FULL) {
            self.changed = Some(Changed::All);
        }
    }

    fn is_due(&self) -> bool {
        self.changed.is_some() && self.wanted.is_some() && self.not_before().is_zero()
    }

    fn sync(&mut self) {
        let (Some(wanted), Some(changed)) = (&self.wanted, self.changed.take()) else {
            return;
        };
        let (began, since) = (Moment::now(), Instant::now());
        let report = self.mode.sync(wanted, &changed);
        let took = since.elapsed();
        let udp = match report.errors.is_empty() {
            true => {
                self.failures = 0;
                let udp = std::mem::take(&mut self.udp).into_iter();
                udp.map(|(name, old)| PortChange {
                    new: wanted.balancers.get(&name).cloned(),
                    name,
                    old,
                })
                .collect()
            }
            false => {
                self.failures = (self.failures + 1).min(16);
                Vec::new()
            }
        };
        if report.full {
            self.last_full = Instant::now();
        }
        self.last = Some(Instant::now());
        let triggers = match report.errors.is_empty() {
            true => std::mem::take(&mut self.triggers),
            false => Vec::new(),
        };
        (self.done)(Done {
            family: self.family,
            began,
            took,
            repaired: std::mem::take(&mut self.repairing),
            report,
            triggers,
            udp,
        });
    }
}

fn merge(before: Option<Changed>, new: Changed) -> Changed {
    match (before, new) {
        (None, new) => new,
        (Some(Changed::Ports(mut all)), Changed::Ports(more)) => {
            all.extend(more);
            Changed::Ports(all)
        }
        _ => Changed::All,
    }
}
