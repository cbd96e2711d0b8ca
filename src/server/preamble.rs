//! From accept to a chosen pool: PROXY header, limits, STARTTLS, TLS or a look at the ClientHello, HTTP's first request, route. Where the
//! server speaks first (`starttls: mysql`), TLS comes later, in `login.rs`.

mod first_bytes;
mod postgres;
mod proxy;

use std::cell::OnceCell;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use self::first_bytes::Beginning;
use self::postgres::Asked;
use super::admission::Admission;
use super::connection::{ConnectionState, Preamble};
use super::lingering_close::{LingerLimit, lingering_close};
use super::listener::Listener;
use super::peek::{Peek, PeekError, PeekedBytes, after, memory_claim};
use super::route::{Condition, RequestView, RouteDecision, RouteKey, RouteMatch};
use super::screened::Screened;
use super::transport::{ClientConn, Conn};
use super::worker_state::WorkerState;
use crate::config::model::{ListenerTls, RouteConfig, StartTls, TlsVersion, UnknownSni};
use crate::limits::MemoryExhausted;
use crate::net::addr::ClientAddr;
use crate::net::protocol::ClientProtocol;
use crate::relay::Pacing;
use crate::sniff::client_hello::{self, ClientHello, Version};
use crate::sniff::http;
use crate::stats::latency::Stage;
use crate::stats::registry::BackendId;
use crate::stats::termination::Termination;
use crate::tls::{Acceptor, Alert, Engine, HandshakeError, ServerEngine, TlsStream};
use crate::worker::{self, Socket, poll_fn};

/// The protocol's name (ALPN), which a client has to offer that begins with TLS unasked: as PostgreSQL does, which so
/// keeps a client of another protocol from being taken for one of its own.
const POSTGRES: &[u8] = b"postgresql";

/// Bytes of the longest TLS record (RFC 8446, 5.2). After its ClientHello, nothing that a client says in a handshake is
/// longer, but for its certificates.
const MAX_RECORD: usize = 5 + (1 << 14) + 256;

/// A client whose first bytes were read, what they say, and those of them that are for the backend.
pub(super) type OpenedClient = (ClientConn, Preamble, PeekedBytes);

/// Reads, answers, and chooses. `client` becomes the one that a PROXY header names.
pub(super) async fn read(connection: &ConnectionState, socket: Socket) -> Result<OpenedClient, Termination> {
    let mut rejected = None;
    let preamble = open_within_memory(connection, socket, &mut rejected).await;
    if matches!(preamble, Err(Termination::OutOfResources)) {
        connection.listener.log_refusal(connection.client.get(), &MemoryExhausted);
    }
    // Whatever becomes of the answer to a client that is rejected, the first reason counts.
    preamble.map_err(|ending| rejected.unwrap_or(ending))
}

