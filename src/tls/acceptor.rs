//! TLS termination at a listener: SNI, ALPN, mTLS, session tickets.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::{NoServerSessionStorage, ProducesTickets, ServerSessionMemoryCache, StoresServerSessions};
use rustls::time_provider::TimeProvider;
use rustls::{Error, ServerConfig};

use super::certificate::{Certificate, CertificateInfo};
use super::certificates::Certificates;
use super::clock::{SystemClock, since_1970};
use super::engine::{self, ServerEngine};
use super::explain::{TlsError, explain};
use super::files::LoadError;
use super::provider::{provider, versions};
use super::reload::{PollOutcome, PollTime, ReloadOutcome, ReloadStatus, ReloadableFiles};
use super::sources;
use super::stream::TlsStream;
use super::tickets::{ResumptionDeadline, SessionCache, SessionLimit, Tickets};
use super::verify::{BoundVerifier, ClientVerifier};
use crate::config::model::{CertificateFiles, ClientAuth, ListenerTls, StartTls, UnknownSni};
use crate::worker::Socket;

/// Tickets after a full handshake of TLS 1.3. A client uses each once (RFC 8446, C.4), so that one that opens
/// two connections at a time needs two; each costs an encryption of a few hundred bytes.
const TICKETS: usize = 2;

/// The ALPN protocol of PostgreSQL. libpq offers it, and requires it with `sslnegotiation=direct`.
const POSTGRES: &[u8] = b"postgresql";

/// TLS of one listener. A reload replaces what connections use.
pub struct Acceptor {
    name: Arc<str>,
    /// For the log.
    owner: String,
    tls: ListenerTls,
    serving: ArcSwap<Serving>,
    files: Mutex<AcceptorFiles>,
    reload_status: ArcSwap<ReloadStatus>,
    clock: Arc<dyn TimeProvider>,
}

/// What is in service at a listener.
#[derive(Debug)]
struct Serving {
    certificates: Arc<Certificates>,
    clients: Clients,
}

/// Verification of clients (mTLS).
#[derive(Debug)]
enum Clients {
    /// None: all connections share this.
    Unverified(Arc<ServerConfig>),
    /// By certificate. A session lasts no longer than its certificate, so that each connection has its own configuration.
    Verified(Recipe, Arc<ClientVerifier>),
}

/// The inputs of a configuration.
#[derive(Clone, Debug)]
struct Recipe {
    tls: ListenerTls,
    certificates: Arc<Certificates>,
    ticket_keys: Option<Arc<dyn ProducesTickets>>,
    session_cache: Option<Arc<dyn StoresServerSessions>>,
    clock: Arc<dyn TimeProvider>,
}

impl Serving {
    /// The configuration of one connection.
    ///
    /// # Errors
    /// rustls rejects the configuration.
    fn config(&self) -> Result<Arc<ServerConfig>, Error> {
        match &self.clients {
            Clients::Unverified(config) => Ok(config.clone()),
            Clients::Verified(recipe, verifier) => recipe.config(Some(verifier)),
        }
    }

    fn knows(&self, name: Option<&str>) -> bool {
        self.certificates.knows(name)
    }
}

struct AcceptorFiles {
    certificates: Vec<ReloadableFiles<Certificate>>,
    verifier: Option<ReloadableFiles<Arc<ClientVerifier>>>,
    ticket_keys: Option<Arc<dyn ProducesTickets>>,
    session_cache: Option<Arc<dyn StoresServerSessions>>,
}

impl AcceptorFiles {
    fn facts(&self) -> Vec<CertificateInfo> {
        self.certificates.iter().map(|files| files.get().facts.clone()).collect()
    }

    fn faults(&self) -> Vec<String> {
        self.certificates
            .iter()
            .flat_map(ReloadableFiles::faults)
            .chain(self.verifier.iter().flat_map(ReloadableFiles::faults))
            .collect()
    }
}

impl Acceptor {
    /// Reads the files and puts them in service; `name` is the listener's, for the log.
    ///
    /// # Errors
    /// The faults of the files.
    pub fn new(name: &str, tls: &ListenerTls) -> Result<Acceptor, LoadError> {
        Acceptor::with_clock(name, tls, Arc::new(SystemClock))
    }

