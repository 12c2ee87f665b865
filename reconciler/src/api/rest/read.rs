//! get and list.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::answer::{self, Form, ListMeta, Look, Reply};
use super::components;
use crate::api::Api;
use crate::api::kinds::{Kind, Verbs};
use crate::api::object;
use crate::api::request::{Query, Target};
use crate::api::select::Selector;
use crate::api::status::{Cause, Status};
use crate::api::tables;
use crate::store::{self, Entry, Range, Revision};

/// One object.
pub async fn get(api: &Api, target: &Target, query: &Query, look: Look) -> Result<Reply, Status> {
    let (kind, name) = (target.kind, target.name.as_deref().unwrap_or_default());
    if let Some(asked) = query.revision("resourceVersion")? {
        not_older(api, asked).await?;
    }
    if kind.verbs == Verbs::ReadOnly {
        let found = components::all(api)
            .await
            .into_iter()
            .find(|value| value["metadata"]["name"] == name);
        let value = found.ok_or_else(|| Status::not_found(kind, name))?;
        return Ok(answer::of_object(200, kind, value, look));
    }
    let entry = api
        .store
        .get(&kind.key(target.namespace.as_deref(), name))
        .await?;
    let entry = entry.ok_or_else(|| Status::not_found(kind, name))?;
    Ok(answer::of_entry(kind, &entry, look))
}

/// An object as it is stored, and read.
///
/// # Errors
/// 404, and the store's.
pub async fn load(
    api: &Api,
    kind: &Kind,
    namespace: Option<&str>,
    name: &str,
) -> Result<(Entry, Value), Status> {
    let entry = api.store.get(&kind.key(namespace, name)).await?;
    let entry = entry.ok_or_else(|| Status::not_found(kind, name))?;
    let value = object::decode(&entry.value, entry.revision)
        .map_err(|error| answer::unreadable(&entry.key, &error))?;
    Ok((entry, value))
}

/// Fails unless the store has come to a revision.
async fn not_older(api: &Api, asked: Revision) -> Result<(), Status> {
    if asked <= api.changes.revision() {
        return Ok(());
    }
    let newest = api.store.revision().await?;
    if asked > newest {
        return Err(store::Error::Future { asked, newest }.into());
    }
    Ok(())
}

/// Which state a list shows, and which part of it.
#[derive(Debug, Default)]
struct Want {
    at: Option<Revision>,
    after: Option<String>,
    limit: Option<usize>,
    /// It goes on with what an earlier answer began.
    continued: bool,
}

/// Where a list goes on, as the client hands it back.
#[derive(Debug, Serialize, Deserialize)]
struct Token {
    v: String,
    /// -1: the newest.
    rv: i64,
    /// The key after which it goes on.
    start: String,
}

impl Token {
    fn encode(revision: i64, start: &str) -> String {
        let token = Self {
            v: "meta.k8s.io/v1".into(),
            rv: revision,
            start: start.to_owned(),
        };
        BASE64_URL_SAFE_NO_PAD.encode(json!(token).to_string())
    }

    fn decode(text: &str) -> Result<Self, Status> {
        let invalid = |why: String| {
            Status::bad_request(format!(
                "invalid continue token: continue key is not valid: {why}"
            ))
        };
        let bytes = BASE64_URL_SAFE_NO_PAD
            .decode(text.trim_end_matches('='))
            .map_err(|error| invalid(error.to_string()))?;
        serde_json::from_slice(&bytes).map_err(|error| invalid(error.to_string()))
    }
}

/// 422 about the options of a list.
fn options(cause: Cause) -> Status {
    Status::invalid("meta.k8s.io", "ListOptions", "", &[cause])
}

