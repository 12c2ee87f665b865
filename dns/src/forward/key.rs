//! What tells one question from another: the name in lower case, the type, and whether proofs are asked for.

use std::ops::Deref;

use hickory_proto::op::Query;

/// The longest: a name, a type, a flag.
const LENGTH: usize = 255 + 2 + 1;

/// A question as bytes, on the stack.
#[derive(Clone)]
pub(super) struct Key {
    bytes: [u8; LENGTH],
    length: usize,
}

impl Key {
    /// Of the question, class IN.
    pub(super) fn new(query: &Query, dnssec_ok: bool) -> Self {
        let mut key = Self {
            bytes: [0; LENGTH],
            length: 0,
        };
        for label in &query.name {
            key.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
            label
                .iter()
                .for_each(|byte| key.push(byte.to_ascii_lowercase()));
        }
        key.push(0);
        u16::from(query.query_type)
            .to_be_bytes()
            .into_iter()
            .for_each(|byte| key.push(byte));
        key.push(u8::from(dnssec_ok));
        key
    }

    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.length) {
            *place = byte;
            self.length += 1;
        }
    }
}

impl Deref for Key {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}
