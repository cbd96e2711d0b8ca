//! What a backend's connection begins with: a PROXY header, the protocol's request for TLS, TLS; with MySQL, the server's greeting.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connection::{ConnectionId, ConnectionState, Preamble};
use super::peek::write_all;
use super::transport::{BackendConn, ClientConn, Conn};
use crate::config::model::{HttpVersion, PoolTls, SendProxy, StartTls};
use crate::mysql::packet::{Greeting, HEADER, split_error};
use crate::net::addr::ClientAddr;
use crate::pool;
use crate::relay::Stream;
use crate::sniff::postgres;
use crate::sniff::proxy_protocol::{ClientCertificate, Ends, Outgoing, TlsFacts};
use crate::tls::{BackendName, Connector, HandshakeError, Negotiated, TlsError};
use crate::worker::{self, Socket, poll_fn};

/// Bytes of the longest greeting. MySQL's has about 80 beside its version, MariaDB's about 110.
const MAX_GREETING: usize = 1024;

/// Names of HTTP's versions in TLS (ALPN).
const H2: &[u8] = b"h2";
const HTTP_1: &[u8] = b"http/1.1";

/// Characters of a server's error that are logged.
const MAX_TEXT: usize = 200;

/// The name that the backend's certificate must have for this client.
fn name(connector: &Connector, backend: &pool::Backend, origin: &Origin<'_>) -> Result<BackendName, UpstreamError> {
    let asked = origin.preamble.and_then(|preamble| preamble.server_name.get());
    if let (true, Conn::Tls(_), Some(asked)) = (connector.takes_clients_name(), origin.client, asked) {
        return BackendName::parse(asked).ok_or_else(|| UpstreamError::ClientsName(asked.to_string()));
    }
    connector.backend_name(backend.configured_address()).map_err(|_| UpstreamError::NoName)
}

impl Origin<'_> {
    /// What to offer a backend of the protocols that its pool has (ALPN).
    ///
    /// What was agreed on with the client is what its bytes are. A client that agreed on none, though it could, speaks the
    /// protocol's oldest version: of several, none is offered, since it would not learn which the backend chose.
    fn protocols(&self, configured: &[Arc<str>]) -> Vec<Vec<u8>> {
        let agreed = match self.client {
            Conn::Tls(tls) => tls.alpn_protocol(),
            Conn::Plain(_) | Conn::Screened(_) => None,
        };
        match agreed {
            _ if self.http.is_some() => {
                let offered = if self.http == Some(HttpVersion::Http2) { H2 } else { HTTP_1 };
                vec![offered.to_vec()]
            }
            _ if configured.is_empty() => Vec::new(),
            Some(agreed) => vec![agreed],
            None if self.negotiates && configured.len() > 1 => Vec::new(),
            None => configured.iter().map(|protocol| protocol.as_bytes().to_vec()).collect(),
        }
    }
}

/// Where a connection comes from, as its PROXY header and TLS say to the backend.
pub(super) struct Origin<'c> {
    pub(super) client: &'c ClientConn,
    /// Its address, which a PROXY header may have named.
    pub(super) address: ClientAddr,
    pub(super) id: ConnectionId,
    pub(super) preamble: Option<&'c Preamble>,
    /// Whether its listener agrees on a protocol with it (ALPN).
    pub(super) negotiates: bool,
    /// Whether its listener verifies certificates of clients.
    pub(super) verifies: bool,
    /// Whether its listener terminates the TLS of MySQL.
    pub(super) is_mysql: bool,
    /// Whether it is one stream of several on the client's connection, which another task waits for.
    pub(super) is_stream: bool,
    /// The version of HTTP that requests are forwarded in. `None` relays what the client sends.
    pub(super) http: Option<HttpVersion>,
}

/// A backend that takes a client's bytes.
pub(super) struct Upstream {
    pub(super) backend: BackendConn,
    /// The TLS handshake.
    pub(super) handshake: Option<Duration>,
    /// Where the client's login is rewritten: the server's greeting.
    pub(super) greeting: Option<Box<ReceivedGreeting>>,
}

/// The greeting of a MySQL server.
pub(super) struct ReceivedGreeting {
    /// The packet's body.
    pub(super) body: Vec<u8>,
    pub(super) greeting: Greeting,
    /// Time from the connect until it came.
    pub(super) took: Duration,
}

