//! Carries bytes between a process, its log, and those that talk to it, until it has ended.
//!
//! One thread, one poll(2), nothing that blocks: neither a slow client nor a full disk holds a container up. A client
//! of a container that does not keep up misses output (the log has it); an exec'd process waits for its only client.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::super::cgroup;
use super::super::frame::{self, Decoder, Hello};
use super::super::log::{From, Log};
use super::super::sys;

/// Output that waits for a client beyond this is not added to.
const WAITING_MAX: usize = 1 << 20;
/// Input that waits for the process beyond this makes those who send it wait.
const INPUT_MAX: usize = 64 << 10;
/// `/proc/sys/fs/pipe-max-size`, as it usually is; a terminal holds less.
const PIPE_MAX: usize = 1 << 20;
const CHUNK: usize = 32 << 10;

/// A stage's ends of a process's streams.
#[derive(Default)]
pub(super) struct Ends {
    pub(super) input: Option<File>,
    pub(super) output: Option<File>,
    pub(super) errors: Option<File>,
    pub(super) terminal: bool,
}

/// How a process ended: 128 + the signal's number when one ended it.
#[derive(Clone, Copy)]
pub(super) struct Ended {
    pub(super) code: i32,
    pub(super) signal: i32,
}

/// Somebody at the other end of a socket.
pub(super) struct Client {
    stream: UnixStream,
    decoder: Decoder,
    waiting: VecDeque<u8>,
    wants: Hello,
    gone: bool,
}

impl Client {
    fn new(stream: UnixStream, decoder: Decoder, wants: Hello) -> anyhow::Result<Self> {
        stream
            .set_nonblocking(true)
            .context("make a socket non-blocking")?;
        Ok(Self {
            stream,
            decoder,
            waiting: VecDeque::new(),
            wants,
            gone: false,
        })
    }

    /// The only client of an exec'd process, whose HELLO has been read.
    pub(super) fn of_exec(
        stream: UnixStream,
        decoder: Decoder,
        hello: &Hello,
    ) -> anyhow::Result<Self> {
        let wants = Hello {
            command: Vec::new(),
            ..*hello
        };
        Self::new(stream, decoder, wants)
    }

    fn send(&mut self, kind: u8, payload: &[u8]) {
        let mut bytes = Vec::with_capacity(payload.len() + 5);
        frame::encode(kind, payload, &mut bytes);
        self.waiting.extend(bytes);
        self.flush();
    }

    fn flush(&mut self) {
        while !self.waiting.is_empty() && !self.gone {
            match self.stream.write(self.waiting.as_slices().0) {
                Ok(length) => drop(self.waiting.drain(..length)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.gone = true,
            }
        }
    }

    /// Reads what has come; the frames that are whole.
    fn receive(&mut self, buffer: &mut [u8]) -> Vec<(u8, Vec<u8>)> {
        match self.stream.read(buffer) {
            Ok(0) => self.gone = true,
            Ok(length) => self.decoder.push(&buffer[..length]),
            Err(error) if is_for_later(&error) => {}
            Err(_) => self.gone = true,
        }
        let mut frames = Vec::new();
        loop {
            match self.decoder.next() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => return frames,
                Err(_) => {
                    self.gone = true;
                    return frames;
                }
            }
        }
    }
}

