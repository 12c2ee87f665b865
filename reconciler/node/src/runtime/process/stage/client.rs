//! Somebody at the other end of a socket, who may be slow or gone: nothing here blocks.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;

use anyhow::Context as _;

use super::super::frame::{self, Decoder, Hello};
use super::relay::is_for_later;

/// Somebody at the other end of a socket.
pub(super) struct Client {
    pub(super) stream: UnixStream,
    decoder: Decoder,
    pub(super) waiting: VecDeque<u8>,
    pub(super) wants: Hello,
    pub(super) gone: bool,
}

impl Client {
    /// One that has said nothing yet, or what it `wants`.
    pub(super) fn new(stream: UnixStream, decoder: Decoder, wants: Hello) -> anyhow::Result<Self> {
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

    /// Sends a frame, at once or when there is room.
    pub(super) fn send(&mut self, kind: u8, payload: &[u8]) {
        let mut bytes = Vec::with_capacity(payload.len() + 5);
        frame::encode(kind, payload, &mut bytes);
        self.waiting.extend(bytes);
        self.flush();
    }

    /// Sends what waits, as far as there is room.
    pub(super) fn flush(&mut self) {
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
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> Vec<(u8, Vec<u8>)> {
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
