//! Protobuf bodies to values, by the table of fields: `application/vnd.kubernetes.protobuf`.
//!
//! A body is the four bytes `k8s\0` and a message `Unknown {1: TypeMeta {1: apiVersion, 2: kind}, 2: raw}`, and raw is
//! the object. Go writes every field that is no pointer, zero or not; so a zero value means absent unless the field
//! is a pointer. Nothing is allocated by a length that a body only claims.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::text;
use super::time;
use crate::api::schema::{self, Field, Shape, Type};

/// Messages may be nested so deep.
const DEPTH: usize = 64;
/// JSON within a message may be.
const RAW_DEPTH: usize = 48;

const ENDS_EARLY: &str = "unexpected EOF";

/// The type that a body names, and its object's bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// `apps/v1`; may be empty.
    pub api_version: &'a str,
    /// `Deployment`; may be empty.
    pub kind: &'a str,
    /// For [`object`].
    pub raw: &'a [u8],
}

/// Opens a body.
///
/// # Errors
/// It does not begin with `k8s\0`, or what follows is no `Unknown` message.
pub fn open(body: &[u8]) -> Result<Envelope<'_>, String> {
    let Some(message) = body.strip_prefix(b"k8s\0") else {
        return Err(
            "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
                .into(),
        );
    };
    let mut envelope = Envelope {
        api_version: "",
        kind: "",
        raw: &[],
    };
    let mut reader = Reader(message);
    while let Some((number, wire)) = reader.next()? {
        match number {
            1 => {
                let mut types = Reader(wire.bytes("typeMeta")?);
                while let Some((number, wire)) = types.next()? {
                    match number {
                        1 => envelope.api_version = wire.text("apiVersion")?,
                        2 => envelope.kind = wire.text("kind")?,
                        _ => {}
                    }
                }
            }
            2 => envelope.raw = wire.bytes("raw")?,
            _ => {}
        }
    }
    Ok(envelope)
}

/// Reads an object of a type. Unknown fields are skipped, as Go does; there are no findings.
///
/// # Errors
/// The bytes are no such message.
pub fn object(raw: &[u8], of: &'static Type) -> Result<Map<String, Value>, String> {
    let mut map = Map::new();
    message(raw, of, &mut map, 0)?;
    Ok(map)
}

fn message(
    bytes: &[u8],
    of: &'static Type,
    map: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), String> {
    if depth > DEPTH {
        return Err(format!("proto: {} is nested too deep", of.name));
    }
    let mut reader = Reader(bytes);
    while let Some((number, wire)) = reader.next()? {
        if let Some(field) = of.fields.iter().find(|field| field.number == number) {
            read(field, &wire, map, depth + 1)?;
        }
    }
    Ok(())
}

/// Adds one occurrence of a field to what is there: a later scalar wins, messages are merged, items are appended.
fn read(
    field: &Field,
    wire: &Wire<'_>,
    map: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), String> {
    let name = field.name;
    match &field.shape {
        Shape::Object(inner) if name.is_empty() => {
            message(wire.bytes(inner)?, schema::object(inner), map, depth)
        }
        Shape::Object(inner) => {
            let mut there = match map.remove(name) {
                Some(Value::Object(there)) => there,
                _ => Map::new(),
            };
            message(wire.bytes(name)?, schema::object(inner), &mut there, depth)?;
            if field.pointer || !there.is_empty() {
                map.insert(name.into(), Value::Object(there));
            }
            Ok(())
        }
        Shape::List(item) => {
            let slot = map.entry(name).or_insert_with(|| json!([]));
            if let Value::Array(items) = slot {
                append(item, name, wire, items, depth)?;
            }
            Ok(())
        }
        Shape::Map(value) => {
            let (key, value) = entry(value, name, wire.bytes(name)?, depth)?;
            let slot = map.entry(name).or_insert_with(|| json!({}));
            if let Value::Object(entries) = slot {
                entries.insert(key, value);
            }
            Ok(())
        }
        shape => {
            let value = single(shape, name, wire, depth)?;
            if value.is_null() || !field.pointer && is_zero(&value) {
                map.remove(name);
            } else {
                map.insert(name.into(), value);
            }
            Ok(())
        }
    }
}

