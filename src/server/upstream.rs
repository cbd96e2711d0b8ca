//! What a backend's connection begins with: a PROXY header, the protocol's request for TLS, TLS.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use super::ahead::write_all;
use super::opening::Opened;
use super::peer::{Backend, Client, Peer};
use crate::config::model::{self, SendProxy, StartTls};
use crate::net::addr::ClientAddr;
use crate::pool;
use crate::relay::Stream;
use crate::sniff::postgres;
use crate::sniff::proxy_protocol::{ClientCertificate, Ends, Outgoing, TlsFacts};
use crate::tls::{BackendName, Connector, HandshakeError, Negotiated, TlsError};
use crate::worker::{self, Socket, poll_fn};

/// TLS towards a pool's backends.
pub struct Upstream {
    tls: Arc<Connector>,
}

impl Upstream {
    /// For the backends of `pool`.
    ///
    /// # Errors
    /// A backend has no name that could be verified.
    pub fn new(tls: Arc<Connector>, pool: &model::Pool) -> Result<Upstream, String> {
        for backend in &pool.backends {
            match tls.backend_name(&backend.address) {
                Err(why) if !tls.takes_clients_name() => return Err(why),
                _ => {}
            }
        }
        Ok(Upstream { tls })
    }

    /// The pool's TLS.
    pub fn connector(&self) -> &Arc<Connector> {
        &self.tls
    }

    /// Whom the backend must be for this client.
    fn name(&self, backend: &pool::Backend, origin: &Origin<'_>) -> Result<BackendName, Trouble> {
        let asked = origin.opened.and_then(|opened| opened.server_name.as_deref());
        if let (true, Peer::Tls(_), Some(asked)) = (self.tls.takes_clients_name(), origin.client, asked) {
            return BackendName::parse(asked).ok_or_else(|| Trouble::ClientsName(asked.to_owned()));
        }
        self.tls.backend_name(backend.configured_address()).map_err(|_| Trouble::NoName)
    }
}

impl Origin<'_> {
    /// What to offer a backend of the protocols that its pool has (ALPN).
    ///
    /// What was agreed on with the client is what its bytes are. A client that agreed on none, though it could, speaks the
    /// protocol's oldest version: of several, none is offered, since it would not learn which the backend chose.
    fn protocols(&self, configured: &[Arc<str>]) -> Vec<Vec<u8>> {
        let agreed = match self.client {
            Peer::Tls(tls) => tls.alpn_protocol(),
            Peer::Plain(_) | Peer::Screened(_) => None,
        };
        match agreed {
            _ if configured.is_empty() => Vec::new(),
            Some(agreed) => vec![agreed],
            None if self.negotiates && configured.len() > 1 => Vec::new(),
            None => configured.iter().map(|protocol| protocol.as_bytes().to_vec()).collect(),
        }
    }
}

/// Where a connection comes from, as backends are told.
pub(super) struct Origin<'c> {
    pub(super) client: &'c Client,
    /// Its address, which a PROXY header may have named.
    pub(super) address: ClientAddr,
    pub(super) opened: Option<&'c Opened>,
    /// Whether its listener agrees on a protocol with it (ALPN).
    pub(super) negotiates: bool,
}

/// Makes a connected socket a backend that takes a client's bytes.
pub(super) async fn introduce(
    socket: Socket,
    backend: &pool::Backend,
    upstream: Option<&Upstream>,
    origin: &Origin<'_>,
    deadline: Instant,
) -> Result<Backend, Trouble> {
    if let Some(version) = backend.settings().send_proxy {
        let header = origin.header(version);
        // A fresh socket has room for it.
        by(deadline, write_all(&socket, &header)).await?.map_err(Trouble::Io)?;
    }
    let (Some(upstream), Some(rules)) = (upstream, &backend.settings().tls) else { return Ok(Peer::Plain(socket)) };
    if let Some(StartTls::Postgres) = rules.starttls {
        by(deadline, ask_postgres(&socket)).await??;
    }
    let name = upstream.name(backend, origin)?;
    let connecting = upstream.tls.connect(socket, name, origin.protocols(&rules.alpn));
    let stream = by(deadline, connecting).await?.map_err(|error| match error {
        HandshakeError::Tls(error) => Trouble::Tls(error),
        HandshakeError::Io(error) => Trouble::Io(error),
        HandshakeError::Left => Trouble::Closed,
    })?;
    Ok(Peer::Tls(stream))
}

