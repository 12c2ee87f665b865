//! Many datagrams in one system call, each possibly of many segments (sendmmsg(2), udp(7) UDP_SEGMENT).

use std::{
    io,
    net::SocketAddr,
    ops::Range,
    os::fd::{AsRawFd as _, BorrowedFd},
    ptr,
};

use super::address::Address;

/// Room for IP_TOS or IPV6_TCLASS (24 bytes) and UDP_SEGMENT (24 bytes), aligned as cmsghdr.
type Control = [u64; 8];

/// What one message of a batch sends.
#[derive(Clone, Debug)]
pub(crate) struct Datagram {
    /// Its bytes in the batch's buffer.
    pub(crate) bytes: Range<usize>,
    /// Which socket it leaves from, of those that the caller has.
    pub(crate) socket: usize,
    pub(crate) to: SocketAddr,
    /// TOS or traffic class of the outer header.
    pub(crate) tos: u8,
    /// Cut by the kernel into datagrams of this many bytes (the last may be shorter); None: as it is.
    pub(crate) segment: Option<u16>,
}

/// The kernel's view of a batch; made once, filled anew for each call.
pub(crate) struct SendBatch {
    headers: Box<[libc::mmsghdr]>,
    vectors: Box<[libc::iovec]>,
    addresses: Box<[Address]>,
    controls: Box<[Control]>,
    /// Sends wait for room in the socket's buffer, as long as its SO_SNDTIMEO says.
    waits: bool,
}

// SAFETY: the pointers inside are written and used only during `send`, which has exclusive access.
unsafe impl Send for SendBatch {}

impl SendBatch {
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
            controls: vec![[0; 8]; capacity].into(),
            waits: true,
        }
    }

    /// Lets sends wait for room again, until one of them has waited in vain (EAGAIN).
    pub(crate) fn wait_again(&mut self) {
        self.waits = true;
    }

    /// Sends the first datagrams (at most the capacity), and answers how many; the error is that of the first one.
    ///
    /// # Panics
    /// When a datagram's range is outside `buffer`.
    pub(crate) fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        buffer: &[u8],
        datagrams: &[Datagram],
    ) -> io::Result<usize> {
        let count = datagrams.len().min(self.headers.len());
        for (at, datagram) in datagrams[..count].iter().enumerate() {
            let bytes = &buffer[datagram.bytes.clone()];
            self.vectors[at] = libc::iovec {
                iov_base: bytes.as_ptr().cast_mut().cast(),
                iov_len: bytes.len(),
            };
            let header = &mut self.headers[at].msg_hdr;
            header.msg_namelen = self.addresses[at].set(datagram.to);
            header.msg_name = (&raw mut self.addresses[at]).cast();
            header.msg_iov = &raw mut self.vectors[at];
            header.msg_iovlen = 1;
            header.msg_control = ptr::null_mut();
            header.msg_controllen = 0;
            if datagram.tos != 0 || datagram.segment.is_some() {
                header.msg_control = self.controls[at].as_mut_ptr().cast();
                header.msg_controllen = size_of::<Control>();
                header.msg_controllen = write_control(header, datagram);
            }
        }
        // SAFETY: the first `count` headers point to one iovec, one address and one control buffer each, all
        // owned by `self` and not moved; the iovecs point into `buffer`, borrowed for the call and only read.
        let sent = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                count as libc::c_uint,
                if self.waits { 0 } else { libc::MSG_DONTWAIT },
            )
        };
        usize::try_from(sent).map_err(|_| {
            let error = io::Error::last_os_error();
            self.waits &= error.kind() != io::ErrorKind::WouldBlock;
            error
        })
    }
}

/// Fills the control buffer that `header` points to; answers its length.
fn write_control(header: &libc::msghdr, datagram: &Datagram) -> usize {
    let mut length = 0;
    // SAFETY: the control buffer has 64 bytes; both messages take 24 each with padding, so that FIRSTHDR and NXTHDR
    // stay inside, and CMSG_DATA is followed by the bytes written. Everything is written by value, aligned or not.
    unsafe {
        let mut place = libc::CMSG_FIRSTHDR(header);
        if datagram.tos != 0 {
            let (level, kind) = match datagram.to {
                SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_TOS),
                SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
            };
            (*place).cmsg_level = level;
            (*place).cmsg_type = kind;
            (*place).cmsg_len = libc::CMSG_LEN(size_of::<i32>() as u32) as usize;
            libc::CMSG_DATA(place)
                .cast::<i32>()
                .write_unaligned(i32::from(datagram.tos));
            length += libc::CMSG_SPACE(size_of::<i32>() as u32) as usize;
            place = place.byte_add(libc::CMSG_SPACE(size_of::<i32>() as u32) as usize);
        }
        if let Some(segment) = datagram.segment {
            (*place).cmsg_level = libc::SOL_UDP;
            (*place).cmsg_type = libc::UDP_SEGMENT;
            (*place).cmsg_len = libc::CMSG_LEN(size_of::<u16>() as u32) as usize;
            libc::CMSG_DATA(place)
                .cast::<u16>()
                .write_unaligned(segment);
            length += libc::CMSG_SPACE(size_of::<u16>() as u32) as usize;
        }
    }
    length
}
