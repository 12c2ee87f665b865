//! What one run of a backend or of the firewall did.

use std::collections::BTreeMap;

/// Changes by kind, and what failed. An empty report means that all was as wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Count by kind, e.g. `add route`, `delete fdb`; the kind becomes a metrics label.
    pub changes: BTreeMap<&'static str, u64>,
    /// The first few changes as printable commands, for the log.
    pub samples: Vec<String>,
    /// What failed; the data path is not as planned while this is not empty.
    pub errors: Vec<String>,
}

impl Report {
    /// How many changes are kept as text.
    const SAMPLES: usize = 8;

    /// Counts one change; `text` is made only when it will be kept.
    pub fn changed(&mut self, kind: &'static str, text: impl FnOnce() -> String) {
        *self.changes.entry(kind).or_default() += 1;
        if self.samples.len() < Self::SAMPLES {
            self.samples.push(text());
        }
    }

    /// Notes a failure.
    pub fn failed(&mut self, error: impl ToString) {
        self.errors.push(error.to_string());
    }

    /// Takes in another report.
    pub fn merge(&mut self, other: Self) {
        for (kind, count) in other.changes {
            *self.changes.entry(kind).or_default() += count;
        }
        let room = Self::SAMPLES.saturating_sub(self.samples.len());
        self.samples.extend(other.samples.into_iter().take(room));
        self.errors.extend(other.errors);
    }

    /// Number of changes of all kinds.
    pub fn total(&self) -> u64 {
        self.changes.values().sum()
    }
}
