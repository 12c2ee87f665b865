//! One request: who asks, whether they may, what it leads to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::{HeaderMap, Method, Request, Version};
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::auth::roles::{self, Attributes, Resource, Verdict};
use super::auth::{self, Identity, User, roles::Target as Asked};
use super::discovery::{self, QUESTIONS, Question};
use super::kinds::{self, Subresource};
use super::request::{self, Path, Query, Target};
use super::rest::answer::{self, Reply};
use super::rest::{self, Call};
use super::select::Selector;
use super::status::Status;
use super::{Api, certificates, health, nodes, object, openapi, reviews};

/// As large as a request may be; etcd takes no more in one go.
const BODY: usize = 3 << 20;
/// How long a body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(15);
/// How long a body that nobody wants is read.
const DRAIN_TIME: Duration = Duration::from_secs(2);
/// How long an answer that is no stream may take.
const ANSWER_TIME: Duration = Duration::from_secs(60);
/// How long a request waits for its turn.
const QUEUE_TIME: Duration = Duration::from_secs(10);

/// Answers a request. `peer` is who the client certificate names.
pub async fn handle(
    api: Arc<Api>,
    peer: Option<Arc<User>>,
    mut request: Request<Incoming>,
) -> Reply {
    let begun = Instant::now();
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let (words, reply) = respond(&api, peer.as_deref(), &mut request, &path).await;
    let mut reply = reply.unwrap_or_else(Into::into);
    if !drain(&mut request).await && request.version() < Version::HTTP_2 {
        let close = HeaderValue::from_static("close");
        reply.headers_mut().insert(CONNECTION, close);
    }
    api.metrics
        .answered(&words, reply.status().as_u16(), begun.elapsed());
    if reply.status().as_u16() >= 500 {
        tracing::warn!("{method} {path}: {}", reply.status());
    } else {
        tracing::debug!(
            "{method} {path}: {} in {:?}",
            reply.status(),
            begun.elapsed()
        );
    }
    reply
}

/// What a request is counted as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// `GET`, `LIST`, `WATCH`, `CREATE`, …
    pub verb: &'static str,
    /// `pods`; empty for other paths.
    pub resource: &'static str,
    /// `status`
    pub subresource: &'static str,
}

impl Words {
    /// The verb that roles name: of objects `create` and `update`, where metrics have the method.
    fn permission(&self, on_objects: bool) -> String {
        match (self.verb, self.subresource) {
            // Who runs something in a Pod makes something, however it is asked for.
            ("GET", "exec" | "attach" | "portforward") => "create".to_owned(),
            ("POST", _) if on_objects => "create".to_owned(),
            ("PUT", _) if on_objects => "update".to_owned(),
            (verb, _) => verb.to_ascii_lowercase(),
        }
    }
}

async fn respond(
    api: &Arc<Api>,
    peer: Option<&User>,
    request: &mut Request<Incoming>,
    path: &str,
) -> (Words, Result<Reply, Status>) {
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let meaning = meaning(path);
    let words = words(request.method(), &meaning, &query);
    let user = match authenticate(api, peer, request.headers()).await {
        Ok(user) => user,
        Err(status) => return (words, Err(status)),
    };
    let reply = match &meaning {
        Meaning::Resource(target) => resource(api, &user, target, &query, &words, request).await,
        Meaning::Question(question, namespace) => {
            ask(api, &user, question, namespace.as_deref(), &query, request).await
        }
        Meaning::Unknown => match allow(&user, &words, Asked::Path(path), None) {
            Ok(_) => Err(Status::unknown_resource()),
            Err(status) => Err(status),
        },
        Meaning::Document => document(api, &user, path, &query, &words, request).await,
    };
    (words, reply)
}

