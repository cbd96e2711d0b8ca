//! The demo's HTTP backends: just enough of HTTP/1.1 for curl, a browser and a health check.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// What is asked by the health check.
pub(super) const HEALTH: &str = "/health";

/// Connections that one backend serves at once; others wait in the kernel's queue.
const CONNECTIONS: usize = 256;
/// Requests on one connection.
const REQUESTS: usize = 1_000;
/// The largest head of a request, in bytes.
const HEAD: usize = 8 * 1024;
/// Headers in it.
const HEADERS: usize = 64;
/// How long a connection may be idle, and how long a head may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// What is still read, and for how long, so that unread bytes do not turn the end of an answer into a reset.
const LINGER: (u64, Duration) = (64 * 1024, Duration::from_secs(1));
/// How long to wait with the next accept after one has failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What sets a backend apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct BackendKind {
    pub(super) name: &'static str,
    pub(super) weight: u32,
    /// Between a request and its answer.
    pub(super) delay: Duration,
}

/// The demo's backends. `heavy` has as much weight as the others together.
pub(super) const KINDS: [BackendKind; 3] = [
    BackendKind { name: "quick", weight: 1, delay: Duration::ZERO },
    BackendKind { name: "slow", weight: 1, delay: Duration::from_millis(20) },
    BackendKind { name: "heavy", weight: 2, delay: Duration::ZERO },
];

impl BackendKind {
    /// The body of its answers.
    pub(super) fn greeting(&self) -> String {
        format!("hello from {}\n", self.name)
    }
}

/// The running backends; they end when this is dropped.
pub(super) struct Backends {
    addresses: Vec<(BackendKind, SocketAddr)>,
    closing: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

impl Backends {
    /// Starts all of [`KINDS`] on ports that are free.
    pub(super) async fn start() -> io::Result<Backends> {
        let (closing, told) = watch::channel(false);
        let (mut addresses, mut tasks) = (Vec::new(), JoinSet::new());
        for kind in KINDS {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            addresses.push((kind, listener.local_addr()?));
            tasks.spawn(accept(listener, kind, told.clone()));
        }
        Ok(Backends { addresses, closing, _tasks: tasks })
    }

    pub(super) fn addresses(&self) -> &[(BackendKind, SocketAddr)] {
        &self.addresses
    }

