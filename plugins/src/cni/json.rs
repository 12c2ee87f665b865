//! JSON read and written as Go's encoding/json does, because that is what operators' files are
//! written against.
//!
//! Reading: a struct's field names match in any case (the exact one first), unknown keys are
//! ignored, `null` leaves a field at its default. A wrong type is an error that names the key by
//! its path (`ipam.ranges[0][1].subnet`). Writing: four spaces, and `<`, `>`, `&` escaped.
//!
//! Structs to be read carry `#[serde(default)]` and never `flatten`, which hides field names from
//! the deserializer: read the same value twice into two structs instead.

use serde::Serialize;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess,
    Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::{Map, Value};
use std::fmt;

/// Why a JSON text or value could not be read; names the key when there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    path: String,
    message: String,
}

impl Error {
    fn within(mut self, key: &str) -> Self {
        let dot = match self.path.chars().next() {
            None | Some('[') => "",
            Some(_) => ".",
        };
        self.path = format!("{key}{dot}{}", self.path);
        self
    }

    /// The path of the offending key, empty for the text as a whole.
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.path, self.message)
        }
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self {
            path: String::new(),
            message: message.to_string(),
        }
    }
}

/// Reads a text.
pub fn from_slice<T: DeserializeOwned>(text: &[u8]) -> Result<T, Error> {
    from_value(&value(text)?)
}

/// Reads a text into a JSON value.
pub fn value(text: &[u8]) -> Result<Value, Error> {
    serde_json::from_slice(text).map_err(de::Error::custom)
}

/// Reads a value.
pub fn from_value<T: DeserializeOwned>(value: &Value) -> Result<T, Error> {
    // A null document is an empty one to Go.
    match value {
        Value::Null => T::deserialize(De(&Value::Object(Map::new()))),
        other => T::deserialize(De(other)),
    }
}

/// The value of an object's member whose name matches in any case, the exact name first.
pub fn member<'v>(object: &'v Value, name: &str) -> Option<&'v Value> {
    let map = object.as_object()?;
    map.get(name)
        .or_else(|| {
            map.iter()
                .find(|(key, _)| same_name(key, name))
                .map(|(_, value)| value)
        })
        .filter(|value| !value.is_null())
}

/// Writes with four spaces of indent and Go's escapes, without a final line break.
pub fn to_indented<T: Serialize>(value: &T) -> String {
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    let written = value.serialize(&mut serializer);
    escaped(written.map(|()| out))
}

/// Writes on one line with Go's escapes, without a final line break.
pub fn to_compact<T: Serialize>(value: &T) -> String {
    escaped(serde_json::to_vec(value))
}

fn escaped(written: serde_json::Result<Vec<u8>>) -> String {
    // INVARIANT: only our own structs and JSON values come here; they have string keys and write
    // to memory, so serialising them cannot fail, and serde_json writes valid UTF-8.
    let text = String::from_utf8(written.expect("JSON in memory")).expect("UTF-8");
    if !text.contains(['<', '>', '&', '\u{2028}', '\u{2029}']) {
        return text;
    }
    // These occur only inside JSON strings, so a plain replacement is right.
    text.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}

fn same_name(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b)
}

#[derive(Clone, Copy)]
struct De<'de>(&'de Value);

impl<'de> Deserializer<'de> for De<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(b) => visitor.visit_bool(*b),
            Value::Number(n) => match (n.as_u64(), n.as_i64()) {
                (Some(u), _) => visitor.visit_u64(u),
                (None, Some(i)) => visitor.visit_i64(i),
                (None, None) => visitor.visit_f64(n.as_f64().unwrap_or(f64::NAN)),
            },
            Value::String(s) => visitor.visit_borrowed_str(s),
            Value::Array(items) => visitor.visit_seq(Items { items, index: 0 }),
            Value::Object(map) => visitor.visit_map(Members {
                members: map.iter().map(|(k, v)| (k.as_str(), v)).collect(),
                next: 0,
            }),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let map = match self.0 {
            Value::Object(map) => map,
            // A null element of a list is an empty struct to Go.
            Value::Null => return visitor.visit_map(Members::default()),
            // Derived visitors would take a list for a struct; JSON has objects.
            other => return Err(de::Error::invalid_type(unexpected(other), &"an object")),
        };
        let members = fields
            .iter()
            .filter_map(|field| {
                let value = map.get(*field).or_else(|| {
                    map.iter()
                        .find(|(k, _)| same_name(k, field))
                        .map(|(_, v)| v)
                })?;
                (!value.is_null()).then_some((*field, value))
            })
            .collect();
        visitor.visit_map(Members { members, next: 0 })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            Value::String(s) => visitor.visit_enum(s.as_str().into_deserializer()),
            other => Err(de::Error::invalid_type(unexpected(other), &"a string")),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map identifier
    }
}

