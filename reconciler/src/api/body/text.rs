//! JSON and YAML to values, with a note of fields that are there twice.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::path::Path;

/// So deep may values be nested; `serde_json` has the same limit, so that what was read can be read again.
pub const DEPTH: usize = 127;

/// More than so many findings are of no use to anybody.
const FINDINGS: usize = 100;

/// A value, and what is odd about its text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parsed {
    /// The last of several fields with one name counts.
    pub value: Value,
    /// `duplicate field "data.a"`
    pub findings: Vec<String>,
}

/// Reads JSON.
///
/// # Errors
/// What is wrong with the text, as Go says it where that is known.
pub fn json(bytes: &[u8]) -> Result<Parsed, String> {
    let mut findings = Vec::new();
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let seed = Seed {
        path: Path::Root,
        findings: &mut findings,
    };
    let value = seed
        .deserialize(&mut reader)
        .and_then(|value| reader.end().map(|()| value))
        .map_err(|error| {
            if error.is_eof() {
                "unexpected end of JSON input".to_owned()
            } else {
                error.to_string()
            }
        })?;
    Ok(Parsed { value, findings })
}

/// Reads YAML: one document. JSON is YAML too.
///
/// # Errors
/// What is wrong with the text. Aliases that would grow far beyond the text are refused.
pub fn yaml(bytes: &[u8]) -> Result<Parsed, String> {
    if bytes.trim_ascii_start().first() == Some(&b'{')
        && let Ok(parsed) = json(bytes)
    {
        return Ok(parsed);
    }
    let text = std::str::from_utf8(bytes).map_err(|error| format!("yaml: {error}"))?;
    let mut findings = Vec::new();
    let options = serde_saphyr::options! {
        duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::PassThrough,
        with_snippet: false,
        // `defaultMode: 0644`, as in YAML 1.1.
        legacy_octal_numbers: true,
        budget: serde_saphyr::budget! {
            max_depth: DEPTH,
            max_documents: 1,
            max_aliases: 1_000,
            max_nodes: 250_000,
        },
    };
    let value = serde_saphyr::with_deserializer_from_str_with_options(text, options, |reader| {
        let seed = Seed {
            path: Path::Root,
            findings: &mut findings,
        };
        seed.deserialize(reader)
    })
    .map_err(|error| format!("yaml: {error}"))?;
    Ok(Parsed { value, findings })
}

/// How deep a value is nested: 0 for what is neither object nor list.
pub fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or_default(),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or_default(),
        _ => 0,
    }
}

struct Seed<'a> {
    path: Path<'a>,
    findings: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom(format_args!("{value} is no JSON number")))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element_seed(Seed {
            path: Path::Item(&self.path, items.len()),
            findings: self.findings,
        })? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = fields.next_key::<String>()? {
            let path = Path::Key(&self.path, &key);
            if map.contains_key(&key) && self.findings.len() < FINDINGS {
                let finding = format!("duplicate field {:?}", path.to_string());
                if !self.findings.contains(&finding) {
                    self.findings.push(finding);
                }
            }
            let value = fields.next_value_seed(Seed {
                path,
                findings: self.findings,
            })?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}
