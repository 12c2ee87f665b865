//! A register's worth of bytes, short ones without an allocation of their own.

use std::{cmp::Ordering, fmt, hash, ops::Deref};

/// The longest that is kept in place: an IPv6 address, protocol, port and slot are 28 bytes.
const INLINE: usize = 30;

/// Key or value of an element; 32 bytes of memory as long as it is no longer than 30. Compares and
/// hashes as the slice that it derefs to, and prints in hexadecimal.
#[derive(Clone)]
pub struct Bytes(Store);

#[derive(Clone)]
enum Store {
    Inline { length: u8, bytes: [u8; INLINE] },
    Heap(Box<[u8]>),
}

impl From<&[u8]> for Bytes {
    fn from(slice: &[u8]) -> Self {
        if slice.len() > INLINE {
            return Self(Store::Heap(slice.into()));
        }
        let mut bytes = [0; INLINE];
        bytes[..slice.len()].copy_from_slice(slice);
        Self(Store::Inline {
            length: slice.len() as u8,
            bytes,
        })
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        bytes.as_slice().into()
    }
}

impl<const N: usize> From<[u8; N]> for Bytes {
    fn from(bytes: [u8; N]) -> Self {
        bytes.as_slice().into()
    }
}

impl Default for Bytes {
    fn default() -> Self {
        [].into()
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Store::Inline { length, bytes } => &bytes[..usize::from(*length)],
            Store::Heap(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl std::borrow::Borrow<[u8]> for Bytes {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl PartialEq for Bytes {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Bytes {}

impl PartialOrd for Bytes {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Bytes {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(&**other)
    }
}

impl hash::Hash for Bytes {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("0x")?;
        self.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_ones_are_the_same_to_a_reader() {
        for length in [0, 1, INLINE, INLINE + 1, 64] {
            let slice: Vec<u8> = (0..length as u8).collect();
            let bytes = Bytes::from(slice.clone());
            assert_eq!(*bytes, slice[..]);
            assert_eq!(bytes, Bytes::from(&slice[..]));
        }
        assert!(Bytes::from([1; 40]) < Bytes::from([2]));
        assert_eq!(Bytes::from([10, 0, 255]).to_string(), "0x0a00ff");
        assert_eq!(size_of::<Bytes>(), 32);
    }
}
