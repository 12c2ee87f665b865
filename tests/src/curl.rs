//! One request to an API server at a time, by `curl`: a client that knows nothing of Kubernetes.

use crate::apiserver::ApiServer;
use crate::process;
use anyhow::{Context, Result};
use serde_json::Value;
use std::process::Command;

/// As whom to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who<'a> {
    /// With the administrator's certificate.
    Admin,
    /// With a token.
    Token(&'a str),
    /// As nobody.
    Anonymous,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// 200 and so on.
    pub code: u16,
    /// Names in lower case, and values, in the order of the answer.
    pub headers: Vec<(String, String)>,
    /// The rest.
    pub body: String,
}

impl Answer {
    /// The values of a header, its name in any case.
    pub fn header<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let same = move |known: &str| known.eq_ignore_ascii_case(name);
        let pairs = self.headers.iter();
        pairs.filter_map(move |(known, value)| same(known).then_some(value.as_str()))
    }

    /// The body as JSON, or as a string when it is none.
    pub fn value(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| Value::String(self.body.clone()))
    }
}

/// Asks; `headers` are lines as `Accept: text/html`.
pub fn ask(
    server: &ApiServer,
    who: Who<'_>,
    method: &str,
    path: &str,
    headers: &[String],
    body: Option<&str>,
) -> Result<Answer> {
    let keys = server.folder().join("pki");
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--http1.1", "--globoff"])
        .args(["--max-time", "20", "--include", "--request", method])
        // No waiting for `100 Continue`: its lines would come before the answer's.
        .args(["--header", "Expect:"])
        .arg("--cacert")
        .arg(keys.join("ca.crt"));
    match who {
        Who::Admin => {
            curl.arg("--cert").arg(keys.join("admin.crt"));
            curl.arg("--key").arg(keys.join("admin.key"));
        }
        Who::Token(token) => {
            curl.args(["--header", &format!("Authorization: Bearer {token}")]);
        }
        Who::Anonymous => {}
    }
    for header in headers {
        curl.args(["--header", header]);
    }
    curl.arg(format!("{}{path}", server.url()));
    let said = match body {
        None => process::run(&mut curl)?,
        Some(body) => process::run_with_input(curl.args(["--data-binary", "@-"]), body)?,
    };
    let (head, body) = said
        .split_once("\r\n\r\n")
        .with_context(|| format!("{method} {path}: no HTTP: {said:?}"))?;
    let mut lines = head.lines();
    let code = lines.next().and_then(|line| line.split(' ').nth(1));
    let code = code.with_context(|| format!("{method} {path}: no status in {head:?}"))?;
    let header = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_lowercase(), value.trim().to_owned()))
    };
    Ok(Answer {
        code: code.parse()?,
        headers: lines.filter_map(header).collect(),
        body: body.to_owned(),
    })
}