/// Makes a connected socket a backend that takes a client's bytes.
pub(super) async fn handshake(
    socket: Socket,
    backend: &pool::Backend,
    connector: Option<&Connector>,
    origin: &Origin<'_>,
    deadline: Instant,
) -> Result<Upstream, UpstreamError> {
    if let Some(version) = backend.settings().send_proxy {
        let header = origin.header(version);
        // A fresh socket has room for it.
        by(deadline, write_all(&socket, &header)).await?.map_err(UpstreamError::Io)?;
    }
    let tls = connector.zip(backend.settings().tls.as_ref());
    if tls.is_none() && !origin.is_mysql {
        // Most connections: no clock is read.
        return Ok(Upstream { backend: Conn::Plain(socket), handshake: None, greeting: None });
    }
    let began = Instant::now();
    let starttls = tls.and_then(|(_, rules)| rules.starttls);
    if let Some(StartTls::Postgres) = starttls {
        by(deadline, ask_postgres(&socket)).await??;
    }
    let conn = match tls {
        Some((connector, rules)) if starttls != Some(StartTls::Mysql) => {
            start_tls(socket, backend, connector, rules, origin, deadline).await?
        }
        _ => Conn::Plain(socket),
    };
    let handshake = matches!(conn, Conn::Tls(_)).then(|| began.elapsed());
    let greeting = match origin.is_mysql || starttls == Some(StartTls::Mysql) {
        true => {
            let greeted = worker::until(Some(deadline), read_greeting(&conn)).await;
            let (body, greeting) = greeted.ok_or(UpstreamError::Ungreeted)??;
            if starttls == Some(StartTls::Mysql) && !greeting.has_tls() {
                return Err(UpstreamError::NoMysqlTls);
            }
            Some(Box::new(ReceivedGreeting { body, greeting, took: began.elapsed() }))
        }
        false => None,
    };
    Ok(Upstream { backend: conn, handshake, greeting })
}

/// Whether TLS is asked for within the login of the client.
pub(super) fn has_tls_to_come(backend: &pool::Backend, greeting: Option<&ReceivedGreeting>) -> bool {
    let starttls = backend.settings().tls.as_ref().and_then(|rules| rules.starttls);
    greeting.is_some() && starttls == Some(StartTls::Mysql)
}

/// Completes a TLS handshake with a backend.
pub(super) async fn start_tls(
    socket: Socket,
    backend: &pool::Backend,
    connector: &Connector,
    rules: &PoolTls,
    origin: &Origin<'_>,
    deadline: Instant,
) -> Result<BackendConn, UpstreamError> {
    let name = name(connector, backend, origin)?;
    let connecting = connector.connect(socket, name, origin.protocols(&rules.alpn));
    let stream = by(deadline, connecting).await?.map_err(|error| match error {
        HandshakeError::Tls(error) => UpstreamError::Tls(error),
        HandshakeError::Io(error) => UpstreamError::Io(error),
        HandshakeError::Left => UpstreamError::Closed,
    })?;
    Ok(Conn::Tls(stream))
}

/// Asks for TLS. The answer is one byte, and no more than that is read: what comes after it is TLS, or an error.
async fn ask_postgres(socket: &Socket) -> Result<(), UpstreamError> {
    write_all(socket, &postgres::SSL_REQUEST).await.map_err(UpstreamError::Io)?;
    let mut answer = [0];
    let count = poll_fn(|_| socket.poll_read(&mut answer)).await.map_err(UpstreamError::Io)?;
    match (count, answer) {
        (0, _) => Err(UpstreamError::Closed),
        (_, [postgres::ACCEPT_TLS]) => Ok(()),
        (_, [postgres::REFUSE]) => Err(UpstreamError::NoTls),
        (_, [b'E']) => Err(UpstreamError::Error),
        (_, [byte]) => Err(UpstreamError::Answer(byte)),
    }
}

/// Reads a MySQL server's greeting, and no byte more.
async fn read_greeting(conn: &BackendConn) -> Result<(Vec<u8>, Greeting), UpstreamError> {
    let mut packet = Vec::new();
    let mut part = [0; 256];
    let body = loop {
        let whole = match *packet.as_slice() {
            [low, high, more, sequence, ..] => {
                let length = u32::from_le_bytes([low, high, more, 0]) as usize;
                if sequence != 0 || length == 0 || length > MAX_GREETING {
                    return Err(UpstreamError::NotMysql);
                }
                HEADER + length
            }
            _ => HEADER,
        };
        if packet.len() == whole && whole > HEADER {
            break packet.split_off(HEADER);
        }
        let room = (whole - packet.len()).min(part.len());
        match poll_fn(|_| conn.poll_read(&mut part[..room])).await.map_err(UpstreamError::Io)? {
            0 => return Err(UpstreamError::ClosedUngreeted),
            count => packet.extend_from_slice(&part[..count]),
        }
    };
    if let Some((code, message)) = split_error(&body) {
        let message = String::from_utf8_lossy(message).escape_debug().take(MAX_TEXT).collect();
        return Err(UpstreamError::MysqlRefuses(code, message));
    }
    let greeting = Greeting::read(&body).ok_or(UpstreamError::NotMysql)?;
    Ok((body, greeting))
}

async fn by<T>(deadline: Instant, what: impl Future<Output = T>) -> Result<T, UpstreamError> {
    worker::until(Some(deadline), what).await.ok_or(UpstreamError::TooSlow)
}

