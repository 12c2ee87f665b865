//! What fields the types have: their shapes, protobuf numbers, and how lists and maps are merged.
//!
//! One table of text (`schema/fields.txt`), read once. It decodes protobuf, finds unknown fields and wrong types, and
//! guides strategic merges and managed fields; no code knows a field that this table knows.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::kinds::Kind;

/// What a value is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A string.
    String,
    /// 32 bits, signed.
    Int32,
    /// 64 bits, signed.
    Int64,
    /// True or false.
    Bool,
    /// A floating point number.
    Double,
    /// base64 in JSON.
    Bytes,
    /// RFC 3339, to the second.
    Time,
    /// RFC 3339, to the microsecond.
    MicroTime,
    /// `500m`, `1Gi`: a string, or a number when read.
    Quantity,
    /// A number or a string.
    IntOrString,
    /// Any JSON (`RawExtension`).
    Raw,
    /// A set of fields (`FieldsV1`): any JSON object.
    Fields,
    /// Another type of the table: its name, `core/v1.PodSpec`.
    Object(&'static str),
    /// A list.
    List(Box<Self>),
    /// An object with any keys.
    Map(Box<Self>),
}

/// How server-side apply sees a list (`x-kubernetes-list-type`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListType {
    /// One value that has one owner.
    Atomic,
    /// Each value has its owners.
    Set,
    /// Items are told apart by these fields.
    Map(Vec<&'static str>),
}

/// How a strategic merge patch treats a list or an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Strategy {
    /// Merged, and not replaced. Lists of objects by this key; lists of plain values as sets (`Some(None)`).
    pub merge: Option<Option<&'static str>>,
    /// The patch names the fields that stay (`$retainKeys`).
    pub retain_keys: bool,
    /// An object that is replaced, and not merged. (Lists without `merge` always are.)
    pub replace: bool,
}

/// One field of a type.
#[derive(Clone, Debug)]
pub struct Field {
    /// In JSON. Empty: the fields of its type are written into the parent (a Go struct embedded inline).
    pub name: &'static str,
    /// In protobuf.
    pub number: u32,
    /// What it holds.
    pub shape: Shape,
    /// In protobuf a zero value was written on purpose; without it, zero means absent.
    pub pointer: bool,
    /// Zero values are left out of JSON.
    pub omit_empty: bool,
    /// For strategic merge patches.
    pub strategy: Strategy,
    /// For server-side apply; meaningful for lists.
    pub list_type: ListType,
    /// For server-side apply: a map with one owner.
    pub atomic_map: bool,
}

/// A type.
#[derive(Debug)]
pub struct Type {
    /// `core/v1.PodSpec`
    pub name: &'static str,
    /// In the order of the table.
    pub fields: Vec<Field>,
    /// Has `apiVersion` and `kind`.
    pub typed: bool,
    /// For server-side apply: an object with one owner.
    pub atomic: bool,
    by_name: HashMap<&'static str, Field>,
    always: Vec<Field>,
}

impl Type {
    /// Fields that are written when nothing was set: those that may not be left out, and those of which Go does not
    /// see that they are zero: structs (`"resources": {}`), times and raw JSON (null).
    pub fn always(&self) -> &[Field] {
        &self.always
    }

    /// A field by its JSON name, inline ones included.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.by_name.get(name)
    }

    /// All fields as JSON has them: with those of inline types instead of the inline ones.
    pub fn json_fields(&self) -> impl Iterator<Item = &Field> {
        self.by_name.values()
    }
}

static TYPES: LazyLock<HashMap<&'static str, Type>> =
    LazyLock::new(|| read(include_str!("schema/fields.txt")));

/// A type by its name in the table.
pub fn named(name: &str) -> Option<&'static Type> {
    TYPES.get(name)
}

/// The type of a [`Shape::Object`].
///
/// # Panics
/// The table has no such type; the tests of this module see to it that it has.
pub fn object(name: &'static str) -> &'static Type {
    named(name).unwrap_or_else(|| panic!("fields.txt has no {name}"))
}

/// The type of a kind.
///
/// # Panics
/// As [`object`].
pub fn of(kind: &Kind) -> &'static Type {
    in_group(kind.group, kind.version, kind.kind)
        .unwrap_or_else(|| panic!("fields.txt has no {} {}", kind.group, kind.kind))
}

/// A type by its group, version and kind: `in_group("networking.k8s.io", "v1", "Ingress")`.
pub fn in_group(group: &str, version: &str, kind: &str) -> Option<&'static Type> {
    named(&format!("{}/{version}.{kind}", package(group)))
}

/// What the table calls a group: `core`, `networking`.
pub fn package(group: &str) -> &str {
    match group {
        "" => "core",
        group => group.split('.').next().unwrap_or_default(),
    }
}

fn read(text: &'static str) -> HashMap<&'static str, Type> {
    let mut types: HashMap<&'static str, Type> = HashMap::new();
    let mut current = "";
    for line in text.lines() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        if line.starts_with(' ') {
            if let Some(parent) = types.get_mut(current) {
                parent.fields.push(field(first, words));
            }
        } else {
            current = first;
            let flags: Vec<_> = words.collect();
            let new = Type {
                name: first,
                fields: Vec::new(),
                typed: flags.contains(&"typed"),
                atomic: flags.contains(&"atomic"),
                by_name: HashMap::new(),
                always: Vec::new(),
            };
            types.insert(first, new);
        }
    }
    let names: Vec<_> = types.keys().copied().collect();
    for name in names {
        let mut all = HashMap::new();
        flatten(&types, name, &mut all);
        if let Some(found) = types.get_mut(name) {
            found.always = all
                .values()
                .filter(|field| written_always(field))
                .cloned()
                .collect();
            found.by_name = all;
        }
    }
    types
}

