//! Events of nf_tables: who changed which table, as it happens (NFNLGRP_NFTABLES).

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

use super::{
    Family, SUBSYSTEM, Table,
    element::read_text,
    socket::{NFT_MSG_NEWGEN, NFTA_GEN_ID, NFTA_TABLE},
};
use crate::{
    Error, Netns, Result,
    sys::netfilter::{self, Message, value_of},
};

const NFNLGRP_NFTABLES: u32 = 7;
/// Room for the events of some 100,000 elements changed at once.
const RECEIVE_BUFFER: i32 = 16 << 20;
const NFTA_GEN_PROC_PID: u16 = 2;
const NFTA_GEN_PROC_NAME: u16 = 3;
const NFTA_CHAIN_NAME: u16 = 3;
/// The name of what is in a table, in messages about rules, sets, elements and objects.
const NFTA_NAME: u16 = 2;

/// A change to the ruleset, or the end of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Something was added, changed or removed. Equal ones that follow each other are one: a
    /// thousand elements added to one set.
    Changed {
        /// The table it is in, or the table itself.
        table: Table,
        /// What it is.
        what: What,
        /// The chain or set; for a rule its chain, for elements their set. Empty for a table.
        name: String,
        /// It is gone.
        removed: bool,
        /// Who did it: the netlink address of the socket ([`super::Socket::port_id`]).
        port_id: u32,
    },
    /// A transaction is done; the changes before it were its own.
    Generation {
        /// The ruleset's number from now on.
        id: u32,
        /// The thread that did it, by its number in the initial PID namespace.
        pid: u32,
        /// Its name.
        process: String,
        /// Its socket.
        port_id: u32,
    },
    /// Events were lost because they came faster than they were read, or could not be read: compare
    /// everything anew.
    Overrun,
}

/// A sort of object in the ruleset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum What {
    /// A table.
    Table,
    /// A chain.
    Chain,
    /// A rule.
    Rule,
    /// A set or map.
    Set,
    /// Elements of a set or map.
    Element,
    /// A named counter, quota, helper or such.
    Object,
    /// A flow table.
    FlowTable,
}

/// A listening socket in the namespace where it was opened. It never blocks: wait on its file
/// descriptor, then read [`Monitor::events`].
pub struct Monitor {
    netlink: netfilter::Socket,
}

impl Monitor {
    /// Listens in the calling thread's namespace.
    pub fn open() -> Result<Self> {
        let open = || -> io::Result<netfilter::Socket> {
            let mut netlink = netfilter::Socket::open()?;
            netlink.join(NFNLGRP_NFTABLES, RECEIVE_BUFFER)?;
            Ok(netlink)
        };
        let netlink = open().map_err(|cause| Error::new("listen to nftables events", cause))?;
        Ok(Self { netlink })
    }

    /// Listens in another namespace.
    pub fn open_in(netns: &Netns) -> Result<Self> {
        netns.run(Self::open)?
    }

    /// The events of one datagram; `None` when there is none to read now. A datagram whose messages
    /// are none of ours (a packet trace) is an empty list.
    pub fn events(&mut self) -> Result<Option<Vec<Event>>> {
        let mut collector = Collector::default();
        match self.netlink.read_one(|message| match message {
            Ok(message) => collector.take(&message),
            // What we cannot read may have mattered.
            Err(_) => collector.events.push(Event::Overrun),
        }) {
            Ok(true) => Ok(Some(collector.events)),
            Ok(false) => Ok(None),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                Ok(Some(vec![Event::Overrun]))
            }
            Err(cause) => Err(Error::new("read nftables events", cause)),
        }
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.netlink.as_fd()
    }
}

#[derive(Default)]
struct Collector {
    events: Vec<Event>,
}

impl Collector {
    fn take(&mut self, message: &Message<'_>) {
        if message.kind & 0xff00 != SUBSYSTEM {
            return;
        }
        if message.kind == NFT_MSG_NEWGEN {
            self.events
                .push(generation(message).unwrap_or(Event::Overrun));
            return;
        }
        let Some((what, removed)) = sort(message.kind) else {
            return;
        };
        match changed(message, what, removed) {
            Some(change) if self.events.last().is_some_and(|last| change.is(last)) => {}
            Some(change) => self.events.push(change.into()),
            None => self.events.push(Event::Overrun),
        }
    }
}

/// [`Event::Changed`], still in the datagram: of thousands of equal ones only the first is copied.
struct Changed<'a> {
    family: Family,
    table: &'a str,
    what: What,
    name: &'a str,
    removed: bool,
    port_id: u32,
}

impl Changed<'_> {
    fn is(&self, event: &Event) -> bool {
        matches!(event, Event::Changed { table, what, name, removed, port_id }
            if *what == self.what && *removed == self.removed && *port_id == self.port_id
            && name == self.name && table.family == self.family && *table.name == *self.table)
    }
}