/// Why a backend that took the connection cannot have the client's bytes.
pub(super) enum UpstreamError {
    Io(io::Error),
    TooSlow,
    Closed,
    Tls(TlsError),
    /// The client has asked for something that is no name of a server.
    ClientsName(String),
    NoName,
    NoTls,
    Error,
    Answer(u8),
    NoMysqlTls,
    NotMysql,
    Ungreeted,
    ClosedUngreeted,
    MysqlRefuses(u16, String),
}

impl fmt::Display for UpstreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UpstreamError::Io(error) => error.fmt(f),
            UpstreamError::TooSlow => f.write_str("timed out in its TLS handshake"),
            UpstreamError::Closed => f.write_str("closed the connection instead of a TLS handshake"),
            UpstreamError::Tls(error) => {
                write!(f, "TLS handshake failed: {error}")?;
                error.remedy("the pool's tls.ca").map_or(Ok(()), |remedy| write!(f, "; {remedy}"))
            }
            UpstreamError::ClientsName(name) => {
                write!(f, "the client asks for {}, which no certificate could be for", name.escape_debug())
            }
            UpstreamError::NoName => {
                f.write_str("the client asks for no server name, and a unix socket has none either")
            }
            UpstreamError::NoTls => f.write_str("refuses TLS (PostgreSQL: ssl = off)"),
            // Its text is not read: a man in the middle could have put it there (CVE-2024-10977).
            UpstreamError::Error => f.write_str(
                "answers the request for TLS by an error, as PostgreSQL does when it cannot start a process for it",
            ),
            UpstreamError::NoMysqlTls => {
                f.write_str("offers no TLS (MySQL and MariaDB: ssl_cert and ssl_key are not set)")
            }
            UpstreamError::NotMysql => f.write_str("does not begin with a greeting of MySQL"),
            UpstreamError::Ungreeted => f.write_str("sent no greeting of MySQL within timeouts.connect"),
            UpstreamError::ClosedUngreeted => f.write_str("closed the connection instead of a greeting of MySQL"),
            UpstreamError::MysqlRefuses(code, message) => write!(f, "refuses the connection: {message} ({code})"),
            UpstreamError::Answer(byte) => {
                write!(f, "answers the request for TLS by byte 0x{byte:02x}, as PostgreSQL never does")
            }
        }
    }
}

impl<'c> Origin<'c> {
    pub(super) fn of(connection: &'c ConnectionState, client: &'c ClientConn) -> Origin<'c> {
        let listener = connection.listener.config();
        let tls = listener.tls.as_ref();
        Origin {
            client,
            address: connection.client.get(),
            id: connection.id,
            preamble: connection.preamble(),
            negotiates: tls.is_some_and(|tls| !tls.alpn.is_empty()),
            verifies: tls.and_then(|tls| tls.client_auth.as_ref()).is_some_and(|auth| auth.verified().is_some()),
            is_mysql: listener.server_speaks_first(),
            is_stream: false,
            http: None,
        }
    }
}

impl Origin<'_> {
    /// The port that the client connected to, whatever a PROXY header says; `None` for a unix socket.
    pub(super) fn port(&self) -> Option<u16> {
        local_address(self.client).map(|address| address.port())
    }

    fn header(&self, version: SendProxy) -> Vec<u8> {
        let named = self.preamble.and_then(|preamble| preamble.destination);
        let ends = match self.address {
            ClientAddr::Tcp(source) => {
                named.or_else(|| local_address(self.client)).map(|destination| Ends { source, destination })
            }
            ClientAddr::Unix => None,
        };
        let id = self.id.to_string();
        let outgoing = Outgoing {
            client: ends,
            authority: self.preamble.and_then(|preamble| preamble.server_name.get()).map(|name| &**name),
            unique_id: Some(id.as_bytes()),
            received: self.preamble.and_then(|preamble| preamble.tlvs.as_ref()),
            ..Outgoing::default()
        };
        match (version, self.client) {
            (SendProxy::V1, _) => outgoing.v1(),
            (SendProxy::V2, Conn::Plain(_) | Conn::Screened(_)) => outgoing.v2(),
            (SendProxy::V2, Conn::Tls(tls)) => with_tls(outgoing, &tls.negotiated(), self.verifies),
        }
    }
}

fn with_tls(outgoing: Outgoing<'_>, negotiated: &Negotiated, verified: bool) -> Vec<u8> {
    let certificate = match &negotiated.peer_certificate {
        None => ClientCertificate::None,
        Some(shown) => {
            let common_name = shown.common_name.as_deref();
            match negotiated.is_resumed {
                true => ClientCertificate::Resumed { common_name },
                false => ClientCertificate::Shown { common_name },
            }
        }
    };
    let tls = TlsFacts { version: negotiated.version, cipher: &negotiated.cipher_suite, certificate, verified };
    Outgoing { alpn: negotiated.alpn.as_deref(), tls: Some(tls), ..outgoing }.v2()
}

fn local_address(socket: &impl AsFd) -> Option<SocketAddr> {
    rustix::net::getsockname(socket).ok()?.try_into().ok()
}
