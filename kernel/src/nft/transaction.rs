//! A transaction, encoded as it is made: no second copy of what is in flight.

use std::io;

use super::{
    Element, Table,
    element::{push_text, read_text},
};
use crate::{
    Error,
    sys::netfilter::{
        ATTRIBUTE_HEADER, HEADER, Refusal, Socket, attributes, begin_nested, end_nested, messages,
        push_header, set_flags, set_length,
    },
};
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST};

const NFT_MSG_NEWSETELEM: u16 = super::SUBSYSTEM | 12;
const NFT_MSG_DELSETELEM: u16 = super::SUBSYSTEM | 14;
const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
pub(super) const NFTA_SET_ELEM_LIST_SET: u16 = 2;
pub(super) const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;

/// A list of elements is one attribute, whose length has 16 bits; no element reaches the rest.
const LIST_BYTES: usize = 60 * 1024;
/// NFT_DATA_VALUE_MAXLEN.
const VALUE_BYTES: usize = 64;
/// NFT_NAME_MAXLEN without the zero byte.
const NAME_BYTES: usize = 255;

/// Changes to one table, to the elements of its sets and maps first of all, to be made all or none
/// by [`super::Socket::commit`], in the order in which they were added here.
///
/// To change what a map has for a key, delete the key and add it in one transaction.
#[derive(Clone, Debug)]
pub struct Transaction {
    table: Table,
    messages: Vec<u8>,
    count: u32,
    last: Option<Last>,
    changes: usize,
    expected: Option<u32>,
    impossible: Option<String>,
}

/// The last message. The next element may still go into it, if it is of its operation and set.
#[derive(Clone, Debug)]
struct Last {
    header: usize,
    flags: u16,
    elements: Option<(Operation, String, usize)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Add,
    Create,
    Delete,
    Flush,
}

impl Operation {
    fn kind(self) -> u16 {
        match self {
            Self::Add | Self::Create => NFT_MSG_NEWSETELEM,
            Self::Delete | Self::Flush => NFT_MSG_DELSETELEM,
        }
    }

    fn flags(self) -> u16 {
        NLM_F_REQUEST
            | match self {
                Self::Add => NLM_F_CREATE,
                Self::Create => NLM_F_CREATE | NLM_F_EXCL,
                Self::Delete | Self::Flush => 0,
            }
    }

    fn of(kind: u16, flags: u16) -> &'static str {
        match kind {
            NFT_MSG_DELSETELEM => "delete",
            _ if flags & NLM_F_EXCL != 0 => "create",
            _ => "add",
        }
    }
}

impl Transaction {
    /// Nothing yet, for the sets of `table`.
    pub fn new(table: &Table) -> Self {
        let mut transaction = Self {
            table: table.clone(),
            messages: Vec::new(),
            count: 0,
            last: None,
            changes: 0,
            expected: None,
            impossible: None,
        };
        transaction.check_name(&table.name);
        transaction
    }

    /// Adds an element. One that is there with the same data is fine: it stays, and takes a new
    /// timeout from Linux 6.12 on. One with other data makes the commit fail with EEXIST.
    pub fn add(&mut self, set: &str, element: &Element) {
        self.push(Operation::Add, set, element);
    }

    /// Adds an element that must not be there; else the commit fails with EEXIST.
    pub fn create(&mut self, set: &str, element: &Element) {
        self.push(Operation::Create, set, element);
    }

    /// Deletes an element by its key, key_end and interval_end; its other fields are not looked at.
    /// If it is not there the commit fails with ENOENT.
    pub fn delete(&mut self, set: &str, element: &Element) {
        self.push(Operation::Delete, set, element);
    }

    /// Deletes all elements of a set.
    pub fn flush(&mut self, set: &str) {
        self.begin(Operation::Flush, set);
        self.changes += 1;
    }

    /// Makes the commit fail with ERESTART ([`Error::is_outdated`]) if the ruleset's generation is
    /// not this one: somebody changed something since.
    pub fn expect_generation(&mut self, generation: u32) {
        self.expected = Some(generation);
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.changes == 0
    }

    /// How many changes it has: elements added and deleted, sets flushed, objects made and removed.
    pub fn len(&self) -> usize {
        self.changes
    }

    /// How many bytes it has so far (40 for an IPv4 element of a map, 64 for IPv6). It is sent as one
    /// datagram, which the kernel copies, and holds the ruleset's lock while it works on it; split
    /// what need not be atomic at a few megabytes.
    pub fn bytes(&self) -> usize {
        self.messages.len()
    }

    pub(super) fn expected(&self) -> Option<u32> {
        self.expected
    }

    pub(super) fn messages(&self) -> &[u8] {
        &self.messages
    }

    /// The sequence number of the last message, which alone asks for an acknowledgement; 0 if there
    /// is none.
    pub(super) fn last_sequence(&self) -> u32 {
        match self.count {
            0 => 0,
            count => Socket::BATCH_SEQUENCE + count,
        }
    }

    /// Why it cannot be sent at all.
    pub(super) fn impossible(&self) -> Option<Error> {
        let why = self.impossible.as_ref()?;
        Some(Error::other(self.what(), why))
    }

