//! Answers: values and bytes in the form that the client asked for.

use std::convert::Infallible;

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::header::{
    CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, RETRY_AFTER, VARY, WARNING,
};
use hyper::{Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::api::accept::{self, Accepted, Encoding};
use crate::api::document::Answer;
use crate::api::kinds::Kind;
use crate::api::status::Status;
use crate::api::tables::{self, Include};
use crate::api::{object, view};
use crate::store::{Entry, Revision};

/// A response; its body may be a stream.
pub type Reply = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// What of objects is answered, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// All, as JSON.
    Json,
    /// All, as YAML.
    Yaml,
    /// Cells in columns.
    Table,
    /// Only metadata.
    Metadata,
}

impl Form {
    /// What an `Accept` header asks for.
    ///
    /// # Errors
    /// 406.
    pub fn of(header: Option<&str>, watch: bool) -> Result<Self, Status> {
        let Accepted { encoding, form } = accept::accept(header, watch)?;
        Ok(match form {
            accept::Form::Table(_) => Self::Table,
            accept::Form::Metadata(_) => Self::Metadata,
            accept::Form::Object if encoding == Encoding::Yaml => Self::Yaml,
            accept::Form::Object => Self::Json,
        })
    }

    /// For an answer that is no list: who deletes is not shown a table.
    pub fn of_one_object(self) -> Self {
        if self == Self::Table {
            Self::Json
        } else {
            self
        }
    }
}

/// How an answer is to look.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Of objects and lists.
    pub form: Form,
    /// What rows of a table hold.
    pub include: Include,
}

/// A reply of a text or a document.
pub fn reply(code: u16, content_type: &str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()).boxed_unsync());
    *reply.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Ok(value) = HeaderValue::from_str(content_type) {
        reply.headers_mut().insert(CONTENT_TYPE, value);
    }
    reply
}

/// A document that is the same for everybody.
pub fn of_document(answer: Answer) -> Reply {
    let mut reply = reply(answer.status, answer.content_type, answer.body);
    let headers = reply.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(&answer.etag) {
        headers.insert(ETAG, tag);
        headers.insert(VARY, HeaderValue::from_static("Accept"));
    }
    if let Some(control) = answer.cache_control {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(control));
    }
    reply
}

/// A reply of JSON.
pub fn json(code: u16, value: &Value) -> Reply {
    reply(code, "application/json", value.to_string())
}

/// The reply that nothing is at this path.
pub fn nothing_here() -> Reply {
    let mut reply = reply(404, "text/plain; charset=utf-8", "404 page not found\n");
    no_guessing(&mut reply);
    reply
}

/// No browser is to take it for another type than it says.
fn no_guessing(reply: &mut Reply) {
    let header = HeaderName::from_static("x-content-type-options");
    reply
        .headers_mut()
        .insert(header, HeaderValue::from_static("nosniff"));
}

impl From<Status> for Reply {
    fn from(status: Status) -> Self {
        let mut reply = json(status.code, &status.to_value());
        if status.code == 403 {
            no_guessing(&mut reply);
        }
        if let Some(seconds) = status.retry_after {
            reply.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        reply
    }
}

/// Adds texts that `kubectl` prints as warnings (RFC 7234, section 5.5; code 299).
pub fn warn(reply: &mut Reply, texts: &[impl AsRef<str>]) {
    for text in texts {
        let quoted = text
            .as_ref()
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace(['\n', '\r'], " ");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            reply.headers_mut().append(WARNING, value);
        }
    }
}

fn now() -> Timestamp {
    Timestamp::now()
}

/// An object with its revision, as stored (not yet in its view).
pub fn of_object(code: u16, kind: &Kind, mut value: Value, look: Look) -> Reply {
    view::show(kind, &mut value);
    match look.form {
        Form::Json => json(code, &value),
        Form::Yaml => yaml(code, &value),
        Form::Metadata => json(code, &tables::partial(value)),
        Form::Table => {
            let metadata = value.get("metadata").cloned().unwrap_or_default();
            let row = tables::row(kind, value, look.include, now());
            json(
                code,
                &tables::table(Some(tables::columns(kind)), &metadata, vec![row]),
            )
        }
    }
}

fn yaml(code: u16, value: &Value) -> Reply {
    match serde_saphyr::to_string(value) {
        Ok(text) => reply(code, "application/yaml", text),
        Err(error) => Status::internal(format!("write YAML: {error}")).into(),
    }
}

