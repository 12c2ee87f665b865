//! Sets of completion indexes, as `status.completedIndexes` writes them: `0,2-5,7,8`.

use std::collections::BTreeSet;

/// Reads a set. What is no index below `completions` is left out: nobody but this controller writes it, and an index
/// that is not wanted any more does not count.
pub fn parse(text: &str, completions: i32) -> BTreeSet<i32> {
    let mut set = BTreeSet::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>()) {
            set.extend(first.max(0)..last.saturating_add(1).min(completions));
        }
    }
    set
}

/// Writes a set: a dash where there are three or more in a row.
pub fn render(set: &BTreeSet<i32>) -> String {
    let mut runs: Vec<(i32, i32)> = Vec::new();
    for &index in set {
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(index) => *last = index,
            _ => runs.push((index, index)),
        }
    }
    let runs = runs.into_iter().map(|(first, last)| match last - first {
        0 => format!("{first}"),
        1 => format!("{first},{last}"),
        _ => format!("{first}-{last}"),
    });
    runs.collect::<Vec<_>>().join(",")
}
