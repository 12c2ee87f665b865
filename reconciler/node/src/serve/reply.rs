//! Answers.

use std::io;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};

/// Whole or as it comes.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;
/// An answer.
pub type Reply = Response<Body>;

/// A text.
pub fn text(code: StatusCode, text: impl Into<String>) -> Reply {
    let body = Full::new(Bytes::from(text.into()));
    let mut reply = Response::new(body.map_err(|never| match never {}).boxed_unsync());
    *reply.status_mut() = code;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    reply.headers_mut().insert(CONTENT_TYPE, kind);
    reply
}

/// No body.
pub fn empty(code: StatusCode) -> Reply {
    let body = Empty::new().map_err(|never| match never {});
    let mut reply = Response::new(body.boxed_unsync());
    *reply.status_mut() = code;
    reply
}

/// A text that refuses. In a box: an answer is large beside what is otherwise given.
pub fn refuse(code: StatusCode, why: impl Into<String>) -> Box<Reply> {
    Box::new(text(code, why))
}
