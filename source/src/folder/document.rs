//! One manifest: a stream of YAML or JSON documents, each an object or a list of objects. Objects of
//! a list are reduced one by one while the text is read, so a large list is never in memory whole.

use std::collections::BTreeSet;
use std::fmt;
use std::io::Read;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::{Consumer, Outcome};

/// How a manifest is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Yaml,
    Json,
}

/// What a manifest says to a consumer, what it does not want left out.
pub(super) struct Manifest<C: Consumer> {
    pub(super) objects: Vec<Outcome<C>>,
    /// Kinds that are no concern of ours.
    pub(super) ignored: BTreeSet<String>,
}

/// Reads all documents; the error names the document by its number, counted from 1 (empty ones do
/// not count), and the cause.
pub(super) fn read<C: Consumer>(
    mut input: impl Read,
    format: Format,
    consumer: &C,
) -> Result<Manifest<C>, String> {
    match format {
        Format::Json => {
            let stream = serde_json::Deserializer::from_reader(input);
            collect(stream.into_iter::<Document<C>>(), consumer)
        }
        Format::Yaml => collect(
            serde_saphyr::read_with_options(&mut input, yaml()),
            consumer,
        ),
    }
}

fn collect<C: Consumer, E: fmt::Display>(
    documents: impl Iterator<Item = Result<Document<C>, E>>,
    consumer: &C,
) -> Result<Manifest<C>, String> {
    let mut manifest = Manifest {
        objects: Vec::new(),
        ignored: BTreeSet::new(),
    };
    for (document, number) in documents.zip(1..) {
        let document = document.map_err(|error| format!("document {number}: {error}"))?;
        manifest.ignored.extend(document.ignored);
        let objects = document.objects.into_iter();
        let wanted = objects.filter(|object| consumer.wants(object.kind, object.node.as_deref()));
        manifest.objects.extend(wanted.map(|object| object.outcome));
    }
    Ok(manifest)
}

/// `no` and `on` stay words, as names may be. The limits are a large manifest's; what aliases may
/// multiply stays at the parser's careful default.
fn yaml() -> serde_saphyr::Options {
    let budget = serde_saphyr::budget! {
        max_events: 100_000_000,
        max_nodes: 50_000_000,
    };
    serde_saphyr::options! {
        budget: budget,
        strict_booleans: true,
        with_snippet: false,
    }
}

/// One document.
struct Document<C: Consumer> {
    objects: Vec<Object<C>>,
    ignored: BTreeSet<String>,
}

struct Object<C: Consumer> {
    kind: C::Kind,
    node: Option<String>,
    outcome: Outcome<C>,
}

impl<C: Consumer> Default for Document<C> {
    fn default() -> Self {
        Self {
            objects: Vec::new(),
            ignored: BTreeSet::new(),
        }
    }
}

impl<C: Consumer> Document<C> {
    /// Takes in an object, or the objects of a list.
    fn add(&mut self, kind: &str, value: Value) {
        let api_version = value.get("apiVersion").and_then(Value::as_str);
        if let Some(kind) = C::kind_of(kind, api_version) {
            self.objects.push(Object {
                kind,
                node: C::node_of(kind, &value),
                outcome: C::reduce(kind, value),
            });
            return;
        }
        match (kind.strip_suffix("List"), value) {
            (Some(of), Value::Object(mut map)) if map.contains_key("items") => {
                if let Some(Value::Array(items)) = map.remove("items") {
                    self.add_items(of, items);
                }
            }
            (_, value) => self.ignore(kind, &value),
        }
    }

    /// Items of a typed list are without a kind of their own.
    fn add_items(&mut self, of: &str, items: Vec<Value>) {
        for item in items {
            let kind = item.get("kind").and_then(Value::as_str);
            let kind = kind.unwrap_or(of).to_owned();
            self.add(&kind, item);
        }
    }

    fn ignore(&mut self, kind: &str, value: &Value) {
        let api_version = value.get("apiVersion").and_then(Value::as_str);
        let kind = match (kind, api_version) {
            ("", _) => "an object without a kind".to_owned(),
            (kind, None) => kind.escape_debug().to_string(),
            (kind, Some(version)) => format!("{version} {kind}").escape_debug().to_string(),
        };
        self.ignored.insert(kind);
    }
}

impl<'de, C: Consumer> Deserialize<'de> for Document<C> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(DocumentVisitor(PhantomData))
    }
}

struct DocumentVisitor<C>(PhantomData<C>);

impl<'de, C: Consumer> Visitor<'de> for DocumentVisitor<C> {
    type Value = Document<C>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a Kubernetes object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Document<C>, A::Error> {
        let mut items = Items::<C>::default();
        let mut rest = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            if key == "items" {
                map.next_value_seed(&mut items)?;
            } else {
                rest.insert(key, map.next_value()?);
            }
        }
        let kind = match rest.get("kind") {
            Some(Value::String(kind)) => kind.clone(),
            _ => return Err(serde::de::Error::missing_field("kind")),
        };
        match kind.strip_suffix("List") {
            Some(of) if items.are_there => {
                items.document.add_items(of, items.unnamed);
                Ok(items.document)
            }
            // With items, or without: no kind that is read has a field of that name.
            _ => {
                let mut document = Document::default();
                document.add(&kind, Value::Object(rest));
                Ok(document)
            }
        }
    }
}

/// The items of a list, whose kind may come after them.
struct Items<C: Consumer> {
    are_there: bool,
    /// Those that say what they are, reduced.
    document: Document<C>,
    /// Those that leave it to the list.
    unnamed: Vec<Value>,
}

impl<C: Consumer> Default for Items<C> {
    fn default() -> Self {
        Self {
            are_there: false,
            document: Document::default(),
            unnamed: Vec::new(),
        }
    }
}

impl<'de, C: Consumer> DeserializeSeed<'de> for &mut Items<C> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, C: Consumer> Visitor<'de> for &mut Items<C> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a sequence of objects")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.are_there = true;
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        self.are_there = true;
        while let Some(item) = items.next_element::<Value>()? {
            let kind = item.get("kind").and_then(Value::as_str);
            match kind.map(str::to_owned) {
                Some(kind) => self.document.add(&kind, item),
                None => self.unnamed.push(item),
            }
        }
        Ok(())
    }
}