fn append(
    item: &Shape,
    name: &str,
    wire: &Wire<'_>,
    items: &mut Vec<Value>,
    depth: usize,
) -> Result<(), String> {
    match (item, wire) {
        // Packed: some writers of numbers do so.
        (Shape::Int32 | Shape::Int64 | Shape::Bool, Wire::Bytes(bytes)) => {
            let mut reader = Reader(bytes);
            while !reader.0.is_empty() {
                let wire = Wire::Varint(reader.varint()?);
                items.push(single(item, name, &wire, depth)?);
            }
        }
        _ => items.push(single(item, name, wire, depth)?),
    }
    Ok(())
}

/// One entry of a map: `{1: key, 2: value}`, either of which may be missing.
fn entry(shape: &Shape, name: &str, bytes: &[u8], depth: usize) -> Result<(String, Value), String> {
    let mut key = String::new();
    let mut value = None;
    let mut reader = Reader(bytes);
    while let Some((number, wire)) = reader.next()? {
        match number {
            1 => wire.text(name)?.clone_into(&mut key),
            2 => value = Some(single(shape, name, &wire, depth)?),
            _ => {}
        }
    }
    let value = match value {
        Some(value) => value,
        None => single(shape, name, &zero_of(shape), depth)?,
    };
    Ok((key, value))
}

/// What stands for a value that was left out.
fn zero_of(shape: &Shape) -> Wire<'static> {
    match shape {
        Shape::Int32 | Shape::Int64 | Shape::Bool => Wire::Varint(0),
        Shape::Double => Wire::Fixed64([0; 8]),
        _ => Wire::Bytes(&[]),
    }
}

/// One value. A time of no value is null.
fn single(shape: &Shape, name: &str, wire: &Wire<'_>, depth: usize) -> Result<Value, String> {
    Ok(match shape {
        Shape::String => json!(wire.text(name)?),
        // Negative numbers are written in 64 bits.
        Shape::Int32 => json!(wire.varint(name)? as i32),
        Shape::Int64 => json!(wire.varint(name)? as i64),
        Shape::Bool => json!(wire.varint(name)? != 0),
        Shape::Double => match wire {
            Wire::Fixed64(bytes) => json!(f64::from_le_bytes(*bytes)),
            _ => return Err(wrong_wire(wire, name)),
        },
        Shape::Bytes => json!(STANDARD.encode(wire.bytes(name)?)),
        Shape::Time | Shape::MicroTime => {
            let (mut seconds, mut nanos) = (0, 0);
            let mut reader = Reader(wire.bytes(name)?);
            while let Some((number, wire)) = reader.next()? {
                match number {
                    1 => seconds = wire.varint(name)? as i64,
                    2 => nanos = wire.varint(name)? as i32,
                    _ => {}
                }
            }
            if (seconds, nanos) == (0, 0) {
                return Ok(Value::Null);
            }
            let micro = *shape == Shape::MicroTime;
            json!(time::of(seconds, nanos, micro).ok_or_else(|| format!(
                "{name}: {seconds} seconds are no time between the years 0 and 9999"
            ))?)
        }
        Shape::Quantity => match inner(wire.bytes(name)?, 1, name)? {
            [] => json!("0"),
            bytes => json!(utf8(bytes, name)?),
        },
        Shape::IntOrString => {
            let (mut is_text, mut number, mut text) = (false, 0, "");
            let mut reader = Reader(wire.bytes(name)?);
            while let Some((field, wire)) = reader.next()? {
                match field {
                    1 => is_text = wire.varint(name)? == 1,
                    2 => number = wire.varint(name)? as i32,
                    3 => text = wire.text(name)?,
                    _ => {}
                }
            }
            if is_text { json!(text) } else { json!(number) }
        }
        Shape::Raw | Shape::Fields => match inner(wire.bytes(name)?, 1, name)? {
            [] => Value::Null,
            bytes => {
                let value = text::json(bytes)
                    .map_err(|error| format!("{name}: {error}"))?
                    .value;
                if text::depth(&value) > RAW_DEPTH {
                    return Err(format!("{name}: exceeded max depth"));
                }
                value
            }
        },
        Shape::Object(of) => {
            let mut map = Map::new();
            message(wire.bytes(name)?, schema::object(of), &mut map, depth)?;
            Value::Object(map)
        }
        // A list that is the value of a map is a message of its own.
        Shape::List(item) => {
            let mut items = Vec::new();
            let mut reader = Reader(wire.bytes(name)?);
            while let Some((number, wire)) = reader.next()? {
                if number == 1 {
                    append(item, name, &wire, &mut items, depth)?;
                }
            }
            Value::Array(items)
        }
        Shape::Map(_) => return Err(format!("proto: {name} is a map within a list or a map")),
    })
}

