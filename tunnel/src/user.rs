//! The data path in user space: plain threads between the queues of a TUN device and UDP sockets.
//!
//! Theory. Each worker has a queue of the device, a receiving socket in a SO_REUSEPORT group on our port, and some
//! sending sockets on ephemeral ports. The kernel spreads flows over the queues; a flow has one of the worker's source
//! ports, by its hash, so the receiver's group spreads flows again, and none is ever out of order.
//!
//! In mode *offload* packets of up to 64 KiB cross the device (virtio_net_hdr): they are cut here, sent with
//! UDP_SEGMENT, received with UDP_GRO, checked one by one and joined again. In mode *plain* one packet is one system call.
//! Both do all that is right to do: checksums that a kernel left unfinished, ICMP errors, path MTU, ECN, source checks.
//!
//! Invariants. Nothing that comes in ends a worker; only the device or a socket that is gone for good does
//! ([`UserPath::ended`]). Per packet there is no lock and no allocation; the table is read once a batch.
//! See Documentation/networking/tuntap.rst, udp(7).

mod answers;
mod device;
mod encapsulation;
mod notes;
mod outbox;
mod output;
mod oversize;
mod probe;
mod rate;
mod receiver;
mod replies;
mod sender;
#[cfg(test)]
mod slow;
mod sockets;
mod spread;
mod tally;
mod worker;

pub use probe::{Capabilities, probe};

use std::{
    fmt, io,
    net::{SocketAddr, UdpSocket},
    os::fd::AsFd as _,
    sync::{Arc, atomic::AtomicBool},
    thread::{self, JoinHandle},
};

use arc_swap::ArcSwap;

use crate::{Counters, Table, Wire};
use answers::Answers;
use encapsulation::Encapsulation;
use notes::Notes;
use outbox::Outbox;
use output::Output;
use oversize::Oversize;
use receiver::Receiver;
use sender::Sender;
use worker::{Ended, Side, Stop};

/// More workers than this gain nothing: the kernel's part of the path is the larger one.
const MOST_WORKERS: usize = 4;

/// How packets cross the device and the sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Large packets, cut and joined here.
    Offload,
    /// One packet a system call.
    Plain,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Offload => "offload",
            Self::Plain => "plain",
        })
    }
}

/// What a [`UserPath`] is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The TUN device: persistent, made when it is not there. Link state, addresses and MTU are the caller's.
    pub device: String,
    /// Our address and port on the underlay.
    pub bind: SocketAddr,
    /// What the datagrams hold.
    pub wire: Wire,
    /// How packets cross.
    pub mode: Mode,
    /// Worker threads (pairs); none: by core count, at most 4.
    pub workers: Option<usize>,
    /// The device's MTU, in bytes of IP packet: what larger packets are cut to.
    pub mtu: u32,
}

/// Why a [`UserPath`] did not start: operation, object, cause, remedy.
#[derive(Debug, thiserror::Error)]
#[error("{operation}: {cause}{}{remedy}", if remedy.is_empty() { "" } else { "; " })]
pub struct Error {
    operation: String,
    #[source]
    cause: io::Error,
    remedy: &'static str,
}

impl Error {
    fn new(operation: impl Into<String>, cause: io::Error, remedy: &'static str) -> Self {
        Self {
            operation: operation.into(),
            cause,
            remedy,
        }
    }

    /// The kernel's error number (errno(3)).
    pub fn errno(&self) -> Option<i32> {
        self.cause.raw_os_error()
    }

    /// The kernel does not know what was asked for, so that [`Mode::Plain`] may do; anything else (a port in use, no
    /// memory) plain would meet as well, or it passes.
    pub fn is_refusal(&self) -> bool {
        let refusals = [
            libc::EINVAL,
            libc::EOPNOTSUPP,
            libc::ENOPROTOOPT,
            libc::ENOTTY,
        ];
        self.errno().is_some_and(|errno| refusals.contains(&errno))
    }
}

/// A running data path; its threads end, and are waited for, when it is dropped. The device stays.
#[derive(Debug)]
pub struct UserPath {
    settings: Settings,
    bound: SocketAddr,
    /// The receivers', for their options.
    sockets: Vec<UdpSocket>,
    stop: Arc<Stop>,
    threads: Vec<JoinHandle<()>>,
    ended: Ended,
    notes: Arc<Notes>,
}