    /// From now on connections are closed as soon as they are idle, so that a drain need not wait for a browser.
    pub(super) fn close_idle(&self) {
        self.closing.send_replace(true);
    }
}

async fn accept(listener: TcpListener, kind: BackendKind, closing: watch::Receiver<bool>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    // The semaphore is never closed.
    while let Ok(place) = Arc::clone(&room).acquire_owned().await {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((socket, _)) => {
                let closing = closing.clone();
                connections.spawn(async move {
                    // A client that went away is its own business.
                    let _ = serve(socket, kind, closing).await;
                    drop(place);
                });
            }
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn serve(mut socket: TcpStream, kind: BackendKind, mut closing: watch::Receiver<bool>) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut received = Vec::new();
    for served in 0..REQUESTS {
        if served > 0 && received.is_empty() {
            tokio::select! {
                // Not before the first request, which gets an answer.
                _ = closing.wait_for(|closing| *closing) => break,
                readable = timeout(PATIENCE, socket.readable()) => match readable {
                    Ok(readable) => readable?,
                    Err(_) => break,
                },
            }
        }
        let Ok(request) = timeout(PATIENCE, read_request(&mut socket, &mut received)).await else { break };
        let Some(request) = request? else { break };
        // Not for no time: the timer knows nothing shorter than a millisecond.
        if matches!(request.target, Ok(RequestTarget::Greeting)) && !kind.delay.is_zero() {
            sleep(kind.delay).await;
        }
        let last = served + 1 == REQUESTS || *closing.borrow();
        let keep = request.keep_alive && !last;
        socket.write_all(&answer(&kind, &request, keep)).await?;
        if !keep {
            break;
        }
    }
    socket.shutdown().await?;
    let (bytes, time) = LINGER;
    let _ = timeout(time, tokio::io::copy(&mut socket.take(bytes), &mut tokio::io::sink())).await;
    Ok(())
}

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
struct DemoRequest {
    target: Result<RequestTarget, DemoRefusal>,
    /// The answer has no body.
    head_only: bool,
    /// The client may send another request.
    keep_alive: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum RequestTarget {
    Greeting,
    Health,
}

#[derive(Debug, PartialEq, Eq)]
enum DemoRefusal {
    BadRequest,
    MethodNotAllowed,
    HeadTooLarge,
}

/// The next request, or `None` when the client has finished. What follows the request stays in `received`.
async fn read_request(socket: &mut TcpStream, received: &mut Vec<u8>) -> io::Result<Option<DemoRequest>> {
    loop {
        if let Some((request, length)) = parse(received) {
            received.drain(..length);
            return Ok(Some(request));
        }
        let mut part = [0; 1024];
        let read = socket.read(&mut part).await?;
        if read == 0 {
            return Ok(None);
        }
        received.extend_from_slice(&part[..read]);
    }
}

/// The request that the bytes begin with, and the length of its head; `None` while that has not ended.
fn parse(received: &[u8]) -> Option<(DemoRequest, usize)> {
    let refused =
        |refusal| Some((DemoRequest { target: Err(refusal), head_only: false, keep_alive: false }, received.len()));
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    let length = match head.parse(received) {
        Ok(httparse::Status::Complete(length)) if length <= HEAD => length,
        Ok(httparse::Status::Partial) if received.len() <= HEAD => return None,
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return refused(DemoRefusal::HeadTooLarge),
        Err(_) => return refused(DemoRefusal::BadRequest),
    };
    let head_only = head.method == Some("HEAD");
    let target = match (head.method, head.path) {
        (Some("GET" | "HEAD"), Some(HEALTH)) => Ok(RequestTarget::Health),
        (Some("GET" | "HEAD"), _) => Ok(RequestTarget::Greeting),
        _ => Err(DemoRefusal::MethodNotAllowed),
    };
    // A body is not read, so where a request after it would begin is unknown.
    let has_body = head.headers.iter().any(|header| {
        let name = |name| header.name.eq_ignore_ascii_case(name);
        name("transfer-encoding") || (name("content-length") && header.value != b"0")
    });
    let asks_to_close = head.headers.iter().any(|header| {
        header.name.eq_ignore_ascii_case("connection")
            && header.value.split(|byte| *byte == b',').any(|token| token.trim_ascii().eq_ignore_ascii_case(b"close"))
    });
    let keep_alive = head.version == Some(1) && !asks_to_close && !has_body && target.is_ok();
    Some((DemoRequest { target, head_only, keep_alive }, length))
}

fn answer(kind: &BackendKind, request: &DemoRequest, keep_alive: bool) -> Vec<u8> {
    let (status, body) = match &request.target {
        Ok(RequestTarget::Greeting) => ("200 OK", kind.greeting()),
        Ok(RequestTarget::Health) => ("200 OK", "ok\n".to_owned()),
        Err(DemoRefusal::BadRequest) => ("400 Bad Request", "not understood\n".to_owned()),
        Err(DemoRefusal::MethodNotAllowed) => ("405 Method Not Allowed\r\nAllow: GET, HEAD", "only GET\n".to_owned()),
        Err(DemoRefusal::HeadTooLarge) => ("431 Request Header Fields Too Large", "too large\n".to_owned()),
    };
    let connection = if keep_alive { "keep-alive" } else { "close" };
    let length = body.len();
    let sent = if request.head_only { "" } else { &body };
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: {connection}\r\n\r\n{sent}"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> Option<DemoRequest> {
        parse(text.as_bytes()).map(|(request, _)| request)
    }

    #[test]
    fn requests_are_told_apart() {
        let get = |target, keep_alive| Some(DemoRequest { target: Ok(target), head_only: false, keep_alive });
        let refused = |refusal, head_only| Some(DemoRequest { target: Err(refusal), head_only, keep_alive: false });
        let long = format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "a".repeat(HEAD));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(HEADERS + 1));
        for (text, expected) in [
            ("", None),
            ("GET / HT", None),
            ("GET / HTTP/1.1\r\nHost: a\r\n", None),
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", get(RequestTarget::Greeting, true)),
            ("GET /a?b HTTP/1.1\r\n\r\n", get(RequestTarget::Greeting, true)),
            ("GET /health HTTP/1.1\r\n\r\n", get(RequestTarget::Health, true)),
            ("GET / HTTP/1.0\r\n\r\n", get(RequestTarget::Greeting, false)),
            ("GET / HTTP/1.1\r\nconnection: Close\r\n\r\n", get(RequestTarget::Greeting, false)),
            ("GET / HTTP/1.1\r\nConnection: te, close\r\n\r\n", get(RequestTarget::Greeting, false)),
            ("GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", get(RequestTarget::Greeting, true)),
            ("GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\n", get(RequestTarget::Greeting, false)),
            ("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", get(RequestTarget::Greeting, false)),
            ("POST / HTTP/1.1\r\n\r\n", refused(DemoRefusal::MethodNotAllowed, false)),
            ("\x16\x03\x01\x02", refused(DemoRefusal::BadRequest, false)),
            (&long, refused(DemoRefusal::HeadTooLarge, false)),
            (&long[..HEAD + 1], refused(DemoRefusal::HeadTooLarge, false)),
            (&many, refused(DemoRefusal::HeadTooLarge, false)),
        ] {
            assert_eq!(request(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_head_ends_where_the_next_begins() {
        let first = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let both = format!("{first}GET /health HTTP/1.1\r\n\r\n");
        assert_eq!(parse(both.as_bytes()).map(|(_, length)| length), Some(first.len()));
    }

    #[test]
    fn an_answer_to_head_has_the_length_but_not_the_body() {
        let request = request("HEAD / HTTP/1.1\r\n\r\n").unwrap();
        let answer = String::from_utf8(answer(&KINDS[0], &request, true)).unwrap();
        assert!(answer.contains("Content-Length: 17\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    }
}
