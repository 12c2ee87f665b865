//! What was downgraded: said once in the log, and kept for whoever asks.

use std::sync::Mutex;

/// Sentences; written at a downgrade only.
#[derive(Debug, Default)]
pub(super) struct Notes(Mutex<Vec<String>>);

impl Notes {
    /// Logs and keeps it, if it was not said before.
    pub(super) fn note(&self, text: String) {
        let mut notes = self.lock();
        if !notes.contains(&text) {
            tracing::warn!("{text}");
            notes.push(text);
        }
    }

    /// All of them, oldest first.
    pub(super) fn all(&self) -> Vec<String> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        match self.0.lock() {
            Ok(notes) => notes,
            // The list is whole whatever happened to the holder.
            Err(poisoned) => poisoned.into_inner(),
        }
    }
}
