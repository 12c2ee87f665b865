//! watch: the present state if it is asked for, then every change, until the client has gone or the time is up.
//!
//! Source: <https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes>, KEP-3157
//! (the present state as events, ended by an annotated bookmark).

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::Response;
use hyper::body::Frame;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::{broadcast, mpsc};
use tokio::time::{Instant, sleep_until};

use super::answer::{Form, Look, Reply};
use crate::api::changes::{Change, Start};
use crate::api::kinds::{Kind, Verbs};
use crate::api::request::{Query, Target};
use crate::api::select::Selector;
use crate::api::status::{Cause, Status};
use crate::api::{Api, object, tables, view};
use crate::store::{self, Entry, Range, Revision};

/// How often a client that wants them gets a bookmark.
const BOOKMARKS: Duration = Duration::from_secs(60);
/// No watch is longer: a day, in seconds.
const LONGEST: u64 = 86_400;
/// Pieces of the answer that wait for a slow client.
const QUEUE: usize = 16;
/// A piece is sent when it has grown to this, though more could be added.
const PIECE: usize = 64 << 10;

/// Where a watch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    /// The present state first.
    Now,
    /// Changes after a revision.
    After(Revision),
}

/// Starts a watch.
pub async fn watch(
    api: &Arc<Api>,
    target: &Target,
    query: &Query,
    look: Look,
) -> Result<Reply, Status> {
    let kind = target.kind;
    if kind.verbs == Verbs::ReadOnly {
        return Err(Status::method_not_allowed());
    }
    if look.form == Form::Yaml {
        return Err(Status::new(
            406,
            "NotAcceptable",
            "only the following media types are accepted: application/json, application/vnd.kubernetes.protobuf;stream=watch",
        ));
    }
    let mut fields = query.text("fieldSelector").to_owned();
    if let Some(name) = &target.name {
        let separator = if fields.is_empty() { "" } else { "," };
        fields = format!("{fields}{separator}metadata.name={name}");
    }
    let selector = Selector::parse(kind, query.text("labelSelector"), &fields)?;
    let revision = query.revision("resourceVersion")?;
    let bookmarks = query.on("allowWatchBookmarks");
    let initial = initial(query, bookmarks)?;
    let from = match (initial, revision) {
        (Some(true), _) | (None, None | Some(0)) => From::Now,
        (Some(false), None | Some(0)) => From::After(api.store.revision().await?),
        (_, Some(revision)) => From::After(revision),
    };
    let seconds = query
        .number("timeoutSeconds")?
        .and_then(|seconds| u64::try_from(seconds).ok());
    let seconds = seconds
        .filter(|seconds| *seconds > 0)
        .map(|seconds| seconds.min(LONGEST))
        .unwrap_or_else(|| fastrand::u64(1800..3600));
    let (to, pieces) = mpsc::channel(QUEUE);
    let watcher = Watcher {
        api: Arc::clone(api),
        prefix: kind.prefix(target.namespace.as_deref()),
        lines: Lines {
            kind,
            look,
            selector,
            named: false,
        },
        told: 0,
        base: 0,
        bookmarks,
        until: Instant::now() + Duration::from_secs(seconds),
        to,
        piece: BytesMut::new(),
    };
    // The watcher ends with its client, its time, or the server.
    let mark = initial == Some(true) || (bookmarks && from == From::Now);
    tokio::spawn(watcher.run(from, mark));
    let body = StreamBody::new(stream::unfold(pieces, async |mut pieces| {
        let piece: Bytes = pieces.recv().await?;
        Some((Ok::<_, Infallible>(Frame::data(piece)), pieces))
    }));
    let mut reply = Response::new(body.boxed_unsync());
    reply
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(reply)
}

/// `sendInitialEvents`, checked against what belongs to it.
fn initial(query: &Query, bookmarks: bool) -> Result<Option<bool>, Status> {
    let refuse = |field: &str, detail: &str| {
        Err(Status::invalid(
            "meta.k8s.io",
            "ListOptions",
            "",
            &[Cause::forbidden(field, detail)],
        ))
    };
    let matching = query.text("resourceVersionMatch");
    if query.get("sendInitialEvents").is_none() {
        if !matching.is_empty() {
            return refuse(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            );
        }
        return Ok(None);
    }
    if matching != "NotOlderThan" {
        return refuse(
            "resourceVersionMatch",
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        );
    }
    let wanted = query.on("sendInitialEvents");
    if wanted && !bookmarks {
        return refuse(
            "sendInitialEvents",
            "sendInitialEvents requires allowWatchBookmarks to be set",
        );
    }
    Ok(Some(wanted))
}

/// Why a watch ended.
enum End {
    /// The client has gone, or the time is up.
    Quiet,
    /// Something the client must know.
    Said(Status),
}

impl std::convert::From<store::Error> for End {
    fn from(error: store::Error) -> Self {
        Self::Said(match error {
            store::Error::Compacted { asked, oldest } => {
                Status::expired(format!("too old resource version: {asked} ({oldest})"))
            }
            other => other.into(),
        })
    }
}