/// What a path leads to.
#[derive(Debug)]
enum Meaning {
    Resource(Target),
    Question(&'static Question, Option<String>),
    Unknown,
    Document,
}

fn meaning(path: &str) -> Meaning {
    let question = |group: &str, plural: &str, namespaced: bool| {
        QUESTIONS.iter().find(|known| {
            known.group == group && known.plural == plural && known.namespaced == namespaced
        })
    };
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let found = match segments.as_slice() {
        ["api", "v1", "namespaces", namespace, plural] => {
            question("", plural, true).map(|found| (found, Some((*namespace).to_owned())))
        }
        [
            "apis",
            "certificates.k8s.io",
            "v1",
            "certificatesigningrequests",
        ] => Some((&certificates::QUESTION, None)),
        ["apis", group, "v1", plural] => question(group, plural, false).map(|found| (found, None)),
        ["apis", group, "v1", "namespaces", namespace, plural] => {
            question(group, plural, true).map(|found| (found, Some((*namespace).to_owned())))
        }
        _ => None,
    };
    if let Some((question, namespace)) = found {
        return Meaning::Question(question, namespace);
    }
    match request::path(path) {
        Path::Resource(target) => Meaning::Resource(target),
        Path::UnknownResource => Meaning::Unknown,
        Path::Other => Meaning::Document,
    }
}

fn words(method: &Method, meaning: &Meaning, query: &Query) -> Words {
    let (resource, subresource, named, watch) = match meaning {
        Meaning::Resource(target) => {
            let known = |name: &String| {
                target
                    .kind
                    .subresources
                    .iter()
                    .find(|sub| sub.name() == name)
            };
            let subresource = target
                .subresource
                .as_ref()
                .and_then(known)
                .map(|sub| sub.name());
            let watch = target.watch || (target.name.is_none() && query.on("watch"));
            (
                target.kind.plural,
                subresource.unwrap_or_default(),
                target.name.is_some(),
                watch,
            )
        }
        Meaning::Question(question, _) => (question.plural, "", false, false),
        Meaning::Unknown | Meaning::Document => ("", "", true, false),
    };
    let verb = match *method {
        Method::GET | Method::HEAD if watch => "WATCH",
        Method::GET | Method::HEAD if named => "GET",
        Method::GET | Method::HEAD => "LIST",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE if named => "DELETE",
        Method::DELETE => "DELETECOLLECTION",
        _ => "other",
    };
    Words {
        verb,
        resource,
        subresource,
    }
}

/// Who asks.
async fn authenticate(api: &Api, peer: Option<&User>, headers: &HeaderMap) -> Result<User, Status> {
    let header = headers
        .get("authorization")
        .and_then(|value| value.to_str().ok());
    if let Some(token) = header.and_then(auth::bearer) {
        let identity = api.authenticator.token(token, Timestamp::now());
        let identity = identity.ok_or_else(Status::unauthorized)?;
        return match alive(api, &identity).await? {
            true => Ok(identity.user),
            false => Err(Status::unauthorized()),
        };
    }
    Ok(peer.cloned().unwrap_or_else(User::anonymous))
}

/// Whether what a token is bound to is still there.
///
/// # Errors
/// The store's.
pub async fn alive(api: &Api, identity: &Identity) -> Result<bool, Status> {
    let Some(bound) = &identity.bound else {
        return Ok(true);
    };
    let mut wanted = vec![("serviceaccounts", &bound.account)];
    wanted.extend(bound.pod.as_ref().map(|pod| ("pods", pod)));
    for (plural, reference) in wanted {
        let Some(kind) = kinds::find("", "v1", plural) else {
            return Ok(false);
        };
        let Some(entry) = api
            .store
            .get(&kind.key(Some(&bound.namespace), &reference.name))
            .await?
        else {
            return Ok(false);
        };
        let same = |value: Value| object::uid(&value) == reference.uid;
        if !object::decode(&entry.value, entry.revision).is_ok_and(same) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Fails with 403 unless a user may do that.
fn allow<'a>(
    user: &'a User,
    words: &Words,
    asked: Asked<'_>,
    kind: Option<&'static kinds::Kind>,
) -> Result<Verdict<'a>, Status> {
    let verb = &words.permission(matches!(asked, Asked::Resource(_)));
    let attributes = Attributes {
        verb,
        target: asked,
    };
    roles::allowed(user, &attributes).map_err(|message| {
        let name = match &attributes.target {
            Asked::Resource(resource) => resource.name.unwrap_or_default(),
            Asked::Path(_) => "",
        };
        Status::forbidden(kind, name, message)
    })
}

/// Health, discovery, and the rest that is no object.
async fn document(
    api: &Arc<Api>,
    user: &User,
    path: &str,
    query: &Query,
    words: &Words,
    request: &Request<Incoming>,
) -> Result<Reply, Status> {
    allow(user, words, Asked::Path(path), None)?;
    let reading = request.method() == Method::GET;
    if let Some(reply) = health::page(api, path, query).await {
        return reading
            .then_some(reply)
            .ok_or_else(Status::method_not_allowed);
    }
    let header = |name: &str| {
        request
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    let (accept, known) = (header("accept"), header("if-none-match"));
    let found = match discovery::respond(path, accept, known) {
        Some(answer) => Some(answer),
        None => openapi::respond(path, request.uri().query(), accept, known),
    };
    match found {
        Some(_) if !reading => Err(Status::method_not_allowed()),
        found => Ok(found.map_or_else(answer::nothing_here, answer::of_document)),
    }
}

async fn resource(
    api: &Arc<Api>,
    user: &User,
    target: &Target,
    query: &Query,
    words: &Words,
    request: &mut Request<Incoming>,
) -> Result<Reply, Status> {
    let kind = target.kind;
    let selector = Selector::parse(kind, "", query.text("fieldSelector")).ok();
    // A selector restricts what is chosen, and nothing else.
    let chooses = ["LIST", "WATCH", "DELETECOLLECTION"].contains(&words.verb);
    let selector = selector.filter(|_| chooses);
    let named = target.name.as_deref().or_else(|| selector.as_ref()?.name());
    let asked = Resource {
        group: kind.group,
        resource: kind.plural,
        subresource: target.subresource.as_deref().unwrap_or_default(),
        namespace: if kind.plural == "namespaces" {
            target.name.as_deref()
        } else {
            target.namespace.as_deref()
        },
        name: named,
    };
    let verdict = allow(user, words, Asked::Resource(asked), Some(kind))?;
    if let Some(stream) = stream(target) {
        return nodes::stream(api, target, stream, query, request).await;
    }
    // A watch may wait; everything else takes its turn.
    let watching = words.verb == "WATCH";
    let (_room, body) = body_in_turn(api, request).await?;
    let _turn = match watching {
        true => None,
        false => Some(turn(&api.turns).await?),
    };
    let call = Call {
        target,
        method: method(request.method())?,
        query,
        headers: request.headers(),
        body,
        user,
    };
    verify(api, &call, verdict, &asked, words).await?;
    let answered = tokio::time::timeout(ANSWER_TIME, rest::answer(api, &call));
    answered.await.map_err(|_| too_slow())?
}

fn method(method: &Method) -> Result<&str, Status> {
    match *method {
        Method::HEAD | Method::OPTIONS => Err(Status::method_not_allowed()),
        _ => Ok(method.as_str()),
    }
}

fn too_slow() -> Status {
    Status::new(
        504,
        "Timeout",
        "Timeout: request did not complete within the allotted timeout",
    )
    .retry_after(1)
}

/// Waits for one of a few places.
async fn turn(places: &Semaphore) -> Result<SemaphorePermit<'_>, Status> {
    match tokio::time::timeout(QUEUE_TIME, places.acquire()).await {
        Ok(Ok(turn)) => Ok(turn),
        _ => Err(Status::new(
            429,
            "TooManyRequests",
            "too many requests, please try again later",
        )
        .retry_after(1)),
    }
}

fn stream(target: &Target) -> Option<Subresource> {
    let name = target.subresource.as_deref()?;
    let streams = [
        Subresource::Log,
        Subresource::Exec,
        Subresource::Attach,
        Subresource::PortForward,
    ];
    streams
        .into_iter()
        .find(|stream| stream.name() == name && target.kind.has(*stream))
}

/// The whole body, and the place that it takes. Requests without one need none: they do not wait for slow senders.
async fn body_in_turn<'a>(
    api: &'a Api,
    request: &mut Request<Incoming>,
) -> Result<(Option<SemaphorePermit<'a>>, Bytes), Status> {
    if request.body().is_end_stream() {
        return Ok((None, Bytes::new()));
    }
    let room = turn(&api.bodies).await?;
    Ok((Some(room), body(request).await?))
}

