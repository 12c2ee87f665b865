//! A socket to nf_tables: transactions of elements go out, lists come in.

use std::{
    collections::HashSet,
    hash::{BuildHasher as _, RandomState},
    io,
};

use netlink_packet_core::{NLM_F_DUMP, NLM_F_ECHO, NLM_F_REQUEST};

use super::{
    Element, SUBSYSTEM, Table, Transaction,
    element::{ChainNames, push_text},
    transaction::{NFTA_SET_ELEM_LIST_ELEMENTS, NFTA_SET_ELEM_LIST_SET},
};
use crate::{
    Error, Netns, Result,
    sys::netfilter::{
        self, Message, NLMSG_ERROR, Reading, Refusal, attributes, push_attribute, push_header,
        set_length, value_of,
    },
};

const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const NFNL_BATCH_GENID: u16 = 1;
const NFT_MSG_GETSETELEM: u16 = SUBSYSTEM | 13;
pub(super) const NFT_MSG_NEWGEN: u16 = SUBSYSTEM | 15;
const NFT_MSG_GETGEN: u16 = SUBSYSTEM | 16;
pub(super) const NFTA_GEN_ID: u16 = 1;
/// The table's name, in every message about tables and what is in them.
pub(super) const NFTA_TABLE: u16 = 1;

/// A list that changes while it is read is read again this many times.
const DUMP_TRIES: usize = 32;

/// A socket to nf_tables in the namespace where it was opened, wherever it is used later. Every
/// call blocks until the kernel has done it.
pub struct Socket {
    pub(super) netlink: netfilter::Socket,
}

impl Socket {
    /// A socket in the calling thread's namespace.
    pub fn open() -> Result<Self> {
        let netlink =
            netfilter::Socket::open().map_err(|cause| Error::new("open nftables socket", cause))?;
        Ok(Self { netlink })
    }

    /// A socket in another namespace.
    pub fn open_in(netns: &Netns) -> Result<Self> {
        netns.run(Self::open)?
    }

    /// The socket's netlink address: the events that its commits cause carry it
    /// ([`super::Event`]).
    pub fn port_id(&self) -> u32 {
        self.netlink.port_id()
    }

    /// The number of the present ruleset: it grows with every transaction that changes anything, of
    /// any program in the namespace (NFT_MSG_GETGEN).
    pub fn generation(&mut self) -> Result<u32> {
        let mut generation = None;
        let result = self.netlink.request(NFT_MSG_GETGEN, 0, 0, &[], |message| {
            generation = generation_of(message);
        });
        result
            .and_then(|_| {
                generation.ok_or_else(|| io::Error::other("answer without a generation number"))
            })
            .map_err(|cause| Error::new("read nftables generation", cause))
    }

    /// Carries out a transaction: all of it or, with an error, nothing. Returns the ruleset's
    /// generation that it made; if it changed nothing (it was empty, or all that it adds was there),
    /// the present one.
    ///
    /// The error names the first element that the kernel refused: EEXIST (there already, of
    /// [`Transaction::create`], or there with other data), ENOENT (no such table, set or
    /// element, or no chain of that name), ERESTART (not the expected generation), EINVAL (lengths
    /// that do not suit the set), ENFILE (the set is full).
    pub fn commit(&mut self, transaction: &Transaction) -> Result<u32> {
        if let Some(error) = transaction.impossible() {
            return Err(error);
        }
        let mut answers = Answers::default();
        let lost = self
            .send(transaction.expected(), transaction.messages(), &mut answers)
            .map_err(|cause| Error::new(transaction.what(), cause))?;
        if let Some((sequence, refusal)) = answers.refused {
            return Err(transaction.error(sequence, refusal, answers.refusals - 1));
        }
        let acknowledged = answers.acknowledged == transaction.last_sequence();
        match answers.generation {
            _ if lost => Err(Error::other(
                transaction.what(),
                "the kernel's answer was lost",
            )),
            _ if !acknowledged => Err(Error::other(
                transaction.what(),
                "the kernel did not acknowledge it",
            )),
            Some(generation) => Ok(generation),
            None => self.generation(),
        }
    }

    fn send(
        &mut self,
        expected: Option<u32>,
        messages: &[u8],
        answers: &mut Answers,
    ) -> io::Result<bool> {
        let begin = batch_begin(expected);
        let end = batch_edge(NFNL_MSG_BATCH_END, 0);
        let mut readable = Ok(());
        let lost = self
            .netlink
            .send_batch(&[&begin, messages, &end], |message| {
                if let Err(error) = answers.take(message) {
                    readable = Err(error);
                }
            })?;
        readable.map(|()| lost)
    }

    /// Waits until no transaction is under way; true if the generation is then still this one.
    ///
    /// A batch of nothing takes and gives back the lock that every transaction holds to its end.
    fn is_settled_at(&mut self, generation: u32) -> Result<bool> {
        let mut answers = Answers::default();
        let sent = self.send(Some(generation), &[], &mut answers);
        let failed = |cause| Error::new("wait for nftables transactions", cause);
        sent.map_err(failed)?;
        match answers.refused {
            None => Ok(true),
            Some((_, refusal)) if refusal.code == libc::ERESTART => Ok(false),
            Some((_, refusal)) => Err(failed(io::Error::from_raw_os_error(refusal.code))),
        }
    }

    /// The elements of a set or map; `None` if there is no such set or table.
    pub fn elements(&mut self, table: &Table, set: &str) -> Result<Option<Vec<Element>>> {
        self.fold_elements(table, set, Vec::new, Vec::push)
    }

