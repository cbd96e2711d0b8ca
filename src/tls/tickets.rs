//! Sessions of clients, in tickets or in a cache. One that a client got with its certificate holds no longer than that certificate, its
//! authority and the revocation lists do; nor does a ticket that it gets when it resumes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustls::server::{ProducesTickets, StoresServerSessions};
use rustls::time_provider::TimeProvider;

use super::clock::since_1970;
use super::trust::ALWAYS;

/// Until when the session of one connection may be resumed, in seconds since 1970.
#[derive(Clone, Debug)]
pub(super) struct ResumptionDeadline(Arc<AtomicU64>);

impl ResumptionDeadline {
    /// Without a verified client, a session rests on nothing that ends.
    pub(super) fn new() -> ResumptionDeadline {
        ResumptionDeadline(Arc::new(AtomicU64::new(ALWAYS.as_secs())))
    }

    pub(super) fn set(&self, until: u64) {
        self.0.store(until, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The tickets of one connection, or of a listener without client certificates.
#[derive(Debug)]
pub(super) struct Tickets {
    pub(super) keys: Arc<dyn ProducesTickets>,
    pub(super) limit: SessionLimit,
}

/// Until when the sessions of a connection hold, and the clock that tells.
#[derive(Clone, Debug)]
pub(super) struct SessionLimit {
    pub(super) bound: ResumptionDeadline,
    pub(super) clock: Arc<dyn TimeProvider>,
}

impl SessionLimit {
    /// The seconds for which the session may still be resumed. `None`: it may not.
    fn left(&self, until: u64) -> Option<u64> {
        // The keys go by a clock of their own, which panics before 1970.
        since_1970()?;
        until.checked_sub(self.clock.current_time()?.as_secs())
    }

    /// A session with its limit before it. `None`: it holds no longer.
    fn seal(&self, session: &[u8]) -> Option<Vec<u8>> {
        let until = self.bound.get();
        self.left(until)?;
        Some([&until.to_be_bytes(), session].concat())
    }

    /// The session. What the client gets at its resumption inherits the limit; a full handshake sets a new one.
    fn open(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        let (until, session) = sealed.split_first_chunk()?;
        let until = u64::from_be_bytes(*until);
        self.left(until)?;
        self.bound.set(until);
        Some(session.to_vec())
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        self.keys.enabled()
    }

    fn lifetime(&self) -> u32 {
        let left = self.limit.left(self.limit.bound.get()).unwrap_or_default();
        self.keys.lifetime().min(u32::try_from(left).unwrap_or(u32::MAX))
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.keys.encrypt(&self.limit.seal(plain)?)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        since_1970()?;
        self.limit.open(&self.keys.decrypt(cipher)?)
    }
}

/// Sessions that are kept here, for clients that use no tickets: by their id in TLS 1.2. The least recent one makes room.
#[derive(Debug)]
pub(super) struct SessionCache {
    pub(super) sessions: Arc<dyn StoresServerSessions>,
    pub(super) limit: SessionLimit,
}

impl StoresServerSessions for SessionCache {
    fn put(&self, key: Vec<u8>, session: Vec<u8>) -> bool {
        self.limit.seal(&session).is_some_and(|sealed| self.sessions.put(key, sealed))
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.limit.open(&self.sessions.get(key)?)
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.limit.open(&self.sessions.take(key)?)
    }

    fn can_cache(&self) -> bool {
        true
    }
}
