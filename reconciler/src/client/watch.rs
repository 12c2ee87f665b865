//! A watch: one event a line, until the server ends it.

use http_body_util::BodyExt;
use hyper::Method;
use kube::client::Body;
use serde_json::Value;

use super::failure::Failure;
use super::session::Session;

/// Events as they come.
pub struct Events {
    body: Body,
    buffer: Vec<u8>,
    /// So much of the buffer has no line's end.
    searched: usize,
    address: String,
}

/// What happened to an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// `ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK`
    pub kind: String,
    /// The object, or the Table of it.
    pub object: Value,
}

impl Events {
    /// Opens a watch at a path with its query.
    ///
    /// # Errors
    /// The server is not reached, or says no.
    pub async fn open(
        session: &mut Session<'_>,
        path: &str,
        accept: &str,
    ) -> Result<Self, Failure> {
        let answer = session.send(Method::GET, path, accept, None).await?;
        Ok(Self {
            body: answer.into_body(),
            buffer: Vec::new(),
            searched: 0,
            address: session.address().to_owned(),
        })
    }

    /// The next event; none when the server has ended the watch.
    ///
    /// # Errors
    /// The connection breaks, or the server sends an error, as that the history is gone.
    pub async fn next(&mut self) -> Result<Option<Event>, Failure> {
        loop {
            while let Some(line) = self.line() {
                if !line.trim_ascii().is_empty() {
                    return event(&line, &self.address).map(Some);
                }
            }
            let Some(frame) = self.body.frame().await else {
                return Ok(None);
            };
            let frame = frame.map_err(|error| Failure::transport(&self.address, &error))?;
            if let Ok(data) = frame.into_data() {
                self.buffer.extend_from_slice(&data);
            }
        }
    }

    fn line(&mut self) -> Option<Vec<u8>> {
        let rest = self.buffer.get(self.searched..).unwrap_or_default();
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
            self.searched = self.buffer.len();
            return None;
        };
        let line = self.buffer.drain(..=self.searched + end).collect();
        self.searched = 0;
        Some(line)
    }
}

fn event(line: &[u8], address: &str) -> Result<Event, Failure> {
    let wrong = |why: &str| Failure::Unreachable(format!("{address}: its watch sends {why}"));
    let mut value: Value = serde_json::from_slice(line)
        .map_err(|error| wrong(&format!("what is no JSON: {error}")))?;
    let kind = value.get("type").and_then(Value::as_str);
    let kind = kind.ok_or_else(|| wrong("an event of no type"))?.to_owned();
    let object = value.get_mut("object").map(Value::take).unwrap_or_default();
    if kind == "ERROR" {
        let code = object.get("code").and_then(Value::as_u64);
        let code = code.and_then(|code| u16::try_from(code).ok());
        return Err(Failure::Server(Box::new(object), code.unwrap_or_default()));
    }
    Ok(Event { kind, object })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn events(text: &str) -> Events {
        Events {
            body: Body::from(Bytes::copy_from_slice(text.as_bytes())),
            buffer: Vec::new(),
            searched: 0,
            address: "h:1".to_owned(),
        }
    }

    #[tokio::test]
    async fn lines_are_events_and_an_error_is_a_failure() {
        let mut events = events(
            "{\"type\":\"ADDED\",\"object\":{\"a\":1}}\n\n{\"type\":\"ERROR\",\"object\":{\"reason\":\"Expired\",\"message\":\"too old\",\"code\":410}}\nx\n{}\n",
        );
        let first = events.next().await.unwrap().unwrap();
        assert_eq!(
            (first.kind.as_str(), first.object["a"].as_i64()),
            ("ADDED", Some(1))
        );
        let said = events.next().await.unwrap_err().to_string();
        assert_eq!(said, "Error from server (Expired): too old");
        assert!(events.next().await.is_err());
        assert!(events.next().await.is_err());
        assert_eq!(events.next().await.unwrap(), None);
    }
}
