//! A TCP connection that talks all the time, to show that what a test does leaves it alone.

use super::server::{ECHO, connect};
use crate::namespace::Namespace;
use anyhow::{Context, Result, bail, ensure};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A connection that says something when it is told to: it has nothing on the way in between.
#[derive(Debug)]
pub struct Conversation {
    stream: TcpStream,
    beats: u64,
}

impl Conversation {
    /// Connects from `from` to a [`super::TcpServer`], and has its first answer.
    pub fn begin(from: &Namespace, server: SocketAddr) -> Result<Self> {
        let mut stream = connect(from, server)?;
        // A lost packet is sent again by TCP; only a connection that is really gone fails.
        stream.set_read_timeout(Some(Duration::from_secs(15)))?;
        stream.write_all(&[ECHO])?;
        let mut conversation = Self { stream, beats: 0 };
        conversation.beat()?;
        Ok(conversation)
    }

    /// Sends a number and waits for its echo.
    pub fn beat(&mut self) -> Result<()> {
        let beat = self.beats.to_be_bytes();
        let mut echo = [0; 8];
        self.stream
            .write_all(&beat)
            .and_then(|()| self.stream.read_exact(&mut echo))
            .with_context(|| format!("the stream broke after {} beats", self.beats))?;
        ensure!(echo == beat, "beat {} came back as {echo:?}", self.beats);
        self.beats += 1;
        Ok(())
    }
}

/// A running conversation: a counter sent and echoed every 5 ms.
#[derive(Debug)]
pub struct Stream {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<StreamReport>>,
}

/// How the conversation went.
#[derive(Clone, Copy, Debug)]
pub struct StreamReport {
    /// Answered beats.
    pub beats: u64,
    /// The longest time between a beat and its answer.
    pub longest_gap: Duration,
}

impl Stream {
    /// Begins to talk from `from` to a [`super::TcpServer`].
    pub fn start(from: &Namespace, server: SocketAddr) -> Result<Self> {
        let mut conversation = Conversation::begin(from, server)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut report = StreamReport {
                beats: 0,
                longest_gap: Duration::ZERO,
            };
            while !stopped.load(Ordering::Relaxed) {
                let sent = Instant::now();
                conversation.beat()?;
                report.beats += 1;
                report.longest_gap = report.longest_gap.max(sent.elapsed());
                std::thread::sleep(Duration::from_millis(5));
            }
            Ok(report)
        });
        Ok(Self { stop, thread })
    }

    /// Ends the conversation; fails if it broke or never got an answer.
    pub fn finish(self) -> Result<StreamReport> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(Ok(report)) if report.beats == 0 => bail!("the stream never got an answer"),
            Ok(report) => report,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}
