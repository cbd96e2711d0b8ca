//! Why connects failed, and how far each failure reaches.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::super::upstream::UpstreamError;
use crate::log::access::FailedConnect;
use crate::net::addr::Address;
use crate::net::errno::{Call, CallError, Scope};
use crate::pool::Backend;

/// Failed connects of one connection that are kept for its log line.
const KEPT: usize = 16;

/// What the dial of one connection leaves behind for the log. Boxed: most connections have nothing to say.
#[derive(Debug, Default)]
pub(in crate::server) struct Attempts(Option<Box<FailureLog>>);

#[derive(Debug, Default)]
struct FailureLog {
    retries: u32,
    /// In the pool's queue.
    waited: Duration,
    /// Connections that waited when it came to the queue.
    queued_behind: u32,
    failed: Vec<FailedConnect>,
}

impl Attempts {
    /// Backends tried after the first one.
    pub(in crate::server) fn retries(&self) -> u32 {
        self.0.as_ref().map_or(0, |log| log.retries)
    }

    /// The connects that failed: the first ones, in their order.
    pub(in crate::server) fn failed(&self) -> &[FailedConnect] {
        self.0.as_ref().map_or(&[], |log| &log.failed)
    }

    /// Time in the pool's queue.
    pub(in crate::server) fn time_waited(&self) -> Duration {
        self.0.as_ref().map_or(Duration::ZERO, |log| log.waited)
    }

    /// Connections that waited when it came to the pool's queue.
    pub(in crate::server) fn queued_behind(&self) -> u32 {
        self.0.as_ref().map_or(0, |log| log.queued_behind)
    }

    pub(super) fn queued(&mut self, behind: u32) {
        self.0.get_or_insert_default().queued_behind = behind;
    }

    pub(super) fn waited(&mut self, time: Duration) {
        self.0.get_or_insert_default().waited += time;
    }

    pub(in crate::server) fn retried(&mut self) {
        self.0.get_or_insert_default().retries += 1;
    }

    pub(super) fn add(&mut self, backend: &Backend, reason: String) {
        let failed = &mut self.0.get_or_insert_default().failed;
        if failed.len() < KEPT {
            failed.push(FailedConnect { backend: Arc::clone(backend.name()), reason });
        }
    }
}

impl fmt::Display for Attempts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, FailedConnect { backend, reason }) in self.failed().iter().enumerate() {
            let separator = if index > 0 { "; " } else { "" };
            write!(f, "{separator}{backend}: {reason}")?;
        }
        Ok(())
    }
}

/// Why one connect failed.
pub(super) enum ConnectFailure {
    /// The backend's name has no address.
    NoAddress,
    /// It takes the port that the client connected to, which came by a unix socket.
    NoPort,
    /// A system call failed.
    Call(CallError),
    /// No answer within the connect timeout.
    TimedOut(Duration),
    /// There was no room in a unix socket's listen queue in time.
    QueueFull(Duration),
    /// The library's error without a number: a self-connect.
    Io(io::Error),
    /// It was connected, and then came trouble.
    UpstreamError(UpstreamError),
    /// It was connected, and had gone down by then.
    WentDown,
}

impl ConnectFailure {
    /// Of a call on the socket, whose error came by way of the standard library.
    pub(super) fn of(call: Call, error: io::Error) -> ConnectFailure {
        CallError::from_io(call, &error).map_or(ConnectFailure::Io(error), ConnectFailure::Call)
    }

    pub(super) fn scope(&self) -> Scope {
        match self {
            ConnectFailure::Call(error) => error.scope(),
            ConnectFailure::UpstreamError(UpstreamError::Io(error)) => {
                CallError::from_io(Call::Transfer, error).map_or(Scope::Destination, CallError::scope)
            }
            _ => Scope::Destination,
        }
    }

    /// As the log says it.
    pub(super) fn told(&self, address: Option<&Address>) -> String {
        match address {
            Some(address) => format!("{address}: {self}"),
            None => self.to_string(),
        }
    }
}

impl fmt::Display for ConnectFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectFailure::NoAddress => f.write_str("it has no address"),
            ConnectFailure::NoPort => {
                f.write_str("it takes the port that the client connected to, and a unix socket has none")
            }
            ConnectFailure::Call(error) => error.fmt(f),
            ConnectFailure::TimedOut(after) => write!(f, "timed out after {after:?}"),
            ConnectFailure::QueueFull(after) => write!(f, "its listen queue was full for {after:?}"),
            ConnectFailure::Io(error) => error.fmt(f),
            ConnectFailure::UpstreamError(trouble) => trouble.fmt(f),
            ConnectFailure::WentDown => f.write_str("it went down while it was being connected"),
        }
    }
}
