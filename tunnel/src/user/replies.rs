//! Answers to the nodes that ask for our MAC (VXLAN): from the socket that they asked, never waited for, rate-limited.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsRawFd as _,
};

use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, SockaddrStorage, sendto},
};

use super::rate::Rate;
use crate::DropReason;

/// Sends them.
pub(super) struct Replies {
    socket: UdpSocket,
    /// Which all nodes of a VXLAN share.
    port: u16,
    rate: Rate,
}

impl Replies {
    /// From `socket` to the port that it is bound to.
    pub(super) fn new(socket: UdpSocket) -> io::Result<Self> {
        let port = socket.local_addr()?.port();
        Ok(Self {
            socket,
            port,
            rate: Rate::new(),
        })
    }

    /// Sends `answer` to the node `to`, which asks again if it was one too many.
    ///
    /// # Errors
    /// It was not sent, and why; one too many counts as a full buffer.
    pub(super) fn send(&mut self, answer: &[u8], to: IpAddr) -> Result<(), DropReason> {
        if !self.rate.take() {
            return Err(DropReason::SendBufferFull);
        }
        let to = SockaddrStorage::from(SocketAddr::new(to, self.port));
        match sendto(self.socket.as_raw_fd(), answer, &to, MsgFlags::MSG_DONTWAIT) {
            Ok(_) => Ok(()),
            Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM) => Err(DropReason::SendBufferFull),
            Err(_) => Err(DropReason::SendError),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, os::fd::AsFd as _, sync::mpsc, thread, time::Duration};

    use super::*;
    use crate::{
        sys,
        user::{rate::BURST, slow::on_slow_loopback},
    };

    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn more_than_the_rate_are_counted_and_not_sent() {
        let socket = UdpSocket::bind((LOOPBACK, 0)).unwrap();
        let mut replies = Replies::new(socket.try_clone().unwrap()).unwrap();
        let start = std::time::Instant::now();
        let outcomes: Vec<_> = (0..5000)
            .map(|_| replies.send(&[1; 50], LOOPBACK))
            .collect();
        let most = BURST + start.elapsed().as_secs_f64() * 1000.0 + 1.0;
        let sent = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert!(sent as f64 >= BURST && sent as f64 <= most, "{sent}");
        assert_eq!(outcomes[4999], Err(DropReason::SendBufferFull));
    }

    /// The receiving worker must go on.
    #[test]
    fn a_full_buffer_is_not_waited_for() {
        on_slow_loopback(|| {
            let socket = UdpSocket::bind((LOOPBACK, 0)).unwrap();
            sys::set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_SNDBUF, 0).unwrap();
            let mut replies = Replies::new(socket).unwrap();
            let (done, outcome) = mpsc::channel();
            // In vain it would wait for ever.
            thread::spawn(move || {
                let outcomes: Vec<_> = (0..50)
                    .map(|_| replies.send(&[1; 1400], LOOPBACK))
                    .collect();
                done.send(outcomes)
            });
            let outcomes = outcome.recv_timeout(Duration::from_secs(5)).unwrap();
            assert_eq!(outcomes[0], Ok(()));
            assert_eq!(outcomes[49], Err(DropReason::SendBufferFull));
        });
    }
}
