//! The thread that moves packets between the TUN device and the UDP socket: one packet a system call.
//!
//! It reads the peer table once per wake-up and takes no lock. It ends when told to (an eventfd) or
//! when device or socket are gone for good; the next reconcile sees that and starts another.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    os::fd::{AsFd as _, BorrowedFd},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::eventfd::{EfdFlags, EventFd},
};
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

use super::{icmp, table::Table};

/// Packets taken from one side before looking at the other.
const BURST: usize = 64;
/// No IP packet is longer.
const LARGEST: usize = 65535;

/// Packets by fate.
#[derive(Debug, Default)]
pub struct Counters {
    /// Sent to peers.
    pub sent: AtomicU64,
    /// Received from peers and given to the kernel.
    pub received: AtomicU64,
    /// Dropped: no peer has the destination.
    pub no_peer: AtomicU64,
    /// Dropped: not a whole IPv4 packet.
    pub malformed: AtomicU64,
    /// Dropped: the underlay refused it.
    pub send_errors: AtomicU64,
    /// Dropped: the TUN device refused it.
    pub device_errors: AtomicU64,
}

impl Counters {
    /// All drops.
    pub fn dropped(&self) -> u64 {
        [
            &self.no_peer,
            &self.malformed,
            &self.send_errors,
            &self.device_errors,
        ]
        .iter()
        .map(|counter| counter.load(Ordering::Relaxed))
        .sum()
    }
}

/// A running data path; ends when dropped.
pub struct DataPath {
    bound: SocketAddrV4,
    stop: EventFd,
    counters: Arc<Counters>,
    ended: Arc<Mutex<Option<String>>>,
    thread: Option<JoinHandle<()>>,
}

impl DataPath {
    /// Opens (or takes over) the persistent device, binds the socket and starts the thread.
    pub fn start(
        device: &str,
        bind: SocketAddrV4,
        table: Arc<ArcSwap<Table>>,
    ) -> anyhow::Result<Self> {
        let tun = open_tun(device)?;
        let socket = UdpSocket::bind(bind).with_context(|| {
            format!("bind udp {bind} (is another flanneld, or something else, using the port?)")
        })?;
        socket.set_nonblocking(true)?;
        let stop =
            EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let counters = Arc::<Counters>::default();
        let ended = Arc::<Mutex<Option<String>>>::default();
        let worker = Worker {
            tun,
            socket,
            table,
            counters: Arc::clone(&counters),
        };
        let (told, note) = (stop.as_fd().try_clone_to_owned()?, Arc::clone(&ended));
        let thread = thread::Builder::new()
            .name("udp-datapath".into())
            .spawn(move || {
                let outcome = worker.run(told.as_fd());
                if let (Err(error), Ok(mut note)) = (outcome, note.lock()) {
                    *note = Some(error.to_string());
                }
            })?;
        Ok(Self {
            bound: bind,
            stop,
            counters,
            ended,
            thread: Some(thread),
        })
    }

    /// The socket's own address.
    pub fn bound_to(&self) -> SocketAddrV4 {
        self.bound
    }

    /// The thread has stopped by itself.
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Why the thread stopped by itself.
    pub fn ended(&self) -> Option<String> {
        self.ended.lock().ok().and_then(|note| note.clone())
    }

