//! A plain HTTP/1.0 GET, for health and metrics pages.

use anyhow::{Context, Result};
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// An answer.
#[derive(Clone, Debug)]
pub struct Page {
    /// 200 and so on.
    pub status: u16,
    /// Status line and header lines.
    pub head: String,
    /// The rest.
    pub body: String,
}

impl Page {
    /// The value of a header, its name in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// Gets `/path` from `server`, which must listen in the namespace of this thread.
pub fn get(server: impl ToSocketAddrs + std::fmt::Debug, path: &str) -> Result<Page> {
    let mut stream =
        TcpStream::connect(&server).with_context(|| format!("connect to http://{server:?}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET /{path} HTTP/1.0\r\nHost: {server:?}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .with_context(|| format!("not HTTP: {answer:?}"))?;
    let status = head.split_whitespace().nth(1);
    let status = status.with_context(|| format!("no status in {head:?}"))?;
    Ok(Page {
        status: status.parse()?,
        head: head.to_owned(),
        body: body.to_owned(),
    })
}