impl From<Changed<'_>> for Event {
    fn from(change: Changed<'_>) -> Self {
        Self::Changed {
            table: Table::new(change.family, change.table),
            what: change.what,
            name: change.name.to_owned(),
            removed: change.removed,
            port_id: change.port_id,
        }
    }
}

fn changed<'a>(message: &Message<'a>, what: What, removed: bool) -> Option<Changed<'a>> {
    let payload = message.payload();
    let name = match what {
        What::Table => "",
        What::Chain => read_text(value_of(payload, NFTA_CHAIN_NAME)?)?,
        _ => read_text(value_of(payload, NFTA_NAME)?)?,
    };
    Some(Changed {
        family: Family::from_number(message.family())?,
        table: read_text(value_of(payload, NFTA_TABLE)?)?,
        what,
        name,
        removed,
        port_id: message.port,
    })
}

fn generation(message: &Message<'_>) -> Option<Event> {
    let number = |kind| {
        let value = value_of(message.payload(), kind)?;
        Some(u32::from_be_bytes(value.try_into().ok()?))
    };
    Some(Event::Generation {
        id: number(NFTA_GEN_ID)?,
        pid: number(NFTA_GEN_PROC_PID)?,
        process: value_of(message.payload(), NFTA_GEN_PROC_NAME)
            .and_then(read_text)
            .unwrap_or_default()
            .to_owned(),
        port_id: message.port,
    })
}

/// What a message is about and whether it is gone; `None` for what changes nothing.
fn sort(kind: u16) -> Option<(What, bool)> {
    // NFT_MSG_NEW… and NFT_MSG_DEL… of each.
    Some(match kind & 0xff {
        0 => (What::Table, false),
        2 => (What::Table, true),
        3 => (What::Chain, false),
        5 => (What::Chain, true),
        6 => (What::Rule, false),
        8 => (What::Rule, true),
        9 => (What::Set, false),
        11 => (What::Set, true),
        12 => (What::Element, false),
        14 => (What::Element, true),
        18 => (What::Object, false),
        20 => (What::Object, true),
        22 => (What::FlowTable, false),
        24 => (What::FlowTable, true),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        nft::{Element, element::ChainNames},
        sys::netfilter::{messages, push_attribute, push_header, set_flags, set_length},
    };

    fn message(kind: u16, family: u8, attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        push_header(&mut bytes, SUBSYSTEM | kind, 0, 0, [family, 0, 0, 0]);
        for (kind, value) in attributes {
            push_attribute(&mut bytes, *kind, value);
        }
        set_length(&mut bytes, 0);
        bytes
    }

    fn read(bytes: &[u8]) -> Vec<Event> {
        let mut collector = Collector::default();
        for message in messages(bytes) {
            match message {
                Ok(message) => collector.take(&message),
                Err(_) => collector.events.push(Event::Overrun),
            }
        }
        collector.events
    }

    fn with_flags(mut message: Vec<u8>, flags: u16) -> Vec<u8> {
        set_flags(&mut message, 0, flags);
        message
    }

    #[test]
    fn equal_changes_are_one() {
        let added = message(12, 2, &[(1, b"weft\0".to_vec()), (2, b"slots\0".to_vec())]);
        let removed = message(14, 2, &[(1, b"weft\0".to_vec()), (2, b"slots\0".to_vec())]);
        let events = read(&[&added[..], &added, &removed, &added].concat());
        let removals: Vec<_> = events
            .iter()
            .map(|event| matches!(event, Event::Changed { removed: true, .. }))
            .collect();
        assert_eq!(removals, [false, true, false]);
    }

    #[test]
    fn what_cannot_be_read_is_an_overrun() {
        assert_eq!(read(&message(12, 2, &[])), [Event::Overrun]);
        assert_eq!(read(&message(15, 0, &[])), [Event::Overrun]);
        let mut cut = message(12, 2, &[]);
        cut[0] = 255;
        assert_eq!(read(&cut), [Event::Overrun]);
    }

    proptest! {
        #[test]
        fn garbage_does_not_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            kind in 0u16..40,
            flags: u16,
            family in 0u8..12,
            attributes in prop::collection::vec(
                (0u16..18, prop::collection::vec(any::<u8>(), 0..40)),
                0..6,
            ),
        ) {
            read(&bytes);
            let whole = with_flags(message(kind, family, &attributes), flags);
            read(&whole);
            for message in messages(&whole).flatten() {
                let _ = message.refusal();
                Element::parse(message.payload(), &mut ChainNames::default());
                crate::nft::ruleset::parse_all(message.payload());
            }
        }
    }
}