async fn open_within_memory(
    connection: &ConnectionState,
    socket: Socket,
    rejected: &mut Option<Termination>,
) -> Result<OpenedClient, Termination> {
    let listener = &*connection.listener;
    let pacing = listener.config().limits.bandwidth.map(Pacing::new);
    let mut preamble = Preamble { pacing, ..Preamble::default() };
    let deadline = after(listener.config().timeouts.sniff);
    let mut peek = Peek::new(connection, &socket, deadline);
    let routes = &listener.config().routes;
    let mut named = connection.client.get();
    let peer = identify(listener, &mut named, &mut preamble, &mut peek).await;
    connection.client.set(named);
    *rejected = preamble.reject_slot.as_ref().map(|slot| slot.reason);
    if peer.is_err() {
        WorkerState::with(|state| state.look_for_unread(connection, &socket));
    }
    let peer = peer?;
    let client = listener.route_client(named.ip(), connection.id.get().get());
    let mut key = RouteKey { client, ..RouteKey::default() };
    let by_client = listener.decide(&key, Condition::AT_ACCEPT);
    preamble.route = accept_route(listener, named, &key, by_client)?;
    if let proxy::PeerKind::Silent { may_send_header } = peer {
        // What needs its first bytes has waited for them as long as it may.
        let is_undecided = by_client == RouteDecision::Undecided && !listener.routes_by_protocol();
        if listener.tls().is_some() && !listener.config().server_speaks_first() || is_undecided {
            return Err(Termination::PreambleTimeout);
        }
        preamble.route = accept_route(listener, named, &key, listener.decide(&key, Condition::ALL))?;
        if listener.config().server_speaks_first() {
            // A header would be no packet of a login.
            return Ok((Conn::Plain(socket), preamble, PeekedBytes::default()));
        }
        let client = Conn::Screened(Box::new(Screened::new(socket, may_send_header)));
        return Ok((client, preamble, PeekedBytes::default()));
    }
    match listener.tls() {
        // TLS is asked for in answer to the backend.
        Some(_) if listener.config().server_speaks_first() => {
            let peeked = peek.into_peeked();
            Ok((Conn::Plain(socket), preamble, peeked))
        }
        Some((rules, tls)) => match before_tls(listener, rules, tls, named, &key, &mut peek).await? {
            First::Hello(hello) => {
                let hello_bytes = peek.into_peeked().into_bytes();
                terminate(connection, (rules, tls), named, key, socket, (hello, hello_bytes), preamble).await
            }
            first @ (First::Plain | First::Cancel(_)) => {
                let mut peeked = peek.into_peeked();
                if let First::Cancel(length) = first {
                    peeked.truncate(length);
                    preamble.is_cancel = true;
                }
                key.protocol = tls_request_protocol(rules);
                preamble.protocol = key.protocol;
                preamble.route = accept_route(listener, named, &key, listener.decide(&key, Condition::ALL))?;
                Ok((Conn::Plain(socket), preamble, peeked))
            }
        },
        None if by_client == RouteDecision::Undecided => {
            let beginning = first_bytes::protocol(listener, &mut peek).await?;
            key.protocol = beginning.protocol();
            preamble.protocol = key.protocol;
            let hello = match listener.decide(&key, Condition::AT_FIRST_BYTES) {
                RouteDecision::Undecided
                    if beginning != Beginning::Silence && routes.iter().any(RouteConfig::needs_tls) =>
                {
                    first_bytes::client_hello(listener, named, &mut peek).await?
                }
                _ => None,
            };
            if let Some(hello) = hello {
                let offered: Vec<&[u8]> = hello.alpn.iter().map(Vec::as_slice).collect();
                (key.server_name, key.alpn) = (hello.server_name.as_deref(), &offered);
                let decision = listener.decide(&key, Condition::ALL);
                preamble.route = match accept_route(listener, named, &key, decision) {
                    Ok(route) => route,
                    Err(ending) => {
                        lingering_close(peek.stream(), &Alert::UnrecognizedName.record(), LingerLimit::SHORT).await;
                        return Err(ending);
                    }
                };
                preamble.server_name = once(hello.server_name);
            } else {
                let request = match listener.decide(&key, Condition::BEFORE_REQUEST) {
                    RouteDecision::Undecided if beginning != Beginning::Silence => {
                        first_bytes::request(listener, named, &mut peek).await?
                    }
                    _ => None,
                };
                key.request = request.as_ref().map(RequestView::from);
                preamble.route = accept_route(listener, named, &key, listener.decide(&key, Condition::ALL))?;
            }
            let peeked = peek.into_peeked();
            Ok((Conn::Plain(socket), preamble, peeked))
        }
        // No byte is waited for.
        None => {
            let peeked = peek.into_peeked();
            Ok((Conn::Plain(socket), preamble, peeked))
        }
    }
}

/// The route of a connection, unless that refuses it.
///
/// # Errors
/// It does.
fn accept_route(
    listener: &Listener,
    client: ClientAddr,
    key: &RouteKey<'_>,
    decision: RouteDecision,
) -> Result<Option<RouteMatch>, Termination> {
    let RouteDecision::Match(found) = decision else { return Ok(None) };
    if !listener.refuses(found) {
        return Ok(Some(found));
    }
    let number = found.route;
    let host = key.request.and_then(|request| request.host);
    match (key.server_name, host) {
        (Some(name), _) => {
            listener.log_refusal(client, &format_args!("asks for server name {name}, which routes[{number}] refuses"));
        }
        (None, Some(host)) => {
            listener.log_refusal(client, &format_args!("asks for host {host}, which routes[{number}] refuses"));
        }
        (None, None) => match key.protocol {
            Some(protocol) => {
                listener.log_refusal(client, &format_args!("speaks {protocol}, which routes[{number}] refuses"));
            }
            None => listener.log_refusal(client, &format_args!("matches routes[{number}], which refuses it")),
        },
    }
    Err(Termination::RouteRefused)
}