    /// Packets so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}

impl Drop for DataPath {
    fn drop(&mut self) {
        let told = self.stop.write(1);
        if let (Ok(_), Some(thread)) = (told, self.thread.take())
            && thread.join().is_err()
        {
            tracing::error!("the udp data path thread panicked");
        }
    }
}

fn open_tun(device: &str) -> anyhow::Result<SyncDevice> {
    let tun = DeviceBuilder::new()
        .name(device)
        .layer(Layer::L3)
        .inherit_enable_state()
        .build_sync()
        .with_context(|| {
            format!(
                "open TUN device {device} (needs /dev/net/tun and CAP_NET_ADMIN; \"busy\" means that \
                 another process holds it)"
            )
        })?;
    tun.persist().context("make the TUN device persistent")?;
    tun.set_nonblocking(true)?;
    Ok(tun)
}

struct Worker {
    tun: SyncDevice,
    socket: UdpSocket,
    table: Arc<ArcSwap<Table>>,
    counters: Arc<Counters>,
}

impl Worker {
    fn run(&self, stop: BorrowedFd<'_>) -> io::Result<()> {
        let mut buffer = vec![0; LARGEST];
        loop {
            let mut waits = [
                PollFd::new(stop, PollFlags::POLLIN),
                PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.tun.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut waits, PollTimeout::NONE) {
                Ok(_) => {}
                Err(nix::errno::Errno::EINTR) => continue,
                Err(errno) => return Err(errno.into()),
            }
            let [stopped, incoming, outgoing] = waits.map(|wait| wait.revents());
            if stopped.is_some_and(|events| !events.is_empty()) {
                return Ok(());
            }
            let table = self.table.load();
            if incoming.is_some_and(|events| !events.is_empty()) {
                self.receive(&mut buffer)?;
            }
            if outgoing.is_some_and(|events| !events.is_empty()) {
                self.send(&table, &mut buffer)?;
            }
        }
    }

    /// Underlay → TUN.
    fn receive(&self, buffer: &mut [u8]) -> io::Result<()> {
        for _ in 0..BURST {
            let length = match self.socket.recv_from(buffer) {
                Ok((length, _)) => length,
                Err(error) if is_empty(&error) => return Ok(()),
                // An ICMP error about an earlier datagram; it says nothing about this socket.
                Err(error) if is_transient(&error) => continue,
                Err(error) => return Err(error),
            };
            let Some(packet) = ipv4(&buffer[..length]) else {
                count(&self.counters.malformed);
                continue;
            };
            match self.tun.send(packet) {
                Ok(_) => count(&self.counters.received),
                Err(_) => count(&self.counters.device_errors),
            }
        }
        Ok(())
    }

    /// TUN → underlay.
    fn send(&self, table: &Table, buffer: &mut [u8]) -> io::Result<()> {
        for _ in 0..BURST {
            let length = match self.tun.recv(buffer) {
                Ok(length) => length,
                Err(error) if is_empty(&error) => return Ok(()),
                // EIO: the device is administratively down.
                Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EIO as i32) => {
                    return Ok(());
                }
                Err(error) => {
                    let text = format!("read from the TUN device: {error}");
                    return Err(io::Error::new(error.kind(), text));
                }
            };
            let Some(packet) = ipv4(&buffer[..length]) else {
                // The kernel also sends IPv6 router solicitations here.
                count(&self.counters.malformed);
                continue;
            };
            let Some(peer) = table.peer(destination(packet)) else {
                count(&self.counters.no_peer);
                if let Some(own) = table.own()
                    && let Some(answer) = icmp::network_unreachable(packet, own)
                    && self.tun.send(&answer).is_err()
                {
                    count(&self.counters.device_errors);
                }
                continue;
            };
            match self.socket.send_to(packet, peer) {
                Ok(_) => count(&self.counters.sent),
                Err(_) => count(&self.counters.send_errors),
            }
        }
        Ok(())
    }
}

/// The packet without padding, if `bytes` hold a whole IPv4 packet.
fn ipv4(bytes: &[u8]) -> Option<&[u8]> {
    let header = bytes.get(..20)?;
    let header_length = usize::from(header[0] & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if header[0] >> 4 != 4 || header_length < 20 || total < header_length {
        return None;
    }
    bytes.get(..total)
}

/// Of a packet that [`ipv4`] has checked.
fn destination(packet: &[u8]) -> Ipv4Addr {
    Ipv4Addr::new(packet[16], packet[17], packet[18], packet[19])
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn is_empty(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Interrupted
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn padding_goes_and_cut_packets_are_refused() {
        let mut packet = vec![0; 30];
        packet[0] = 0x45;
        packet[3] = 24;
        assert_eq!(ipv4(&packet).map(<[u8]>::len), Some(24));
        packet[3] = 31;
        assert_eq!(ipv4(&packet), None);
        packet[0] = 0x60;
        assert_eq!(ipv4(&packet), None);
    }

    proptest! {
        #[test]
        fn never_panics(bytes: Vec<u8>) {
            if let Some(packet) = ipv4(&bytes) {
                destination(packet);
            }
        }
    }
}
