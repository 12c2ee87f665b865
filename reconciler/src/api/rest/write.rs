//! How writes are done: their options, and what all of them share.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Call;
use crate::api::body::validation::Mode;
use crate::api::kinds::{Kind, Subresource};
use crate::api::status::{Cause, Status};
use crate::api::{fields, object};
use crate::store;

/// Bytes of an object: etcd's limit, for both stores.
const LARGEST: usize = 1_536 << 10;

/// How a write is to be done.
#[derive(Clone, Debug)]
pub struct Write {
    /// Nothing is stored.
    pub dry_run: bool,
    /// Who the fields belong to that are changed; empty when the new state says so itself (server-side apply).
    pub manager: String,
    /// What is done about unknown fields.
    pub mode: Mode,
}

impl Write {
    /// Of a request; `options` is the type that messages name (`CreateOptions`).
    ///
    /// # Errors
    /// 422 for bad options.
    pub fn of(call: &Call<'_>, options: &str) -> Result<Self, Status> {
        let manager = call.query.text("fieldManager");
        if manager.len() > 128 {
            let cause = Cause::too_long("fieldManager", 128);
            return Err(Status::invalid("meta.k8s.io", options, "", &[cause]));
        }
        let agent = fields::of_user_agent(call.header("user-agent").unwrap_or("unknown"));
        Ok(Self {
            dry_run: call.query.dry_run(options)?,
            manager: if manager.is_empty() {
                agent
            } else {
                manager.to_owned()
            },
            mode: Mode::of(call.query.get("fieldValidation"), options)?,
        })
    }
}

/// The part of an object that an update writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What is not below it.
    Main,
    /// What that path is for.
    Below(Subresource),
    /// What has been put into a copy of the old object by somebody who knows what may change; the name stands in
    /// `managedFields`.
    Chosen(&'static str),
}

impl Part {
    pub(super) fn subresource(self) -> &'static str {
        match self {
            Self::Main => "",
            Self::Below(subresource) => subresource.name(),
            Self::Chosen(name) => name,
        }
    }

    /// Whether it says what has become of an object, and not what it is to be: no new generation.
    pub(super) fn is_news(self) -> bool {
        ["status", "binding"].contains(&self.subresource())
    }
}

/// The time to the second.
pub fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Whether a write that failed so may have taken effect.
pub(super) fn is_unknown(error: &store::Error) -> bool {
    matches!(error, store::Error::Away(_) | store::Error::Broken(_))
}

/// Records whose the fields are that were changed.
pub(super) fn own(
    old: Option<&Value>,
    new: &mut Value,
    subresource: &str,
    write: &Write,
    kind: &Kind,
) {
    if write.manager.is_empty() {
        return;
    }
    let writer = fields::Writer {
        manager: &write.manager,
        subresource,
        now: &now(),
    };
    fields::update(old, new, &writer, kind);
}

pub(super) fn set_revision(value: &mut Value, revision: store::Revision) {
    object::object(value, "metadata").insert("resourceVersion".into(), json!(revision.to_string()));
}

/// The refusal of an object that is larger than etcd takes: its bodies may be small, but it has grown by patches.
pub(super) fn too_large(bytes: &[u8]) -> Option<Status> {
    let message = format!("Request entity too large: limit is {LARGEST}");
    (bytes.len() > LARGEST).then(|| Status::new(413, "RequestEntityTooLarge", message))
}
