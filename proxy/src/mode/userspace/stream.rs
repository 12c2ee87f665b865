//! One forwarded TCP connection: two sockets and the bytes between them, with no I/O loop of its own.
//!
//! Invariants:
//! - a direction reads only when its store is empty, so that a reader which is not ready and a store which is full
//!   cannot be taken for each other, and what is unread stays in the sender's window: back-pressure;
//! - the end of one direction is passed on as such (a half-close) and leaves the other as it is;
//! - an error of one side ends the connection for the other by a reset.

use std::io;
use std::net::{Shutdown, TcpStream};

use super::store::{Stock, Store, is_refusal};
use super::target::Lease;

/// Reads before other connections have their turn: 4 MiB in the best case.
const TURNS: usize = 16;

/// A side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Who called.
    Client = 0,
    /// Who answers.
    Endpoint = 1,
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nothing to do until one of its sockets is ready.
    Waiting,
    /// There is more to do, but others are due.
    More,
    /// Both directions have ended in order.
    Ended,
    /// An error of this side has ended it.
    Broken(Side),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Stream {
    sockets: [TcpStream; 2],
    /// By the side that sends.
    directions: [Direction; 2],
    /// Bytes passed on to the endpoint and to the client since [`Stream::passed`] was asked.
    passed: [u64; 2],
    /// The side that will take no more; the connection ends when it has nothing more to say either.
    deaf: Option<Side>,
    /// The client's packets come to an address that is to stay as long as this.
    _lease: Lease,
}

#[derive(Debug, Default)]
struct Direction {
    readable: bool,
    writable: bool,
    store: Option<Store>,
    ended: bool,
}

/// Why a direction stopped for now.
enum Stop {
    Blocked,
    OutOfTurns,
    Ended,
    ReadFailed,
    WriteFailed,
}

impl Stream {
    /// Of two connected sockets that do not block.
    pub(super) fn new(client: TcpStream, endpoint: TcpStream, lease: Lease) -> Self {
        Self {
            sockets: [client, endpoint],
            directions: Default::default(),
            passed: [0; 2],
            deaf: None,
            _lease: lease,
        }
    }

    /// The sockets, by [`Side`].
    pub(super) fn sockets(&self) -> &[TcpStream; 2] {
        &self.sockets
    }

    /// Notes what a side's socket is ready for.
    pub(super) fn note(&mut self, side: Side, readable: bool, writable: bool) {
        let (from, to) = (side as usize, 1 - side as usize);
        self.directions[from].readable |= readable;
        self.directions[to].writable |= writable;
    }

    /// Moves bytes as far as they go.
    pub(super) fn advance(&mut self, stock: &mut Stock) -> Progress {
        let mut more = false;
        for (from, side) in [Side::Client, Side::Endpoint].into_iter().enumerate() {
            if self.directions[from].ended {
                continue;
            }
            match self.pump(from, stock) {
                Stop::Blocked => {}
                Stop::OutOfTurns => more = true,
                Stop::Ended => {
                    self.directions[from].ended = true;
                    // It may be gone already, which the other direction notices.
                    let _ = self.sockets[1 - from].shutdown(Shutdown::Write);
                }
                Stop::ReadFailed => return Progress::Broken(side),
                Stop::WriteFailed => {
                    self.directions[from].ended = true;
                    self.directions[from].store = None;
                    self.deaf = Some(if side == Side::Client {
                        Side::Endpoint
                    } else {
                        Side::Client
                    });
                }
            }
        }
        match (
            self.directions.iter().all(|direction| direction.ended),
            self.deaf,
        ) {
            (true, Some(side)) => Progress::Broken(side),
            (true, None) => Progress::Ended,
            (false, _) if more => Progress::More,
            (false, _) => Progress::Waiting,
        }
    }

    /// Bytes passed on to the endpoint, and to the client, since the last call.
    pub(super) fn passed(&mut self) -> [u64; 2] {
        std::mem::take(&mut self.passed)
    }

    fn pump(&mut self, from: usize, stock: &mut Stock) -> Stop {
        let direction = &mut self.directions[from];
        let (source, sink) = (&self.sockets[from], &self.sockets[1 - from]);
        let mut store = direction.store.take();
        let mut turns = TURNS;
        let stop = loop {
            if let Some(full) = store.as_mut().filter(|store| store.held() > 0) {
                if !direction.writable {
                    break Stop::Blocked;
                }
                match full.drain(sink) {
                    Ok(count) => self.passed[from] += count as u64,
                    Err(error) if is_interrupted(&error) => {}
                    Err(error) if is_blocked(&error) => direction.writable = false,
                    Err(_) => break Stop::WriteFailed,
                }
                continue;
            }
            if !direction.readable {
                break Stop::Blocked;
            }
            if turns == 0 {
                break Stop::OutOfTurns;
            }
            turns -= 1;
            let empty = store.get_or_insert_with(|| stock.take());
            match empty.fill(source) {
                Ok(0) => break Stop::Ended,
                Ok(_) => {}
                Err(error) if is_interrupted(&error) => {}
                Err(error) if is_blocked(&error) => direction.readable = false,
                Err(error) if is_refusal(empty, &error) => {
                    stock.refuse_splice(&error);
                    store = None;
                }
                Err(_) => break Stop::ReadFailed,
            }
        };
        match store {
            Some(store) if store.held() > 0 => direction.store = Some(store),
            Some(store) => stock.give(store),
            None => {}
        }
        stop
    }
}

fn is_interrupted(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Interrupted
}

fn is_blocked(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

#[cfg(test)]
mod tests;
