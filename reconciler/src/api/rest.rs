//! The one path of all kinds: from a request for a resource to its answer.

pub mod answer;
mod components;
pub mod create;
pub mod delete;
pub mod patch;
pub mod read;
pub mod subresources;
pub mod update;
pub mod watch;
pub mod write;

use std::sync::Arc;

use bytes::Bytes;
use hyper::HeaderMap;

use answer::{Form, Look, Reply};
use write::Part;

use super::Api;
use super::auth::User;
use super::body::{self, Decoded};
use super::kinds::{Subresource, Verbs};
use super::quantity;
use super::request::{Query, Target};
use super::status::{Cause, Status};
use super::tables::Include;

/// A request for a resource, with its body.
#[derive(Debug)]
pub struct Call<'a> {
    /// Where its path leads.
    pub target: &'a Target,
    /// `GET`, `POST`, `PUT`, `PATCH`, `DELETE`.
    pub method: &'a str,
    /// Its parameters.
    pub query: &'a Query,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Empty for GET.
    pub body: Bytes,
    /// Who asks.
    pub user: &'a User,
}

impl Call<'_> {
    /// A header, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Its body as an object of a type.
    ///
    /// # Errors
    /// 400 and 415.
    pub fn read(&self, target: &body::Target) -> Result<Decoded, Status> {
        let media = self.header("content-type");
        body::read(media, &self.body, target, quantity::canonical)
    }

    /// The object's name; empty for a collection.
    pub fn name(&self) -> &str {
        self.target.name.as_deref().unwrap_or_default()
    }

    /// Whether it is a watch.
    pub fn watches(&self) -> bool {
        self.method == "GET"
            && (self.target.watch || (self.target.name.is_none() && self.query.on("watch")))
    }

    fn look(&self) -> Result<Look, Status> {
        let include = self.query.text("includeObject");
        let form = Form::of(self.header("accept"), self.watches())?;
        let include = Include::parse(include).ok_or_else(|| {
            let cause = Cause::not_supported(
                "includeObject",
                &include.into(),
                &["None", "Metadata", "Object"],
            );
            Status::invalid("meta.k8s.io", "TableOptions", "", &[cause])
        })?;
        Ok(Look { form, include })
    }
}

/// Answers a request for a resource. Streams of a Pod's containers are handed on before.
///
/// # Errors
/// Everything that is not to the client's liking.
pub async fn answer(api: &Arc<Api>, call: &Call<'_>) -> Result<Reply, Status> {
    let mut reply = respond(api, call).await?;
    if let Some(text) = call.target.kind.warning {
        answer::warn(&mut reply, &[text]);
    }
    Ok(reply)
}

async fn respond(api: &Arc<Api>, call: &Call<'_>) -> Result<Reply, Status> {
    let look = call.look()?;
    let (target, kind) = (call.target, call.target.kind);
    if let Some(name) = &target.subresource {
        let subresource = kind.subresources.iter().find(|known| known.name() == name);
        let subresource = subresource.ok_or_else(Status::unknown_resource)?;
        return below(api, call, *subresource, look).await;
    }
    if call.watches() {
        return watch::watch(api, target, call.query, look).await;
    }
    let writable = kind.verbs != Verbs::ReadOnly;
    match (call.method, &target.name) {
        ("GET", Some(_)) => read::get(api, target, call.query, look).await,
        ("GET", None) => read::list(api, target, call.query, look).await,
        ("POST", None) if writable => create::create(api, call, look).await,
        ("PUT", Some(_)) if writable => update::update(api, call, Part::Main, look).await,
        ("PATCH", Some(_)) if writable => patch::patch(api, call, Part::Main, look).await,
        ("DELETE", Some(_)) if writable => delete::delete(api, call, look).await,
        ("DELETE", None) if kind.verbs == Verbs::All => delete::collection(api, call).await,
        _ => Err(Status::method_not_allowed()),
    }
}

async fn below(
    api: &Arc<Api>,
    call: &Call<'_>,
    subresource: Subresource,
    look: Look,
) -> Result<Reply, Status> {
    match (subresource, call.method) {
        (Subresource::Scale, _) => subresources::scale(api, call, look).await,
        (Subresource::Binding, "POST") => subresources::bind(api, call).await,
        (Subresource::Eviction, "POST") => subresources::evict(api, call).await,
        (Subresource::Token, "POST") => super::reviews::token(api, call).await,
        (Subresource::Finalize, "PUT") => {
            update::update(api, call, Part::Below(subresource), look).await
        }
        (Subresource::Status | Subresource::EphemeralContainers | Subresource::Resize, method) => {
            match method {
                "GET" => read::get(api, call.target, call.query, look).await,
                "PUT" => update::update(api, call, Part::Below(subresource), look).await,
                "PATCH" => patch::patch(api, call, Part::Below(subresource), look).await,
                _ => Err(Status::method_not_allowed()),
            }
        }
        _ => Err(Status::method_not_allowed()),
    }
}
