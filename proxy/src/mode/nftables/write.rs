//! Carries differences into the kernel, or prints them.
//!
//! At a cold start the kernel gets some thousands of elements at a time, so that other users of
//! nftables get their turn in between; a port's maps lead to its endpoints only once these are
//! there. A change of a few ports is one transaction.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU32, Ordering};

use kernel::nft::{Socket, Transaction};

use super::book::{self, Book, Contents, Delta};
use super::elements::{Element, Slots, at, lists};
use super::layout::{Data, Key, Set, TABLE, ip_word};
use super::observe::Observed;
use super::ruleset::table;
use super::slots::Target;
use crate::model::{Balancer, Family, List, Protocol, Wanted};

/// Changes in one transaction, unless they belong together.
pub const CHUNK: usize = 8_192;

/// How many transactions this process has made, of both families: the ruleset's generation counts
/// them all, and only what is beyond them was somebody else.
static OWN: AtomicU32 = AtomicU32::new(0);

/// The number of transactions that this process has made.
pub fn own_transactions() -> u32 {
    OWN.load(Ordering::SeqCst)
}

/// Commits and counts.
pub fn counted(socket: &mut Socket, transaction: &Transaction) -> kernel::Result<u32> {
    let generation = socket.commit(transaction)?;
    OWN.fetch_add(1, Ordering::SeqCst);
    Ok(generation)
}

/// Writes a difference: endpoints that come first, those that go last, everything else at once.
pub fn delta(socket: &mut Socket, family: Family, delta: &Delta) -> kernel::Result<()> {
    if delta.len() <= CHUNK {
        return commit(socket, family, &delta.delete, &delta.add);
    }
    let keys = |elements: &[Element]| -> HashSet<(Set, Key)> {
        elements.iter().map(|each| (each.set, each.key)).collect()
    };
    let (leaving, coming) = (keys(&delta.delete), keys(&delta.add));
    let alone = |each: &Element, others: &HashSet<(Set, Key)>| {
        matches!(each.set, Set::Endpoints(..)) && !others.contains(&(each.set, each.key))
    };
    let (ahead, add): (Vec<Element>, Vec<Element>) =
        delta.add.iter().partition(|each| alone(each, &leaving));
    let (behind, delete): (Vec<Element>, Vec<Element>) =
        delta.delete.iter().partition(|each| alone(each, &coming));
    for chunk in ahead.chunks(CHUNK) {
        commit(socket, family, &[], chunk)?;
    }
    commit(socket, family, &delete, &add)?;
    for chunk in behind.chunks(CHUNK) {
        commit(socket, family, chunk, &[])?;
    }
    Ok(())
}

/// One transaction, or none if there is nothing to do.
fn commit(
    socket: &mut Socket,
    family: Family,
    delete: &[Element],
    add: &[Element],
) -> kernel::Result<()> {
    let mut transaction = Transaction::new(&table(family));
    for element in delete {
        transaction.delete(element.set.name(), &raw(element));
    }
    for element in add {
        transaction.add(element.set.name(), &raw(element));
    }
    match transaction.is_empty() {
        true => Ok(()),
        false => counted(socket, &transaction).map(drop),
    }
}

fn raw(element: &Element) -> kernel::nft::Element {
    let (key, end) = element.key.encode();
    let mut raw = match element.data.encode() {
        Some(data) => kernel::nft::Element::of_map(key, data),
        None => kernel::nft::Element::of_set(key),
    };
    raw.key_end = end.map(Into::into);
    raw
}

/// Brings the kernel to what is wanted, port by port.
pub struct Writer<'a> {
    socket: &'a mut Socket,
    family: Family,
    waiting: Vec<(String, Delta)>,
    changes: usize,
    errors: Vec<String>,
}

impl<'a> Writer<'a> {
    /// Nothing written yet.
    pub fn new(socket: &'a mut Socket, family: Family) -> Self {
        Self {
            socket,
            family,
            waiting: Vec::new(),
            changes: 0,
            errors: Vec::new(),
        }
    }

    /// How many changes were written.
    pub fn changes(&self) -> usize {
        self.changes
    }

    /// What was refused.
    pub fn into_errors(self) -> Vec<String> {
        self.errors
    }

    /// Writes the difference between what was observed and what is wanted.
    pub fn bring(&mut self, observed: Observed, wanted: &Wanted) -> Book {
        self.remove_strange(&observed.strange);
        let (book, deltas) = differences(observed.contents, wanted);
        for (name, delta) in deltas {
            self.push(name, delta);
        }
        self.flush();
        book
    }

    fn remove_strange(&mut self, strange: &[(Set, kernel::nft::Element)]) {
        if strange.is_empty() {
            return;
        }
        let mut transaction = Transaction::new(&table(self.family));
        for (set, element) in strange {
            transaction.delete(set.name(), element);
        }
        match counted(self.socket, &transaction) {
            Ok(_) => self.changes += strange.len(),
            Err(error) => self.errors.push(error.to_string()),
        }
    }

