//! Carrying out planned changes and counting them.

use kernel::{Change, Netlink};

use super::Report;

/// How many changes are planned, sent and forgotten at a time, to keep memory small.
pub const CHUNK: usize = 1500;

/// Applies changes in order, many in flight. What is to be removed and is gone already is done.
pub fn apply(netlink: &mut Netlink, changes: &[Change], report: &mut Report) {
    for chunk in changes.chunks(CHUNK) {
        let results = netlink.apply_all(chunk);
        for (change, result) in chunk.iter().zip(results) {
            match result {
                Ok(()) => report.changed(change.kind(), || netlink.describe(change)),
                Err(error) if change.is_removal() && error.is_not_found() => {}
                Err(error) => report.failed(error),
            }
        }
    }
}

/// The changes as printable commands.
pub fn describe(netlink: &mut Netlink, changes: &[Change]) -> Vec<String> {
    changes
        .iter()
        .map(|change| netlink.describe(change))
        .collect()
}