fn unexpected(value: &Value) -> de::Unexpected<'_> {
    match value {
        Value::Null => de::Unexpected::Unit,
        Value::Bool(b) => de::Unexpected::Bool(*b),
        Value::Number(_) => de::Unexpected::Other("number"),
        Value::String(s) => de::Unexpected::Str(s),
        Value::Array(_) => de::Unexpected::Seq,
        Value::Object(_) => de::Unexpected::Map,
    }
}

struct Items<'de> {
    items: &'de [Value],
    index: usize,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Error> {
        let Some(item) = self.items.get(self.index) else {
            return Ok(None);
        };
        let index = self.index;
        self.index += 1;
        seed.deserialize(De(item))
            .map(Some)
            .map_err(|e| e.within(&format!("[{index}]")))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len() - self.index)
    }
}

#[derive(Default)]
struct Members<'de> {
    members: Vec<(&'de str, &'de Value)>,
    next: usize,
}

impl<'de> MapAccess<'de> for Members<'de> {
    type Error = Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Error> {
        match self.members.get(self.next) {
            None => Ok(None),
            Some((key, _)) => seed
                .deserialize(de::value::BorrowedStrDeserializer::new(key))
                .map(Some),
        }
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        let Some((key, value)) = self.members.get(self.next) else {
            return Err(de::Error::custom("value asked for without a key"));
        };
        self.next += 1;
        seed.deserialize(De(value)).map_err(|e| e.within(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;
    use std::collections::BTreeMap;

    #[derive(Deserialize, Default, Debug, PartialEq)]
    #[serde(default, rename_all = "camelCase")]
    struct Sample {
        is_gateway: bool,
        mtu: u32,
        ranges: Vec<Vec<Inner>>,
        capabilities: BTreeMap<String, bool>,
        raw: Option<Value>,
    }

    #[derive(Deserialize, Default, Debug, PartialEq)]
    #[serde(default)]
    struct Inner {
        subnet: String,
    }

    fn read(text: &str) -> Result<Sample, Error> {
        from_slice(text.as_bytes())
    }

    #[test]
    fn names_match_in_any_case_and_the_exact_one_wins() {
        assert!(read(r#"{"ISGATEWAY":true}"#).unwrap().is_gateway);
        let both = read(r#"{"MTU":1,"mtu":2,"Mtu":3}"#).unwrap();
        assert_eq!(both.mtu, 2);
    }

    #[test]
    fn unknown_keys_and_nulls_are_ignored() {
        assert_eq!(
            read(r#"{"what":{"ever":1},"mtu":null,"ranges":null,"raw":null}"#).unwrap(),
            Sample::default()
        );
        assert_eq!(read("null").unwrap(), Sample::default());
        assert_eq!(
            read(r#"{"ranges":[[null]]}"#).unwrap().ranges,
            [[Inner::default()]]
        );
    }

    #[test]
    fn keys_of_maps_and_raw_values_stay_as_written() {
        let sample = read(r#"{"Capabilities":{"portMappings":true},"raw":{"MTU":1}}"#).unwrap();
        assert!(sample.capabilities["portMappings"]);
        assert_eq!(sample.raw.unwrap()["MTU"], 1);
    }

    #[test]
    fn wrong_types_name_the_key() {
        let error = read(r#"{"ranges":[[],[{"subnet":"a"},{"Subnet":3}]]}"#).unwrap_err();
        assert_eq!(
            error.to_string(),
            "ranges[1][1].subnet: invalid type: integer `3`, expected a string"
        );
        assert_eq!(read(r#"{"mtu":"1500"}"#).unwrap_err().path(), "mtu");
        assert_eq!(read(r#"{"mtu":-1}"#).unwrap_err().path(), "mtu");
        assert_eq!(read(r#"{"mtu":1.5}"#).unwrap_err().path(), "mtu");
        assert_eq!(read("[]").unwrap_err().path(), "");
        assert!(read("nonsense").is_err());
    }

    #[test]
    fn writes_with_gos_escapes() {
        assert_eq!(
            to_compact(&"<a&b>\u{2028}"),
            r#""\u003ca\u0026b\u003e\u2028""#
        );
        assert_eq!(
            to_indented(&serde_json::json!({"a":[1]})),
            "{\n    \"a\": [\n        1\n    ]\n}"
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_without_a_panic(text in ".{0,200}") {
            let _ = read(&text);
        }

        #[test]
        fn compact_text_reads_back_to_the_same_value(text in "\\PC{0,40}", n in any::<i64>()) {
            let value = serde_json::json!({"k": text, "n": [n, null, true]});
            prop_assert_eq!(super::value(to_compact(&value).as_bytes()).unwrap(), value);
        }
    }
}