/// Learns who the client is, and counts it against the limits: as early as its address is known.
async fn identify(
    listener: &Listener,
    client: &mut ClientAddr,
    preamble: &mut Preamble,
    peek: &mut Peek<'_, Socket>,
) -> Result<proxy::PeerKind, Termination> {
    let Some(rule) = &listener.config().proxy_protocol else {
        admit(listener, *client, preamble)?;
        return Ok(proxy::PeerKind::Known);
    };
    if !proxy::is_trusted(rule, *client) {
        admit(listener, *client, preamble)?;
        // A client that waits for the server says nothing yet, and a header would be no packet of its login.
        return match listener.config().server_speaks_first() {
            true => Ok(proxy::PeerKind::Known),
            false => proxy::refuse_header(listener, *client, peek).await,
        };
    }
    // Until its header names the client, a trusted peer is bounded by max_connections and timeouts.sniff.
    let peer = proxy::take_header(listener, rule, client, preamble, peek).await?;
    admit(listener, *client, preamble)?;
    Ok(peer)
}

fn admit(listener: &Listener, client: ClientAddr, preamble: &mut Preamble) -> Result<(), Termination> {
    match listener.admit(client)? {
        Admission::Admitted(slot) => preamble.address_slot = slot,
        Admission::Rejected(slot) => preamble.reject_slot = Some(Box::new(slot)),
    }
    Ok(())
}

impl From<PeekError> for Termination {
    fn from(cut: PeekError) -> Termination {
        match cut {
            PeekError::Finished | PeekError::Gone => Termination::ClientLeft,
            PeekError::TooSlow => Termination::PreambleTimeout,
            PeekError::NoMemory => Termination::OutOfResources,
        }
    }
}

/// How a client begins on a listener with TLS.
enum First {
    Hello(ClientHello),
    /// In plain text, as the protocol allows it.
    Plain,
    /// With a PostgreSQL CancelRequest of this length, in plain text, and nothing else.
    Cancel(usize),
}

async fn before_tls(
    listener: &Listener,
    rules: &ListenerTls,
    tls: &Acceptor,
    client: ClientAddr,
    key: &RouteKey<'_>,
    peek: &mut Peek<'_, Socket>,
) -> Result<First, Termination> {
    let mut direct = false;
    if let Some(StartTls::Postgres) = rules.starttls {
        match postgres::begin(listener, rules, client, peek).await? {
            Asked::InPlain => return Ok(First::Plain),
            Asked::Cancel(length) => return Ok(First::Cancel(length)),
            Asked::Tls => {}
            Asked::Directly => direct = true,
        }
    }
    let hello = read_hello(listener, rules, tls, client, direct, peek).await?;
    let key = RouteKey { server_name: hello.server_name.as_deref(), ..*key };
    if let Err(ending) = accept_route(listener, client, &key, listener.decide(&key, Condition::AT_HELLO)) {
        lingering_close(peek.stream(), &Alert::UnrecognizedName.record(), LingerLimit::SHORT).await;
        return Err(ending);
    }
    Ok(First::Hello(hello))
}