/// The last field of a number in a message of bytes.
fn inner<'a>(bytes: &'a [u8], wanted: u32, name: &str) -> Result<&'a [u8], String> {
    let mut found: &[u8] = &[];
    let mut reader = Reader(bytes);
    while let Some((number, wire)) = reader.next()? {
        if number == wanted {
            found = wire.bytes(name)?;
        }
    }
    Ok(found)
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(_) | Value::Object(_) => false,
    }
}

fn utf8<'a>(bytes: &'a [u8], name: &str) -> Result<&'a str, String> {
    std::str::from_utf8(bytes).map_err(|_| format!("proto: {name} contains invalid UTF-8"))
}

fn wrong_wire(wire: &Wire<'_>, name: &str) -> String {
    format!(
        "proto: wrong wireType = {} for field {name}",
        wire.wire_type()
    )
}

/// A value as it is on the wire.
enum Wire<'a> {
    Varint(u64),
    Fixed64([u8; 8]),
    Bytes(&'a [u8]),
    Fixed32,
}

impl<'a> Wire<'a> {
    fn wire_type(&self) -> u8 {
        match self {
            Self::Varint(_) => 0,
            Self::Fixed64(_) => 1,
            Self::Bytes(_) => 2,
            Self::Fixed32 => 5,
        }
    }

    fn bytes(&self, name: &str) -> Result<&'a [u8], String> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(wrong_wire(self, name)),
        }
    }

    fn text(&self, name: &str) -> Result<&'a str, String> {
        utf8(self.bytes(name)?, name)
    }

    fn varint(&self, name: &str) -> Result<u64, String> {
        match self {
            Self::Varint(value) => Ok(*value),
            _ => Err(wrong_wire(self, name)),
        }
    }
}

/// What is left of a message.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(ENDS_EARLY)?;
        self.0 = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or(ENDS_EARLY)?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err("proto: integer overflow".into())
    }

    /// The next field: its number and value.
    fn next(&mut self) -> Result<Option<(u32, Wire<'a>)>, String> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3)
            .ok()
            .filter(|number| *number > 0)
            .ok_or_else(|| format!("proto: illegal tag {}", tag >> 3))?;
        let wire = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => {
                let mut bytes = [0; 8];
                bytes.copy_from_slice(self.take(8)?);
                Wire::Fixed64(bytes)
            }
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| ENDS_EARLY)?;
                Wire::Bytes(self.take(length)?)
            }
            5 => {
                self.take(4)?;
                Wire::Fixed32
            }
            other => return Err(format!("proto: illegal wireType {other}")),
        };
        Ok(Some((number, wire)))
    }
}

#[cfg(test)]
mod tests;
