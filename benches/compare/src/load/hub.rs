//! What both sides of the load share: the epoll, the buffers, the account of bytes.

use std::collections::VecDeque;
use std::io;

use crate::http;
use crate::result::Ledger;
use crate::scenario::{Scenario, Shape};
use crate::sock::Epoll;

/// The first byte of a request for one answer.
pub(crate) const ANSWER: u8 = b'R';
/// The first byte of a request for a stream without an end.
pub(crate) const STREAM: u8 = b'B';

/// Whose event it is: in the upper half of a token, above the index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    /// A backend's listening socket.
    Listener,
    /// A connection that a backend accepted.
    Backend,
    /// A connection that a client opened.
    Client,
}

/// Shared by clients and backends.
pub(crate) struct Hub {
    /// What is played.
    pub(crate) scenario: Scenario,
    /// All sockets.
    pub(crate) epoll: Epoll,
    /// Received into. Where bytes are discarded in the kernel only its length counts.
    pub(crate) scratch: Vec<u8>,
    /// Sent from.
    pub(crate) payload: Vec<u8>,
    /// Bytes of an answer, with its head where it has one; the first ones of the payload.
    pub(crate) answer: usize,
    /// HTTP requests must reach backends with X-Forwarded-For.
    pub(crate) forwarded: bool,
    /// Every byte.
    pub(crate) ledger: Ledger,
    /// Streams that can go on, each at most once: they take turns, so that none of them starves the others
    /// or the requests.
    pub(crate) streams: VecDeque<u64>,
    /// How much of a stream is moved in its turn.
    pub(crate) chunk: usize,
    /// No new work: what is under way is completed, then everything is closed.
    pub(crate) stopping: bool,
}

impl Hub {
    /// Makes everything that the loop will need: nothing is allocated later.
    pub(crate) fn new(scenario: Scenario, forwarded: bool) -> io::Result<Hub> {
        // Beside requests whose latency counts, a turn must be short.
        let chunk = if scenario.shape == Shape::Bulk { 256 << 10 } else { 64 << 10 };
        let mut payload = match scenario.http {
            Some(_) => http::response(scenario.answer),
            None => vec![b'.'; scenario.answer],
        };
        let answer = payload.len();
        payload.resize(chunk.max(answer), b'.');
        Ok(Hub {
            scenario,
            epoll: Epoll::new()?,
            scratch: vec![0; 1 << 20],
            payload,
            answer,
            forwarded,
            ledger: Ledger::default(),
            streams: VecDeque::with_capacity(2 * (scenario.connections + scenario.beside) + 2),
            chunk,
            stopping: false,
        })
    }
}

/// Names a socket to the epoll.
pub(crate) fn token(side: Side, index: usize) -> u64 {
    (side as u64) << 32 | index as u64
}

/// The reverse of [`token`].
pub(crate) fn whose(token: u64) -> (Side, usize) {
    let side = match token >> 32 {
        0 => Side::Listener,
        1 => Side::Backend,
        _ => Side::Client,
    };
    (side, token as u32 as usize)
}

/// What makes a run invalid.
pub(crate) fn broken<T>(what: impl Into<String>) -> io::Result<T> {
    Err(io::Error::other(what.into()))
}