/// The ClientHello of a client that may go on with its handshake. `direct`: it began with TLS, and must name the protocol in it.
async fn read_hello(
    listener: &Listener,
    rules: &ListenerTls,
    tls: &Acceptor,
    client: ClientAddr,
    direct: bool,
    peek: &mut Peek<'_, Socket>,
) -> Result<ClientHello, Termination> {
    let hello = match peek.until(client_hello::MAX_CLIENT_HELLO, client_hello::recognise).await? {
        Ok(hello) => hello,
        Err(fault) if fault.begins_as_hello() => {
            return Err(first_bytes::refuse_hello(listener, client, peek, fault).await);
        }
        Err(why) => {
            match http::looks_like_http(peek.bytes()) {
                true => listener.log_refusal(client, &"speaks plain HTTP, on a listener with TLS"),
                false => listener.log_refusal(client, &why),
            }
            if why == client_hello::NotTls::Ssl2 {
                lingering_close(peek.stream(), &Alert::ProtocolVersion.record(), LingerLimit::SHORT).await;
            }
            return Err(Termination::NotTls);
        }
    };
    let oldest = match rules.min_version {
        TlsVersion::V1_2 => Version::TLS_1_2,
        TlsVersion::V1_3 => Version::TLS_1_3,
    };
    if hello.newest < oldest {
        listener.log_refusal(
            client,
            &format_args!("speaks {} at most, and {oldest} is the oldest version here", hello.newest),
        );
        lingering_close(peek.stream(), &Alert::ProtocolVersion.record(), LingerLimit::SHORT).await;
        return Err(Termination::HandshakeFailed);
    }
    if direct && !hello.alpn.iter().any(|protocol| protocol == POSTGRES) {
        listener.log_refusal(client, &"begins with TLS at once, and does not offer the protocol postgresql (ALPN)");
        lingering_close(peek.stream(), &Alert::NoApplicationProtocol.record(), LingerLimit::SHORT).await;
        return Err(Termination::HandshakeFailed);
    }
    if rules.unknown_sni == UnknownSni::Refuse && !tls.knows(hello.server_name.as_deref()) {
        let name = hello.server_name.as_deref().unwrap_or("none");
        listener.log_refusal(client, &format_args!("asks for server name {name}, which no certificate fits"));
        lingering_close(peek.stream(), &Alert::UnrecognizedName.record(), LingerLimit::SHORT).await;
        return Err(Termination::UnknownName);
    }
    Ok(hello)
}

/// The protocol whose own request for TLS the listener answers.
fn tls_request_protocol(rules: &ListenerTls) -> Option<ClientProtocol> {
    matches!(rules.starttls, Some(StartTls::Postgres)).then_some(ClientProtocol::Postgres)
}

/// TLS ends here.
async fn terminate(
    connection: &ConnectionState,
    (rules, tls): (&ListenerTls, &Acceptor),
    client: ClientAddr,
    key: RouteKey<'_>,
    socket: Socket,
    (hello, hello_bytes): (ClientHello, Vec<u8>),
    mut preamble: Preamble,
) -> Result<OpenedClient, Termination> {
    let listener = &*connection.listener;
    // Clients that are rejected have a bound of their own: they take no room from the others.
    let is_rejected = preamble.reject_slot.is_some();
    let (stream, took) = complete_handshake(connection, tls, client, socket, hello_bytes, is_rejected).await?;
    preamble.handshake = once(Some(took));
    let alpn = stream.alpn_protocol();
    let alpn = alpn.as_deref();
    let (server_name, protocol) = (hello.server_name.as_deref(), tls_request_protocol(rules));
    let mut key = RouteKey { server_name, alpn: alpn.as_slice(), protocol, ..key };
    let mut peeked = PeekedBytes::default();
    let mut request = None;
    let known = if protocol.is_some() { Condition::BEFORE_REQUEST } else { Condition::AFTER_HANDSHAKE };
    if listener.decide(&key, known) == RouteDecision::Undecided {
        let mut peek = Peek::new(connection, &*stream, after(listener.config().timeouts.sniff));
        let beginning = first_bytes::protocol(listener, &mut peek).await?;
        key.protocol = protocol.or(beginning.protocol());
        if listener.decide(&key, Condition::BEFORE_REQUEST) == RouteDecision::Undecided
            && beginning != Beginning::Silence
        {
            request = first_bytes::request(listener, client, &mut peek).await?;
        }
        peeked = peek.into_peeked();
    }
    preamble.protocol = key.protocol;
    key.request = request.as_ref().map(RequestView::from);
    preamble.route = accept_route(listener, client, &key, listener.decide(&key, Condition::ALL))?;
    preamble.server_name = once(hello.server_name);
    Ok((Conn::Tls(stream), preamble, peeked))
}

