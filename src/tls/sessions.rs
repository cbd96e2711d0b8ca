//! Sessions with backends, by which a handshake is resumed. One holds no longer than the backend's certificate, its
//! authority and the revocation lists do.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;

use super::trust::{ALWAYS, Trust};

/// Names of servers whose sessions are kept. Where clients choose them, there is no end of names.
const MAX_SERVERS: usize = 256;
/// Tickets that are kept of one of them; TLS 1.3 uses each once (RFC 8446, C.4).
const MAX_TICKETS: usize = 8;

/// The sessions of a pool: of all its connections under the same authorities and with the same certificate.
#[derive(Default)]
pub(super) struct Sessions(Mutex<Servers>);

#[derive(Default)]
struct Servers {
    known: HashMap<ServerName<'static>, ServerSessions>,
    /// The first to come goes first.
    order: VecDeque<ServerName<'static>>,
}

#[derive(Default)]
struct ServerSessions {
    group: Option<NamedGroup>,
    tls12: Option<Held<Tls12ClientSessionValue>>,
    tls13: VecDeque<Held<Tls13ClientSessionValue>>,
}

/// A session, and its connection's bound. Until that is known, the session is not used.
struct Held<T> {
    session: T,
    until: Arc<OnceLock<UnixTime>>,
}

impl<T> Held<T> {
    fn holds(&self, now: UnixTime) -> bool {
        self.until.get().is_some_and(|until| now <= *until)
    }
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, Servers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Servers {
    fn edit(&mut self, name: ServerName<'static>) -> &mut ServerSessions {
        if !self.known.contains_key(&name) {
            if self.order.len() == MAX_SERVERS
                && let Some(oldest) = self.order.pop_front()
            {
                self.known.remove(&oldest);
            }
            self.order.push_back(name.clone());
        }
        self.known.entry(name).or_default()
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").finish_non_exhaustive()
    }
}

/// The sessions of a pool as one connection has them: what is added rests on the verification of its backend.
#[derive(Clone, Debug)]
pub(super) struct OwnSessions {
    pub(super) all: Arc<Sessions>,
    pub(super) clock: Arc<dyn TimeProvider>,
    until: Arc<OnceLock<UnixTime>>,
}

impl OwnSessions {
    pub(super) fn new(all: Arc<Sessions>, clock: Arc<dyn TimeProvider>) -> OwnSessions {
        OwnSessions { all, clock, until: Arc::default() }
    }

    /// Releases the sessions of a connection whose handshake has succeeded, by the certificates that its backend has
    /// shown, now or in the session that was resumed.
    pub(super) fn rest_on(&self, trust: Option<&Trust>, chain: &[CertificateDer<'_>]) {
        let until = trust.map_or(ALWAYS, |trust| trust.holds_until(chain));
        _ = self.until.set(until);
    }

    fn now(&self) -> Option<UnixTime> {
        self.clock.current_time()
    }
}

impl ClientSessionStore for OwnSessions {
    fn set_kx_hint(&self, name: ServerName<'static>, group: NamedGroup) {
        self.all.lock().edit(name).group = Some(group);
    }

    fn kx_hint(&self, name: &ServerName<'_>) -> Option<NamedGroup> {
        self.all.lock().known.get(&name.to_owned())?.group
    }

    fn set_tls12_session(&self, name: ServerName<'static>, session: Tls12ClientSessionValue) {
        self.all.lock().edit(name).tls12 = Some(Held { session, until: self.until.clone() });
    }

    fn tls12_session(&self, name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        let now = self.now()?;
        let mut servers = self.all.lock();
        let held = servers.known.get_mut(&name.to_owned())?.tls12.as_mut().filter(|held| held.holds(now))?;
        Some(held.session.clone())
    }

    fn remove_tls12_session(&self, name: &ServerName<'static>) {
        if let Some(server) = self.all.lock().known.get_mut(name) {
            server.tls12 = None;
        }
    }

    fn insert_tls13_ticket(&self, name: ServerName<'static>, session: Tls13ClientSessionValue) {
        let mut servers = self.all.lock();
        let tickets = &mut servers.edit(name).tls13;
        if tickets.len() == MAX_TICKETS {
            tickets.pop_front();
        }
        tickets.push_back(Held { session, until: self.until.clone() });
    }

    fn take_tls13_ticket(&self, name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        let now = self.now()?;
        let mut servers = self.all.lock();
        let tickets = &mut servers.known.get_mut(name)?.tls13;
        // The newest; what ends sooner than that may be of another backend of the same name.
        let place = tickets.iter().rposition(|held| held.holds(now))?;
        tickets.remove(place).map(|held| held.session)
    }
}
