//! A JSON object read as Go reads one: key case is ignored, the last of several equal keys wins.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// The members by lower-cased key, values unparsed.
#[derive(Clone, Debug, Default)]
pub struct Folded(BTreeMap<String, Box<RawValue>>);

impl Folded {
    /// The value as written, `null` included.
    pub fn raw(&self, key: &str) -> Option<&RawValue> {
        self.0.get(&key.to_lowercase()).map(|raw| &**raw)
    }

    /// The value read as `T`; absent and `null` are `None`.
    pub fn get<'a, T: Deserialize<'a>>(
        &'a self,
        key: &str,
    ) -> Result<Option<T>, serde_json::Error> {
        match self.raw(key) {
            Some(raw) => serde_json::from_str(raw.get()),
            None => Ok(None),
        }
    }
}

impl<'de> Deserialize<'de> for Folded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Folded;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Folded, A::Error> {
                let mut members = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    members.insert(key.to_lowercase(), value);
                }
                Ok(Folded(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}