    /// As [`Acceptor::new`], for the admin interface.
    ///
    /// # Errors
    /// The faults of the files.
    pub fn of_admin(tls: &ListenerTls) -> Result<Acceptor, LoadError> {
        Ok(Acceptor { owner: "admin".to_owned(), ..Acceptor::new("admin", tls)? })
    }

    pub(super) fn with_clock(
        name: &str,
        tls: &ListenerTls,
        clock: Arc<dyn TimeProvider>,
    ) -> Result<Acceptor, LoadError> {
        let now = PollTime::read();
        let load = |files: &CertificateFiles| sources::certificate(files, now);
        let files = AcceptorFiles {
            certificates: tls.certificates.iter().map(load).collect::<Result<_, _>>()?,
            verifier: tls
                .client_auth
                .as_ref()
                .and_then(ClientAuth::verified)
                .map(|clients| sources::client_verifier(clients, now))
                .transpose()?,
            ticket_keys: ticket_keys(tls)?,
            session_cache: session_cache(tls),
        };
        let serving = ArcSwap::from_pointee(serve(tls, &files, &clock)?);
        let reload_status = ArcSwap::from_pointee(ReloadStatus { facts: files.facts(), ..ReloadStatus::default() });
        let owner = format!("listener {name}");
        let (tls, files) = (tls.clone(), Mutex::new(files));
        Ok(Acceptor { name: name.into(), owner, tls, serving, files, reload_status, clock })
    }

    /// The listener's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// TLS with a client that has sent `ahead`. The caller completes the handshake.
    ///
    /// # Errors
    /// rustls rejects the configuration.
    pub fn accept(&self, socket: Socket, ahead: Vec<u8>) -> Result<Box<TlsStream<ServerEngine>>, TlsError> {
        let engine = engine::server(self.serving.load().config()?)?;
        Ok(Box::new(TlsStream::new(socket, engine, ahead)))
    }

    /// The configuration of a connection that begins now.
    #[cfg(test)]
    pub(super) fn current(&self) -> Arc<ServerConfig> {
        self.serving.load().config().unwrap()
    }

    /// Whether a certificate matches the server name (SNI). False without one.
    pub fn knows(&self, name: Option<&str>) -> bool {
        self.serving.load().knows(name)
    }

    /// Whether `unknown_sni` refuses a client that asks for this name.
    pub(super) fn rejects_name(&self, name: Option<&str>) -> bool {
        self.tls.unknown_sni == UnknownSni::Refuse && !self.knows(name)
    }

    /// The configuration of a connection that begins now.
    ///
    /// # Errors
    /// rustls rejects the configuration.
    pub(super) fn server_config(&self) -> Result<Arc<ServerConfig>, TlsError> {
        Ok(self.serving.load().config()?)
    }

    /// The state of the files.
    pub fn reload_status(&self) -> Arc<ReloadStatus> {
        self.reload_status.load_full()
    }

    pub(super) fn paths(&self) -> Vec<std::path::PathBuf> {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let certificates = files.certificates.iter().flat_map(ReloadableFiles::paths);
        certificates.chain(files.verifier.iter().flat_map(ReloadableFiles::paths)).cloned().collect()
    }

