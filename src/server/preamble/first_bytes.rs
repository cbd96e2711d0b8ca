//! What becomes of a client whose first bytes a route depends on, and are not what the route asks for.
//!
//! Another protocol, which asks for nothing that a route could match, goes to the listener's pool. Bytes that begin as the
//! protocol does, and cannot be read to the end, could have asked for anything: taking the listener's pool for them would
//! be a way around the routes. They are refused.

use crate::net::addr::ClientAddr;
use crate::net::protocol::ClientProtocol;
use crate::relay::Stream;
use crate::server::lingering_close::{LingerLimit, lingering_close};
use crate::server::listener::Listener;
use crate::server::peek::{Peek, PeekError};
use crate::server::reject;
use crate::sniff::client_hello::{self, ClientHello, NotTls};
use crate::sniff::http::{self, NotHttp, RequestHead};
use crate::sniff::protocol;
use crate::stats::termination::Termination;
use crate::tls::Alert;

/// What was recognised, if anything.
#[derive(Debug, PartialEq, Eq)]
enum Recognized<T, E> {
    Found(T),
    /// Another protocol, or nothing at all.
    Other,
    Refused(E),
    /// The client is gone, or its time is over.
    Ended(Termination),
}

impl<T, E: Copy> Recognized<T, E> {
    /// The one place where it is decided.
    fn of(read: Result<Result<T, E>, PeekError>, begins_as_it: impl Fn(E) -> bool) -> Recognized<T, E> {
        match read {
            Ok(Ok(found)) => Recognized::Found(found),
            Ok(Err(fault)) if begins_as_it(fault) => Recognized::Refused(fault),
            Ok(Err(_)) => Recognized::Other,
            // Nothing more comes of it: no session, and no request that a server would carry out.
            Err(PeekError::Finished) => Recognized::Other,
            Err(cut @ (PeekError::TooSlow | PeekError::Gone | PeekError::NoMemory)) => Recognized::Ended(cut.into()),
        }
    }
}

/// What a client says first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beginning {
    /// Bytes, perhaps of a protocol that routes ask for.
    Bytes(Option<ClientProtocol>),
    /// Nothing in time: it may wait for the server to speak first.
    Silence,
}

impl Beginning {
    pub(super) fn protocol(self) -> Option<ClientProtocol> {
        match self {
            Beginning::Bytes(protocol) => protocol,
            Beginning::Silence => None,
        }
    }
}

/// The protocol that the client speaks, where a route asks for it.
///
/// # Errors
/// It began to say something, and did not go on in time.
pub(super) async fn protocol(listener: &Listener, peek: &mut Peek<'_, impl Stream>) -> Result<Beginning, Termination> {
    if !listener.routes_by_protocol() {
        return Ok(Beginning::Bytes(None));
    }
    match peek.until(protocol::MAX_BEGINNING, protocol::recognise).await {
        Ok(recognised) => Ok(Beginning::Bytes(recognised.ok())),
        Err(PeekError::TooSlow) if peek.bytes().is_empty() => Ok(Beginning::Silence),
        Err(PeekError::Finished) => Ok(Beginning::Bytes(None)),
        Err(cut) => Err(cut.into()),
    }
}

/// A ClientHello, if the client speaks TLS.
///
/// # Errors
/// It began to, and was answered by an alert.
pub(super) async fn client_hello(
    listener: &Listener,
    client: ClientAddr,
    peek: &mut Peek<'_, impl Stream>,
) -> Result<Option<ClientHello>, Termination> {
    match Recognized::of(
        peek.until(client_hello::MAX_CLIENT_HELLO, client_hello::recognise).await,
        NotTls::begins_as_hello,
    ) {
        Recognized::Found(hello) => Ok(Some(hello)),
        Recognized::Other => Ok(None),
        Recognized::Ended(ending) => Err(ending),
        Recognized::Refused(fault) => Err(refuse_hello(listener, client, peek, fault).await),
    }
}

/// Refuses a damaged ClientHello by an alert.
pub(super) async fn refuse_hello(
    listener: &Listener,
    client: ClientAddr,
    peek: &Peek<'_, impl Stream>,
    fault: NotTls,
) -> Termination {
    listener.log_refusal(client, &fault);
    lingering_close(peek.stream(), &alert_for(fault).record(), LingerLimit::SHORT).await;
    Termination::BadClientHello
}

/// The head of a first request, if the client speaks HTTP/1.
///
/// # Errors
/// It began to, and was answered what is wrong.
pub(in crate::server) async fn request(
    listener: &Listener,
    client: ClientAddr,
    peek: &mut Peek<'_, impl Stream>,
) -> Result<Option<RequestHead>, Termination> {
    match Recognized::of(peek.until(http::MAX_HEAD, http::recognise).await, NotHttp::begins_as_http) {
        Recognized::Found(request) => Ok(Some(request)),
        Recognized::Other => Ok(None),
        Recognized::Ended(ending) => Err(ending),
        Recognized::Refused(fault) => {
            listener.log_refusal(client, &fault);
            reject::refuse_request(listener, peek.stream(), peek.bytes(), fault).await;
            Err(Termination::BadRequest)
        }
    }
}

