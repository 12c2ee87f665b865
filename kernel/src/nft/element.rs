//! Elements of sets and maps, and how the kernel writes them (NFTA_SET_ELEM_*).

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use super::Bytes;
use crate::sys::netfilter::{attributes, begin_nested, end_nested, push_attribute, value_of};

const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_DATA: u16 = 2;
const NFTA_SET_ELEM_FLAGS: u16 = 3;
const NFTA_SET_ELEM_TIMEOUT: u16 = 4;
const NFTA_SET_ELEM_EXPIRATION: u16 = 5;
const NFTA_SET_ELEM_KEY_END: u16 = 10;
const NFT_SET_ELEM_INTERVAL_END: u32 = 1;
const NFT_SET_ELEM_CATCHALL: u32 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_VERDICT_CHAIN: u16 = 2;
pub(super) const NFTA_LIST_ELEM: u16 = 1;

const NF_DROP: i32 = 0;
const NF_ACCEPT: i32 = 1;
const NFT_JUMP: i32 = -3;
const NFT_GOTO: i32 = -4;
const NFT_RETURN: i32 = -5;

/// An element of a set or map.
///
/// Keys and values are bytes as the kernel's registers hold them: every field of a concatenation in
/// network byte order (host byte order for what has no network form, such as marks and interface
/// indices), followed by zeros up to a multiple of four bytes. `ip daddr . meta l4proto . th dport`
/// is 4 + 1 + 3 zeros + 2 + 2 zeros = 12 bytes. A key that is no concatenation has no zeros after it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Element {
    /// The key. Empty: the catch-all element `*`.
    pub key: Bytes,
    /// The last key, in a set of intervals of concatenations: field by field the upper bounds.
    pub key_end: Option<Bytes>,
    /// In a set of intervals of one field: where the interval before ends. Such a set has two
    /// elements for each interval, the first address in it and, with this flag, the first one after.
    pub interval_end: bool,
    /// What a map has for the key.
    pub data: Option<Data>,
    /// How long it lives without being renewed, where it has a time of its own.
    pub timeout: Option<Duration>,
    /// How long it still lives; read only, [`super::Transaction`] leaves it out.
    pub expires: Option<Duration>,
}

/// What a map has for a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Data {
    /// What becomes of the packet, in a verdict map.
    Verdict(Verdict),
    /// Bytes in register layout, as a key.
    Value(Bytes),
}

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// It passes this hook.
    Accept,
    /// It is dropped.
    Drop,
    /// Goes on in the calling chain.
    Return,
    /// Through a chain and back.
    Jump(Arc<str>),
    /// To a chain for good.
    Goto(Arc<str>),
}

impl Element {
    /// An element of a set.
    pub fn of_set(key: impl Into<Bytes>) -> Self {
        Self {
            key: key.into(),
            ..Self::default()
        }
    }

    /// An element of a map.
    pub fn of_map(key: impl Into<Bytes>, data: Data) -> Self {
        Self {
            data: Some(data),
            ..Self::of_set(key)
        }
    }

    /// The length of its longest key or value.
    pub(super) fn longest(&self) -> usize {
        let end = self.key_end.as_ref().map_or(0, |end| end.len());
        let value = match &self.data {
            Some(Data::Value(value)) => value.len(),
            _ => 0,
        };
        self.key.len().max(end).max(value)
    }

    /// The chain that its verdict leads to.
    pub(super) fn chain(&self) -> Option<&str> {
        match &self.data {
            Some(Data::Verdict(Verdict::Jump(chain) | Verdict::Goto(chain))) => Some(chain),
            _ => None,
        }
    }

    /// Appends what identifies it.
    fn encode_key(&self, buffer: &mut Vec<u8>) {
        let catch_all = self.key.is_empty();
        if !catch_all {
            push_value(buffer, NFTA_SET_ELEM_KEY, &self.key);
        }
        if let Some(end) = &self.key_end {
            push_value(buffer, NFTA_SET_ELEM_KEY_END, end);
        }
        if catch_all || self.interval_end {
            let catch_all = u32::from(catch_all) * NFT_SET_ELEM_CATCHALL;
            let end = u32::from(self.interval_end) * NFT_SET_ELEM_INTERVAL_END;
            push_attribute(
                buffer,
                NFTA_SET_ELEM_FLAGS,
                &(catch_all | end).to_be_bytes(),
            );
        }
    }

    /// Appends it as an element of a list; only what identifies it, or all.
    pub(super) fn encode(&self, buffer: &mut Vec<u8>, whole: bool) {
        let at = begin_nested(buffer, NFTA_LIST_ELEM);
        self.encode_key(buffer);
        if whole {
            match &self.data {
                Some(Data::Value(value)) => push_value(buffer, NFTA_SET_ELEM_DATA, value),
                Some(Data::Verdict(verdict)) => verdict.encode(buffer, NFTA_SET_ELEM_DATA),
                None => {}
            }
            if let Some(timeout) = self.timeout {
                let milliseconds = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
                push_attribute(buffer, NFTA_SET_ELEM_TIMEOUT, &milliseconds.to_be_bytes());
            }
        }
        end_nested(buffer, at);
    }