    /// Reads the elements of a set or map into a state of the caller's, one at a time; `None` if
    /// there is no such set or table. When the ruleset changes under the reading it begins again,
    /// with a new state from `start`, so the result is of one moment.
    ///
    /// The kernel writes a list piece by piece and finds its place again by counting. So when a
    /// hash table is given more buckets in between, by a worker and without a transaction, elements
    /// come twice and as many others not at all: a list with a double is read again too. What
    /// packets add, and what runs out of time, may be missing or there.
    ///
    /// For each piece of some 700 elements it also walks over all before: 30,000 elements take a
    /// tenth of a second, 500,000 half a minute, ten times as long as to flush the set and create
    /// them all anew in one transaction.
    pub fn fold_elements<S>(
        &mut self,
        table: &Table,
        set: &str,
        mut start: impl FnMut() -> S,
        mut visit: impl FnMut(&mut S, Element),
    ) -> Result<Option<S>> {
        let mut names = ChainNames::default();
        let hasher = RandomState::new();
        let mut request = Vec::new();
        push_text(&mut request, NFTA_TABLE, &table.name);
        push_text(&mut request, NFTA_SET_ELEM_LIST_SET, set);
        self.dump(
            &format!("list nftables set {table} {set}"),
            NFT_MSG_GETSETELEM,
            table,
            &request,
            || (Some(start()), HashSet::new()),
            |(state, seen), message| {
                let list = value_of(message.payload(), NFTA_SET_ELEM_LIST_ELEMENTS);
                for (_, bytes) in attributes(list.unwrap_or_default()) {
                    let (Some(into), Some(element)) =
                        (&mut *state, Element::parse(bytes, &mut names))
                    else {
                        *state = None;
                        break;
                    };
                    let place = (&element.key, &element.key_end, element.interval_end);
                    if !seen.insert(hasher.hash_one(place)) {
                        return Reading::Interrupted;
                    }
                    visit(into, element);
                }
                Reading::Whole
            },
        )?
        .map(|(state, _)| {
            state.ok_or_else(|| {
                Error::other(
                    format!("list nftables set {table} {set}"),
                    "an element that this program cannot read",
                )
            })
        })
        .transpose()
    }

    /// Lists objects into a state; anew when they changed meanwhile, or when `visit` says so. `None`
    /// where the kernel knows no such thing.
    ///
    /// The kernel does not mark an interrupted list of elements (Linux 6.18), and counts the
    /// generation up when a transaction begins to take effect. So a list is whole when no
    /// transaction was under way before and after, at the same generation.
    pub(super) fn dump<S>(
        &mut self,
        what: &str,
        kind: u16,
        table: &Table,
        request: &[u8],
        mut start: impl FnMut() -> S,
        mut visit: impl FnMut(&mut S, &Message<'_>) -> Reading,
    ) -> Result<Option<S>> {
        for _ in 0..DUMP_TRIES {
            let generation = self.generation()?;
            if !self.is_settled_at(generation)? {
                continue;
            }
            let mut state = start();
            let mut visited = Reading::Whole;
            let family = table.family.number();
            let read = self
                .netlink
                .request(kind, NLM_F_DUMP, family, request, |message| {
                    if visited == Reading::Whole {
                        visited = visit(&mut state, message);
                    }
                });
            match read {
                Ok(Reading::Whole)
                    if visited == Reading::Whole && self.is_settled_at(generation)? =>
                {
                    return Ok(Some(state));
                }
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
                // Some kernels end an interrupted list with an error.
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
                Err(cause) => return Err(Error::new(what, cause)),
            }
        }
        // Half a list is worse than none: a planner would take what is missing for gone.
        Err(Error::other(
            what,
            format!("the ruleset changed under each of {DUMP_TRIES} readings"),
        ))
    }
}

/// The first message of a transaction. It alone asks for an echo, so that the new generation is
/// told and not every element.
fn batch_begin(expected: Option<u32>) -> Vec<u8> {
    let mut begin = batch_edge(NFNL_MSG_BATCH_BEGIN, NLM_F_ECHO);
    if let Some(generation) = expected {
        push_attribute(&mut begin, NFNL_BATCH_GENID, &generation.to_be_bytes());
        set_length(&mut begin, 0);
    }
    begin
}

fn batch_edge(kind: u16, flags: u16) -> Vec<u8> {
    let mut message = Vec::new();
    let [high, low] = (SUBSYSTEM >> 8).to_be_bytes();
    push_header(
        &mut message,
        kind,
        NLM_F_REQUEST | flags,
        netfilter::Socket::BATCH_SEQUENCE,
        [0, 0, high, low],
    );
    message
}

/// What the kernel answers to a transaction.
#[derive(Default)]
struct Answers {
    /// The sequence number of the message that was acknowledged.
    acknowledged: u32,
    /// The generation that it made.
    generation: Option<u32>,
    /// The first message refused and why.
    refused: Option<(u32, Refusal)>,
    /// How many were.
    refusals: usize,
}

impl Answers {
    fn take(&mut self, message: &Message<'_>) -> io::Result<()> {
        if message.kind == NFT_MSG_NEWGEN {
            self.generation = generation_of(message);
        } else if message.kind == NLMSG_ERROR {
            match message.refusal()? {
                Refusal { code: 0, .. } => self.acknowledged = message.sequence,
                refusal => {
                    self.refusals += 1;
                    self.refused.get_or_insert((message.sequence, refusal));
                }
            }
        }
        Ok(())
    }
}

fn generation_of(message: &Message<'_>) -> Option<u32> {
    let value = value_of(message.payload(), NFTA_GEN_ID)?;
    Some(u32::from_be_bytes(value.try_into().ok()?))
}
