//! Logs of containers, across rotated files, and as they grow.
//!
//! `tailLines` counts lines of the files, as the kubelet does: of a filter by `stream` nothing is known there, so both
//! together are refused.

mod files;
mod follow;
mod line;

#[cfg(test)]
mod tests;

use std::io;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use jiff::{SignedDuration, Timestamp};

use super::query::Query;
use super::reply::refuse;
use super::{Answer, State, refusal};
use crate::directory::Entry;
use follow::Log;

/// What of a log is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Goes on until the container has ended.
    pub follow: bool,
    /// Of the container before.
    pub previous: bool,
    /// Each line begins with its time.
    pub timestamps: bool,
    /// The last so many lines.
    pub tail: Option<u64>,
    /// Nothing older.
    pub since: Option<Timestamp>,
    /// No more bytes than that.
    pub limit: Option<u64>,
    /// `stdout` or `stderr` only.
    pub stream: Option<&'static str>,
}

impl Options {
    /// Reads the query.
    ///
    /// # Errors
    /// A value is none of its kind.
    pub fn parse(query: &Query, now: Timestamp) -> Result<Self, String> {
        let number = |name: &str, least: u64| -> Result<Option<u64>, String> {
            let Some(text) = query.get(name).filter(|text| !text.is_empty()) else {
                return Ok(None);
            };
            match text.parse::<u64>() {
                Ok(number) if number >= least => Ok(Some(number)),
                _ => Err(format!(
                    "{name}: Invalid value: {text:?}: must be a number of at least {least}"
                )),
            }
        };
        let mut since = None;
        if let Some(seconds) = number("sinceSeconds", 1)? {
            let ago = i64::try_from(seconds).ok().map(SignedDuration::from_secs);
            // Before all time is all of it.
            since = ago
                .and_then(|ago| now.checked_sub(ago).ok())
                .or(Some(Timestamp::MIN));
        }
        if let Some(time) = query.get("sinceTime").filter(|time| !time.is_empty()) {
            if since.is_some() {
                return Err("at most one of `sinceTime` or `sinceSeconds` may be specified".into());
            }
            since = Some(
                time.parse()
                    .map_err(|error| format!("sinceTime: Invalid value: {time:?}: {error}"))?,
            );
        }
        let stream = match query.get("stream") {
            None | Some("" | "All") => None,
            Some("Stdout") => Some("stdout"),
            Some("Stderr") => Some("stderr"),
            Some(other) => {
                return Err(format!(
                    "stream: Unsupported value: {other:?}: supported values: \"All\", \"Stdout\", \"Stderr\""
                ));
            }
        };
        let tail = number("tailLines", 0)?;
        if tail.is_some() && stream.is_some() {
            return Err("`tailLines` and specific `stream` are mutually exclusive for now".into());
        }
        Ok(Self {
            follow: query.flag(&["follow"]),
            previous: query.flag(&["previous"]),
            timestamps: query.flag(&["timestamps"]),
            tail,
            since,
            limit: number("limitBytes", 1)?,
            stream,
        })
    }
}

/// Answers `/containerLogs`.
///
/// # Errors
/// The answer that refuses it.
pub async fn answer(state: &State, entry: &Entry, container: &str, query: &Query) -> Answer {
    let options = Options::parse(query, Timestamp::now())
        .map_err(|error| refuse(StatusCode::BAD_REQUEST, error))?;
    let container = entry
        .container(container, options.previous)
        .map_err(|error| refusal(&error))?;
    let runtime = std::sync::Arc::clone(&state.runtime);
    let id = container.id.clone();
    let log = Log::open(runtime, id, container.log.clone(), options)
        .await
        .map_err(|error| {
            refuse(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!(
                    "failed to read the log of container {}: {error}",
                    container.id
                ),
            )
        })?;
    let chunks = stream::unfold(Some(log), async |log| {
        let mut log = log?;
        match log.next().await {
            Ok(Some(bytes)) => Some((Ok(Frame::data(bytes)), Some(log))),
            Ok(None) => None,
            Err(error) => {
                tracing::warn!("read a container's log: {error}");
                Some((Err::<Frame<Bytes>, io::Error>(error), None))
            }
        }
    });
    let mut reply = Response::new(StreamBody::new(chunks).boxed_unsync());
    let kind = HeaderValue::from_static("text/plain");
    reply.headers_mut().insert(CONTENT_TYPE, kind);
    Ok(reply)
}
