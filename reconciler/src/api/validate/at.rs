//! A value and where it is: what validators walk over. The path is only written down when something is wrong.

use serde_json::{Value, json};

use super::names;
use crate::api::defaults::same;
use crate::api::quantity::Quantity;
use crate::api::status::Cause;

static NULL: Value = Value::Null;

/// A place in an object. What is absent is there as null.
#[derive(Clone, Copy)]
pub struct At<'a> {
    parent: Option<&'a Self>,
    step: Step<'a>,
    /// What is there.
    pub value: &'a Value,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Root,
    Field(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> At<'a> {
    /// The object itself.
    pub fn root(value: &'a Value) -> Self {
        let (parent, step) = (None, Step::Root);
        Self {
            parent,
            step,
            value,
        }
    }

    /// A member.
    pub fn field(&'a self, name: &'a str) -> Self {
        Self {
            parent: Some(self),
            step: Step::Field(name),
            value: self.value.get(name).unwrap_or(&NULL),
        }
    }

    /// The same place with another value.
    pub fn with(self, value: &'a Value) -> Self {
        Self { value, ..self }
    }

    /// An item.
    pub fn index(&'a self, index: usize) -> Self {
        Self {
            parent: Some(self),
            step: Step::Index(index),
            value: self.value.get(index).unwrap_or(&NULL),
        }
    }

    /// The items of a list.
    pub fn items(&'a self) -> impl Iterator<Item = Self> {
        let list = self.value.as_array();
        let list = list.map(Vec::as_slice).unwrap_or_default();
        list.iter().enumerate().map(|(index, value)| Self {
            parent: Some(self),
            step: Step::Index(index),
            value,
        })
    }

    /// The items of a map, by key.
    pub fn entries(&'a self) -> impl Iterator<Item = (&'a str, Self)> {
        self.value
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, value)| {
                let at = Self {
                    parent: Some(self),
                    step: Step::Key(key),
                    value,
                };
                (key.as_str(), at)
            })
    }

    /// `spec.containers[0].image`
    pub fn path(&self) -> String {
        let mut path = self.parent.map(At::path).unwrap_or_default();
        match self.step {
            Step::Root => {}
            Step::Field(name) => {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(name);
            }
            Step::Index(index) => path.push_str(&format!("[{index}]")),
            Step::Key(key) => path.push_str(&format!("[{key}]")),
        }
        path
    }

    /// Whether there is something.
    pub fn is_set(&self) -> bool {
        !self.value.is_null()
    }

    /// Whether there is nothing, or an empty string, list or object.
    pub fn is_empty(&self) -> bool {
        match self.value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            Value::Bool(_) | Value::Number(_) => false,
        }
    }

    /// How many items there are.
    pub fn count(&self) -> usize {
        match self.value {
            Value::Array(list) => list.len(),
            Value::Object(map) => map.len(),
            _ => 0,
        }
    }

    /// The string, or `""`.
    pub fn text(&self) -> &'a str {
        self.value.as_str().unwrap_or_default()
    }

    /// The integer.
    pub fn number(&self) -> Option<i64> {
        self.value.as_i64()
    }

    /// Whether it is true.
    pub fn is_true(&self) -> bool {
        self.value == &Value::Bool(true)
    }

    /// The value is not what it may be.
    pub fn invalid(&self, causes: &mut Vec<Cause>, detail: &str) {
        causes.push(Cause::invalid(self.path(), self.value, detail));
    }

    /// The text (absent is `""`) is not what it may be, for each of some reasons.
    pub fn invalid_text(&self, causes: &mut Vec<Cause>, details: Vec<String>) {
        for detail in details {
            causes.push(Cause::invalid(self.path(), &json!(self.text()), &detail));
        }
    }

    /// There must be a value.
    pub fn required(&self, causes: &mut Vec<Cause>, detail: &str) {
        causes.push(Cause::required(self.path(), detail));
    }

    /// There may be no value, or not this one.
    pub fn forbidden(&self, causes: &mut Vec<Cause>, detail: &str) {
        causes.push(Cause::forbidden(self.path(), detail));
    }

    /// The value is there already.
    pub fn duplicate(&self, causes: &mut Vec<Cause>) {
        causes.push(Cause::duplicate(self.path(), self.value));
    }

    /// A word out of a few that must be there.
    pub fn one_of(&self, causes: &mut Vec<Cause>, words: &[&str]) {
        if self.is_empty() {
            self.required(causes, "");
        } else {
            self.one_of_if_set(causes, words);
        }
    }

    /// A word out of a few.
    pub fn one_of_if_set(&self, causes: &mut Vec<Cause>, words: &[&str]) {
        if self.is_set() && !words.contains(&self.text()) {
            causes.push(Cause::not_supported(self.path(), self.value, words));
        }
    }

    /// 0 or more, if it is there.
    pub fn non_negative(&self, causes: &mut Vec<Cause>) {
        if self.number().is_some_and(|number| number < 0) {
            self.invalid(causes, "must be greater than or equal to 0");
        }
    }

    /// 1 or more, if it is there.
    pub fn positive(&self, causes: &mut Vec<Cause>) {
        if self.number().is_some_and(|number| number < 1) {
            self.invalid(causes, "must be greater than zero");
        }
    }

    /// Within bounds, if it is there.
    pub fn between(&self, causes: &mut Vec<Cause>, lowest: i64, highest: i64) {
        let fine = |number| (lowest..=highest).contains(&number);
        if self.number().is_some_and(|number| !fine(number)) {
            self.invalid(causes, &names::between(lowest, highest));
        }
    }

    /// A port; absent is 0, which is none.
    pub fn port(&self, causes: &mut Vec<Cause>) {
        if self.is_set() {
            self.between(causes, 1, 65535);
        } else {
            let detail = names::between(1, 65535);
            causes.push(Cause::invalid(self.path(), &json!(0), &detail));
        }
    }

    /// A port, or the name of one.
    pub fn port_or_name(&self, causes: &mut Vec<Cause>) {
        if self.value.is_string() {
            self.invalid_text(causes, names::port_name(self.text()));
        } else {
            self.port(causes);
        }
    }

    /// The same as before.
    pub fn immutable(&self, causes: &mut Vec<Cause>, old: &At<'_>) {
        if !same(Some(self.value), Some(old.value)) {
            self.invalid(causes, "field is immutable");
        }
    }

    /// A count, or a share in percent; neither below 0.
    pub fn count_or_percent(&self, causes: &mut Vec<Cause>) {
        if self.value.is_string() {
            self.invalid_text(causes, names::percent(self.text()));
        } else {
            self.non_negative(causes);
        }
    }

    /// An amount that is not below nothing.
    pub fn amount(&self, causes: &mut Vec<Cause>) -> Option<Quantity> {
        let amount = Quantity::of(self.value);
        match amount {
            None => self.invalid(
                causes,
                "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
            ),
            Some(amount) if amount.is_negative() => {
                self.invalid(causes, "must be greater than or equal to 0");
            }
            Some(_) => {}
        }
        amount
    }
}
