//! Recordings of a real server's answers, and how two answers differ.

use anyhow::{Context, Result};
use serde_json::Value;
use std::path::Path;

/// A line of a file.
pub struct Recording(pub Value);

impl Recording {
    pub fn name(&self) -> Result<&str> {
        self.text("name")
    }

    pub fn text(&self, field: &str) -> Result<&str> {
        let text = self.0[field].as_str();
        text.with_context(|| format!("no {field} in {}", self.0))
    }
}

/// The recordings of `data/api/NAME.jsonl`.
pub fn recordings(name: &str) -> Result<Vec<Recording>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/api");
    let path = folder.join(format!("{name}.jsonl"));
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let lines = text.lines().map(|line| {
        let value =
            serde_json::from_str(line).with_context(|| format!("{}: {line}", path.display()))?;
        Ok(Recording(value))
    });
    lines.collect()
}

/// Fields whose values a server chooses.
const CHOSEN: [&str; 10] = [
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "deletionTimestamp",
    "time",
    "lastTransitionTime",
    "clusterIP",
    "clusterIPs",
    "nodePort",
    "batch.kubernetes.io/controller-uid",
];
/// What comes before a revision in a sentence.
const BEFORE_REVISION: [&str; 4] = [
    "current: ",
    "in record (",
    r#""resourceVersion":""#,
    "too old resource version: 1 (",
];

/// The same with every value that a server chooses made plain: `<uid>`, `<time>`, `<random>`.
pub fn masked(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| {
                // "None" is no address that was chosen.
                let fixed = value.as_str() == Some("None") || value[0] == "None";
                let chosen = CHOSEN.contains(&name.as_str()) && !fixed && !value.is_null();
                let value = if chosen {
                    "<chosen>".into()
                } else {
                    masked(value)
                };
                (name.clone(), value)
            };
            Value::Object(fields.iter().map(field).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(masked).collect()),
        Value::String(text) => Value::String(masked_text(text)),
        other => other.clone(),
    }
}

fn masked_text(text: &str) -> String {
    if let Some(rest) = text.strip_prefix("kube-api-access-") {
        let random = rest.len() == 5;
        return format!("kube-api-access-{}", if random { "<random>" } else { rest });
    }
    let part = |letter: char| letter.is_ascii_alphanumeric() || ":-".contains(letter);
    let mut made = String::new();
    for word in text.split_inclusive(|letter| !part(letter)) {
        let end = word.find(|letter| !part(letter)).unwrap_or(word.len());
        let (word, rest) = word.split_at(end);
        made.push_str(match word {
            word if is_uuid(word) => "<uid>",
            word if word.len() == 20 && word.starts_with("20") && word.ends_with('Z') => "<time>",
            word => word,
        });
        made.push_str(rest);
    }
    for before in BEFORE_REVISION {
        if let Some((head, tail)) = made.split_once(before) {
            let rest = tail.trim_start_matches(|letter: char| letter.is_ascii_digit());
            made = format!("{head}{before}<revision>{rest}");
        }
    }
    made
}

/// Whether a word is the 36 letters of a UUID, and none that a client may have made up.
fn is_uuid(word: &str) -> bool {
    let groups: Vec<usize> = word.split('-').map(str::len).collect();
    groups == [8, 4, 4, 4, 12] && word != "00000000-0000-0000-0000-000000000000"
}

/// Where two values differ: name, pointer, both values there.
pub fn differences(name: &str, is: &Value, was: &Value) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    compare(is, was, String::new(), &mut found);
    let named = |(pointer, what)| (name.to_owned(), pointer, what);
    found.into_iter().map(named).collect()
}

fn compare(is: &Value, was: &Value, at: String, found: &mut Vec<(String, String)>) {
    match (is, was) {
        (Value::Object(is), Value::Object(was)) => {
            let more = is.keys().filter(|name| !was.contains_key(*name));
            for name in was.keys().chain(more) {
                let below = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
                match (is.get(name), was.get(name)) {
                    (Some(is), Some(was)) => compare(is, was, below, found),
                    (Some(is), None) => found.push((below, format!("is {is}, was absent"))),
                    (None, Some(was)) => found.push((below, format!("is absent, was {was}"))),
                    (None, None) => {}
                }
            }
        }
        (Value::Array(is), Value::Array(was)) if is.len() == was.len() => {
            for (index, (is, was)) in is.iter().zip(was).enumerate() {
                compare(is, was, format!("{at}/{index}"), found);
            }
        }
        (is, was) if is == was => {}
        (is, was) => found.push((at, format!("is  {is}\n    was {was}"))),
    }
}