async fn want(api: &Api, prefix: &str, query: &Query) -> Result<Want, Status> {
    let limit = query.number("limit")?.unwrap_or(0);
    let revision = query.revision("resourceVersion")?;
    let matching = query.text("resourceVersionMatch");
    let token = query.text("continue");
    if query.get("sendInitialEvents").is_some() {
        let detail = "sendInitialEvents is forbidden for list";
        return Err(options(Cause::forbidden("sendInitialEvents", detail)));
    }
    let mut want = Want {
        limit: usize::try_from(limit).ok().filter(|limit| *limit > 0),
        ..Want::default()
    };
    if !token.is_empty() {
        if revision.is_some_and(|revision| revision != 0) {
            return Err(Status::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        if !matching.is_empty() {
            let detail = "resourceVersionMatch is forbidden when continue is provided";
            return Err(options(Cause::forbidden("resourceVersionMatch", detail)));
        }
        let token = Token::decode(token)?;
        if !token.start.starts_with(prefix) {
            return Err(Status::bad_request(
                "invalid continue token: it is of another list",
            ));
        }
        want.at = Revision::try_from(token.rv).ok();
        want.after = Some(token.start);
        want.continued = true;
        return Ok(want);
    }
    match (matching, revision) {
        ("", _) => {}
        ("Exact" | "NotOlderThan", None) => {
            let detail = "resourceVersionMatch is forbidden unless resourceVersion is provided";
            return Err(options(Cause::forbidden("resourceVersionMatch", detail)));
        }
        ("Exact", Some(0)) => {
            let detail = "resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\"";
            return Err(options(Cause::forbidden("resourceVersionMatch", detail)));
        }
        ("Exact" | "NotOlderThan", _) => {}
        (other, _) => {
            let supported = ["Exact", "NotOlderThan"];
            return Err(options(Cause::not_supported(
                "resourceVersionMatch",
                &json!(other),
                &supported,
            )));
        }
    }
    match revision {
        None => {}
        Some(0) => want.limit = None,
        Some(asked) => {
            not_older(api, asked).await?;
            if matching == "Exact" || (matching.is_empty() && want.limit.is_some()) {
                want.at = Some(asked);
            }
        }
    }
    Ok(want)
}

/// Objects of a kind.
pub async fn list(api: &Api, target: &Target, query: &Query, look: Look) -> Result<Reply, Status> {
    let kind = target.kind;
    if kind.verbs == Verbs::ReadOnly {
        let meta = ListMeta {
            revision: api.store.revision().await?,
            next: None,
            remaining: None,
        };
        let now = jiff::Timestamp::now();
        let row = |value| {
            if look.form == Form::Table {
                tables::row(kind, value, look.include, now)
            } else {
                value
            }
        };
        let items = components::all(api).await.into_iter().map(row).collect();
        return Ok(answer::of_values(kind, &meta, items, look.form));
    }
    let selector = Selector::parse(
        kind,
        query.text("labelSelector"),
        query.text("fieldSelector"),
    )?;
    let prefix = kind.prefix(target.namespace.as_deref());
    let want = want(api, &prefix, query).await?;
    let (meta, entries) = select(api, kind, &prefix, target, &selector, want).await?;
    Ok(answer::of_list(kind, &meta, &entries, look))
}

/// What a selector selects, from the store.
async fn select(
    api: &Api,
    kind: &Kind,
    prefix: &str,
    target: &Target,
    selector: &Selector,
    want: Want,
) -> Result<(ListMeta, Vec<Entry>), Status> {
    // One name in one place is one look.
    if let Some(name) = selector.name()
        && target.namespace.is_some() == kind.namespaced()
        && want.at.is_none()
        && want.after.is_none()
    {
        let revision = api.store.revision().await?;
        let found = api
            .store
            .get(&kind.key(target.namespace.as_deref(), name))
            .await?;
        let entries: Vec<_> = found
            .into_iter()
            .filter(|entry| selector.matches_bytes(&entry.value))
            .collect();
        // It may have been written since.
        let newest = entries
            .iter()
            .map(|entry| entry.revision)
            .fold(revision, Revision::max);
        let meta = ListMeta {
            revision: newest,
            next: None,
            remaining: None,
        };
        return Ok((meta, entries));
    }
    let continued = want.continued;
    let mut range = Range {
        prefix: prefix.to_owned(),
        after: want.after,
        // One by one, a selector that selects nothing would look through the rest for each.
        limit: want.limit.map(|limit| {
            if selector.is_empty() {
                limit
            } else {
                limit.max(500)
            }
        }),
        at: want.at,
    };
    let mut entries = Vec::new();
    loop {
        let start = range.after.clone().unwrap_or_default();
        let page = match api.store.list(range.clone()).await {
            Ok(page) => page,
            Err(store::Error::Compacted { .. }) if continued => return Err(expired(&start)),
            Err(error) => return Err(error.into()),
        };
        let last = page.entries.last().map(|entry| entry.key.clone());
        let more = page.remaining > 0;
        entries.extend(
            page.entries
                .into_iter()
                .filter(|entry| selector.matches_bytes(&entry.value)),
        );
        let enough = want.limit.is_none_or(|limit| entries.len() >= limit);
        if let (true, Some(last)) = (more, last) {
            range.after = Some(last.clone());
            range.at = Some(page.revision);
            if !enough {
                continue;
            }
            // A page of the store may bring more than are still wanted: the list goes on after the last one taken.
            let limit = want.limit.unwrap_or(entries.len());
            let cut = entries.len() > limit;
            entries.truncate(limit);
            let start = if cut {
                entries.last().map_or(last, |entry| entry.key.clone())
            } else {
                last
            };
            let meta = ListMeta {
                revision: page.revision,
                next: Some(Token::encode(
                    i64::try_from(page.revision).unwrap_or(-1),
                    &start,
                )),
                remaining: selector.is_empty().then_some(page.remaining),
            };
            return Ok((meta, entries));
        }
        if let Some(limit) = want.limit
            && entries.len() > limit
        {
            entries.truncate(limit);
            let start = entries
                .last()
                .map(|entry| entry.key.clone())
                .unwrap_or_default();
            let meta = ListMeta {
                revision: page.revision,
                next: Some(Token::encode(
                    i64::try_from(page.revision).unwrap_or(-1),
                    &start,
                )),
                remaining: None,
            };
            return Ok((meta, entries));
        }
        let meta = ListMeta {
            revision: page.revision,
            next: None,
            remaining: None,
        };
        return Ok((meta, entries));
    }
}

/// The history that a list began in is gone; the token in the answer goes on with the newest.
fn expired(start: &str) -> Status {
    let mut status = Status::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.",
    );
    status.continue_token = Some(Token::encode(-1, start));
    status
}