struct Watcher {
    api: Arc<Api>,
    prefix: String,
    lines: Lines,
    /// Everything up to this revision has been sent.
    told: Revision,
    /// Where the present source of changes began; what is not newer has been told.
    base: Revision,
    bookmarks: bool,
    until: Instant,
    to: mpsc::Sender<Bytes>,
    piece: BytesMut,
}

impl Watcher {
    async fn run(mut self, from: From, mark: bool) {
        let _open = self.api.metrics.watch(self.lines.kind.plural);
        let ended = self.api.changes.end();
        let gone = self.to.clone();
        let until = self.until;
        let end = tokio::select! {
            end = self.tell(from, mark) => end,
            () = gone.closed() => End::Quiet,
            () = sleep_until(until) => End::Quiet,
            () = ended => End::Quiet,
        };
        // A piece that is half sent belongs to the stream: what was put together and not sent yet goes first.
        if let End::Said(status) = end {
            self.lines.error(&status, &mut self.piece);
        } else if self.bookmarks && self.told > 0 {
            self.lines.bookmark(self.told, false, &mut self.piece);
        }
        let _ = self.to.try_send(self.piece.split().freeze());
    }

    async fn tell(&mut self, from: From, mark: bool) -> End {
        let told = match from {
            From::After(revision) => Ok(revision),
            From::Now => self.present(mark).await,
        };
        match told {
            Ok(revision) => self.told = revision,
            Err(end) => return end,
        }
        loop {
            match self.follow().await {
                Ok(()) => {}
                Err(end) => return end,
            }
        }
    }

    /// The objects that there are, as if they had just been added.
    async fn present(&mut self, mark: bool) -> Result<Revision, End> {
        let mut range = Range {
            prefix: self.prefix.clone(),
            limit: Some(500),
            ..Range::default()
        };
        loop {
            let page = self.api.store.list(range.clone()).await?;
            for entry in &page.entries {
                self.lines.present(entry, &mut self.piece);
                if self.piece.len() > PIECE {
                    self.send().await?;
                }
            }
            match page.entries.last() {
                Some(last) if page.remaining > 0 => {
                    range.after = Some(last.key.clone());
                    range.at = Some(page.revision);
                }
                _ => {
                    if mark {
                        self.lines.bookmark(page.revision, true, &mut self.piece);
                    }
                    self.send().await?;
                    return Ok(page.revision);
                }
            }
        }
    }

    /// Tells changes until the source of them changes.
    async fn follow(&mut self) -> Result<(), End> {
        self.base = self.told;
        match self.api.changes.after(self.lines.kind.plural, self.told) {
            Start::Recent(recent, channel) => {
                for change in recent {
                    self.change(&change).await?;
                }
                self.send().await?;
                self.recent(channel).await
            }
            Start::History => self.history().await,
        }
    }

    async fn recent(&mut self, mut channel: broadcast::Receiver<Arc<Change>>) -> Result<(), End> {
        let mut next = Instant::now() + BOOKMARKS;
        loop {
            tokio::select! {
                received = channel.recv() => match received {
                    Ok(change) => {
                        self.change(&change).await?;
                        let whole = self.drain(&mut channel).await?;
                        self.send().await?;
                        if !whole {
                            return Ok(());
                        }
                    }
                    // Too slow, or the store's history was lost: the way is started anew from what was told.
                    Err(broadcast::error::RecvError::Lagged(_) | broadcast::error::RecvError::Closed) => return Ok(()),
                },
                () = sleep_until(next), if self.bookmarks => {
                    next += BOOKMARKS;
                    // Read first: what is in the channel by then is told before the bookmark.
                    let revision = self.api.changes.revision();
                    if !self.drain(&mut channel).await? {
                        return Ok(());
                    }
                    self.told = self.told.max(revision);
                    self.lines.bookmark(self.told, false, &mut self.piece);
                    self.send().await?;
                }
            }
        }
    }

    /// Tells what waits in the channel. False when some of it was lost: the way is started anew from what was told. A
    /// receiver says so only once, and then goes on behind the gap.
    async fn drain(&mut self, channel: &mut broadcast::Receiver<Arc<Change>>) -> Result<bool, End> {
        loop {
            match channel.try_recv() {
                Ok(change) => self.change(&change).await?,
                Err(broadcast::error::TryRecvError::Empty) => return Ok(true),
                Err(
                    broadcast::error::TryRecvError::Lagged(_)
                    | broadcast::error::TryRecvError::Closed,
                ) => return Ok(false),
            }
        }
    }

    /// What is older than what is kept in memory comes from the store, until the client has caught up.
    async fn history(&mut self) -> Result<(), End> {
        // Of everything: whatever changes next shows how far this one has come, also where nothing happens.
        let mut watch = self.api.store.watch("/registry/", self.told).await?;
        while let Some(events) = watch.recv().await {
            let events = events?;
            for event in events {
                self.change(&event.into()).await?;
            }
            self.send().await?;
            if matches!(
                self.api.changes.after(self.lines.kind.plural, self.told),
                Start::Recent(..)
            ) {
                return Ok(());
            }
        }
        Err(End::Quiet)
    }

