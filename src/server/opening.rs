//! From accept to a chosen pool: PROXY header, limits, STARTTLS, TLS or a look at the ClientHello, HTTP's first request, route.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::AlertDescription;
use rustls::server::UnbufferedServerConnection;

use super::ahead::{Ahead, Cut, write_all};
use super::context::{Context, ListenerState};
use super::farewell::{Patience, farewell};
use super::gate::{Admission, Told};
use super::peer::{Client, Peer};
use super::wanted::Wanted;
use crate::config::model::{ListenerTls, Plaintext, ProxyProtocol, Route, StartTls, UnknownSni};
use crate::limits::Claim;
use crate::net::addr::ClientAddr;
use crate::sniff::client_hello::{self, ClientHello};
use crate::sniff::proxy_protocol::{self, Addresses, Fault};
use crate::sniff::{http, postgres};
use crate::stats::ending::Ending;
use crate::stats::latency::{BackendId, Stage};
use crate::tls::stream::{HandshakeError, TlsStream};
use crate::tls::{self, ServerTls};
use crate::worker::{self, Socket};

/// The protocol's name (ALPN), which a client has to offer that begins with TLS unasked: as PostgreSQL does, which so
/// keeps a client of another protocol from being taken for one of its own.
const POSTGRES: &[u8] = b"postgresql";

/// What there is to know of a connection besides its bytes: of few there is anything.
#[derive(Default)]
pub(super) struct Opened {
    /// What of them is for the backend.
    pub(super) ahead: Vec<u8>,
    /// The listener's route that they match.
    pub(super) route: Option<usize>,
    /// The server name that was asked for.
    pub(super) server_name: Option<Arc<str>>,
    /// What the client connected to, where a PROXY header says so.
    pub(super) destination: Option<SocketAddr>,
    /// What names the connection to a backend that gets a PROXY header.
    pub(super) id: Option<NonZeroU64>,
    /// How long the TLS handshake took.
    pub(super) handshake: Option<Duration>,
    /// What counts against the limits of the client's address.
    pub(super) claim: Option<Claim>,
    /// It is over a limit, and is to be told so instead of getting a backend.
    pub(super) told: Option<Told>,
}

/// Reads, answers, and chooses. `client` becomes the one that a PROXY header names.
pub(super) async fn open(
    listener: &ListenerState,
    client: &mut ClientAddr,
    socket: Socket,
) -> Result<(Client, Opened), Ending> {
    let mut opened = Opened::default();
    let deadline = after(listener.config().timeouts.sniff);
    let mut ahead = Ahead::new(&socket, deadline);
    if let Some(rule) = &listener.config().proxy_protocol {
        opened.destination = proxy_header(listener, rule, client, &mut ahead).await?;
    }
    match listener.admit(*client)? {
        Admission::In(claim) => opened.claim = claim,
        Admission::Told(told) => opened.told = Some(told),
    }
    match listener.tls() {
        Some((rules, tls)) => match before_tls(listener, rules, tls, *client, &mut ahead).await? {
            First::Hello(hello) => {
                let hello_bytes = ahead.into_bytes();
                terminate(listener, tls, *client, socket, hello, hello_bytes, opened).await
            }
            First::Plain => {
                opened.ahead = ahead.into_bytes();
                opened.route = listener.route(&Wanted::default());
                Ok((Peer::Plain(socket), opened))
            }
        },
        None => {
            let routes = &listener.config().routes;
            let hello = match routes.iter().any(Route::needs_tls) {
                true => found(ahead.until(client_hello::recognise).await)?,
                false => None,
            };
            if let Some(hello) = hello {
                let offered: Vec<&[u8]> = hello.alpn.iter().map(Vec::as_slice).collect();
                let server_name = hello.server_name.as_deref();
                opened.route = listener.route(&Wanted { server_name, protocols: &offered, request: None });
                opened.server_name = hello.server_name;
            } else if routes.iter().any(Route::needs_request) {
                let request = found(ahead.until(http::recognise).await)?;
                opened.route = listener.route(&Wanted { request: request.as_ref(), ..Wanted::default() });
            }
            opened.ahead = ahead.into_bytes();
            Ok((Peer::Plain(socket), opened))
        }
    }
}

impl From<Cut> for Ending {
    fn from(cut: Cut) -> Ending {
        match cut {
            Cut::Finished | Cut::Gone => Ending::ClientLeft,
            Cut::TooSlow => Ending::SniffTimeout,
        }
    }
}

/// What was recognised. What is something else, or nothing at all, matches no route that asks for it.
fn found<T, E>(outcome: Result<Result<T, E>, Cut>) -> Result<Option<T>, Ending> {
    match outcome {
        Ok(Ok(found)) => Ok(Some(found)),
        Ok(Err(_)) | Err(Cut::Finished) => Ok(None),
        Err(cut) => Err(cut.into()),
    }
}

