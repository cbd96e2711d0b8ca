//! The login of a MySQL client, with TLS on either side: reads, writes and handshakes for [`mysql::login`](crate::mysql::login).

use std::task::Poll;
use std::time::Instant;

use zeroize::Zeroize;

use super::connection::ConnectionState;
use super::dial;
use super::lingering_close::{LingerLimit, lingering_close};
use super::peek::{after, memory_claim, write_all};
use super::preamble;
use super::record::Record;
use super::transport::{BackendConn, ClientConn, Conn};
use super::upstream::{self, Origin, ReceivedGreeting, UpstreamError};
use super::worker_state::SessionHandle;
use crate::config::model::{Plaintext, Sniff, StartTls};
use crate::limits::MemoryExhausted;
use crate::mysql::auth::encrypted_password;
use crate::mysql::login::{Login, LoginFault, LoginRules, LoginStep, ServerLink, Speaker};
use crate::net::addr::ClientAddr;
use crate::pool::Lease;
use crate::relay::Stream;
use crate::sniff::queries::MysqlLogin;
use crate::stats::latency::Stage;
use crate::stats::termination::{Side, Termination};
use crate::worker::{self, poll_fn};

/// Why a client is not served; once a MySQL client has had its greeting, the number of the packet that it expects.
pub(super) struct Unserved {
    pub(super) ending: Termination,
    pub(super) sequence: Option<u8>,
}

impl Unserved {
    /// Before anything was said to it.
    pub(super) fn ungreeted(ending: Termination) -> Unserved {
        Unserved { ending, sequence: None }
    }
}

/// Both sides, until the login is over.
struct LoginSession<'s> {
    client: &'s mut Option<ClientConn>,
    backend: &'s mut Option<BackendConn>,
    record: &'s mut Record,
    login: Login,
}

/// Relays a login as far as to the server's OK or error. A client reads what ends it before, where it reads errors.
/// What follows is watched from there on.
pub(super) async fn log_in(
    received: Box<ReceivedGreeting>,
    client: &mut Option<ClientConn>,
    backend: &mut Option<BackendConn>,
    record: &mut Record,
    handle: &SessionHandle,
) -> Result<(), Unserved> {
    let rules = rules(&record.connection, backend.as_ref());
    let mut login = Login::new(&received.body, &received.greeting, rules, encrypted_password);
    if record.listener().config().sniff == Sniff::Mysql {
        login.keep_request();
    }
    login.from_client(record.take_peeked().as_slice());
    record.took_first_byte(received.took);
    let mut session = LoginSession { client, backend, record, login };
    let ended = handle.unless_aborted(session.run()).await;
    let unserved = |ending| Unserved { ending, sequence: Some(session.login.next_to_client()) };
    ended.unwrap_or_else(Err).map_err(unserved)?;
    let LoginSession { record, login, .. } = session;
    if let Some(login) = login.request_body().and_then(|request| MysqlLogin::read(&received.body, request)) {
        record.state.database_sessions.begin(record.connection.id).set_login(login);
    }
    Ok(())
}

/// What TLS and unix sockets make of the two sides.
fn rules(connection: &ConnectionState, backend: Option<&BackendConn>) -> LoginRules {
    let config = connection.listener.config();
    let tls = config.tls.as_ref().filter(|_| config.server_speaks_first());
    let lease = connection.lease();
    let settings = lease.as_ref().map(|lease| lease.backend().settings());
    let starttls = settings.and_then(|settings| settings.tls.as_ref()).and_then(|rules| rules.starttls);
    LoginRules {
        offers_tls: tls.is_some(),
        allows_plain: tls.is_none_or(|tls| tls.plaintext == Plaintext::Allow),
        client_is_local: connection.client.get() == ClientAddr::Unix,
        server: match backend {
            _ if starttls == Some(StartTls::Mysql) => ServerLink::Tls,
            Some(conn) if conn.is_unix() => ServerLink::Local,
            _ => ServerLink::Plain,
        },
    }
}

