//! Many datagrams from one system call, each possibly of many segments (recvmmsg(2), udp(7) UDP_GRO).

use std::{
    io,
    net::IpAddr,
    os::fd::{AsRawFd as _, BorrowedFd},
    ptr,
};

use super::address::Address;

/// No datagram, joined or not, is longer.
const LARGEST: usize = 65535;
/// Room for one datagram; a page more than it can have keeps the buffers apart.
const STRIDE: usize = 65536;

/// Room for IP_TOS or IPV6_TCLASS, UDP_GRO and SO_RXQ_OVFL (24 bytes each), aligned as cmsghdr.
type Control = [u64; 16];

/// What the kernel said about one message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Receipt {
    /// Bytes in the buffer.
    pub(crate) length: usize,
    /// Who sent it.
    pub(crate) from: Option<IpAddr>,
    /// TOS or traffic class of the outer header.
    pub(crate) tos: u8,
    /// The message is many datagrams of this many bytes (the last may be shorter).
    pub(crate) segment: Option<usize>,
    /// Datagrams that this socket has lost so far, because its buffer was full.
    pub(crate) lost: Option<u32>,
}

/// Buffers and the kernel's view of them; made once.
pub(crate) struct ReceiveBatch {
    headers: Box<[libc::mmsghdr]>,
    vectors: Box<[libc::iovec]>,
    addresses: Box<[Address]>,
    controls: Box<[Control]>,
    buffer: Box<[u8]>,
}

// SAFETY: the pointers inside point to memory that `self` owns, and are used with exclusive access only.
unsafe impl Send for ReceiveBatch {}

impl ReceiveBatch {
    /// For at most `capacity` messages a call, each of up to 64 KiB (touched only as far as it is filled).
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
            controls: vec![[0; 16]; capacity].into(),
            buffer: vec![0; capacity * STRIDE].into(),
        }
    }

    /// Messages a call.
    pub(crate) fn capacity(&self) -> usize {
        self.headers.len()
    }

    /// Receives what is there (the socket is not waited for), and answers how many messages.
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
            header.msg_control = self.controls[at].as_mut_ptr().cast();
            header.msg_controllen = size_of::<Control>();
        }
        // SAFETY: each header points to one iovec (of a piece of `buffer` of its own), one address and one control
        // buffer, all owned by `self`, not moved during the call, with their true sizes.
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

    /// What is known of message `at` of the last [`receive`](Self::receive), and its bytes.
    pub(crate) fn message(&mut self, at: usize) -> (Receipt, &mut [u8]) {
        let header = &self.headers[at];
        let length = (header.msg_len as usize).min(LARGEST);
        let mut receipt = Receipt {
            length,
            from: self.addresses[at].ip(),
            tos: 0,
            segment: None,
            lost: None,
        };
        read_control(&header.msg_hdr, &mut receipt);
        let start = at * STRIDE;
        (receipt, &mut self.buffer[start..start + length])
    }
}

fn read_control(header: &libc::msghdr, receipt: &mut Receipt) {
    // SAFETY: the kernel has set msg_controllen to what it wrote into the control buffer, which is whole messages;
    // the macros stay inside it. Values are read unaligned and only as many bytes as their kind has.
    unsafe {
        let mut place = libc::CMSG_FIRSTHDR(header);
        while !place.is_null() {
            let data = libc::CMSG_DATA(place);
            match ((*place).cmsg_level, (*place).cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_TOS) => receipt.tos = data.read(),
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                    receipt.tos = data.cast::<i32>().read_unaligned() as u8;
                }
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    let segment = data.cast::<i32>().read_unaligned();
                    receipt.segment = usize::try_from(segment).ok().filter(|size| *size > 0);
                }
                (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => {
                    receipt.lost = Some(data.cast::<u32>().read_unaligned());
                }
                _ => {}
            }
            place = libc::CMSG_NXTHDR(header, place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{
        send::{Datagram, SendBatch},
        set_option,
    };
    use std::{net::UdpSocket, os::fd::AsFd as _};

    fn pair() -> (UdpSocket, UdpSocket) {
        let bind = || UdpSocket::bind("127.0.0.1:0").unwrap();
        (bind(), bind())
    }

    #[test]
    fn segments_tos_and_source_come_through() {
        let (from, to) = pair();
        let fd = to.as_fd();
        set_option(fd, libc::SOL_UDP, libc::UDP_GRO, 1).unwrap();
        set_option(fd, libc::IPPROTO_IP, libc::IP_RECVTOS, 1).unwrap();
        let buffer: Vec<u8> = (0..=255).cycle().take(2050).collect();
        let datagram = |bytes, tos, segment| Datagram {
            bytes,
            socket: 0,
            to: to.local_addr().unwrap(),
            tos,
            segment,
        };
        let datagrams = [
            datagram(0..2050, 0xb9, Some(500)),
            datagram(7..8, 0, None),
            datagram(9..9, 2, None),
        ];
        let sent = SendBatch::new(8).send(from.as_fd(), &buffer, &datagrams);
        assert_eq!(sent.unwrap(), 3);
        let mut batch = ReceiveBatch::new(8);
        let count = batch.receive(fd).unwrap();
        assert_eq!(count, 3);
        let expected = [(0xb9, Some(500)), (0, None), (2, None)];
        for ((at, sent), (tos, segment)) in datagrams.iter().enumerate().zip(expected) {
            let (receipt, bytes) = batch.message(at);
            assert_eq!(bytes, &buffer[sent.bytes.clone()]);
            assert_eq!((receipt.tos, receipt.segment), (tos, segment));
            assert_eq!(receipt.from, Some(IpAddr::from([127, 0, 0, 1])));
            assert_eq!(receipt.length, bytes.len());
        }
        let empty = batch.receive(fd).unwrap_err();
        assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn lost_datagrams_are_reported() {
        let (from, to) = pair();
        let fd = to.as_fd();
        set_option(fd, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1).unwrap();
        set_option(fd, libc::SOL_SOCKET, libc::SO_RCVBUF, 4096).unwrap();
        for _ in 0..100 {
            from.send_to(&[0; 1000], to.local_addr().unwrap()).unwrap();
        }
        let mut batch = ReceiveBatch::new(100);
        let before = batch.receive(fd).unwrap();
        assert!(before < 100);
        // The kernel tells it with the next one that has room.
        from.send_to(&[0; 10], to.local_addr().unwrap()).unwrap();
        assert_eq!(batch.receive(fd).unwrap(), 1);
        let (receipt, _) = batch.message(0);
        assert_eq!(receipt.lost, Some(100 - before as u32));
    }
}
