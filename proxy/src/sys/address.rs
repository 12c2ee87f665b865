//! Socket addresses in the kernel's form.

use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};

/// Room for an address of either family.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) union Address {
    family: libc::sa_family_t,
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

impl Address {
    /// Of no family.
    pub(super) const fn none() -> Self {
        // SAFETY: all members are plain old data, for which all zeroes is a value.
        unsafe { std::mem::zeroed() }
    }

    /// Writes `address`, and answers how many bytes of this the kernel has to read.
    pub(super) fn set(&mut self, address: SocketAddr) -> libc::socklen_t {
        match address {
            SocketAddr::V4(address) => {
                self.v4 = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: address.port().to_be(),
                    sin_addr: libc::in_addr {
                        s_addr: u32::from_ne_bytes(address.ip().octets()),
                    },
                    sin_zero: [0; 8],
                };
                size_of::<libc::sockaddr_in>() as libc::socklen_t
            }
            SocketAddr::V6(address) => {
                self.v6 = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: address.port().to_be(),
                    sin6_flowinfo: address.flowinfo(),
                    sin6_addr: libc::in6_addr {
                        s6_addr: address.ip().octets(),
                    },
                    sin6_scope_id: address.scope_id(),
                };
                size_of::<libc::sockaddr_in6>() as libc::socklen_t
            }
        }
    }

    /// The address and port. None: another family.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        // SAFETY: every member begins with the family, and all bytes are initialised (`none`).
        match i32::from(unsafe { self.family }) {
            libc::AF_INET => {
                // SAFETY: plain old data, initialised; the family says that it is this one.
                let v4 = unsafe { self.v4 };
                let ip = v4.sin_addr.s_addr.to_ne_bytes().into();
                Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
            }
            libc::AF_INET6 => {
                // SAFETY: as above.
                let v6 = unsafe { self.v6 };
                let ip = v6.sin6_addr.s6_addr.into();
                let port = u16::from_be(v6.sin6_port);
                Some(SocketAddrV6::new(ip, port, v6.sin6_flowinfo, v6.sin6_scope_id).into())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_comes_back() {
        for text in ["192.168.66.1:8285", "[fd00::1]:8472", "[fe80::1%3]:53"] {
            let address: SocketAddr = text.parse().unwrap();
            let mut raw = Address::none();
            assert_eq!(raw.address(), None);
            raw.set(address);
            assert_eq!(raw.address(), Some(address));
        }
    }
}
