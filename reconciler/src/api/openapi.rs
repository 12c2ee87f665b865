//! OpenAPI documents: what `kubectl explain` shows, and what `kubectl apply` asks before it validates.
//!
//! Version 3 has a document for each group and version, whose address holds its hash and which may be kept forever.
//! Of version 2 there is one document for everything; in protobuf, which only kubectl asks for, it is empty, and
//! kubectl takes that for a server without client-side checks.

mod paths;
mod schemas;

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::accept;
use super::discovery::{self, Resource};
use super::document::{Answer, Document};

const FOREVER: &str = "public, immutable";
/// The client asks with `@v1.0`, and can only read an answer with `.v1.0`.
const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// Answers `/openapi/v3`, `/openapi/v3/api/v1`, `/openapi/v3/apis/G/V` and `/openapi/v2`; none for any other path.
/// `query` is what follows the path: `hash=…&timeout=32s`.
pub fn respond(
    path: &str,
    query: Option<&str>,
    header: Option<&str>,
    if_none_match: Option<&str>,
) -> Option<Answer> {
    match path.strip_prefix("/openapi/")? {
        "v3" | "v3/" => Some(ROOT.answer(if_none_match)),
        "v2" => {
            let clauses = accept::clauses(header.unwrap_or_default());
            let protobuf = clauses
                .first()
                .is_some_and(|clause| clause.media.ends_with("+protobuf"));
            let document: &Document = if protobuf { &EMPTY } else { &SWAGGER };
            Some(document.answer(if_none_match))
        }
        rest => {
            let document = GROUPS.get(rest.strip_prefix("v3/")?)?;
            let document = &**document;
            let mut answer = document.answer(if_none_match);
            let asked = query
                .unwrap_or_default()
                .split('&')
                .find_map(|pair| pair.strip_prefix("hash="));
            if asked != Some(document.hash()) {
                answer.cache_control = None;
            }
            Some(answer)
        }
    }
}

type Lazy = LazyLock<Document, Box<dyn FnOnce() -> Document + Send>>;

/// By what follows `/openapi/v3/`; each is built when it is first asked for.
static GROUPS: LazyLock<HashMap<String, Lazy>> = LazyLock::new(|| {
    discovery::groups()
        .into_iter()
        .map(|(group, resources)| {
            let address = match group {
                "" => "api/v1".to_owned(),
                group => format!("apis/{group}/v1"),
            };
            let build: Box<dyn FnOnce() -> Document + Send> = Box::new(move || {
                Document::new(
                    "application/json",
                    Some(FOREVER),
                    document(group, &resources).to_string(),
                )
            });
            (address, LazyLock::new(build))
        })
        .collect()
});

static ROOT: LazyLock<Document> = LazyLock::new(|| {
    let paths: Map<String, Value> = GROUPS
        .iter()
        .map(|(address, document)| {
            let url = format!("/openapi/v3/{address}?hash={}", document.hash());
            (address.clone(), json!({"serverRelativeURL": url}))
        })
        .collect();
    Document::json(&json!({"paths": paths}))
});

static EMPTY: LazyLock<Document> = LazyLock::new(|| Document::new(PROTOBUF, None, ""));

static SWAGGER: LazyLock<Document> = LazyLock::new(|| {
    Document::json(&json!({
        "swagger": "2.0",
        "info": info(),
        "paths": {},
        "definitions": schemas::all(schemas::Place::Definitions),
    }))
});

fn info() -> Value {
    json!({"title": "Weft", "version": concat!("v1.36.0+weft-", env!("CARGO_PKG_VERSION"))})
}

/// The document of a group.
fn document(group: &str, resources: &[Resource]) -> Value {
    json!({
        "openapi": "3.0.0",
        "info": info(),
        "paths": paths::of(group, resources),
        "components": {"schemas": schemas::of(group, resources)},
    })
}

#[cfg(test)]
mod tests;