/// Asks for TLS. The answer is one byte, and no more than that is read: what comes after it is TLS, or an error.
async fn ask_postgres(socket: &Socket) -> Result<(), Trouble> {
    write_all(socket, &postgres::SSL_REQUEST).await.map_err(Trouble::Io)?;
    let mut answer = [0];
    let count = poll_fn(|_| socket.poll_read(&mut answer)).await.map_err(Trouble::Io)?;
    match (count, answer) {
        (0, _) => Err(Trouble::Closed),
        (_, [postgres::ACCEPT_TLS]) => Ok(()),
        (_, [postgres::REFUSE]) => Err(Trouble::NoTls),
        (_, [b'E']) => Err(Trouble::Error),
        (_, [byte]) => Err(Trouble::Answer(byte)),
    }
}

async fn by<T>(deadline: Instant, what: impl Future<Output = T>) -> Result<T, Trouble> {
    worker::until(Some(deadline), what).await.ok_or(Trouble::TooSlow)
}

/// Why a backend that took the connection cannot have the client's bytes.
pub(super) enum Trouble {
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

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Io(error) => error.fmt(f),
            Trouble::TooSlow => f.write_str("timed out in its TLS handshake"),
            Trouble::Closed => f.write_str("closed the connection instead of a TLS handshake"),
            Trouble::Tls(error) => {
                write!(f, "TLS handshake failed: {error}")?;
                error.remedy("the pool's tls.ca").map_or(Ok(()), |remedy| write!(f, "; {remedy}"))
            }
            Trouble::ClientsName(name) => {
                write!(f, "the client asks for {}, which no certificate could be for", name.escape_debug())
            }
            Trouble::NoName => f.write_str("the client asks for no server name, and a unix socket has none either"),
            Trouble::NoTls => f.write_str("refuses TLS (PostgreSQL: ssl = off)"),
            // Its words are not read: anybody on the way could have put them there (CVE-2024-10977).
            Trouble::Error => f.write_str(
                "answers the request for TLS by an error, as PostgreSQL does when it cannot start a process for it",
            ),
            Trouble::Answer(byte) => {
                write!(f, "answers the request for TLS by byte 0x{byte:02x}, as PostgreSQL never does")
            }
        }
    }
}

impl Origin<'_> {
    fn header(&self, version: SendProxy) -> Vec<u8> {
        let named = self.opened.and_then(|opened| opened.destination);
        let ends = match self.address {
            ClientAddr::Tcp(source) => {
                named.or_else(|| local_address(self.client)).map(|destination| Ends { source, destination })
            }
            ClientAddr::Unix => None,
        };
        let id = self.opened.and_then(|opened| opened.id).map(|id| format!("{id:016x}"));
        let outgoing = Outgoing {
            client: ends,
            authority: self.opened.and_then(|opened| opened.server_name.as_deref()),
            unique_id: id.as_deref().map(str::as_bytes),
            ..Outgoing::default()
        };
        match (version, self.client) {
            (SendProxy::V1, _) => outgoing.v1(),
            (SendProxy::V2, Peer::Plain(_) | Peer::Screened(_)) => outgoing.v2(),
            (SendProxy::V2, Peer::Tls(tls)) => with_tls(outgoing, &tls.negotiated()),
        }
    }
}

fn with_tls(outgoing: Outgoing<'_>, negotiated: &Negotiated) -> Vec<u8> {
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
    let tls = TlsFacts { version: negotiated.version, cipher: &negotiated.cipher_suite, certificate };
    Outgoing { alpn: negotiated.alpn.as_deref(), tls: Some(tls), ..outgoing }.v2()
}

fn local_address(socket: &impl AsFd) -> Option<SocketAddr> {
    rustix::net::getsockname(socket).ok()?.try_into().ok()
}