pub(super) fn after(timeout: Option<Duration>) -> Option<Instant> {
    timeout.and_then(|timeout| worker::now().checked_add(timeout))
}

/// Takes off a PROXY header. Returns what the client had connected to.
///
/// Only trusted peers may send one. Others are clients like any other, but for one thing: their bytes must not look
/// like a header, which a backend could believe.
async fn proxy_header(
    listener: &ListenerState,
    rule: &ProxyProtocol,
    client: &mut ClientAddr,
    ahead: &mut Ahead<'_, Socket>,
) -> Result<Option<SocketAddr>, Ending> {
    let trusted = client.ip().is_none_or(|ip| rule.trusted.iter().any(|network| network.contains(&ip)));
    let required = trusted && rule.required;
    let fault = match ahead.until(proxy_protocol::recognise).await {
        Ok(Ok(header)) if trusted => {
            ahead.take_off(header.length);
            return Ok(match header.addresses {
                Addresses::Proxied(ends) => {
                    *client = ClientAddr::Tcp(ends.source);
                    Some(ends.destination)
                }
                Addresses::Unix => {
                    *client = ClientAddr::Unix;
                    None
                }
                Addresses::Local => None,
            });
        }
        Ok(Err(Fault::Absent)) if !required => return Ok(None),
        // A protocol in which the server speaks first, or a client that says nothing.
        Err(Cut::TooSlow | Cut::Finished) if !required && ahead.bytes().is_empty() => return Ok(None),
        Ok(Ok(_)) => None,
        Ok(Err(fault)) => Some(fault),
        Err(cut) => return Err(cut.into()),
    };
    match fault {
        Some(fault) if trusted => {
            listener.refuse(*client, &fault);
            Err(Ending::BadProxyHeader)
        }
        _ => {
            listener.refuse(*client, &"sends a PROXY header, and is not in proxy_protocol.trusted");
            Err(Ending::UntrustedProxyHeader)
        }
    }
}

/// How a client begins on a listener with TLS.
enum First {
    Hello(ClientHello),
    /// In plain text, as the protocol allows it.
    Plain,
}

async fn before_tls(
    listener: &ListenerState,
    rules: &ListenerTls,
    tls: &ServerTls,
    client: ClientAddr,
    ahead: &mut Ahead<'_, Socket>,
) -> Result<First, Ending> {
    let mut direct = false;
    if let Some(StartTls::Postgres) = rules.starttls {
        match postgres_opening(listener, rules, client, ahead).await? {
            Asked::InPlain => return Ok(First::Plain),
            Asked::Tls => {}
            Asked::Directly => direct = true,
        }
    }
    let hello = match ahead.until(client_hello::recognise).await? {
        Ok(hello) => hello,
        Err(why) => {
            match http::looks_like_http(ahead.bytes()) {
                true => listener.refuse(client, &"speaks plain HTTP, on a listener with TLS"),
                false => listener.refuse(client, &why),
            }
            return Err(Ending::NotTls);
        }
    };
    if direct && !hello.alpn.iter().any(|protocol| protocol == POSTGRES) {
        listener.refuse(client, &"begins with TLS at once, and does not offer the protocol postgresql (ALPN)");
        farewell(ahead.stream(), &alert(AlertDescription::NoApplicationProtocol), Patience::SHORT).await;
        return Err(Ending::HandshakeFailed);
    }
    if rules.unknown_sni == UnknownSni::Refuse && !tls.knows(hello.server_name.as_deref()) {
        let name = hello.server_name.as_deref().unwrap_or("none");
        listener.refuse(client, &format_args!("asks for server name {name}, which no certificate fits"));
        farewell(ahead.stream(), &alert(AlertDescription::UnrecognisedName), Patience::SHORT).await;
        return Err(Ending::UnknownName);
    }
    Ok(First::Hello(hello))
}

/// A fatal alert in plain text: a record of two bytes (RFC 8446, 5.1 and 6).
fn alert(description: AlertDescription) -> [u8; 7] {
    [0x15, 3, 3, 0, 2, 2, description.into()]
}

/// What a PostgreSQL client asked for.
enum Asked {
    /// TLS, by an SSLRequest, which was accepted.
    Tls,
    /// TLS, by beginning with it (PostgreSQL 17).
    Directly,
    /// Nothing: it begins in plain text, and may.
    InPlain,
}