/// A stored entry. Plain JSON is not parsed.
pub fn of_entry(kind: &Kind, entry: &Entry, look: Look) -> Reply {
    if look.form == Form::Json && view::is_plain(kind) {
        let mut out = BytesMut::with_capacity(entry.value.len() + 64);
        return match object::splice(kind, &entry.value, entry.revision, false, &mut out) {
            Ok(()) => reply(200, "application/json", out.freeze()),
            Err(error) => unreadable(&entry.key, &error).into(),
        };
    }
    match object::decode(&entry.value, entry.revision) {
        Ok(value) => of_object(200, kind, value, look),
        Err(error) => unreadable(&entry.key, &error).into(),
    }
}

/// What the store holds is no object.
pub fn unreadable(key: &str, error: &serde_json::Error) -> Status {
    Status::internal(format!("read {key} from the store: {error}"))
}

/// The metadata of a list.
#[derive(Debug)]
pub struct ListMeta {
    /// The state that the list shows.
    pub revision: Revision,
    /// Where it goes on.
    pub next: Option<String>,
    /// How many follow; unknown with selectors.
    pub remaining: Option<u64>,
}

impl ListMeta {
    fn to_value(&self) -> Value {
        let mut value = json!({"resourceVersion": self.revision.to_string()});
        if let Some(next) = &self.next {
            value["continue"] = json!(next);
        }
        if let Some(remaining) = self.remaining {
            value["remainingItemCount"] = json!(remaining);
        }
        value
    }
}

/// A list of stored entries.
pub fn of_list(kind: &Kind, meta: &ListMeta, entries: &[Entry], look: Look) -> Reply {
    let size: usize = entries.iter().map(|entry| entry.value.len() + 48).sum();
    let built = match look.form {
        Form::Json if view::is_plain(kind) => raw_list(kind, meta, entries, size),
        form => list_of_values(kind, meta, entries, look, form),
    };
    built.unwrap_or_else(Into::into)
}

/// The stored bytes one after another.
fn raw_list(kind: &Kind, meta: &ListMeta, entries: &[Entry], size: usize) -> Result<Reply, Status> {
    let mut out = BytesMut::with_capacity(size + 256);
    let head = format!(
        "{{\"kind\":\"{}List\",\"apiVersion\":\"{}\",\"metadata\":{},\"items\":[",
        kind.kind,
        kind.api_version(),
        meta.to_value()
    );
    out.put_slice(head.as_bytes());
    for (index, entry) in entries.iter().enumerate() {
        if index > 0 {
            out.put_u8(b',');
        }
        object::splice(kind, &entry.value, entry.revision, true, &mut out)
            .map_err(|error| unreadable(&entry.key, &error))?;
    }
    out.put_slice(b"]}");
    Ok(reply(200, "application/json", out.freeze()))
}

fn list_of_values(
    kind: &Kind,
    meta: &ListMeta,
    entries: &[Entry],
    look: Look,
    form: Form,
) -> Result<Reply, Status> {
    let now = now();
    let mut items = Vec::with_capacity(entries.len());
    for entry in entries {
        let mut value = object::decode(&entry.value, entry.revision)
            .map_err(|error| unreadable(&entry.key, &error))?;
        view::show(kind, &mut value);
        items.push(match form {
            Form::Table => tables::row(kind, value, look.include, now),
            Form::Metadata => tables::partial(value),
            Form::Json | Form::Yaml => untyped(value),
        });
    }
    Ok(of_values(kind, meta, items, form))
}

/// Within a list the type is left out.
fn untyped(mut value: Value) -> Value {
    if let Some(map) = value.as_object_mut() {
        map.remove("apiVersion");
        map.remove("kind");
    }
    value
}

/// A list of what has been made into rows, metadata or items already.
pub fn of_values(kind: &Kind, meta: &ListMeta, items: Vec<Value>, form: Form) -> Reply {
    let metadata = meta.to_value();
    match form {
        Form::Table => json(
            200,
            &tables::table(Some(tables::columns(kind)), &metadata, items),
        ),
        Form::Metadata => json(
            200,
            &json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "items": items}),
        ),
        Form::Json | Form::Yaml => {
            let list = json!({"kind": format!("{}List", kind.kind), "apiVersion": kind.api_version(), "metadata": metadata, "items": items});
            if form == Form::Yaml {
                yaml(200, &list)
            } else {
                json(200, &list)
            }
        }
    }
}

/// A list of objects that are JSON already.
pub fn of_texts(kind: &Kind, revision: Revision, items: &[String]) -> Reply {
    let text = format!(
        "{{\"kind\":\"{}List\",\"apiVersion\":\"{}\",\"metadata\":{{\"resourceVersion\":\"{revision}\"}},\"items\":[{}]}}",
        kind.kind,
        kind.api_version(),
        items.join(",")
    );
    reply(200, "application/json", text)
}