impl UserPath {
    /// Binds the sockets, opens the device and starts the workers, in the calling thread's network namespace.
    ///
    /// # Errors
    /// The address or the device is not to be had; the text says what to do.
    pub fn start(
        settings: &Settings,
        table: Arc<ArcSwap<Table>>,
        counters: Arc<Counters>,
    ) -> Result<Self, Error> {
        let Settings {
            bind, mode, wire, ..
        } = *settings;
        let name = &settings.device;
        let notes = Arc::<Notes>::default();
        let workers = settings.workers.unwrap_or_else(by_cores).max(1);
        // The port first: that another daemon runs mostly shows there.
        let receivers = sockets::receivers(bind, workers, mode, &notes)?;
        let device = device::open(name, mode, workers, &notes)?;
        let thread = |cause| Error::new(format!("start the workers of {name}"), cause, "");
        let bound = receivers[0].local_addr().map_err(thread)?;
        let stop = Stop::new().map_err(thread)?;
        let mut path = Self {
            settings: settings.clone(),
            bound,
            sockets: Vec::new(),
            stop: Arc::new(stop),
            threads: Vec::new(),
            ended: Ended::default(),
            notes: Arc::clone(&notes),
        };
        let encapsulation = Encapsulation(wire);
        let unsegmented = Arc::<AtomicBool>::default();
        let mut queues = Vec::new();
        let (mut inward, mut outward) = (Vec::new(), Vec::new());
        for queue in &device.queues {
            queues.push(queue.try_clone().map_err(thread)?);
        }
        // A device with one queue still gets all sockets served, by as many receivers.
        for (at, socket) in receivers.into_iter().enumerate() {
            let queue = &device.queues[at % device.queues.len()];
            let queue = queue.try_clone().map_err(thread)?;
            path.sockets.push(socket.try_clone().map_err(thread)?);
            let receiver = Receiver::new(
                socket,
                mode,
                encapsulation,
                Output::new(name, queue, &device, settings.mtu),
                Arc::clone(&table),
                Arc::clone(&counters),
            )
            .map_err(thread)?;
            inward.push(Box::new(receiver) as Box<dyn Side>);
        }
        for queue in queues {
            let answers = Answers::new(queue.try_clone().map_err(thread)?, device.has_header);
            let sending = || sockets::sender(bind.ip(), sockets::Fragmenting::Never);
            let outbox = Outbox::new(
                (0..spread::SOCKETS)
                    .map(|_| sending())
                    .collect::<Result<_, _>>()?,
                mode,
                encapsulation.overhead(),
                Arc::clone(&unsegmented),
                Arc::clone(&notes),
                Oversize::new(bind.ip(), encapsulation.overhead()),
                answers,
            );
            let sender = Sender {
                name: name.clone(),
                queue,
                has_header: device.has_header,
                encapsulation,
                outbox,
                table: Arc::clone(&table),
                counters: Arc::clone(&counters),
                input: Sender::input(),
            };
            outward.push(Box::new(sender) as Box<dyn Side>);
        }
        // A thread for each direction: measured, one thread for both gives TCP a quarter less, as acknowledgements wait for data.
        for (at, side) in inward.into_iter().enumerate() {
            path.spawn(format!("tun-in-{at}"), side)?;
        }
        for (at, side) in outward.into_iter().enumerate() {
            path.spawn(format!("tun-out-{at}"), side)?;
        }
        Ok(path)
    }

    fn spawn(&mut self, thread: String, side: Box<dyn Side>) -> Result<(), Error> {
        let (stop, ended) = (Arc::clone(&self.stop), Arc::clone(&self.ended));
        let started = worker::spawn(thread, side, stop, ended);
        let device = &self.settings.device;
        let failed = |cause| Error::new(format!("start the workers of {device}"), cause, "");
        self.threads.push(started.map_err(failed)?);
        Ok(())
    }

    /// What it was started with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Where it receives: as in the settings, with the kernel's port if that one was 0.
    pub fn bound(&self) -> SocketAddr {
        self.bound
    }

    /// Whether the kernel may join datagrams on their way to our sockets (UDP_GRO; as started: yes in mode offload).
    ///
    /// Network cards join before programs on the link see a packet, and only where a socket asks for it; a program cannot
    /// take a joined one apart. So: off while programs take the packets.
    pub fn join_datagrams(&self, wanted: bool) -> io::Result<()> {
        if self.settings.mode == Mode::Plain {
            return Ok(());
        }
        for socket in &self.sockets {
            sockets::join_datagrams(socket.as_fd(), wanted)?;
        }
        Ok(())
    }

    /// Why a worker stopped by itself; the path is of no use any more then.
    pub fn ended(&self) -> Option<String> {
        match self.ended.lock() {
            Ok(ended) if ended.is_some() => ended.clone(),
            _ => self
                .threads
                .iter()
                .any(JoinHandle::is_finished)
                .then(|| "a worker of the user-space data path panicked".to_owned()),
        }
    }

    /// What was downgraded, at the start or since, oldest first; each was also logged once.
    pub fn notes(&self) -> Vec<String> {
        self.notes.all()
    }
}

impl Drop for UserPath {
    fn drop(&mut self) {
        if let Err(error) = self.stop.tell() {
            // The threads would never end: rather leave them than wait for ever.
            tracing::error!("tell the data path's threads to end: {error}");
            return;
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the user-space data path panicked");
            }
        }
    }
}

fn by_cores() -> usize {
    thread::available_parallelism().map_or(1, |cores| cores.get().min(MOST_WORKERS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_does_not_know_is_a_refusal_and_what_passes_is_none() {
        let is_refusal = |errno| {
            let cause = io::Error::from_raw_os_error(errno);
            Error::new("open TUN device flannel.1", cause, "").is_refusal()
        };
        for errno in [
            libc::EINVAL,
            libc::EOPNOTSUPP,
            libc::ENOPROTOOPT,
            libc::ENOTTY,
        ] {
            assert!(is_refusal(errno), "{errno}");
        }
        for errno in [libc::EADDRINUSE, libc::EBUSY, libc::ENOMEM, libc::EPERM] {
            assert!(!is_refusal(errno), "{errno}");
        }
        assert!(!Error::new("bind", io::Error::other("for a reason"), "").is_refusal());
    }
}