    async fn change(&mut self, change: &Change) -> Result<(), End> {
        if change.event.revision <= self.base {
            return Ok(());
        }
        if change.event.key.starts_with(&self.prefix) {
            self.lines.change(change, &mut self.piece);
        }
        if self.piece.len() > PIECE {
            self.send().await?;
        }
        self.told = self.told.max(change.event.revision);
        Ok(())
    }

    async fn send(&mut self) -> Result<(), End> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let permit = self.to.reserve().await.map_err(|_| End::Quiet)?;
        permit.send(self.piece.split().freeze());
        Ok(())
    }
}

/// How a client is told: one JSON document a line.
struct Lines {
    kind: &'static Kind,
    look: Look,
    selector: Selector,
    /// The columns of the table have been named.
    named: bool,
}

impl Lines {
    fn is_plain(&self) -> bool {
        self.look.form == Form::Json && view::is_plain(self.kind)
    }

    fn present(&mut self, entry: &Entry, out: &mut BytesMut) {
        if !self.selector.matches_bytes(&entry.value) {
            return;
        }
        if self.is_plain() {
            raw("ADDED", self.kind, &entry.value, entry.revision, out);
        } else if let Ok(object) = object::decode(&entry.value, entry.revision) {
            self.object("ADDED", &object, out);
        }
    }

    fn change(&mut self, change: &Change, out: &mut BytesMut) {
        if self.is_plain() && self.selector.is_empty() {
            let line = change.line.get_or_init(|| {
                let mut line = BytesMut::new();
                let event = &change.event;
                let what = match (&event.before, &event.value) {
                    (_, None) => "DELETED",
                    (None, _) => "ADDED",
                    _ => "MODIFIED",
                };
                if let Some(bytes) = event.value.as_ref().or(event.before.as_ref()) {
                    raw(what, self.kind, bytes, event.revision, &mut line);
                }
                line.freeze()
            });
            out.put_slice(line);
            return;
        }
        let selected =
            |object: Option<&Value>| object.is_some_and(|object| self.selector.matches(object));
        // An object that comes into the selection is added, one that leaves it is deleted.
        let (what, object) = match (selected(change.old_object()), selected(change.new_object())) {
            (false, true) => ("ADDED", change.new_object()),
            (true, true) => ("MODIFIED", change.new_object()),
            (true, false) => ("DELETED", change.old_object()),
            (false, false) => return,
        };
        if let Some(object) = object {
            self.object(what, object, out);
        }
    }

    fn object(&mut self, what: &str, object: &Value, out: &mut BytesMut) {
        let object = view::shown(self.kind, object);
        match self.look.form {
            Form::Json | Form::Yaml => line(what, &object, out),
            Form::Metadata => line(what, &tables::partial(object.into_owned()), out),
            Form::Table => {
                let metadata = object.get("metadata").cloned().unwrap_or_default();
                let row = tables::row(
                    self.kind,
                    object.into_owned(),
                    self.look.include,
                    Timestamp::now(),
                );
                line(what, &self.table(&metadata, vec![row]), out);
            }
        }
    }

    fn table(&mut self, metadata: &Value, rows: Vec<Value>) -> Value {
        let columns = (!self.named).then(|| tables::columns(self.kind));
        self.named = true;
        tables::table(columns, metadata, rows)
    }

    fn bookmark(&mut self, revision: Revision, initial: bool, out: &mut BytesMut) {
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if initial {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = match self.look.form {
            Form::Table => {
                let mut row = json!({"kind": self.kind.kind, "apiVersion": self.kind.api_version(), "metadata": metadata});
                row = tables::row(self.kind, row, self.look.include, Timestamp::now());
                self.table(&metadata, vec![row])
            }
            Form::Metadata => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
            }
            Form::Json | Form::Yaml => {
                json!({"kind": self.kind.kind, "apiVersion": self.kind.api_version(), "metadata": metadata})
            }
        };
        line("BOOKMARK", &object, out);
    }

    fn error(&self, status: &Status, out: &mut BytesMut) {
        line("ERROR", &status.to_value(), out);
    }
}

fn raw(what: &str, kind: &Kind, bytes: &[u8], revision: Revision, out: &mut BytesMut) {
    let start = out.len();
    out.put_slice(format!("{{\"type\":\"{what}\",\"object\":").as_bytes());
    match object::splice(kind, bytes, revision, false, out) {
        Ok(()) => out.put_slice(b"}\n"),
        // What the store holds is no object; there is nothing to show.
        Err(error) => {
            tracing::warn!(
                "read a {} of revision {revision} from the store: {error}",
                kind.kind
            );
            out.truncate(start);
        }
    }
}

fn line(what: &str, object: &Value, out: &mut BytesMut) {
    out.put_slice(format!("{{\"type\":\"{what}\",\"object\":{object}}}\n").as_bytes());
}
