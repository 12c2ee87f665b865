//! Reading: one entry, a list as of some revision, a stretch of history. Pure functions of a read transaction.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use redb::{ReadTransaction, ReadableTable};

use super::file::{COMPACTED, FIRST, HISTORY, META, OBJECTS, REVISION, number};
use super::{Entry, Error, Page, Range, Revision};
use crate::store::Event;

/// Changes looked at in one transaction, and bytes of values taken from it.
const STRETCH: (usize, usize) = (2000, 256 << 10);

/// Where the store's history begins and ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct State {
    /// The newest revision.
    pub(super) revision: Revision,
    /// The oldest from which a watch can start.
    pub(super) compacted: Revision,
}

impl State {
    /// Refuses what the history does not reach back to.
    pub(super) fn reaches(self, asked: Revision) -> Result<(), Error> {
        let oldest = self.compacted;
        if asked.max(FIRST) < oldest {
            return Err(Error::Compacted { asked, oldest });
        }
        Ok(())
    }

    /// Refuses what is not yet.
    pub(super) fn has(self, asked: Revision) -> Result<(), Error> {
        let newest = self.revision;
        if asked > newest {
            return Err(Error::Future { asked, newest });
        }
        Ok(())
    }
}

pub(super) fn state(txn: &ReadTransaction) -> Result<State, redb::Error> {
    let meta = txn.open_table(META)?;
    Ok(State {
        revision: number(&meta, REVISION)?,
        compacted: number(&meta, COMPACTED)?,
    })
}

pub(super) fn get(txn: &ReadTransaction, key: &str) -> Result<Option<Entry>, redb::Error> {
    entry(&txn.open_table(OBJECTS)?, key)
}

pub(super) fn entry(
    objects: &impl ReadableTable<&'static str, (u64, &'static [u8])>,
    key: &str,
) -> Result<Option<Entry>, redb::Error> {
    let found = objects.get(key)?;
    Ok(found.map(|row| {
        let (revision, value) = row.value();
        Entry {
            key: key.to_owned(),
            value: Bytes::copy_from_slice(value),
            revision,
        }
    }))
}

pub(super) fn list(
    txn: &ReadTransaction,
    range: &Range,
) -> Result<Result<Page, Error>, redb::Error> {
    let state = state(txn)?;
    let at = range.at.unwrap_or(state.revision);
    if let Err(error) = state.has(at).and_then(|()| state.reaches(at)) {
        return Ok(Err(error));
    }
    let mut page = Page {
        revision: at,
        ..Page::default()
    };
    let limit = range.limit.unwrap_or(usize::MAX);
    let mut take = |key: &str, revision, value: &[u8]| {
        if page.entries.len() < limit {
            page.entries.push(Entry {
                key: key.to_owned(),
                value: Bytes::copy_from_slice(value),
                revision,
            });
        } else {
            page.remaining += 1;
        }
    };
    let start = match range.after.as_deref() {
        Some(after) if after >= range.prefix.as_str() => Bound::Excluded(after),
        _ => Bound::Included(range.prefix.as_str()),
    };
    // What has changed since goes over what is there now.
    let since = undone(txn, range, at)?;
    let mut older = since.range::<str, _>((start, Bound::Unbounded)).peekable();
    let objects = txn.open_table(OBJECTS)?;
    for row in objects.range::<&str>((start, Bound::Unbounded))? {
        let (key, row) = row?;
        let key = key.value();
        if !key.starts_with(&range.prefix) {
            break;
        }
        while let Some((gone, was)) = older.next_if(|(changed, _)| changed.as_str() < key) {
            if let Some((revision, value)) = was {
                take(gone, *revision, value);
            }
        }
        match older.next_if(|(changed, _)| changed.as_str() == key) {
            Some((_, Some((revision, value)))) => take(key, *revision, value),
            Some((_, None)) => {}
            None => {
                let (revision, value) = row.value();
                take(key, revision, value);
            }
        }
    }
    for (gone, was) in older {
        if let Some((revision, value)) = was {
            take(gone, *revision, value);
        }
    }
    Ok(Ok(page))
}

/// The value at a revision, and what wrote it; `None` where there was none.
type Was = Option<(Revision, Bytes)>;

/// The entries at revision `at` of all keys of the range that changed after it.
fn undone(
    txn: &ReadTransaction,
    range: &Range,
    at: Revision,
) -> Result<BTreeMap<String, Was>, redb::Error> {
    let mut since = BTreeMap::new();
    let history = txn.open_table(HISTORY)?;
    for row in history.range(at.saturating_add(1)..)? {
        let (_, row) = row?;
        let (key, _, revision, before) = row.value();
        let listed = key.starts_with(&range.prefix) && Some(key) > range.after.as_deref();
        if listed && !since.contains_key(key) {
            let was = before.map(|value| (revision, Bytes::copy_from_slice(value)));
            since.insert(key.to_owned(), was);
        }
    }
    Ok(since)
}

/// A part of the history.
#[derive(Debug)]
pub(super) struct Stretch {
    /// Those under the prefix.
    pub(super) events: Vec<Event>,
    /// All changes up to this revision have been looked at.
    pub(super) upto: Revision,
    /// Whether that is the newest.
    pub(super) complete: bool,
}

pub(super) fn stretch(
    txn: &ReadTransaction,
    prefix: &str,
    after: Revision,
) -> Result<Result<Stretch, Error>, redb::Error> {
    let state = state(txn)?;
    if let Err(error) = state.reaches(after) {
        return Ok(Err(error));
    }
    let mut stretch = Stretch {
        events: Vec::new(),
        upto: after,
        complete: false,
    };
    let (mut left, mut room) = STRETCH;
    let history = txn.open_table(HISTORY)?;
    for row in history.range(after.saturating_add(1)..)? {
        if left == 0 || room == 0 {
            return Ok(Ok(stretch));
        }
        left -= 1;
        let (revision, row) = row?;
        let (key, value, _, before) = row.value();
        stretch.upto = revision.value();
        if key.starts_with(prefix) {
            let size = value.map_or(0, <[u8]>::len) + before.map_or(0, <[u8]>::len);
            room = room.saturating_sub(size);
            stretch.events.push(Event {
                revision: stretch.upto,
                key: key.to_owned(),
                value: value.map(Bytes::copy_from_slice),
                before: before.map(Bytes::copy_from_slice),
            });
        }
    }
    stretch.complete = true;
    Ok(Ok(stretch))
}