fn is_for_later(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// A process and all that goes in and out of it.
pub(super) struct Relay {
    process: Pid,
    signals: SignalFd,
    listener: Option<UnixListener>,
    ends: Ends,
    input: VecDeque<u8>,
    input_ends: bool,
    clients: Vec<Client>,
    log: Option<Log>,
    stdin_once: bool,
    cgroups: Vec<PathBuf>,
}

/// What a polled descriptor is.
#[derive(Clone, Copy)]
enum Source {
    Signals,
    Listener,
    Output(From),
    Input,
    Client(usize),
}

impl Relay {
    /// Of a container's first process.
    pub(super) fn of_container(
        process: Pid,
        signals: SignalFd,
        listener: UnixListener,
        ends: Ends,
        log: Log,
        stdin_once: bool,
        cgroups: &[PathBuf],
    ) -> anyhow::Result<Self> {
        listener
            .set_nonblocking(true)
            .context("make the socket non-blocking")?;
        Self {
            process,
            signals,
            listener: Some(listener),
            ends,
            input: VecDeque::new(),
            input_ends: false,
            clients: Vec::new(),
            log: Some(log),
            stdin_once,
            cgroups: cgroups.to_vec(),
        }
        .prepared()
    }

    /// Of a process beside it.
    pub(super) fn of_exec(
        process: Pid,
        signals: SignalFd,
        ends: Ends,
        client: Client,
    ) -> anyhow::Result<Self> {
        Self {
            process,
            signals,
            listener: None,
            ends,
            input: VecDeque::new(),
            input_ends: false,
            clients: vec![client],
            log: None,
            stdin_once: true,
            cgroups: Vec::new(),
        }
        .prepared()
    }

    fn prepared(self) -> anyhow::Result<Self> {
        let ends = [&self.ends.input, &self.ends.output, &self.ends.errors];
        for end in ends.into_iter().flatten() {
            fcntl(end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
                .context("make a stream non-blocking")?;
        }
        Ok(self)
    }

    /// Runs until the process has ended.
    pub(super) fn run(&mut self) -> anyhow::Result<Ended> {
        let mut buffer = vec![0; CHUNK];
        loop {
            // It may have ended before its signal was watched for.
            if let Some(ended) = self.ended()? {
                // Those it left behind would hold its streams open, and write for ever.
                cgroup::kill(&self.cgroups);
                self.drain(&mut buffer);
                return Ok(ended);
            }
            for source in self.wait()? {
                match source {
                    Source::Signals => {
                        while self
                            .signals
                            .read_signal()
                            .context("read signals")?
                            .is_some()
                        {}
                    }
                    Source::Listener => self.accept(),
                    Source::Output(from) => drop(self.carry(from, &mut buffer)),
                    Source::Input => self.feed(),
                    Source::Client(index) => self.serve(index, &mut buffer),
                }
            }
            self.part();
        }
    }

    /// Says goodbye. Clients that are slow have a second.
    pub(super) fn finish(&mut self, code: i32) {
        if let Some(log) = &mut self.log {
            log.finish(Timestamp::now());
        }
        for client in &mut self.clients {
            let limit = Some(Duration::from_secs(1));
            if client.stream.set_nonblocking(false).is_ok()
                && client.stream.set_write_timeout(limit).is_ok()
            {
                client.send(frame::EXIT, &code.to_be_bytes());
            }
        }
    }

    fn is_lossless(&self) -> bool {
        self.log.is_none()
    }

    fn wait(&self) -> anyhow::Result<Vec<Source>> {
        let mut polled: Vec<(Source, BorrowedFd<'_>, PollFlags)> =
            vec![(Source::Signals, self.signals.as_fd(), PollFlags::POLLIN)];
        if let Some(listener) = &self.listener {
            polled.push((Source::Listener, listener.as_fd(), PollFlags::POLLIN));
        }
        let full = self.is_lossless()
            && self
                .clients
                .iter()
                .any(|client| client.waiting.len() >= WAITING_MAX / 4);
        for (from, end) in [
            (From::Stdout, &self.ends.output),
            (From::Stderr, &self.ends.errors),
        ] {
            if let Some(end) = end.as_ref().filter(|_| !full) {
                polled.push((Source::Output(from), end.as_fd(), PollFlags::POLLIN));
            }
        }
        if let Some(end) = self.ends.input.as_ref().filter(|_| !self.input.is_empty()) {
            polled.push((Source::Input, end.as_fd(), PollFlags::POLLOUT));
        }
        for (index, client) in self.clients.iter().enumerate() {
            let mut flags = PollFlags::empty();
            if self.input.len() < INPUT_MAX || !client.wants.stdin {
                flags |= PollFlags::POLLIN;
            }
            if !client.waiting.is_empty() {
                flags |= PollFlags::POLLOUT;
            }
            polled.push((Source::Client(index), client.stream.as_fd(), flags));
        }
        let mut fds: Vec<_> = polled
            .iter()
            .map(|(_, fd, flags)| PollFd::new(*fd, *flags))
            .collect();
        match poll(&mut fds, PollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => return Ok(Vec::new()),
            other => other.context("poll")?,
        };
        let ready = polled
            .iter()
            .zip(&fds)
            .filter(|(_, fd)| fd.any() == Some(true));
        Ok(ready.map(|((source, ..), _)| *source).collect())
    }

    fn ended(&self) -> anyhow::Result<Option<Ended>> {
        match waitpid(self.process, Some(WaitPidFlag::WNOHANG)).context("wait for the process")? {
            WaitStatus::Exited(_, code) => Ok(Some(Ended { code, signal: 0 })),
            WaitStatus::Signaled(_, signal, _) => Ok(Some(Ended {
                code: 128 + signal as i32,
                signal: signal as i32,
            })),
            _ => Ok(None),
        }
    }

    fn accept(&mut self) {
        let Some(listener) = &self.listener else {
            return;
        };
        if let Ok((stream, _)) = listener.accept()
            && let Ok(client) = Client::new(stream, Decoder::default(), Hello::default())
        {
            self.clients.push(client);
        }
    }

    /// Carries one piece of output on; whether there was any.
    fn carry(&mut self, from: From, buffer: &mut [u8]) -> bool {
        let end = match from {
            From::Stdout => &mut self.ends.output,
            From::Stderr => &mut self.ends.errors,
        };
        let Some(file) = end else {
            return false;
        };
        let length = match file.read(buffer) {
            Ok(length) => length,
            Err(error) if is_for_later(&error) => return false,
            // Of a terminal that nobody has open, EIO.
            Err(_) => 0,
        };
        if length == 0 {
            *end = None;
            return false;
        }
        let bytes = &buffer[..length];
        if let Some(log) = &mut self.log {
            log.append(from, bytes, Timestamp::now());
        }
        let kind = match from {
            From::Stdout => frame::STDOUT,
            From::Stderr => frame::STDERR,
        };
        let lossless = self.is_lossless();
        for client in &mut self.clients {
            let wanted = match from {
                From::Stdout => client.wants.stdout,
                From::Stderr => client.wants.stderr,
            };
            if wanted && (lossless || client.waiting.len() < WAITING_MAX) {
                client.send(kind, bytes);
            }
        }
        true
    }

    /// What the process has written before its end: no more than a pipe can hold, for others may write on.
    fn drain(&mut self, buffer: &mut [u8]) {
        for from in [From::Stdout, From::Stderr] {
            for _ in 0..PIPE_MAX / CHUNK {
                if !self.carry(from, buffer) {
                    break;
                }
            }
        }
    }

    fn feed(&mut self) {
        while let Some(end) = self.ends.input.as_mut().filter(|_| !self.input.is_empty()) {
            match end.write(self.input.as_slices().0) {
                Ok(length) => drop(self.input.drain(..length)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // Nobody reads it any more.
                Err(_) => self.ends.input = None,
            }
        }
        if self.ends.input.is_none() {
            self.input.clear();
        } else if self.input_ends && self.input.is_empty() && !self.ends.terminal {
            self.ends.input = None;
        }
    }

    fn end_input(&mut self) {
        if self.ends.terminal {
            // End of transmission, which a terminal in its usual mode takes for end of file.
            self.input.push_back(4);
        } else {
            self.input_ends = true;
        }
        self.feed();
    }

    fn serve(&mut self, index: usize, buffer: &mut [u8]) {
        let Some(client) = self.clients.get_mut(index) else {
            return;
        };
        client.flush();
        for (kind, payload) in client.receive(buffer) {
            self.obey(index, kind, &payload);
        }
    }

    fn obey(&mut self, index: usize, kind: u8, payload: &[u8]) {
        let wants_stdin = self
            .clients
            .get(index)
            .is_some_and(|client| client.wants.stdin);
        match (kind, payload) {
            (frame::HELLO, payload) => {
                if let (Some(client), Ok(hello)) =
                    (self.clients.get_mut(index), serde_json::from_slice(payload))
                {
                    client.wants = hello;
                }
            }
            (frame::STDIN, []) if wants_stdin && self.stdin_once => self.end_input(),
            (frame::STDIN, bytes)
                if wants_stdin && self.ends.input.is_some() && !self.input_ends =>
            {
                self.input.extend(bytes);
                self.feed();
            }
            (frame::RESIZE, &[a, b, c, d]) if self.ends.terminal => {
                if let Some(terminal) = &self.ends.output {
                    // A size that the kernel refuses changes nothing.
                    let _ = sys::resize_terminal(
                        terminal.as_fd(),
                        u16::from_be_bytes([a, b]),
                        u16::from_be_bytes([c, d]),
                    );
                }
            }
            (frame::SIGNAL, &[number]) => self.signal(i32::from(number)),
            _ => {}
        }
    }

    /// Not yet waited for, the process still has its id to itself.
    fn signal(&self, number: i32) {
        if let Ok(signal) = Signal::try_from(number) {
            let _ = kill(self.process, signal);
            if signal == Signal::SIGKILL {
                cgroup::kill(&self.cgroups);
            }
        }
    }

    /// Forgets clients that are gone.
    fn part(&mut self) {
        let (lossless, once) = (self.is_lossless(), self.stdin_once);
        let mut input_ends = false;
        let mut hung_up = false;
        self.clients.retain(|client| {
            input_ends |= client.gone && client.wants.stdin && once;
            hung_up |= client.gone && lossless;
            !client.gone
        });
        if hung_up {
            self.signal(libc::SIGKILL);
        } else if input_ends {
            self.end_input();
        }
    }
}
