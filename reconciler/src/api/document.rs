//! Documents that are the same for everybody: built once, and known by a hash.

use bytes::Bytes;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// A document.
#[derive(Debug)]
pub struct Document {
    content_type: &'static str,
    cache_control: Option<&'static str>,
    body: Bytes,
    hash: String,
}

/// What is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// 200, or 304 without a body.
    pub status: u16,
    /// Of the body.
    pub content_type: &'static str,
    /// Of the body, in quotes.
    pub etag: String,
    /// Whether and how long it may be kept.
    pub cache_control: Option<&'static str>,
    /// Empty for 304.
    pub body: Bytes,
}

impl Document {
    /// A document of bytes.
    pub fn new(
        content_type: &'static str,
        cache_control: Option<&'static str>,
        body: impl Into<Bytes>,
    ) -> Self {
        let body = body.into();
        let hash = Sha256::digest(&body)
            .iter()
            .map(|byte| format!("{byte:02X}"))
            .collect();
        Self {
            content_type,
            cache_control,
            body,
            hash,
        }
    }

    /// A document in JSON.
    pub fn json(body: &Value) -> Self {
        Self::new("application/json", None, body.to_string())
    }

    /// SHA-256 in hex.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The answer to a request with this `If-None-Match` header.
    pub fn answer(&self, if_none_match: Option<&str>) -> Answer {
        let etag = format!("\"{}\"", self.hash);
        let known = if_none_match.is_some_and(|header| {
            header
                .split(',')
                .map(|tag| tag.trim().trim_start_matches("W/"))
                .any(|tag| tag == etag || tag == "*")
        });
        Answer {
            status: if known { 304 } else { 200 },
            content_type: self.content_type,
            etag,
            cache_control: self.cache_control,
            body: if known {
                Bytes::new()
            } else {
                self.body.clone()
            },
        }
    }
}
