//! What has been said in the log, so that it is said once and not at every look.

use std::collections::BTreeMap;

/// Lines by subject.
#[derive(Debug, Default)]
pub struct Said {
    lines: BTreeMap<String, Vec<String>>,
}

impl Said {
    /// What is now to be said of a subject, in place of what was: returns the lines that are new.
    /// With no lines the subject is at peace, and the next line will be new again.
    pub fn news(&mut self, subject: &str, lines: Vec<String>) -> Vec<String> {
        if lines.is_empty() {
            self.lines.remove(subject);
            return lines;
        }
        let before = self.lines.get(subject);
        let is_new = |line: &&String| before.is_none_or(|before| !before.contains(line));
        let news = lines.iter().filter(is_new).cloned().collect();
        self.lines.insert(subject.to_owned(), lines);
        news
    }

    /// The subject has nothing to complain of; returns whether it had.
    pub fn settle(&mut self, subject: &str) -> bool {
        self.lines.remove(subject).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_new_once() {
        let mut said = Said::default();
        let lines = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        assert_eq!(said.news("a", lines(&["x"])), ["x"]);
        assert!(said.news("a", lines(&["x"])).is_empty());
        assert_eq!(said.news("b", lines(&["x"])), ["x"]);
        assert_eq!(said.news("a", lines(&["x", "y"])), ["y"]);
        assert!(said.settle("a"));
        assert!(!said.settle("a"));
        assert_eq!(said.news("a", lines(&["x"])), ["x"]);
    }
}