fn written_always(field: &Field) -> bool {
    match field.shape {
        // The only ones that can be zero (`targetPort`, `httpGet.port`) are defaulted or refused.
        Shape::IntOrString | Shape::Quantity => false,
        Shape::Object(_) | Shape::Raw if !field.pointer => true,
        // The one time that is marked `omitzero`.
        Shape::Time | Shape::MicroTime if !field.pointer => field.name != "creationTimestamp",
        _ => !field.omit_empty,
    }
}

fn field(name: &'static str, mut words: std::str::SplitWhitespace<'static>) -> Field {
    let number = words.next().and_then(|word| word.parse().ok());
    let mut field = Field {
        name: if name == "-" { "" } else { name },
        number: number.unwrap_or_default(),
        shape: shape(words.next().unwrap_or_default()),
        pointer: false,
        omit_empty: false,
        strategy: Strategy::default(),
        list_type: ListType::Atomic,
        atomic_map: false,
    };
    for flag in words {
        match flag.split_once('=').unwrap_or((flag, "")) {
            ("pointer", _) => field.pointer = true,
            ("omitempty", _) => field.omit_empty = true,
            ("merge", "") => field.strategy.merge = Some(None),
            ("merge", key) => field.strategy.merge = Some(Some(key)),
            ("retainKeys", _) => field.strategy.retain_keys = true,
            ("set", _) => field.list_type = ListType::Set,
            ("keys", keys) => field.list_type = ListType::Map(keys.split(',').collect()),
            ("atomic", _) => field.atomic_map = true,
            ("replace", _) => field.strategy.replace = true,
            _ => {}
        }
    }
    field
}

fn shape(word: &'static str) -> Shape {
    if let Some(item) = word.strip_prefix("[]") {
        return Shape::List(Box::new(shape(item)));
    }
    if let Some(value) = word.strip_prefix("{}") {
        return Shape::Map(Box::new(shape(value)));
    }
    match word {
        "string" => Shape::String,
        "int32" => Shape::Int32,
        "int64" => Shape::Int64,
        "bool" => Shape::Bool,
        "double" => Shape::Double,
        "bytes" => Shape::Bytes,
        "time" => Shape::Time,
        "microtime" => Shape::MicroTime,
        "quantity" => Shape::Quantity,
        "intstr" => Shape::IntOrString,
        "raw" => Shape::Raw,
        "fields" => Shape::Fields,
        name => Shape::Object(name),
    }
}

fn flatten(
    types: &HashMap<&'static str, Type>,
    name: &str,
    all: &mut HashMap<&'static str, Field>,
) {
    for field in types
        .get(name)
        .map(|found| found.fields.as_slice())
        .unwrap_or_default()
    {
        match &field.shape {
            Shape::Object(inner) if field.name.is_empty() => flatten(types, inner, all),
            _ => {
                all.insert(field.name, field.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kinds::KINDS;

    fn named_by(shape: &Shape) -> Option<&'static str> {
        match shape {
            Shape::Object(name) => Some(name),
            Shape::List(inner) | Shape::Map(inner) => named_by(inner),
            _ => None,
        }
    }

    #[test]
    fn every_kind_and_every_type_that_is_named_is_there() {
        for kind in KINDS {
            assert!(of(kind).typed, "{}", kind.kind);
            assert!(of(kind).field("metadata").is_some(), "{}", kind.kind);
        }
        for found in TYPES.values() {
            for field in &found.fields {
                assert_ne!(field.number, 0, "{}.{}", found.name, field.name);
                if let Some(name) = named_by(&field.shape) {
                    object(name);
                }
            }
        }
    }

    #[test]
    fn fields_say_how_they_are_written_and_merged() {
        let ports = object("core/v1.ServiceSpec").field("ports").unwrap();
        assert_eq!(
            ports.shape,
            Shape::List(Box::new(Shape::Object("core/v1.ServicePort")))
        );
        assert_eq!(ports.strategy.merge, Some(Some("port")));
        assert_eq!(ports.list_type, ListType::Map(vec!["port", "protocol"]));
        let volume = object("core/v1.Volume");
        assert_eq!(volume.field("emptyDir").unwrap().number, 2);
        assert!(volume.field("").is_none());
        assert!(
            object("core/v1.PodSpec")
                .field("volumes")
                .unwrap()
                .strategy
                .retain_keys
        );
        assert_eq!(
            object("meta/v1.ObjectMeta")
                .field("finalizers")
                .unwrap()
                .list_type,
            ListType::Set
        );
        assert!(object("meta/v1.LabelSelector").atomic);
        assert!(
            object("core/v1.ServiceSpec")
                .field("selector")
                .unwrap()
                .atomic_map
        );
        assert!(object("core/v1.PersistentVolumeClaim").typed);
    }
}
