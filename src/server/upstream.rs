//! What a backend's connection begins with: a PROXY header, the protocol's request for TLS, TLS.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use super::connection::{ConnectionId, Preamble};
use super::peek::write_all;
use super::transport::{BackendConn, ClientConn, Conn};
use crate::config::model::{SendProxy, StartTls};
use crate::net::addr::ClientAddr;
use crate::pool;
use crate::relay::Stream;
use crate::sniff::postgres;
use crate::sniff::proxy_protocol::{ClientCertificate, Ends, Outgoing, TlsFacts};
use crate::tls::{BackendName, Connector, HandshakeError, Negotiated, TlsError};
use crate::worker::{self, Socket, poll_fn};

/// The name that the backend's certificate must have for this client.
fn name(connector: &Connector, backend: &pool::Backend, origin: &Origin<'_>) -> Result<BackendName, UpstreamError> {
    let asked = origin.preamble.and_then(|preamble| preamble.server_name.as_deref());
    if let (true, Conn::Tls(_), Some(asked)) = (connector.takes_clients_name(), origin.client, asked) {
        return BackendName::parse(asked).ok_or_else(|| UpstreamError::ClientsName(asked.to_owned()));
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
}

/// Makes a connected socket a backend that takes a client's bytes.
pub(super) async fn handshake(
    socket: Socket,
    backend: &pool::Backend,
    connector: Option<&Connector>,
    origin: &Origin<'_>,
    deadline: Instant,
) -> Result<BackendConn, UpstreamError> {
    if let Some(version) = backend.settings().send_proxy {
        let header = origin.header(version);
        // A fresh socket has room for it.
        by(deadline, write_all(&socket, &header)).await?.map_err(UpstreamError::Io)?;
    }
    let (Some(connector), Some(rules)) = (connector, &backend.settings().tls) else { return Ok(Conn::Plain(socket)) };
    if let Some(StartTls::Postgres) = rules.starttls {
        by(deadline, ask_postgres(&socket)).await??;
    }
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
            UpstreamError::Answer(byte) => {
                write!(f, "answers the request for TLS by byte 0x{byte:02x}, as PostgreSQL never does")
            }
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
            authority: self.preamble.and_then(|preamble| preamble.server_name.as_deref()),
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