/// The whole body, if it is not too large.
async fn body(request: &mut Request<Incoming>) -> Result<Bytes, Status> {
    let too_large = || {
        Status::new(
            413,
            "RequestEntityTooLarge",
            format!("Request entity too large: limit is {BODY}"),
        )
    };
    if request.body().size_hint().lower() > BODY as u64 {
        return Err(too_large());
    }
    let collected =
        tokio::time::timeout(BODY_TIME, Limited::new(request.body_mut(), BODY).collect());
    match collected.await {
        Err(_) => Err(Status::new(
            408,
            "Timeout",
            "the body did not arrive in time",
        )),
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => Err(Status::bad_request(format!("read the body: {error}"))),
    }
}

/// Throws the rest of a body away for a while: a client that is still sending when the connection closes may never see
/// the answer, and one that takes the connection for the next request finds it closed. One that waits to be told to
/// send is not told. False when there is more of it.
async fn drain(request: &mut Request<Incoming>) -> bool {
    if request.body().is_end_stream() {
        return true;
    }
    if request.headers().contains_key("expect") {
        return false;
    }
    let body = request.body_mut();
    let rest = async {
        loop {
            match body.frame().await {
                Some(Ok(_)) => {}
                Some(Err(_)) => return false,
                None => return true,
            }
        }
    };
    // What comes later is cut off.
    tokio::time::timeout(DRAIN_TIME, rest)
        .await
        .unwrap_or(false)
}

