//! The entries of `metadata.managedFields`: read, written, and kept few.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;

use serde_json::{Value, json};

use super::set::{Malformed, Set};

/// So many entries of `Update` are kept; that of kube-apiserver.
const UPDATERS: usize = 10;

/// Who the oldest updates are put down to when there are more.
const ANCIENT: &str = "ancient-changes";

/// How fields came to be owned; in the order in which entries are sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Operation {
    Apply,
    Update,
}

/// What one manager owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) manager: String,
    pub(super) operation: Operation,
    pub(super) api_version: String,
    pub(super) subresource: String,
    /// RFC 3339, to the second.
    pub(super) time: Option<String>,
    pub(super) fields: Set,
}

impl Entry {
    /// Whose entry it is. One who applies stays the same with another version.
    fn identity(&self) -> (String, Operation, String, String) {
        let version = match self.operation {
            Operation::Apply => "",
            Operation::Update => self.api_version.as_str(),
        };
        (
            self.manager.clone(),
            self.operation,
            version.to_owned(),
            self.subresource.clone(),
        )
    }

    /// Whether both are the same manager's.
    pub(super) fn same(&self, other: &Self) -> bool {
        self.manager == other.manager
            && self.operation == other.operation
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }

    fn read(value: &Value) -> Result<Self, Malformed> {
        let map = value.as_object().ok_or(Malformed)?;
        let text = |key: &str| match map.get(key) {
            None | Some(Value::Null) => Ok(""),
            Some(Value::String(text)) => Ok(text.as_str()),
            Some(_) => Err(Malformed),
        };
        let operation = match text("operation")? {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return Err(Malformed),
        };
        if text("apiVersion")?.is_empty() || text("fieldsType")? != "FieldsV1" {
            return Err(Malformed);
        }
        Ok(Self {
            manager: named(text("manager")?),
            operation,
            api_version: text("apiVersion")?.to_owned(),
            subresource: text("subresource")?.to_owned(),
            time: Some(text("time")?.to_owned()).filter(|time| !time.is_empty()),
            fields: match map.get("fieldsV1") {
                None | Some(Value::Null) => Set::default(),
                Some(fields) => Set::from_value(fields)?,
            },
        })
    }

    fn to_value(&self) -> Value {
        let mut value = json!({
            "manager": self.manager,
            "operation": match self.operation {
                Operation::Apply => "Apply",
                Operation::Update => "Update",
            },
            "apiVersion": self.api_version,
            "fieldsType": "FieldsV1",
            "fieldsV1": self.fields.to_value(),
        });
        if let Some(time) = &self.time {
            value["time"] = json!(time);
        }
        if !self.subresource.is_empty() {
            value["subresource"] = json!(self.subresource);
        }
        value
    }
}

/// A manager's name; some have none.
pub(super) fn named(manager: &str) -> String {
    if manager.is_empty() {
        "unknown"
    } else {
        manager
    }
    .to_owned()
}

/// The entries of a `managedFields`. Nothing and null are none.
pub(super) fn read(managed: Option<&Value>) -> Result<Vec<Entry>, Malformed> {
    let list = match managed {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(Malformed),
    };
    let mut entries: Vec<Entry> = Vec::with_capacity(list.len());
    let mut places = HashMap::new();
    for value in list {
        let entry = Entry::read(value)?;
        match places.entry(entry.identity()) {
            Slot::Occupied(place) => entries[*place.get()] = entry,
            Slot::Vacant(slot) => {
                slot.insert(entries.len());
                entries.push(entry);
            }
        }
    }
    Ok(entries)
}

/// Whether a client asks for all entries to be dropped: `[]` or `[{}]`.
pub(super) fn is_reset(managed: &Value) -> bool {
    match managed.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([Value::Object(entry)]) => entry.is_empty(),
        _ => false,
    }
}

/// The `managedFields`, in the order of the reference; None if there are none.
pub(super) fn write(mut entries: Vec<Entry>) -> Option<Value> {
    entries.retain(|entry| !entry.fields.is_empty());
    entries.sort_by(|a, b| {
        let key = |entry: &Entry| (entry.operation, entry.time.clone());
        (key(a), &a.manager, &a.api_version, &a.subresource).cmp(&(
            key(b),
            &b.manager,
            &b.api_version,
            &b.subresource,
        ))
    });
    if entries.is_empty() {
        return None;
    }
    Some(entries.iter().map(Entry::to_value).collect())
}

/// Puts the oldest updates of a version together until there are few enough entries.
pub(super) fn cap(entries: &mut Vec<Entry>) {
    let updater = |entry: &Entry| entry.operation == Operation::Update;
    let mut count = entries.iter().filter(|entry| updater(entry)).count();
    if count <= UPDATERS {
        return;
    }
    entries.sort_by(|a, b| (&a.time, &a.manager).cmp(&(&b.time, &b.manager)));
    let mut kept: Vec<Entry> = Vec::with_capacity(entries.len());
    // By version: the first entry, which stays what it is until a second comes. They then become one.
    let mut buckets: HashMap<String, usize> = HashMap::new();
    for entry in entries.drain(..) {
        let bucket = buckets
            .get(&entry.api_version)
            .map(|place| &mut kept[*place]);
        match bucket {
            _ if !updater(&entry) => kept.push(entry),
            Some(bucket) if count > UPDATERS || bucket.same(&entry) => {
                ANCIENT.clone_into(&mut bucket.manager);
                bucket.subresource.clear();
                bucket.fields.unite(entry.fields);
                bucket.time = entry.time;
                count -= 1;
            }
            Some(_) => kept.push(entry),
            None => {
                buckets.insert(entry.api_version.clone(), kept.len());
                kept.push(entry);
            }
        }
    }
    *entries = kept;
}
