//! Label selectors: `app=web,tier!=db,env in (a,b),!canary`.

use std::fmt;

use serde_json::Value;

use crate::api::object;

/// All requirements must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    Exists,
    Absent,
    In(Vec<String>),
    /// Also met by objects without the label.
    NotIn(Vec<String>),
    Greater(i64),
    Less(i64),
}

impl Labels {
    /// Reads a selector; an empty text selects everything.
    ///
    /// # Errors
    /// What was found and what was expected, in the reference's words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut words = Words { rest: text };
        let mut all = Vec::new();
        if words.peek() == Word::End {
            return Ok(Self(all));
        }
        loop {
            all.push(requirement(&mut words)?);
            match words.next() {
                Word::End => return Ok(Self(all)),
                Word::Mark(",") => {}
                other => {
                    return Err(wrong(&other, "',' or 'end of string'"));
                }
            }
        }
    }

    /// Whether there is no requirement.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether labels, by key, meet all requirements.
    pub fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.iter().all(|requirement| {
            let value = label(&requirement.key);
            let number = || value.and_then(|value| value.parse::<i64>().ok());
            match &requirement.test {
                Test::Exists => value.is_some(),
                Test::Absent => value.is_none(),
                Test::In(values) => {
                    value.is_some_and(|value| values.iter().any(|one| one == value))
                }
                Test::NotIn(values) => {
                    value.is_none_or(|value| values.iter().all(|one| one != value))
                }
                Test::Greater(than) => number().is_some_and(|value| value > *than),
                Test::Less(than) => number().is_some_and(|value| value < *than),
            }
        })
    }
}

/// Whether a LabelSelector (meta/v1) selects labels. None selects nothing, an empty one everything; one that makes no
/// sense selects nothing.
pub fn selects(selector: Option<&Value>, labels: Option<&Value>) -> bool {
    let Some(selector) = selector.filter(|selector| selector.is_object()) else {
        return false;
    };
    let label = |key: &str| labels?.get(key)?.as_str();
    let equal = selector.get("matchLabels").and_then(Value::as_object);
    let equal = equal
        .into_iter()
        .flatten()
        .all(|(key, value)| label(key) == value.as_str());
    equal
        && object::list(selector, &["matchExpressions"])
            .iter()
            .all(|expression| {
                let has = label(object::text(expression, &["key"]));
                let within = || {
                    object::list(expression, &["values"])
                        .iter()
                        .any(|value| value.as_str() == has)
                };
                match object::text(expression, &["operator"]) {
                    "In" => has.is_some() && within(),
                    "NotIn" => has.is_none() || !within(),
                    "Exists" => has.is_some(),
                    "DoesNotExist" => has.is_none(),
                    _ => false,
                }
            })
}

fn requirement(words: &mut Words<'_>) -> Result<Requirement, String> {
    let (key, absent) = match words.next() {
        Word::Mark("!") => (name(words.next())?, true),
        word => (name(word)?, false),
    };
    let key = key.to_owned();
    if absent {
        return Ok(Requirement {
            key,
            test: Test::Absent,
        });
    }
    let test = match words.peek() {
        Word::End | Word::Mark(",") => Test::Exists,
        _ => match words.next() {
            Word::Mark("=" | "==") => Test::In(vec![value(words)]),
            Word::Mark("!=") => Test::NotIn(vec![value(words)]),
            Word::Mark(">") => Test::Greater(limit(words)?),
            Word::Mark("<") => Test::Less(limit(words)?),
            Word::Text("in") => Test::In(values(words)?),
            Word::Text("notin") => Test::NotIn(values(words)?),
            Word::Text("gt") => Test::Greater(limit(words)?),
            Word::Text("lt") => Test::Less(limit(words)?),
            other => return Err(wrong(&other, "in, notin, =, ==, !=, gt, lt")),
        },
    };
    Ok(Requirement { key, test })
}