    fn push(&mut self, operation: Operation, set: &str, element: &Element) {
        let longest = element.longest();
        if longest > VALUE_BYTES {
            self.impossible.get_or_insert_with(|| {
                format!(
                    "element {} of {set} has a part of {longest} bytes; {VALUE_BYTES} are possible",
                    element.key
                )
            });
            return;
        }
        if let Some(chain) = element.chain() {
            self.check_name(chain);
        }
        let open = self.last.as_ref().and_then(|last| last.elements.as_ref());
        let fits = open.is_some_and(|(last, name, list)| {
            *last == operation && name == set && self.messages.len() - list < LIST_BYTES
        });
        if !fits {
            self.begin(operation, set);
        }
        element.encode(&mut self.messages, operation != Operation::Delete);
        if let Some(last) = &self.last {
            if let Some((.., list)) = last.elements {
                end_nested(&mut self.messages, list);
            }
            set_length(&mut self.messages, last.header);
        }
        self.changes += 1;
    }

    fn begin(&mut self, operation: Operation, set: &str) {
        self.check_name(set);
        self.message(operation.kind(), operation.flags(), |table, out| {
            push_text(out, NFTA_SET_ELEM_LIST_TABLE, &table.name);
            push_text(out, NFTA_SET_ELEM_LIST_SET, set);
        });
        let list = self.messages.len();
        if operation != Operation::Flush {
            begin_nested(&mut self.messages, NFTA_SET_ELEM_LIST_ELEMENTS);
        }
        if let Some(last) = &mut self.last {
            last.elements = Some((operation, set.to_owned(), list));
        }
    }

    pub(super) fn check_name(&mut self, name: &str) {
        if name.len() > NAME_BYTES || name.contains('\0') {
            self.impossible
                .get_or_insert_with(|| format!("{name:?} cannot be a name in nftables"));
        }
    }

    /// Counts a change that is no element.
    pub(super) fn counted(&mut self) {
        self.changes += 1;
    }

    /// Begins a message, whose attributes `write` appends.
    pub(super) fn message(
        &mut self,
        kind: u16,
        flags: u16,
        write: impl FnOnce(&Table, &mut Vec<u8>),
    ) {
        // Only the last message asks for an acknowledgement.
        if let Some(last) = self.last.take() {
            set_flags(&mut self.messages, last.header, last.flags);
        }
        self.count += 1;
        let header = self.messages.len();
        let sequence = self.last_sequence();
        push_header(
            &mut self.messages,
            kind,
            flags | NLM_F_ACK,
            sequence,
            [self.table.family.number(), 0, 0, 0],
        );
        write(&self.table, &mut self.messages);
        set_length(&mut self.messages, header);
        self.last = Some(Last {
            header,
            flags,
            elements: None,
        });
    }

    /// The error for what the kernel said to the message of that sequence number, naming set and
    /// element as far as they can be told.
    pub(super) fn error(&self, sequence: u32, refusal: Refusal, others: usize) -> Error {
        let what = self
            .describe(sequence, refusal.offset)
            .unwrap_or_else(|| self.what());
        let mut why = refusal.why;
        if others > 0 {
            let more = format!("and {others} more refusals");
            why = Some(why.map_or_else(|| more.clone(), |why| format!("{why}; {more}")));
        }
        Error::new(what, io::Error::from_raw_os_error(refusal.code)).because(why)
    }

    pub(super) fn what(&self) -> String {
        format!("change nftables table {}", self.table)
    }

    fn describe(&self, sequence: u32, offset: Option<usize>) -> Option<String> {
        let index = sequence.checked_sub(Socket::BATCH_SEQUENCE + 1)? as usize;
        let message = messages(&self.messages).nth(index)?.ok()?;
        if let Some(text) = super::objects::describe(&message, &self.table) {
            return Some(text);
        }
        let set = message
            .attributes()
            .find(|(kind, _)| *kind == NFTA_SET_ELEM_LIST_SET)
            .and_then(|(_, value)| read_text(value))?;
        let Some((_, elements)) = message
            .attributes()
            .find(|(kind, _)| *kind == NFTA_SET_ELEM_LIST_ELEMENTS)
        else {
            return Some(format!("flush nftables set {} {set}", self.table));
        };
        let verb = Operation::of(message.kind, message.flags);
        // The kernel counts from the message's header.
        let place = |part: &[u8]| part.as_ptr().addr() - message.body.as_ptr().addr() + HEADER;
        let found = attributes(elements).find(|(_, value)| {
            let start = place(value);
            offset.is_some_and(|at| (start - ATTRIBUTE_HEADER..start + value.len()).contains(&at))
        });
        let element = found.and_then(|(_, value)| Element::parse(value, &mut Default::default()));
        Some(match element {
            Some(element) => format!(
                "{verb} element {} of nftables set {} {set}",
                element.key, self.table
            ),
            None => format!(
                "{verb} {} elements of nftables set {} {set}",
                attributes(elements).count(),
                self.table
            ),
        })
    }
}