impl LoginSession<'_> {
    async fn run(&mut self) -> Result<(), Termination> {
        let mut memory = memory_claim();
        let mut deadline = None;
        loop {
            match self.login.step() {
                LoginStep::Read(speaker) => {
                    let deadline = *deadline.get_or_insert_with(|| self.deadline());
                    self.read(speaker, deadline).await?;
                    if memory.resize(self.login.buffered()).is_err() {
                        self.log_refusal(&MemoryExhausted);
                        return Err(Termination::OutOfResources);
                    }
                    continue;
                }
                LoginStep::ToClient(bytes) => {
                    let Some(client) = self.client.as_ref() else { return Err(Termination::InternalError) };
                    let deadline = after(self.record.listener().config().timeouts.handshake);
                    let sent = worker::until(deadline, write_all(client, &bytes)).await;
                    sent.ok_or(Termination::LoginTimeout(Side::Client))?
                        .map_err(|_| Termination::Reset(Side::Client))?;
                    self.record.passed(0, bytes.len() as u64);
                }
                LoginStep::ToServer(bytes) => {
                    let Some(backend) = self.backend.as_ref() else { return Err(Termination::InternalError) };
                    let deadline = after(self.record.listener().config().timeouts.handshake);
                    let sent = worker::until(deadline, write_all(backend, &bytes)).await;
                    sent.ok_or(Termination::LoginTimeout(Side::Backend))?
                        .map_err(|_| Termination::Reset(Side::Backend))?;
                    self.record.passed(bytes.len() as u64, 0);
                }
                LoginStep::ClientTls(beginning) => {
                    let Some(Conn::Plain(socket)) = self.client.take() else { return Err(Termination::InternalError) };
                    let connection = &*self.record.connection;
                    *self.client = Some(preamble::accept_tls(connection, socket, &beginning).await?);
                }
                LoginStep::ServerTls => self.secure_backend().await?,
                LoginStep::Done => {
                    self.warn_of_clear_text();
                    return Ok(());
                }
                LoginStep::Refused(fault, answer) => return Err(self.refuse(fault, answer).await),
            }
            deadline = None;
        }
    }

    /// Until when the next packet must have come, and how the connection ends otherwise.
    fn deadline(&self) -> Option<Instant> {
        let timeouts = &self.record.listener().config().timeouts;
        after(if self.login.awaits_first_packet() { timeouts.sniff } else { timeouts.handshake })
    }

    /// Reads from the side that has something to say.
    async fn read(&mut self, speaker: Speaker, deadline: Option<Instant>) -> Result<(), Termination> {
        let (Some(client), Some(backend)) = (self.client.as_ref(), self.backend.as_ref()) else {
            return Err(Termination::InternalError);
        };
        let connection = &*self.record.connection;
        let login = &mut self.login;
        let too_slow = match speaker {
            Speaker::Client if login.awaits_first_packet() => Termination::PreambleTimeout,
            Speaker::Client => Termination::LoginTimeout(Side::Client),
            Speaker::Server => Termination::LoginTimeout(Side::Backend),
        };
        let reading = poll_fn(|_| {
            let mut part = [0; 4096];
            if let Poll::Ready(read) = backend.poll_read(&mut part) {
                return Poll::Ready(match read {
                    Ok(0) => Err(Termination::Closed(Side::Backend)),
                    Ok(count) => {
                        login.from_server(&part[..count]);
                        Ok(())
                    }
                    Err(_) => Err(Termination::Reset(Side::Backend)),
                });
            }
            if let Poll::Ready(read) = client.poll_read(&mut part) {
                return Poll::Ready(match read {
                    Ok(0) => Err(Termination::Closed(Side::Client)),
                    Ok(count) => {
                        connection.set_sent(true);
                        login.from_client(&part[..count]);
                        // It may be a password.
                        part.zeroize();
                        Ok(())
                    }
                    Err(_) => Err(Termination::Reset(Side::Client)),
                });
            }
            Poll::Pending
        });
        worker::until(deadline, reading).await.ok_or(too_slow)?
    }

    /// TLS to the backend, which has got the request for it. The client has the backend's greeting: no other one can take its place.
    async fn secure_backend(&mut self) -> Result<(), Termination> {
        let (Some(client), Some(Conn::Plain(socket))) = (self.client.as_ref(), self.backend.take()) else {
            return Err(Termination::InternalError);
        };
        let (connection, state) = (&*self.record.connection, &self.record.state);
        let pool = connection.pool();
        let connector = state.plane.connector(pool.id());
        let Some(backend) = connection.lease().as_ref().map(|lease| lease.backend().clone()) else {
            return Err(Termination::InternalError);
        };
        let started = Instant::now();
        let timeout = backend.settings().connect_timeout;
        let secured = match (connector.as_deref(), &backend.settings().tls) {
            (Some(connector), Some(rules)) => {
                let origin = Origin::of(connection, client);
                upstream::start_tls(socket, &backend, connector, rules, &origin, worker::now() + timeout).await
            }
            // A reload has replaced it.
            _ => Err(UpstreamError::Closed),
        };
        let took = started.elapsed();
        match secured {
            Ok(conn) => {
                backend.record_connect(self.record.connect.unwrap_or(took));
                state.measure_backend(backend.id(), Stage::TlsHandshake, took);
                backend.counters().handshakes().add(conn.is_resumed());
                *self.backend = Some(conn);
                self.record.backend_handshake = Some(took);
                Ok(())
            }
            Err(error) => {
                let listener = &connection.listener;
                Err(dial::fail_late(listener, pool, &backend, error, took, &mut self.record.attempts))
            }
        }
    }

    /// Says in the log and to the client why its login cannot go on.
    async fn refuse(&self, fault: LoginFault, answer: Option<Vec<u8>>) -> Termination {
        let ending = match fault {
            LoginFault::NoTls => Termination::NotTls,
            LoginFault::Sha256ToPlainServer | LoginFault::Sha256OfPlainClient | LoginFault::PlainPassword => {
                Termination::AuthMethodRefused
            }
            _ => match fault.of() {
                Speaker::Client => Termination::LoginProtocolError(Side::Client),
                Speaker::Server => Termination::LoginProtocolError(Side::Backend),
            },
        };
        match fault.of() {
            Speaker::Client => self.log_refusal(&fault),
            Speaker::Server => self.warn_of_backend(&fault),
        }
        if let (Some(client), Some(answer)) = (self.client.as_ref(), answer) {
            lingering_close(client, &answer, LingerLimit::SHORT).await;
        }
        ending
    }

    fn log_refusal(&self, why: &dyn std::fmt::Display) {
        self.record.listener().log_refusal(self.record.connection.client.get(), why);
    }

    fn warn_of_backend(&self, fault: &LoginFault) {
        let lease = self.record.connection.lease();
        let Some(backend) = lease.as_ref().map(Lease::backend) else { return };
        let reason = fault.to_string();
        if let Some(more) = backend.failed_connects().admit(worker::now(), &reason) {
            let (pool, backend) = (self.record.connection.pool().name(), backend.name());
            tracing::warn!(%pool, %backend, %reason, more, "login failed");
        }
    }

    fn warn_of_clear_text(&self) {
        let Some(method) = self.login.clear_text_method() else { return };
        let listener = self.record.listener();
        let pool = self.record.connection.pool();
        if let Some(more) = listener.refusals().admit(worker::now(), &(pool.id(), method)) {
            let (listener, pool) = (&listener.config().name, pool.name());
            tracing::warn!(%listener, %pool, %method, more, "a password goes to a backend in clear text: set pools[].tls");
        }
    }
}