fn wrong(found: &Word<'_>, expected: &str) -> String {
    format!("unable to parse requirement: found '{found}', expected: {expected}")
}

/// A qualified name: `[prefix/]name`.
fn name(word: Word<'_>) -> Result<&str, String> {
    match word {
        Word::Text(text) if text.len() <= 317 => Ok(text),
        other => Err(wrong(&other, "identifier")),
    }
}

/// The value after an operator; none is the empty one (`a=`, `a=,b`).
fn value(words: &mut Words<'_>) -> String {
    match words.peek() {
        Word::Text(text) => {
            words.next();
            text.to_owned()
        }
        _ => String::new(),
    }
}

fn limit(words: &mut Words<'_>) -> Result<i64, String> {
    let text = value(words);
    text.parse().map_err(|_| {
        format!("unable to parse requirement: values[0][0]: Invalid value: {text:?}: for 'Gt', 'Lt' operators, the value must be an integer")
    })
}

/// `(a, b)`
fn values(words: &mut Words<'_>) -> Result<Vec<String>, String> {
    match words.next() {
        Word::Mark("(") => {}
        other => return Err(wrong(&other, "'('")),
    }
    let mut all = Vec::new();
    loop {
        all.push(value(words));
        match words.next() {
            Word::Mark(")") => return Ok(all),
            Word::Mark(",") => {}
            other => return Err(wrong(&other, "',' or ')'")),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word<'a> {
    Text(&'a str),
    Mark(&'static str),
    End,
}

impl fmt::Display for Word<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => out.write_str(text),
            Self::Mark(mark) => out.write_str(mark),
            Self::End => Ok(()),
        }
    }
}

struct Words<'a> {
    rest: &'a str,
}

impl<'a> Words<'a> {
    fn peek(&self) -> Word<'a> {
        Words { rest: self.rest }.next()
    }

    fn next(&mut self) -> Word<'a> {
        self.rest = self.rest.trim_start();
        if self.rest.is_empty() {
            return Word::End;
        }
        for mark in ["==", "!=", "=", "!", ",", "(", ")", ">", "<"] {
            if let Some(rest) = self.rest.strip_prefix(mark) {
                self.rest = rest;
                return Word::Mark(mark);
            }
        }
        let end = self
            .rest
            .find(|letter: char| letter.is_whitespace() || "=!,()<>".contains(letter))
            .unwrap_or(self.rest.len());
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest;
        Word::Text(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn holds(selector: &str, labels: &[(&str, &str)]) -> bool {
        let find = |key: &str| {
            labels
                .iter()
                .find(|(name, _)| *name == key)
                .map(|(_, value)| *value)
        };
        Labels::parse(selector).unwrap().matches(find)
    }

    #[test]
    fn requirements_hold_as_documented() {
        let web = [("app", "web"), ("gen", "3"), ("a.b/c", "")];
        for (selector, expected) in [
            ("", true),
            ("app=web", true),
            ("app == web", true),
            ("app=db", false),
            ("app!=db,gen=3", true),
            ("tier!=db", true),
            ("app in (db, web)", true),
            ("app in (db,)", false),
            ("a.b/c in (x,)", true),
            ("app notin (db,web)", false),
            ("tier notin (db)", true),
            ("app", true),
            ("!app", false),
            ("!tier , app", true),
            ("a.b/c=", true),
            ("gen>2", true),
            ("gen<3", false),
            ("app>2", false),
        ] {
            assert_eq!(holds(selector, &web), expected, "{selector}");
        }
    }

    #[test]
    fn errors_say_what_was_found() {
        assert_eq!(
            Labels::parse("a b c").unwrap_err(),
            "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"
        );
        for bad in ["=", "a=b c", "a in b", "a in (b", "!", "a,", "gen>x", ",a"] {
            Labels::parse(bad).unwrap_err();
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[a-z!=,() <>/]{0,20}") {
            if let Ok(labels) = Labels::parse(&text) {
                labels.matches(|_| Some("a"));
            }
        }
    }
}
