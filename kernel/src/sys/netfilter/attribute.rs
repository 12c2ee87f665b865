//! Netlink attributes: reading them one after the other, and writing them, nested ones too
//! (struct nlattr of linux/netlink.h).

/// Type bits of struct nlattr, without the nested and byte-order flags.
const TYPE_MASK: u16 = 0x3fff;
const NESTED: u16 = 0x8000;
/// struct nlattr.
pub(crate) const ATTRIBUTE_HEADER: usize = 4;

/// The attributes in `bytes`: (type, value). Stops at the first one that does not fit.
pub(crate) fn attributes(bytes: &[u8]) -> Attributes<'_> {
    Attributes { bytes }
}

/// The value of the first attribute of a type.
pub(crate) fn value_of(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes)
        .find(|(kind, _)| *kind == wanted)
        .map(|(_, value)| value)
}

/// See [`attributes`].
#[derive(Clone)]
pub(crate) struct Attributes<'a> {
    bytes: &'a [u8],
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let &[l0, l1, k0, k1, ..] = self.bytes else {
            return None;
        };
        let length = u16::from_ne_bytes([l0, l1]) as usize;
        let kind = u16::from_ne_bytes([k0, k1]) & TYPE_MASK;
        let Some(value) = self.bytes.get(ATTRIBUTE_HEADER..length) else {
            self.bytes = &[];
            return None;
        };
        let next = length.next_multiple_of(4).min(self.bytes.len());
        self.bytes = &self.bytes[next..];
        Some((kind, value))
    }
}

/// Appends one attribute with its padding.
pub(crate) fn push_attribute(buffer: &mut Vec<u8>, kind: u16, value: &[u8]) {
    buffer.extend_from_slice(&((ATTRIBUTE_HEADER + value.len()) as u16).to_ne_bytes());
    buffer.extend_from_slice(&kind.to_ne_bytes());
    buffer.extend_from_slice(value);
    buffer.resize(buffer.len().next_multiple_of(4), 0);
}

/// Opens an attribute made of those that follow, until [`end_nested`] with the position returned.
pub(crate) fn begin_nested(buffer: &mut Vec<u8>, kind: u16) -> usize {
    let at = buffer.len();
    push_attribute(buffer, kind | NESTED, &[]);
    at
}

/// Closes the attribute that was opened at `at`, or extends it over what was appended since.
pub(crate) fn end_nested(buffer: &mut [u8], at: usize) {
    let length = (buffer.len() - at) as u16;
    buffer[at..at + 2].copy_from_slice(&length.to_ne_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_round_trip() {
        let mut buffer = Vec::new();
        push_attribute(&mut buffer, 1, &[7]);
        push_attribute(&mut buffer, 2 | NESTED, &[1, 2, 3, 4]);
        let at = begin_nested(&mut buffer, 3);
        push_attribute(&mut buffer, 4, &[9]);
        end_nested(&mut buffer, at);
        let read: Vec<_> = attributes(&buffer).collect();
        assert_eq!(read[..2], [(1, &[7][..]), (2, &[1, 2, 3, 4][..])]);
        assert_eq!(value_of(read[2].1, 4), Some(&[9][..]));
        assert_eq!(value_of(&buffer, 5), None);
    }

    #[test]
    fn cut_attributes_do_not_panic() {
        let mut buffer = Vec::new();
        push_attribute(&mut buffer, 1, &[7, 8, 9]);
        for end in 0..buffer.len() {
            assert_eq!(attributes(&buffer[..end]).count(), usize::from(end == 7));
        }
        assert_eq!(attributes(&[0, 0, 0, 0]).count(), 0);
    }
}