/// Answers a PostgreSQL client until it begins in earnest.
async fn postgres_opening(
    listener: &ListenerState,
    rules: &ListenerTls,
    client: ClientAddr,
    ahead: &mut Ahead<'_, Socket>,
) -> Result<Asked, Ending> {
    let mut gss_refused = false;
    loop {
        match ahead.until(postgres::recognise).await? {
            Ok(postgres::Opening::SslRequest) => {
                ahead.take_off(postgres::SSL_REQUEST.len());
                if !ahead.bytes().is_empty() {
                    // Somebody in between could have put them there (CVE-2021-23214).
                    listener.refuse(client, &"sends unencrypted data after its SSLRequest");
                    let words = postgres::error_response("08P01", "unencrypted data after the SSL request", None);
                    farewell(ahead.stream(), &words, Patience::SHORT).await;
                    return Err(Ending::NotTls);
                }
                answer(ahead, postgres::ACCEPT_TLS).await?;
                return Ok(Asked::Tls);
            }
            // Again and again, each would cost an answer, and nothing would bound it.
            Ok(postgres::Opening::GssEncRequest) if gss_refused => {
                listener.refuse(client, &"asks for GSSAPI encryption again, which was refused");
                return Err(Ending::NotTls);
            }
            Ok(postgres::Opening::GssEncRequest) => {
                gss_refused = true;
                ahead.take_off(postgres::SSL_REQUEST.len());
                answer(ahead, postgres::REFUSE).await?;
            }
            Ok(postgres::Opening::DirectTls) => return Ok(Asked::Directly),
            // Clients before PostgreSQL 17 cancel in plain text, whatever the connection used.
            Ok(postgres::Opening::Cancel { .. }) => return Ok(Asked::InPlain),
            Ok(postgres::Opening::Startup { .. }) if rules.plaintext == Plaintext::Allow => return Ok(Asked::InPlain),
            Ok(postgres::Opening::Startup { .. }) => {
                listener.refuse(client, &"asks for no TLS, on a listener that wants it (tls.plaintext: refuse)");
                let words = postgres::error_response(
                    "28000",
                    "this server takes encrypted connections only",
                    Some("Connect with sslmode=require or stronger."),
                );
                farewell(ahead.stream(), &words, Patience::SHORT).await;
                return Err(Ending::NotTls);
            }
            Err(why) => {
                listener.refuse(client, &why);
                return Err(Ending::NotTls);
            }
        }
    }
}

async fn answer(ahead: &Ahead<'_, Socket>, byte: u8) -> Result<(), Ending> {
    write_all(ahead.stream(), &[byte]).await.map_err(|_| Ending::ClientLeft)
}

/// TLS ends here.
async fn terminate(
    listener: &ListenerState,
    tls: &ServerTls,
    client: ClientAddr,
    socket: Socket,
    hello: ClientHello,
    hello_bytes: Vec<u8>,
    mut opened: Opened,
) -> Result<(Client, Opened), Ending> {
    let _permit = match &listener.handshakes {
        None => None,
        Some(limit) => match Arc::clone(limit).try_acquire_owned() {
            Ok(permit) => Some(permit),
            Err(_) => {
                listener.refuse(client, &"comes while limits.handshakes others are under way");
                return Err(Ending::HandshakeLimit);
            }
        },
    };
    let engine = UnbufferedServerConnection::new(tls.current()).map_err(|error| {
        listener.refuse(client, &format_args!("cannot be served: {error}"));
        Ending::InternalError
    })?;
    let stream = Box::new(TlsStream::new(socket, engine, hello_bytes));
    let began = Instant::now();
    let deadline = after(listener.config().timeouts.handshake);
    match worker::until(deadline, stream.handshake()).await {
        None => return Err(Ending::HandshakeTimeout),
        Some(Ok(())) => {}
        Some(Err(HandshakeError::Tls(error))) => {
            listener.refuse(client, &format_args!("fails in its TLS handshake: {}", tls::explain(&error)));
            return Err(Ending::HandshakeFailed);
        }
        Some(Err(HandshakeError::Io(_) | HandshakeError::Left)) => return Err(Ending::ClientLeft),
    }
    let took = began.elapsed();
    opened.handshake = Some(took);
    listener.counters().handshakes().add(stream.is_resumed());
    Context::with(|context| context.measure(listener, BackendId::NONE, Stage::TlsHandshake, took));
    let protocol = stream.with_common(|common| common.alpn_protocol().map(<[u8]>::to_vec));
    let protocol = protocol.as_deref();
    let mut wanted =
        Wanted { server_name: hello.server_name.as_deref(), protocols: protocol.as_slice(), request: None };
    let request = match listener.needs_request(&wanted) {
        true => {
            let mut ahead = Ahead::new(&*stream, after(listener.config().timeouts.sniff));
            let request = found(ahead.until(http::recognise).await)?;
            opened.ahead = ahead.into_bytes();
            request
        }
        false => None,
    };
    wanted.request = request.as_ref();
    opened.route = listener.route(&wanted);
    opened.server_name = hello.server_name;
    Ok((Peer::Tls(stream), opened))
}
