//! What a backend's connection begins with: a PROXY header, the protocol's request for TLS, TLS.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use rustls::pki_types::ServerName;
use rustls::{CommonState, Error, HandshakeKind};

use super::ahead::write_all;
use super::opening::Opened;
use super::peer::{Backend, Client, Peer};
use crate::config::model::{self, SendProxy, StartTls};
use crate::net::addr::ClientAddr;
use crate::pool::Pool;
use crate::relay::Stream;
use crate::sniff::postgres;
use crate::sniff::proxy_protocol::{ClientCertificate, Ends, Outgoing, TlsFacts};
use crate::tls::stream::{HandshakeError, TlsStream};
use crate::tls::{self, ClientTls, Connecting};
use crate::worker::{self, Socket, poll_fn};

/// TLS towards a pool's backends.
pub struct Upstream {
    tls: Arc<ClientTls>,
    /// Whom each backend must be, by its index. `None`: it has no name of its own, and takes the client's.
    names: Vec<Option<ServerName<'static>>>,
}

impl Upstream {
    /// For the backends of `pool`.
    ///
    /// # Errors
    /// A backend has no name that could be verified.
    pub fn new(tls: Arc<ClientTls>, pool: &Pool) -> Result<Upstream, String> {
        let name = |backend: &model::Backend| match tls.server_name(&backend.address) {
            Ok(name) => Ok(Some(name)),
            Err(_) if tls.takes_clients_name() => Ok(None),
            Err(why) => Err(why),
        };
        let names = pool.config().backends.iter().map(name).collect::<Result<_, _>>()?;
        Ok(Upstream { tls, names })
    }

    /// Whom the backend must be for this client.
    fn name(&self, backend: usize, origin: &Origin<'_>) -> Result<ServerName<'static>, Trouble> {
        let asked = origin.opened.and_then(|opened| opened.server_name.as_deref());
        if let (true, Peer::Tls(_), Some(asked)) = (self.tls.takes_clients_name(), origin.client, asked) {
            return ServerName::try_from(asked.to_owned()).map_err(|_| Trouble::ClientsName(asked.to_owned()));
        }
        self.names.get(backend).cloned().flatten().ok_or(Trouble::NoName)
    }
}

impl Origin<'_> {
    /// What to offer a backend of the protocols that its pool has (ALPN).
    ///
    /// What was agreed on with the client is what its bytes are. A client that agreed on none, though it could, speaks the
    /// protocol's oldest version: of several, none is offered, since it would not learn which the backend chose.
    fn protocols(&self, configured: &[Arc<str>]) -> Vec<Vec<u8>> {
        let agreed = match self.client {
            Peer::Tls(tls) => tls.with_common(|common| common.alpn_protocol().map(<[u8]>::to_vec)),
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
    pool: &Pool,
    backend: usize,
    upstream: Option<&Upstream>,
    origin: &Origin<'_>,
    deadline: Instant,
) -> Result<Backend, Trouble> {
    if let Some(version) = pool.config().send_proxy {
        let header = origin.header(version);
        // A fresh socket has room for it.
        by(deadline, write_all(&socket, &header)).await?.map_err(Trouble::Io)?;
    }
    let (Some(upstream), Some(rules)) = (upstream, &pool.config().tls) else { return Ok(Peer::Plain(socket)) };
    if let Some(StartTls::Postgres) = rules.starttls {
        by(deadline, ask_postgres(&socket)).await??;
    }
    let name = upstream.name(backend, origin)?;
    let Connecting { engine, verified } =
        upstream.tls.connect(name, origin.protocols(&rules.alpn)).map_err(Trouble::Tls)?;
    let stream = Box::new(TlsStream::new(socket, engine, Vec::new()));
    by(deadline, stream.handshake()).await?.map_err(|error| match error {
        HandshakeError::Tls(error) => Trouble::Tls(error),
        HandshakeError::Io(error) => Trouble::Io(error),
        HandshakeError::Left => Trouble::Closed,
    })?;
    stream.with_common(|common| verified.established(common));
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
    Tls(Error),
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
                write!(f, "TLS handshake failed: {}", tls::explain(error))?;
                tls::remedy(error, "the pool's tls.ca").map_or(Ok(()), |remedy| write!(f, "; {remedy}"))
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
            (SendProxy::V2, Peer::Tls(tls)) => tls.with_common(|common| with_tls(outgoing, common)),
        }
    }
}

fn with_tls(outgoing: Outgoing<'_>, common: &CommonState) -> Vec<u8> {
    let version = match common.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
        _ => "TLSv1.2",
    };
    // rustls tells the suites of TLS 1.3 from others by a name of its own; IANA's is the one that backends know.
    let cipher = common.negotiated_cipher_suite().map(|suite| format!("{:?}", suite.suite()).replace("TLS13_", "TLS_"));
    let shown = common.peer_certificates().and_then(<[_]>::first);
    let common_name = shown.and_then(|certificate| tls::common_name(certificate));
    let common_name = common_name.as_deref();
    let certificate = match (shown, common.handshake_kind()) {
        (None, _) => ClientCertificate::None,
        (Some(_), Some(HandshakeKind::Resumed)) => ClientCertificate::Resumed { common_name },
        (Some(_), _) => ClientCertificate::Shown { common_name },
    };
    let tls = TlsFacts { version, cipher: cipher.as_deref().unwrap_or_default(), certificate };
    Outgoing { alpn: common.alpn_protocol(), tls: Some(tls), ..outgoing }.v2()
}

fn local_address(socket: &impl AsFd) -> Option<SocketAddr> {
    rustix::net::getsockname(socket).ok()?.try_into().ok()
}
