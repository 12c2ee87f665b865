//! An object of a configuration file, whose keys are taken one by one: what is left is unknown.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

/// A key with those above it, and what is wrong with it.
pub(crate) type Wrong = (String, String);

/// What of an object has not been taken yet.
pub(crate) struct Keys {
    /// The keys above, each with a dot behind it.
    above: String,
    map: Map<String, Value>,
}

impl Keys {
    pub(crate) fn new(map: Map<String, Value>) -> Self {
        Self {
            above: String::new(),
            map,
        }
    }

    fn wrong(&self, key: &str, cause: impl Into<String>) -> Wrong {
        (format!("{}{key}", self.above), cause.into())
    }

    fn take(&mut self, key: &str) -> Option<Value> {
        self.map.remove(key).filter(|value| !value.is_null())
    }

    /// The object below a key; without one, an empty object.
    pub(crate) fn section(&mut self, key: &str) -> Result<Self, Wrong> {
        let map = match self.take(key) {
            None => Map::new(),
            Some(Value::Object(map)) => map,
            Some(other) => return Err(self.wrong(key, wanted("an object", &other))),
        };
        Ok(Self {
            above: format!("{}{key}.", self.above),
            map,
        })
    }

    /// A text; an empty one counts as none.
    pub(crate) fn text(&mut self, key: &str) -> Result<Option<String>, Wrong> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text).filter(|text| !text.is_empty())),
            Some(other) => Err(self.wrong(key, wanted("a text", &other))),
        }
    }

    /// A text that means something.
    pub(crate) fn parsed<T>(
        &mut self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Wrong> {
        let Some(text) = self.text(key)? else {
            return Ok(None);
        };
        parse(&text)
            .map(Some)
            .map_err(|why| self.wrong(key, format!("{text:?}: {why}")))
    }

    /// A text that can be but one.
    pub(crate) fn expect(&mut self, key: &str, only: &str) -> Result<(), Wrong> {
        match self.text(key)? {
            Some(text) if text == only => Ok(()),
            Some(text) => Err(self.wrong(key, format!("it is {text:?} and must be {only}"))),
            None => Err(self.wrong(key, format!("it is missing and must be {only}"))),
        }
    }

    /// A list of texts.
    pub(crate) fn texts(&mut self, key: &str) -> Result<Vec<String>, Wrong> {
        let list = match self.take(key) {
            None => return Ok(Vec::new()),
            Some(Value::Array(list)) => list,
            Some(other) => return Err(self.wrong(key, wanted("a list", &other))),
        };
        list.into_iter()
            .map(|item| match item {
                Value::String(text) => Ok(text),
                other => Err(self.wrong(key, wanted("a list of texts", &other))),
            })
            .collect()
    }

    /// A truth value.
    pub(crate) fn truth(&mut self, key: &str) -> Result<Option<bool>, Wrong> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Bool(truth)) => Ok(Some(truth)),
            Some(other) => Err(self.wrong(key, wanted("true or false", &other))),
        }
    }

    /// An object of truth values.
    pub(crate) fn truths(&mut self, key: &str) -> Result<Vec<(String, bool)>, Wrong> {
        let Self { above, map } = self.section(key)?;
        map.into_iter()
            .map(|(name, value)| match value {
                Value::Bool(truth) => Ok((name, truth)),
                other => Err((format!("{above}{name}"), wanted("true or false", &other))),
            })
            .collect()
    }

    /// A whole number within bounds.
    pub(crate) fn number<T: TryFrom<i64>>(
        &mut self,
        key: &str,
        bounds: RangeInclusive<i64>,
    ) -> Result<Option<T>, Wrong> {
        let Some(value) = self.take(key) else {
            return Ok(None);
        };
        let Value::Number(number) = &value else {
            return Err(self.wrong(key, wanted("a whole number", &value)));
        };
        number
            .as_i64()
            .filter(|number| bounds.contains(number))
            .and_then(|number| T::try_from(number).ok())
            .map(Some)
            .ok_or_else(|| {
                let (least, most) = bounds.into_inner();
                self.wrong(
                    key,
                    format!("{number}: use a whole number, {least} to {most}"),
                )
            })
    }

    /// Known keys that change nothing here.
    pub(crate) fn ignore(&mut self, keys: &[&str]) {
        for key in keys {
            self.map.remove(*key);
        }
    }

    /// Names all keys that nobody took.
    pub(crate) fn rest(self, unknown: &mut Vec<String>) {
        unknown.extend(self.map.keys().map(|key| format!("{}{key}", self.above)));
    }
}

fn wanted(what: &str, found: &Value) -> String {
    let found = match found {
        Value::Null => "nothing".to_owned(),
        Value::Bool(_) | Value::Number(_) => found.to_string(),
        Value::String(text) => format!("the text {text:?}"),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    };
    format!("it must be {what} and is {found}")
}
