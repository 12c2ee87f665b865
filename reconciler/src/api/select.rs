//! Label and field selectors: which objects of a list or a watch are asked for.
//!
//! Source: <https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/>, `field-selectors/`; the known
//! fields are those of kube-apiserver 1.36.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;

use super::kinds::Kind;
use super::object;
use super::status::Status;

pub mod fields;
pub mod labels;

/// Both selectors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    labels: labels::Labels,
    fields: fields::Fields,
}

/// What a selector by labels and names reads of stored bytes.
#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Default, Deserialize)]
struct Metadata {
    #[serde(default)]
    labels: Option<HashMap<String, Value>>,
}

impl Selector {
    /// Reads the query parameters `labelSelector` and `fieldSelector`.
    ///
    /// # Errors
    /// 400 for a syntax error, and for a field that the kind cannot be selected by.
    pub fn parse(kind: &Kind, labels: &str, fields: &str) -> Result<Self, Status> {
        Ok(Self {
            labels: labels::Labels::parse(labels).map_err(Status::bad_request)?,
            fields: fields::Fields::parse(kind, fields).map_err(Status::bad_request)?,
        })
    }

    /// Whether everything is selected.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// The only name that can be selected (`metadata.name=NAME`), which is found without a list.
    pub fn name(&self) -> Option<&str> {
        self.fields.wanted("metadata.name")
    }

    /// Whether an object is selected. It is in the stored version.
    pub fn matches(&self, object: &Value) -> bool {
        let labels = object::at(object, &["metadata", "labels"]);
        self.labels.matches(|key| labels?.get(key)?.as_str()) && self.fields.matches(object)
    }

    /// Whether stored bytes are selected; they are parsed no further than is needed.
    pub fn matches_bytes(&self, bytes: &[u8]) -> bool {
        if self.is_empty() {
            return true;
        }
        if !self.fields.is_empty() {
            return serde_json::from_slice(bytes).is_ok_and(|object| self.matches(&object));
        }
        let Ok(head) = serde_json::from_slice::<Head>(bytes) else {
            return false;
        };
        self.labels
            .matches(|key| head.metadata.labels.as_ref()?.get(key)?.as_str())
    }
}