/// The alert for a ClientHello that cannot be read (RFC 8446, 5.1 and 6.2).
fn alert_for(fault: NotTls) -> Alert {
    match fault {
        // Records of no byte are not allowed for handshake messages.
        NotTls::RecordLength(0) => Alert::UnexpectedMessage,
        NotTls::RecordLength(_) => Alert::RecordOverflow,
        NotTls::RecordType(_) | NotTls::Message(_) => Alert::UnexpectedMessage,
        NotTls::LaterVersion(_) | NotTls::RecordVersion(_) => Alert::ProtocolVersion,
        NotTls::TooLong | NotTls::Malformed(_) | NotTls::FirstByte(_) | NotTls::Ssl2 => Alert::DecodeError,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sniff::Recognition;

    fn read<T, E>(verdict: Recognition<T, E>) -> Result<Result<T, E>, PeekError> {
        match verdict {
            Recognition::Yes(found) => Ok(Ok(found)),
            Recognition::No(fault) => Ok(Err(fault)),
            Recognition::More(_) => panic!("more bytes are needed"),
        }
    }

    /// An unfinished ClientHello in one record of 16 KiB; its body is this long.
    fn hello_of(body: usize) -> Vec<u8> {
        let [_, a, b, c] = (body as u32).to_be_bytes();
        [&[0x16, 3, 1, 0x40, 0, 1, a, b, c][..], &[3; 40]].concat()
    }

    #[test]
    fn tls_that_cannot_be_read_is_refused_and_other_protocols_are_not() {
        use Alert::{DecodeError, ProtocolVersion, RecordOverflow, UnexpectedMessage};
        let long_session_id = [&[0x16, 3, 1, 0, 100, 1, 0, 0, 96, 3, 3][..], &[0; 32], &[200]].concat();
        let cases: [(&[u8], Option<Alert>); 13] = [
            // Another protocol: the listener's pool.
            (b"GET / HTTP/1.1\r\n", None),
            (b"SSH-2.0-OpenSSH", None),
            (&[0x16; 10], None),
            (&[0x16, 2, 0], None),
            (&[0x80, 46, 1, 3, 1], None),
            (&[0x15, 3, 1, 0, 2, 1, 0], None),
            (&[0x16, 3, 1, 0, 4, 2, 0, 0, 0], None),
            // TLS: refused.
            (&[0x16, 3, 1, 0, 0], Some(UnexpectedMessage)),
            (&[0x16, 3, 1, 0x40, 1], Some(RecordOverflow)),
            (&[0x16, 3, 1, 0, 1, 1, 0x17], Some(UnexpectedMessage)),
            (&[0x16, 3, 1, 0, 1, 1, 0x16, 4], Some(ProtocolVersion)),
            (&hello_of(16 * 1024 + 1), Some(DecodeError)),
            (&long_session_id, Some(DecodeError)),
        ];
        for (bytes, wanted) in cases {
            match Recognized::of(read(client_hello::recognise(bytes)), NotTls::begins_as_hello) {
                Recognized::Other => assert_eq!(wanted, None, "{bytes:02x?}"),
                Recognized::Refused(fault) => assert_eq!(Some(alert_for(fault)), wanted, "{bytes:02x?}: {fault:?}"),
                outcome => panic!("{bytes:02x?}: {outcome:?}"),
            }
        }
    }

    #[test]
    fn http_that_cannot_be_read_is_refused_and_other_protocols_are_not() {
        let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(http::MAX_HEAD));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(101));
        let cases: [(&[u8], Option<u16>); 13] = [
            // Another protocol: the listener's pool.
            (b"\x16\x03\x01\x02\x00\x01", None),
            (b"EHLO example.com\r\n", None),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", None),
            (b"HTTP/1.1 200 OK\r\n\r\n", None),
            (b"*1\r\n$4\r\nPING\r\n", None),
            // HTTP/1: refused.
            (long.as_bytes(), Some(431)),
            (many.as_bytes(), Some(431)),
            (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", Some(400)),
            (b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", Some(400)),
            (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", Some(400)),
            (b"GET / HTTP/1.1\r\nA: b\r\n c: d\r\n\r\n", Some(400)),
            (b"PURGE / HTTP/1.1\r\nHost : a\r\n\r\n", Some(400)),
            (b"GET /a\r\n", Some(400)),
        ];
        for (bytes, wanted) in cases {
            let text = String::from_utf8_lossy(bytes);
            match Recognized::of(read(http::recognise(bytes)), NotHttp::begins_as_http) {
                Recognized::Other => assert_eq!(wanted, None, "{text}"),
                Recognized::Refused(fault) => assert_eq!(Some(reject::status_of(fault)), wanted, "{text}: {fault:?}"),
                outcome => panic!("{text}: {outcome:?}"),
            }
        }
    }

    #[test]
    fn ends_before_the_first_bytes_are_known() {
        let of = |cut| Recognized::<(), NotTls>::of(Err(cut), NotTls::begins_as_hello);
        assert_eq!(of(PeekError::Finished), Recognized::Other);
        assert_eq!(of(PeekError::TooSlow), Recognized::Ended(Termination::PreambleTimeout));
        assert_eq!(of(PeekError::Gone), Recognized::Ended(Termination::ClientLeft));
        assert_eq!(of(PeekError::NoMemory), Recognized::Ended(Termination::OutOfResources));
    }
}