/// Terminates TLS that a client has asked for after its backend was chosen. `beginning` was read with the request for it.
pub(super) async fn accept_tls(
    connection: &ConnectionState,
    socket: Socket,
    beginning: &[u8],
) -> Result<ClientConn, Termination> {
    let listener = &*connection.listener;
    let Some((rules, tls)) = listener.tls() else { return Err(Termination::InternalError) };
    let client = connection.client.get();
    let beginning = PeekedBytes::of(beginning).map_err(|_| Termination::OutOfResources)?;
    let mut peek = Peek::with(connection, &socket, beginning, after(listener.config().timeouts.sniff));
    let hello = read_hello(listener, rules, tls, client, false, &mut peek).await?;
    let hello_bytes = peek.into_peeked().into_bytes();
    let (stream, took) = complete_handshake(connection, tls, client, socket, hello_bytes, false).await?;
    if let Some(preamble) = connection.preamble() {
        // Once in a connection's life.
        let _ = preamble.handshake.set(took);
        hello.server_name.into_iter().for_each(|name| drop(preamble.server_name.set(name)));
    }
    Ok(Conn::Tls(stream))
}

/// Takes a client's handshake as far as to its end, within `limits.handshakes`, and says how long it took.
async fn complete_handshake(
    connection: &ConnectionState,
    tls: &Acceptor,
    client: ClientAddr,
    socket: Socket,
    hello_bytes: Vec<u8>,
    is_rejected: bool,
) -> Result<(Box<TlsStream<ServerEngine>>, Duration), Termination> {
    let listener = &*connection.listener;
    let permit = (!is_rejected).then(|| listener.handshakes().try_acquire());
    if let Some(None) = permit {
        listener.log_refusal(client, &"comes while limits.handshakes others are under way");
        return Err(Termination::HandshakeLimit);
    }
    let stream = tls.accept(socket, hello_bytes).map_err(|error| {
        listener.log_refusal(client, &format_args!("cannot be served: {error}"));
        Termination::InternalError
    })?;
    let began = Instant::now();
    match handshake(listener, client, &stream).await? {
        Ok(()) => {}
        Err(HandshakeError::Tls(error)) => {
            let remedy = error.remedy("client_auth.ca").map_or(String::new(), |remedy| format!("; {remedy}"));
            listener.log_refusal(client, &format_args!("fails in its TLS handshake: {error}{remedy}"));
            return Err(Termination::HandshakeFailed);
        }
        Err(HandshakeError::Io(_) | HandshakeError::Left) => return Err(Termination::ClientLeft),
    }
    let took = began.elapsed();
    connection.set_sent(false);
    listener.counters().handshakes().add(stream.is_resumed());
    WorkerState::with(|state| state.measure(listener, BackendId::NONE, Stage::TlsHandshake, took));
    Ok((stream, took))
}

/// What is known from now on, if it is.
fn once<T>(known: Option<T>) -> OnceCell<T> {
    known.map_or_else(OnceCell::new, OnceCell::from)
}

/// Completes a client's handshake, in bounded time and memory.
async fn handshake<E: Engine>(
    listener: &Listener,
    client: ClientAddr,
    stream: &TlsStream<E>,
) -> Result<Result<(), HandshakeError>, Termination> {
    let deadline = after(listener.config().timeouts.handshake);
    let shows_certificate = listener.config().tls.as_ref().is_some_and(|tls| tls.client_auth.is_some());
    let mut memory = memory_claim();
    let mut handshaking = pin!(stream.handshake());
    let bounded = poll_fn(|cx| {
        let polled = handshaking.as_mut().poll(cx);
        // Part of a message of which the rest has not come.
        let unfinished = stream.unfinished();
        if polled.is_pending() && !shows_certificate && unfinished > MAX_RECORD {
            listener.log_refusal(client, &"sends more than a record of an unfinished TLS handshake message");
            return Poll::Ready(Err(Termination::HandshakeFailed));
        }
        match memory.resize(unfinished) {
            Ok(()) => polled.map(Ok),
            Err(MemoryExhausted) => Poll::Ready(Err(Termination::OutOfResources)),
        }
    });
    worker::until(deadline, bounded).await.ok_or(Termination::HandshakeTimeout)?
}
