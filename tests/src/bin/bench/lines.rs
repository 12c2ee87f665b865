//! A background program that tells what happens, line by line, and when it told.

use anyhow::{Context, Result};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use tests::Namespace;

/// The lines of a background program, each with the time it came.
pub struct Lines {
    child: Child,
    lines: Receiver<(Instant, String)>,
}

impl Lines {
    /// Starts the program inside `namespace`.
    pub fn start(namespace: &Namespace, words: &[&str]) -> Result<Self> {
        let (program, args) = words.split_first().context("no program")?;
        let mut child = namespace.run(|| {
            Command::new(program)
                .args(args)
                .env("ETCDCTL_API", "3")
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
                .with_context(|| format!("start {program}"))
        })?;
        let output = child.stdout.take().context("no standard output")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send((Instant::now(), line)).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, lines })
    }

    /// The next line, or `None` when none comes before `end`.
    pub fn next_before(&mut self, end: Instant) -> Option<(Instant, String)> {
        let left = end.saturating_duration_since(Instant::now());
        self.lines.recv_timeout(left).ok()
    }

    /// When the next line that contains `part` came.
    pub fn first(&mut self, part: &str, limit: Duration) -> Result<Instant> {
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let (when, line) = self
                .lines
                .recv_timeout(left)
                .with_context(|| format!("no line with {part:?} within {limit:?}"))?;
            if line.contains(part) {
                return Ok(when);
            }
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("end a watcher: {error}");
        }
    }
}
