//! Reads a log part by part, and waits for more while its container runs.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::Options;
use super::files::{self, Part};
use super::line::Printer;
use crate::inotify::{Change, Watch};
use crate::runtime::{ContainerState, Error, Runtime};

/// A line of a log longer than that is none.
const LONGEST: usize = 1 << 20;
/// The log was closed: when the runtime is asked again whether the container has ended; longer each time.
const ASK: Duration = Duration::from_millis(20);

/// A log that is being read.
pub struct Log {
    runtime: Arc<dyn Runtime>,
    container: String,
    path: PathBuf,
    follow: bool,
    printer: Printer,
    watch: Option<Watch>,
    parts: VecDeque<Part>,
    /// The part that was read to its end last.
    last: Option<Part>,
    /// The beginning of a line.
    rest: Vec<u8>,
    /// The log has been closed, for its container has ended, or to be rotated: how often the runtime has been asked,
    /// which may learn of the end a moment later.
    doubt: Option<u32>,
    /// The container has ended: what is there is all.
    ended: bool,
}

impl Log {
    /// Opens it.
    ///
    /// # Errors
    /// The file system's; it cannot be watched.
    pub async fn open(
        runtime: Arc<dyn Runtime>,
        container: String,
        path: PathBuf,
        options: Options,
    ) -> io::Result<Self> {
        let watch = match path.parent() {
            Some(folder) if options.follow => Some(Watch::folder(folder)?),
            _ => None,
        };
        let tail = options.tail;
        let opened = path.clone();
        let parts = blocking(move || files::open(&opened, tail)).await?;
        let mut log = Self {
            runtime,
            container,
            path,
            follow: options.follow,
            printer: Printer::new(options),
            watch,
            parts: parts.into(),
            last: None,
            rest: Vec::new(),
            doubt: None,
            ended: false,
        };
        // What ends from here on is seen by the watch.
        log.ended = !log.follow || log.has_ended().await;
        Ok(log)
    }

    /// What comes next; `None` at the end.
    ///
    /// # Errors
    /// The file system's.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if self.printer.is_full() {
                return Ok(None);
            }
            let mut out = Vec::new();
            if let Some(mut part) = self.parts.pop_front() {
                let rest = std::mem::take(&mut self.rest);
                let (part, rest, any) = blocking(move || {
                    let mut rest = rest;
                    let any = part.read(&mut rest)?;
                    Ok((part, rest, any))
                })
                .await?;
                self.rest = rest;
                match any {
                    true => {
                        self.parts.push_front(part);
                        self.print(&mut out);
                    }
                    false => self.last = Some(part),
                }
            } else if !self.find_more().await? {
                if self.ended {
                    return Ok(None);
                }
                self.wait().await?;
            }
            if !out.is_empty() {
                return Ok(Some(out.into()));
            }
        }
    }

    fn print(&mut self, out: &mut Vec<u8>) {
        let mut from = 0;
        let rest = std::mem::take(&mut self.rest);
        while let Some(length) = rest
            .get(from..)
            .and_then(|rest| rest.iter().position(|byte| *byte == b'\n'))
        {
            let line = rest.get(from..from + length).unwrap_or_default();
            self.printer.print(line, out);
            from += length + 1;
        }
        self.rest = rest.get(from..).unwrap_or_default().to_vec();
        if self.rest.len() > LONGEST {
            self.rest.clear();
        }
    }

    /// Looks for parts after the last; whether there are some.
    async fn find_more(&mut self) -> io::Result<bool> {
        let path = self.path.clone();
        let last = self.last.take();
        let (last, parts) = blocking(move || {
            let parts = match &last {
                Some(last) => files::after(&path, last)?,
                None => files::open(&path, None)?,
            };
            Ok((last, parts))
        })
        .await?;
        let any = !parts.is_empty();
        if any {
            // It was closed to be rotated. A line that its writer never ended stays without one.
            self.doubt = None;
            self.rest.clear();
        }
        self.parts = parts.into();
        self.last = last;
        Ok(any)
    }

    /// Waits until the log has grown or been rotated, or the container has ended; then the last part is read on.
    async fn wait(&mut self) -> io::Result<()> {
        let Some(mut watch) = self.watch.take() else {
            self.ended = true;
            return Ok(());
        };
        let name = self.path.file_name().unwrap_or_else(|| OsStr::new(""));
        loop {
            let changes = match self.doubt {
                None => watch.next().await?,
                Some(asked) => {
                    let pause = ASK * (1 << asked.min(6));
                    match tokio::time::timeout(pause, watch.next()).await {
                        Ok(changes) => changes?,
                        Err(_) => {
                            self.doubt = Some(asked.saturating_add(1));
                            self.ended = self.has_ended().await;
                            break;
                        }
                    }
                }
            };
            let closed = changes.iter().any(|change| match change {
                Change::Closed(file) => is_part(file, name),
                Change::Folder => true,
                Change::File(_) => false,
            });
            if closed {
                self.doubt = Some(0);
                self.ended = self.has_ended().await;
                break;
            }
            let grown =
                |change: &Change| matches!(change, Change::File(file) if is_part(file, name));
            if changes.iter().any(grown) {
                break;
            }
        }
        self.watch = Some(watch);
        self.parts.extend(self.last.take());
        Ok(())
    }

    async fn has_ended(&self) -> bool {
        match self.runtime.container(&self.container).await {
            Ok(status) => !matches!(
                status.state,
                ContainerState::Running | ContainerState::Created
            ),
            Err(Error::NotFound(_)) => true,
            Err(error) => {
                tracing::warn!("ask for container {}: {error}", self.container);
                false
            }
        }
    }
}

fn is_part(file: &OsStr, log: &OsStr) -> bool {
    file == log
        || match (file.to_str(), log.to_str()) {
            (Some(file), Some(log)) => file
                .strip_prefix(log)
                .is_some_and(|rest| rest.starts_with('.')),
            _ => false,
        }
}

/// Files may be slow.
async fn blocking<T: Send + 'static>(
    job: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(job)
        .await
        .map_err(io::Error::other)?
}
