//! What a listener needs to terminate TLS.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ProducesTickets};
use rustls::time_provider::TimeProvider;
use rustls::{Error, ServerConfig};

use super::certificate::{Certificate, Facts};
use super::certificates::Certificates;
use super::clock::{SystemClock, since_1970};
use super::engine::{self, ServerEngine};
use super::explain::{TlsError, explain};
use super::files::LoadError;
use super::provider::{provider, versions};
use super::reload::{Look, Now, Outcome, Piece, Standing};
use super::sources;
use super::stream::TlsStream;
use super::tickets::{Bound, BoundVerifier, Tickets};
use super::verify::ClientVerifier;
use crate::config::model::{CertificateFiles, ListenerTls, StartTls};
use crate::worker::Socket;

/// Tickets after a full handshake of TLS 1.3. A client uses each once (RFC 8446, C.4), so that one that opens
/// two connections at a time needs two; each costs an encryption of a few hundred bytes.
const TICKETS: usize = 2;

/// What libpq offers, and demands when it speaks TLS at once: the protocol's name at IANA.
const POSTGRES: &[u8] = b"postgresql";

/// TLS of one listener. Connections read what is in service; a change of files replaces it.
pub struct Acceptor {
    name: Arc<str>,
    tls: ListenerTls,
    serving: ArcSwap<Serving>,
    files: Mutex<Sources>,
    standing: ArcSwap<Standing>,
    clock: Arc<dyn TimeProvider>,
}

/// What is in service at a listener.
#[derive(Debug)]
struct Serving {
    certificates: Arc<Certificates>,
    clients: Clients,
}

/// What there is to know of a connection's client.
#[derive(Debug)]
enum Clients {
    /// Nothing: all connections share this.
    Unverified(Arc<ServerConfig>),
    /// Who it is. A session holds no longer than that does, so that each connection has a configuration of its own.
    Verified(Recipe, Arc<ClientVerifier>),
}

/// What configurations are made from.
#[derive(Clone, Debug)]
struct Recipe {
    tls: ListenerTls,
    certificates: Arc<Certificates>,
    ticket_keys: Option<Arc<dyn ProducesTickets>>,
    clock: Arc<dyn TimeProvider>,
}

impl Serving {
    /// The configuration of one connection.
    ///
    /// # Errors
    /// rustls takes no such configuration.
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

struct Sources {
    certificates: Vec<Piece<Certificate>>,
    verifier: Option<Piece<Arc<ClientVerifier>>>,
    ticket_keys: Option<Arc<dyn ProducesTickets>>,
}

impl Sources {
    fn facts(&self) -> Vec<Facts> {
        self.certificates.iter().map(|piece| piece.get().facts.clone()).collect()
    }

    fn faults(&self) -> Vec<String> {
        self.certificates.iter().flat_map(Piece::faults).chain(self.verifier.iter().flat_map(Piece::faults)).collect()
    }
}

impl Acceptor {
    /// Reads the files and puts them in service; `name` is the listener's, for the log.
    ///
    /// # Errors
    /// What is wrong with the files.
    pub fn new(name: &str, tls: &ListenerTls) -> Result<Acceptor, LoadError> {
        Acceptor::with_clock(name, tls, Arc::new(SystemClock))
    }

    pub(super) fn with_clock(
        name: &str,
        tls: &ListenerTls,
        clock: Arc<dyn TimeProvider>,
    ) -> Result<Acceptor, LoadError> {
        let now = Now::read();
        let load = |files: &CertificateFiles| sources::certificate(files, now);
        let files = Sources {
            certificates: tls.certificates.iter().map(load).collect::<Result<_, _>>()?,
            verifier: tls.client_auth.as_ref().map(|auth| sources::client_verifier(auth, now)).transpose()?,
            ticket_keys: ticket_keys(tls)?,
        };
        let serving = ArcSwap::from_pointee(serve(tls, &files, &clock)?);
        let standing = ArcSwap::from_pointee(Standing { facts: files.facts(), ..Standing::default() });
        Ok(Acceptor { name: name.into(), tls: tls.clone(), serving, files: Mutex::new(files), standing, clock })
    }

    /// The listener's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// TLS with a client, from which `ahead` was read already. Its handshake is still to be completed.
    ///
    /// # Errors
    /// rustls takes no such configuration.
    pub fn accept(&self, socket: Socket, ahead: Vec<u8>) -> Result<Box<TlsStream<ServerEngine>>, TlsError> {
        let engine = engine::server(self.serving.load().config()?)?;
        Ok(Box::new(TlsStream::new(socket, engine, ahead)))
    }

    /// The configuration of a connection that begins now.
    #[cfg(test)]
    pub(super) fn current(&self) -> Arc<ServerConfig> {
        self.serving.load().config().unwrap()
    }

