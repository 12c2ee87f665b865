//! Many datagrams received by one system call, and sent on by another from where they lie (recvmmsg(2),
//! sendmmsg(2)).

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::ptr;

use super::address::Address;

/// No datagram is longer.
const LARGEST: usize = 65535;
/// Room for one datagram.
const STRIDE: usize = 65536;

/// Buffers for a batch and the kernel's view of them; made once.
pub(crate) struct Datagrams {
    headers: Box<[libc::mmsghdr]>,
    vectors: Box<[libc::iovec]>,
    addresses: Box<[Address]>,
    /// Touched, and so backed by memory, only as far as datagrams fill it.
    buffer: Box<[u8]>,
}

// SAFETY: the pointers inside are written and used only during calls that have exclusive access to `self`, and
// point to memory that `self` owns.
unsafe impl Send for Datagrams {}

impl Datagrams {
    /// For at most `capacity` datagrams a call.
    pub(crate) fn new(capacity: usize) -> Self {
        // SAFETY: mmsghdr is plain old data, for which all zeroes is a value.
        let header: libc::mmsghdr = unsafe { std::mem::zeroed() };
        let vector = libc::iovec {
            iov_base: ptr::null_mut(),
            iov_len: 0,
        };
        Self {
            headers: vec![header; capacity].into(),
            vectors: vec![vector; capacity].into(),
            addresses: vec![Address::none(); capacity].into(),
            buffer: vec![0; capacity * STRIDE].into(),
        }
    }

    /// Receives what is there (the socket is not waited for), and answers how many datagrams.
    pub(crate) fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        for (at, bytes) in self.buffer.chunks_exact_mut(STRIDE).enumerate() {
            self.vectors[at] = libc::iovec {
                iov_base: bytes.as_mut_ptr().cast(),
                iov_len: LARGEST,
            };
            let header = &mut self.headers[at].msg_hdr;
            header.msg_name = (&raw mut self.addresses[at]).cast();
            header.msg_namelen = size_of::<Address>() as libc::socklen_t;
            header.msg_iov = &raw mut self.vectors[at];
            header.msg_iovlen = 1;
            header.msg_control = ptr::null_mut();
            header.msg_controllen = 0;
        }
        // SAFETY: each header points to one iovec (of a piece of `buffer` of its own) and one address, all owned
        // by `self`, not moved during the call, with their true sizes.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                self.headers.len() as libc::c_uint,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        usize::try_from(received).map_err(|_| io::Error::last_os_error())
    }

    /// Who sent datagram `at` of the last [`receive`](Self::receive).
    pub(crate) fn from(&self, at: usize) -> Option<SocketAddr> {
        self.addresses[at].address()
    }

    /// Bytes of datagram `at`.
    pub(crate) fn length(&self, at: usize) -> usize {
        (self.headers[at].msg_len as usize).min(LARGEST)
    }

    /// Sends datagrams of the last [`receive`](Self::receive) on: to `to`, or where the socket is connected to.
    /// Answers how many were sent; the error is that of the first one. Where they came from is forgotten if
    /// `to` is given.
    pub(crate) fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        range: Range<usize>,
        to: Option<SocketAddr>,
    ) -> io::Result<usize> {
        for at in range.clone() {
            let length = self.length(at);
            let start = at * STRIDE;
            let bytes = &mut self.buffer[start..start + length];
            self.vectors[at] = libc::iovec {
                iov_base: bytes.as_mut_ptr().cast(),
                iov_len: length,
            };
            let header = &mut self.headers[at].msg_hdr;
            (header.msg_name, header.msg_namelen) = match to {
                Some(to) => {
                    let length = self.addresses[at].set(to);
                    ((&raw mut self.addresses[at]).cast(), length)
                }
                None => (ptr::null_mut(), 0),
            };
            header.msg_iov = &raw mut self.vectors[at];
            header.msg_iovlen = 1;
            header.msg_control = ptr::null_mut();
            header.msg_controllen = 0;
        }
        let headers = &mut self.headers[range];
        // SAFETY: each of these headers points to one iovec and at most one address, owned by `self` and not moved
        // during the call, with their true sizes; the iovecs point into `buffer`, which is only read.
        let sent = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                headers.len() as libc::c_uint,
                libc::MSG_DONTWAIT,
            )
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::os::fd::AsFd as _;

    #[test]
    fn a_batch_is_sent_on_as_it_was_received() {
        let bind = || UdpSocket::bind("127.0.0.1:0").unwrap();
        let (from, middle, to) = (bind(), bind(), bind());
        let sent: [&[u8]; 3] = [b"first", b"", &[7; 1400]];
        for bytes in sent {
            let middle = middle.local_addr().unwrap();
            from.send_to(bytes, middle).unwrap();
        }
        let mut batch = Datagrams::new(8);
        assert_eq!(batch.receive(middle.as_fd()).unwrap(), 3);
        assert_eq!(batch.from(1), Some(from.local_addr().unwrap()));
        let there = to.local_addr().unwrap();
        assert_eq!(batch.send(middle.as_fd(), 0..1, Some(there)).unwrap(), 1);
        middle.connect(there).unwrap();
        assert_eq!(batch.send(middle.as_fd(), 1..3, None).unwrap(), 2);
        let mut buffer = [0; 2000];
        for bytes in sent {
            let length = to.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], bytes);
        }
        let empty = batch.receive(to.as_fd()).unwrap_err();
        assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);
    }
}
