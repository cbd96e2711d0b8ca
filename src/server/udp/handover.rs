//! Sessions that another process goes on with.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A session, as the process that takes it over needs to know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandedSession {
    /// The listener's name.
    pub listener: String,
    /// Where its socket is bound.
    pub bound: SocketAddr,
    /// The socket's place among those of this address.
    pub number: usize,
    /// The client.
    pub client: SocketAddr,
    /// What it sends to.
    pub local: SocketAddr,
    /// The pool's name.
    pub pool: String,
    /// The backend's name.
    pub backend: String,
    /// Datagrams from the client and from the backend.
    pub datagrams: (u64, u64),
    /// The same in bytes.
    pub bytes: (u64, u64),
    /// The client has sent something after a reply.
    pub is_answering: bool,
    /// Since it began.
    pub age: Duration,
}

/// Sessions, each with its socket, for the workers to take theirs from.
#[derive(Clone, Debug, Default)]
pub(in crate::server) struct SessionStore(Arc<Mutex<Vec<(HandedSession, OwnedFd)>>>);

impl SessionStore {
    pub(in crate::server) fn new(sessions: Vec<(HandedSession, OwnedFd)>) -> SessionStore {
        SessionStore(Arc::new(Mutex::new(sessions)))
    }

    pub(in crate::server) fn add(&self, sessions: Vec<(HandedSession, OwnedFd)>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(sessions);
    }

    /// Those for which this holds.
    pub(in crate::server) fn take(&self, is_wanted: impl Fn(&HandedSession) -> bool) -> Vec<(HandedSession, OwnedFd)> {
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.extract_if(.., |(session, _)| is_wanted(session)).collect()
    }
}
