//! Labels of asked names: case, and the addresses that some spell.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use hickory_proto::rr::Name;

/// How many labels `name` has more than `domain`, if it is in it.
pub(super) fn below(name: &Name, domain: &Name) -> Option<usize> {
    let depth = name.iter().len().checked_sub(domain.iter().len())?;
    let mut tail = name.iter().skip(depth).zip(domain.iter());
    tail.all(|(one, other)| one.eq_ignore_ascii_case(other))
        .then_some(depth)
}

/// Room for the lower case of one name, so that looking it up allocates nothing.
pub(super) struct Lower {
    bytes: [u8; Name::MAX_LENGTH],
}

impl Default for Lower {
    fn default() -> Self {
        Self {
            bytes: [0; Name::MAX_LENGTH],
        }
    }
}

impl Lower {
    /// Puts the labels in lower case into `out`, last one first. False if one cannot be part of an object's name, or
    /// there are too many of them.
    pub(super) fn read<'a, 'b>(
        &'b mut self,
        labels: impl ExactSizeIterator<Item = &'a [u8]>,
        out: &mut [&'b str],
    ) -> bool {
        let mut room = self.bytes.as_mut_slice();
        let count = labels.len();
        let Some(out) = out.get_mut(..count) else {
            return false;
        };
        for (label, slot) in labels.zip(out.iter_mut().rev()) {
            let Some((here, rest)) = std::mem::take(&mut room).split_at_mut_checked(label.len())
            else {
                return false;
            };
            here.copy_from_slice(label);
            here.make_ascii_lowercase();
            match std::str::from_utf8(here) {
                Ok(text) if text.is_ascii() => *slot = text,
                _ => return false,
            }
            room = rest;
        }
        true
    }
}

/// The address that a label such as `10-0-0-1`, `fd00--1` or `fd00-0--0001` spells.
pub(super) fn dashed(label: &str) -> Option<IpAddr> {
    // The longest is `ffff-ffff-ffff-ffff-ffff-ffff-ffff-ffff`.
    let mut room = [0; 39];
    let text = room.get_mut(..label.len())?;
    text.copy_from_slice(label.as_bytes());
    if !text
        .iter()
        .all(|byte| byte.is_ascii_hexdigit() || *byte == b'-')
    {
        return None;
    }
    spelt_with::<Ipv4Addr>(text, b'.').or_else(|| spelt_with::<Ipv6Addr>(text, b':'))
}

/// Reads the text with `mark` for all that is no digit.
fn spelt_with<T: FromStr + Into<IpAddr>>(text: &mut [u8], mark: u8) -> Option<IpAddr> {
    for byte in text.iter_mut().filter(|byte| !byte.is_ascii_hexdigit()) {
        *byte = mark;
    }
    let ip: T = std::str::from_utf8(text).ok()?.parse().ok()?;
    Some(ip.into())
}

/// The address that a label spells in the one way that [`dash`] has.
pub(super) fn spelt(label: &str) -> Option<IpAddr> {
    dashed(label).filter(|ip| ip.is_ipv4() || dash(*ip) == label)
}

/// The label that spells an address.
pub(super) fn dash(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}