    fn push(&mut self, name: String, delta: Delta) {
        if delta.is_empty() {
            return;
        }
        let waiting: usize = self.waiting.iter().map(|(_, delta)| delta.len()).sum();
        if waiting + delta.len() > CHUNK {
            self.flush();
        }
        self.waiting.push((name, delta));
    }

    fn flush(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        let mut all = Delta::default();
        for (_, delta) in &waiting {
            all.extend(delta.clone());
        }
        if self.write(&all).is_ok() {
            return;
        }
        // One of them is refused, and must not cost the others theirs.
        for (name, delta) in waiting {
            if let Err(error) = self.write(&delta) {
                self.errors.push(format!("{name}: {error}"));
            }
        }
    }

    fn write(&mut self, changes: &Delta) -> kernel::Result<()> {
        delta(self.socket, self.family, changes)?;
        self.changes += changes.len();
        Ok(())
    }
}

/// The book of what is wanted, and the difference to what was observed, by the name of who wants it,
/// in the order in which it should be written.
fn differences(mut observed: Contents, wanted: &Wanted) -> (Book, Vec<(String, Delta)>) {
    let site = &wanted.site;
    let slots = observed_slots(&observed);
    let mut seen = Contents::new();
    let mut book = Book::default();
    let mut ports = Vec::with_capacity(wanted.balancers.len());
    let mut ranges = Delta::default();
    let site = (site, book::site_elements(site));
    let nodes = book::compare(&mut observed, &mut seen, site.1);
    for (name, balancer) in book::by_importance(wanted) {
        let before = slots_of(&slots, name.protocol, balancer);
        let elements = book.insert(name, balancer, &before, site.0);
        let mut delta = book::compare(&mut observed, &mut seen, elements);
        // Ranges may overlap those that go; so all of them change in one transaction.
        let is_range = |each: &mut Element| each.set == Set::SourceRanges;
        ranges.delete.extend(delta.delete.extract_if(.., is_range));
        ranges.add.extend(delta.add.extract_if(.., is_range));
        ports.push((name.to_string(), delta));
    }
    let mut left = Delta::default();
    for ((set, key), data) in observed {
        let element = Element { set, key, data };
        match set {
            Set::SourceRanges => ranges.delete.push(element),
            _ => left.delete.push(element),
        }
    }
    left.delete.sort_unstable();
    let mut all = vec![
        ("node port addresses".to_owned(), nodes),
        ("source ranges".to_owned(), ranges),
    ];
    all.extend(ports);
    for chunk in left.delete.chunks(CHUNK) {
        let delete = chunk.to_vec();
        all.push((
            "what nobody wants".to_owned(),
            Delta {
                delete,
                add: Vec::new(),
            },
        ));
    }
    (book, all)
}

type SlotsByFront = BTreeMap<(Set, super::layout::At), BTreeMap<u32, Target>>;

fn observed_slots(observed: &Contents) -> SlotsByFront {
    let mut slots = SlotsByFront::new();
    for ((set, key), data) in observed {
        if let (Key::Slot(at, slot), Data::Endpoint(ip, port)) = (key, data) {
            slots
                .entry((*set, *at))
                .or_default()
                .insert(*slot, (*ip, *port));
        }
    }
    slots
}

/// The order that a port's endpoints have in the kernel, as its first front there shows it.
fn slots_of(observed: &SlotsByFront, protocol: Protocol, balancer: &Balancer) -> Slots {
    let mut slots = Slots::default();
    for front in &balancer.fronts {
        let at = at(front, protocol);
        for list in lists(balancer, front) {
            let known = match list {
                List::Cluster => &mut slots.cluster,
                List::Local => &mut slots.local,
            };
            if known.is_empty()
                && let Some(found) = observed.get(&(Set::Endpoints(list, at.place()), at))
            {
                let mut once = HashSet::new();
                known.extend(found.values().filter(|target| once.insert(**target)));
            }
        }
    }
    slots
}

/// What [`Writer::bring`] would do, for `nft -f`.
pub fn script(observed: Observed, wanted: &Wanted) -> String {
    let ip = ip_word(wanted.site.family);
    let mut out = String::new();
    for (set, element) in &observed.strange {
        let _ = writeln!(
            out,
            "# {}: delete foreign element {:?}",
            set.name(),
            element.key
        );
    }
    let (_, deltas) = differences(observed.contents, wanted);
    for (name, delta) in deltas {
        if delta.is_empty() {
            continue;
        }
        let _ = writeln!(out, "# {name}");
        for (verb, elements) in [("delete", &delta.delete), ("add", &delta.add)] {
            for element in elements {
                let value = match element.data {
                    Data::None => String::new(),
                    data => format!(" : {data}"),
                };
                let set = element.set.name();
                let key = element.key;
                let _ = writeln!(out, "{verb} element {ip} {TABLE} {set} {{ {key}{value} }}");
            }
        }
    }
    out
}