    /// From the attributes of one element; `None` for what no kernel writes.
    pub(super) fn parse(bytes: &[u8], names: &mut ChainNames) -> Option<Self> {
        let mut element = Self::default();
        for (kind, value) in attributes(bytes) {
            match kind {
                NFTA_SET_ELEM_KEY => element.key = value_of(value, NFTA_DATA_VALUE)?.into(),
                NFTA_SET_ELEM_KEY_END => {
                    element.key_end = Some(value_of(value, NFTA_DATA_VALUE)?.into());
                }
                NFTA_SET_ELEM_FLAGS => {
                    let flags = u32::from_be_bytes(value.try_into().ok()?);
                    element.interval_end = flags & NFT_SET_ELEM_INTERVAL_END != 0;
                }
                NFTA_SET_ELEM_DATA => {
                    element.data = Some(match value_of(value, NFTA_DATA_VALUE) {
                        Some(value) => Data::Value(value.into()),
                        None => {
                            let verdict = value_of(value, NFTA_DATA_VERDICT)?;
                            Data::Verdict(Verdict::parse(verdict, names)?)
                        }
                    });
                }
                NFTA_SET_ELEM_TIMEOUT => element.timeout = Some(milliseconds(value)?),
                NFTA_SET_ELEM_EXPIRATION => element.expires = Some(milliseconds(value)?),
                // Counters, comments, references to objects: not needed here.
                _ => {}
            }
        }
        Some(element)
    }
}

impl Verdict {
    /// Appends it as an attribute of that type.
    pub(super) fn encode(&self, buffer: &mut Vec<u8>, kind: u16) {
        let data = begin_nested(buffer, kind);
        let verdict = begin_nested(buffer, NFTA_DATA_VERDICT);
        let (code, chain) = match self {
            Self::Accept => (NF_ACCEPT, None),
            Self::Drop => (NF_DROP, None),
            Self::Return => (NFT_RETURN, None),
            Self::Jump(chain) => (NFT_JUMP, Some(chain)),
            Self::Goto(chain) => (NFT_GOTO, Some(chain)),
        };
        push_attribute(buffer, NFTA_VERDICT_CODE, &code.to_be_bytes());
        if let Some(chain) = chain {
            push_text(buffer, NFTA_VERDICT_CHAIN, chain);
        }
        end_nested(buffer, verdict);
        end_nested(buffer, data);
    }

    fn parse(bytes: &[u8], names: &mut ChainNames) -> Option<Self> {
        let code = value_of(bytes, NFTA_VERDICT_CODE)?.try_into().ok()?;
        let chain = || value_of(bytes, NFTA_VERDICT_CHAIN).and_then(read_text);
        Some(match i32::from_be_bytes(code) {
            NF_ACCEPT => Self::Accept,
            NF_DROP => Self::Drop,
            NFT_RETURN => Self::Return,
            NFT_JUMP => Self::Jump(names.get(chain()?)),
            NFT_GOTO => Self::Goto(names.get(chain()?)),
            _ => return None,
        })
    }
}

/// Chain names met in a dump, each kept once: thousands of elements go to a few chains.
#[derive(Default)]
pub(super) struct ChainNames(BTreeSet<Arc<str>>);

impl ChainNames {
    fn get(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.get(name) {
            return known.clone();
        }
        let name: Arc<str> = name.into();
        self.0.insert(name.clone());
        name
    }
}

/// Appends text with the zero byte that the kernel wants after it.
pub(super) fn push_text(buffer: &mut Vec<u8>, kind: u16, text: &str) {
    let at = begin_nested(buffer, kind);
    buffer.extend_from_slice(text.as_bytes());
    buffer.push(0);
    end_nested(buffer, at);
    // A plain attribute, so without the flag of a nested one.
    buffer[at + 2..at + 4].copy_from_slice(&kind.to_ne_bytes());
    buffer.resize(buffer.len().next_multiple_of(4), 0);
}

/// Text up to its zero byte; `None` if it is not UTF-8.
pub(super) fn read_text(bytes: &[u8]) -> Option<&str> {
    let end = bytes.iter().position(|byte| *byte == 0);
    std::str::from_utf8(&bytes[..end.unwrap_or(bytes.len())]).ok()
}

fn push_value(buffer: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let at = begin_nested(buffer, kind);
    push_attribute(buffer, NFTA_DATA_VALUE, value);
    end_nested(buffer, at);
}

fn milliseconds(value: &[u8]) -> Option<Duration> {
    let number = u64::from_be_bytes(value.try_into().ok()?);
    Some(Duration::from_millis(number))
}