    /// Reloads files that changed, and logs it. A faulty certificate does not hold up the others.
    pub fn poll(&self, now: PollTime) -> ReloadOutcome {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let owner = self.owner.as_str();
        let polls: Vec<PollOutcome> = files.certificates.iter_mut().map(|files| files.poll(now)).collect();
        let verifier = files.verifier.as_mut().map(|files| files.poll(now));
        let is_new = |poll: &PollOutcome| matches!(poll, PollOutcome::Replaced(_));
        if verifier.as_ref().is_some_and(is_new) {
            // Clients with an older ticket were verified by the former authorities.
            files.ticket_keys = ticket_keys(&self.tls).unwrap_or_else(|failure| {
                tracing::error!(owner, %failure, "TLS: session tickets are given no more");
                None
            });
            files.session_cache = session_cache(&self.tls);
        }
        if polls.iter().chain(&verifier).any(is_new) {
            match serve(&self.tls, &files, &self.clock) {
                Ok(serving) => self.serving.store(Arc::new(serving)),
                Err(failure) => tracing::error!(owner, %failure, "TLS: new files cannot be put in service"),
            }
        }
        // Last, so that what is logged as replaced is in service.
        let certificates = polls.iter().zip(&files.certificates);
        let mut outcomes: Vec<ReloadOutcome> =
            certificates.map(|(poll, files)| poll.log(owner, Some(&files.get().facts), now.wall)).collect();
        outcomes.extend(verifier.iter().map(|poll| poll.log(owner, None, now.wall)));
        self.reload_status.store(Arc::new(self.reload_status.load().after(&outcomes, files.facts(), files.faults())));
        ReloadOutcome::worst(&outcomes)
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The sessions of this listener alone, for the same reason as its ticket keys.
fn session_cache(tls: &ListenerTls) -> Option<Arc<dyn StoresServerSessions>> {
    let size = usize::try_from(tls.session_cache).unwrap_or(usize::MAX);
    (size > 0).then(|| ServerSessionMemoryCache::new(size) as Arc<dyn StoresServerSessions>)
}

/// Session ticket keys of this listener alone: a ticket of a listener without mTLS must not resume at one with it. They
/// live in memory, and rotate every six hours.
fn ticket_keys(tls: &ListenerTls) -> Result<Option<Arc<dyn ProducesTickets>>, LoadError> {
    let no_key = |failure: Error| {
        let why = explain(&failure);
        LoadError::of(format!("no key for session tickets: {why}"), "session_tickets: false does without")
    };
    // The keys are replaced by a clock that panics before 1970.
    let is_on = tls.session_tickets && since_1970().is_some();
    is_on.then(Ticketer::new).transpose().map_err(no_key)
}

fn serve(tls: &ListenerTls, files: &AcceptorFiles, clock: &Arc<dyn TimeProvider>) -> Result<Serving, LoadError> {
    let certificates = Arc::new(Certificates::new(files.certificates.iter().map(|files| files.get().as_ref())));
    let recipe = Recipe {
        tls: tls.clone(),
        certificates: certificates.clone(),
        ticket_keys: files.ticket_keys.clone(),
        session_cache: files.session_cache.clone(),
        clock: clock.clone(),
    };
    let verifier = files.verifier.as_ref().map(|files| files.get().as_ref().clone());
    // Built even where each connection builds its own, so that an error shows now and not at the first client.
    let config = recipe
        .config(verifier.as_ref())
        .map_err(|failure| LoadError::of(format!("TLS cannot be set up: {}", explain(&failure)), "see min_version"))?;
    let clients = match verifier {
        Some(verifier) => Clients::Verified(recipe, verifier),
        None => Clients::Unverified(config),
    };
    Ok(Serving { certificates, clients })
}

impl Recipe {
    /// The configuration of rustls.
    fn config(&self, verifier: Option<&Arc<ClientVerifier>>) -> Result<Arc<ServerConfig>, Error> {
        let Recipe { tls, certificates, ticket_keys, session_cache, clock } = self;
        let bound = ResumptionDeadline::new();
        let builder = ServerConfig::builder_with_details(provider(), clock.clone())
            .with_protocol_versions(versions(tls.min_version, tls.max_version))?;
        let builder = match tls.client_auth {
            Some(_) => {
                let (verifier, bound) = (verifier.cloned(), bound.clone());
                builder.with_client_cert_verifier(Arc::new(BoundVerifier { verifier, bound }))
            }
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(certificates.clone());
        config.alpn_protocols = match (tls.starttls, tls.alpn.is_empty()) {
            (Some(StartTls::Postgres), true) => vec![POSTGRES.to_vec()],
            _ => tls.alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect(),
        };
        // Server preference, as scanners demand; all suites are good.
        config.ignore_client_order = true;
        // Early data (0-RTT) can be replayed (RFC 8446, 8), and a balancer cannot know which requests are safe.
        config.max_early_data_size = 0;
        // Without a cache, sessions live in tickets alone: no state per client, and no lock between workers.
        config.session_storage = match session_cache {
            Some(sessions) => Arc::new(SessionCache {
                sessions: sessions.clone(),
                limit: SessionLimit { bound: bound.clone(), clock: clock.clone() },
            }),
            None => Arc::new(NoServerSessionStorage {}),
        };
        config.send_tls13_tickets = if ticket_keys.is_some() || session_cache.is_some() { TICKETS } else { 0 };
        if let Some(keys) = ticket_keys {
            config.ticketer =
                Arc::new(Tickets { keys: keys.clone(), limit: SessionLimit { bound, clock: clock.clone() } });
        }
        Ok(Arc::new(config))
    }
}