    /// Whether a certificate is for the name a client asks for. A client that asks for none is not known.
    pub fn knows(&self, name: Option<&str>) -> bool {
        self.serving.load().knows(name)
    }

    /// How the files stand.
    pub fn standing(&self) -> Arc<Standing> {
        self.standing.load_full()
    }

    pub(super) fn paths(&self) -> Vec<std::path::PathBuf> {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let certificates = files.certificates.iter().flat_map(Piece::paths);
        certificates.chain(files.verifier.iter().flat_map(Piece::paths)).cloned().collect()
    }

    /// Looks whether files have changed. What is new and good goes into service, what is not is logged; one bad
    /// certificate does not keep back another good one.
    pub fn refresh(&self, now: Now) -> Outcome {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let owner = format!("listener {}", self.name);
        let looks: Vec<Look> = files.certificates.iter_mut().map(|piece| piece.refresh(now)).collect();
        let verifier = files.verifier.as_mut().map(|piece| piece.refresh(now));
        let is_new = |look: &Look| matches!(look, Look::Replaced(_));
        if verifier.as_ref().is_some_and(is_new) {
            // A ticket says that its client was verified, and that was by the authorities of before.
            files.ticket_keys = ticket_keys(&self.tls).unwrap_or_else(|failure| {
                tracing::error!(owner, %failure, "TLS: session tickets are given no more");
                None
            });
        }
        if looks.iter().chain(&verifier).any(is_new) {
            match serve(&self.tls, &files, &self.clock) {
                Ok(serving) => self.serving.store(Arc::new(serving)),
                Err(failure) => tracing::error!(owner, %failure, "TLS: new files cannot be put in service"),
            }
        }
        // Only now: what the log calls replaced is in service.
        let certificates = looks.iter().zip(&files.certificates);
        let mut outcomes: Vec<Outcome> =
            certificates.map(|(look, piece)| look.log(&owner, Some(&piece.get().facts), now.wall)).collect();
        outcomes.extend(verifier.iter().map(|look| look.log(&owner, None, now.wall)));
        self.standing.store(Arc::new(self.standing.load().after(&outcomes, files.facts(), files.faults())));
        Outcome::worst(&outcomes)
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Keys of this listener alone: a ticket of one that asks for no certificate must not open one that does. They
/// live in memory, and are replaced every six hours.
fn ticket_keys(tls: &ListenerTls) -> Result<Option<Arc<dyn ProducesTickets>>, LoadError> {
    let no_key = |failure: Error| {
        let why = explain(&failure);
        LoadError::of(format!("no key for session tickets: {why}"), "session_tickets: false does without")
    };
    // The keys are replaced by a clock that panics before 1970.
    let is_on = tls.session_tickets && since_1970().is_some();
    is_on.then(Ticketer::new).transpose().map_err(no_key)
}

fn serve(tls: &ListenerTls, files: &Sources, clock: &Arc<dyn TimeProvider>) -> Result<Serving, LoadError> {
    let certificates = Arc::new(Certificates::new(files.certificates.iter().map(|piece| piece.get().as_ref())));
    let recipe = Recipe {
        tls: tls.clone(),
        certificates: certificates.clone(),
        ticket_keys: files.ticket_keys.clone(),
        clock: clock.clone(),
    };
    let verifier = files.verifier.as_ref().map(|piece| piece.get().as_ref().clone());
    // Also where each connection gets its own: a failure shows now, not at the first client.
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
        let Recipe { tls, certificates, ticket_keys, clock } = self;
        let bound = Bound::new();
        let builder = ServerConfig::builder_with_details(provider(), clock.clone())
            .with_protocol_versions(versions(tls.min_version))?;
        let builder = match verifier {
            Some(verifier) => {
                let (verifier, bound) = (verifier.clone(), bound.clone());
                let bound: Arc<dyn ClientCertVerifier> = Arc::new(BoundVerifier { verifier, bound });
                builder.with_client_cert_verifier(bound)
            }
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(certificates.clone());
        config.alpn_protocols = match (tls.starttls, tls.alpn.is_empty()) {
            (Some(StartTls::Postgres), true) => vec![POSTGRES.to_vec()],
            _ => tls.alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect(),
        };
        // The order of suites is ours, as scanners demand it; all of them are good.
        config.ignore_client_order = true;
        // Early data can be replayed (RFC 8446, 8), and a balancer cannot know what may be.
        config.max_early_data_size = 0;
        // Sessions live in tickets or not at all: no state of clients here, and no lock between workers.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = if ticket_keys.is_some() { TICKETS } else { 0 };
        if let Some(keys) = ticket_keys {
            config.ticketer = Arc::new(Tickets { keys: keys.clone(), bound, clock: clock.clone() });
        }
        Ok(Arc::new(config))
    }
}