/// What a role allows only for some objects.
async fn verify(
    api: &Api,
    call: &Call<'_>,
    verdict: Verdict<'_>,
    asked: &Resource<'_>,
    words: &Words,
) -> Result<(), Status> {
    let holds = match verdict {
        Verdict::Allowed => true,
        Verdict::IfNamed(name) => {
            let target = super::body::Target::of(call.target.kind);
            let read = call.read(&target)?;
            object::name(&read.value) == name
        }
        Verdict::IfBoundTo(node) => bound(api, call, asked, node).await?,
    };
    if holds {
        return Ok(());
    }
    let attributes = Attributes {
        verb: &words.permission(true),
        target: Asked::Resource(*asked),
    };
    let message = roles::forbidden(call.user, &attributes);
    Err(Status::forbidden(
        Some(call.target.kind),
        asked.name.unwrap_or_default(),
        message,
    ))
}

/// Whether the Pod that a request is about runs on a node.
async fn bound(
    api: &Api,
    call: &Call<'_>,
    asked: &Resource<'_>,
    node: &str,
) -> Result<bool, Status> {
    let Some(pods) = kinds::find("", "v1", "pods") else {
        return Ok(false);
    };
    let name = match asked.subresource {
        "token" => reviews::bound_pod(call)?,
        _ => asked.name.map(str::to_owned),
    };
    let Some(name) = name else {
        return Ok(false);
    };
    let entry = api.store.get(&pods.key(asked.namespace, &name)).await?;
    let entry = entry.ok_or_else(|| Status::not_found(pods, &name))?;
    let pod = object::decode(&entry.value, entry.revision)
        .map_err(|error| answer::unreadable(&entry.key, &error))?;
    Ok(object::text(&pod, &["spec", "nodeName"]) == node)
}

/// A question about users, or a binding.
async fn ask(
    api: &Arc<Api>,
    user: &User,
    question: &'static Question,
    namespace: Option<&str>,
    query: &Query,
    request: &mut Request<Incoming>,
) -> Result<Reply, Status> {
    let asked = Resource {
        group: question.group,
        resource: question.plural,
        namespace,
        ..Resource::default()
    };
    let words = Words {
        verb: "POST",
        ..Words::default()
    };
    allow(user, &words, Asked::Resource(asked), None)?;
    if request.method() != Method::POST {
        return Err(Status::method_not_allowed());
    }
    let (_room, body) = body_in_turn(api, request).await?;
    let _turn = turn(&api.turns).await?;
    // Questions have no row among the kinds; bindings are about Pods.
    let pods = kinds::find("", "v1", "pods").ok_or_else(Status::unknown_resource)?;
    let target = Target {
        kind: pods,
        namespace: namespace.map(str::to_owned),
        name: None,
        subresource: None,
        watch: false,
    };
    let call = Call {
        target: &target,
        method: "POST",
        query,
        headers: request.headers(),
        body,
        user,
    };
    if *question == certificates::QUESTION {
        let from = request.extensions().get::<SocketAddr>();
        let from = from.map(|from| from.ip().to_canonical());
        return certificates::answer(&api.pki, &call, from);
    }
    if question.plural == "bindings" {
        return rest::subresources::bind(api, &call).await;
    }
    reviews::answer(api, &call, question).await
}
