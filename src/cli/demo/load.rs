//! The demo's light load: a few clients that connect, request and check every answer.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tidegate::tls::CommandTls;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::backends::KINDS;
use super::tally::Tally;

/// Clients, each with one connection at a time.
pub(super) const CLIENTS: u32 = 4;
/// From the start of a client's request to the start of its next.
pub(super) const PERIOD: Duration = Duration::from_millis(50);
/// Requests a second of all clients together, if each is over within [`PERIOD`].
pub(super) const RATE: u32 = CLIENTS * 1_000 / PERIOD.as_millis() as u32;
/// Requests on one connection, where clients keep connections.
pub(super) const REQUESTS: u32 = 10;
/// How long one request may take, connect and handshake included.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest answer that is read, in bytes.
const MAX_ANSWER: usize = 16 * 1024;
/// Headers in it.
const MAX_HEADERS: usize = 32;
/// The host in requests, and in the demo's certificate.
pub(super) const HOST: &str = "localhost";

/// What clients connect to, and how.
#[derive(Clone)]
pub(super) struct LoadTarget {
    pub(super) address: SocketAddr,
    /// TLS, with the authority to trust.
    pub(super) tls: Option<Arc<CommandTls>>,
    /// Several requests on a connection, some of them for an error, instead of one.
    pub(super) keeps_connections: bool,
}

impl LoadTarget {
    async fn connect(&self) -> io::Result<Box<dyn LoadStream>> {
        let socket = TcpStream::connect(self.address).await?;
        socket.set_nodelay(true)?;
        Ok(match &self.tls {
            Some(tls) => Box::new(tls.connect(HOST, socket).await?),
            None => Box::new(socket),
        })
    }
}

/// The running clients; they end when this is dropped.
pub(super) struct LoadGenerator {
    clients: JoinSet<()>,
    stop: watch::Sender<bool>,
}

impl LoadGenerator {
    /// Starts the clients, which count in `tally`.
    pub(super) fn start(target: &LoadTarget, tally: &Arc<Tally>) -> LoadGenerator {
        let (stop, stopped) = watch::channel(false);
        let now = Instant::now();
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            let (target, tally) = (target.clone(), Arc::clone(tally));
            let client = LoadClient { number, target, tally, connection: None, sent: 0, sent_here: 0 };
            // Evenly spread, not all at the same moment.
            clients.spawn(client.run(now + PERIOD * number / CLIENTS, stopped.clone()));
        }
        LoadGenerator { clients, stop }
    }

    /// Begins no further requests, and returns once those under way have their answers.
    pub(super) async fn finish(mut self) {
        self.stop.send_replace(true);
        while self.clients.join_next().await.is_some() {}
    }
}

/// A connection of a client, with or without TLS.
trait LoadStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> LoadStream for T {}

struct LoadClient {
    number: u32,
    target: LoadTarget,
    tally: Arc<Tally>,
    /// One that is kept for the next request.
    connection: Option<Box<dyn LoadStream>>,
    /// Requests on all connections, and on this one.
    sent: u32,
    sent_here: u32,
}

impl LoadClient {
    async fn run(mut self, first: Instant, mut stopped: watch::Receiver<bool>) {
        let mut ticks = interval_at(first, PERIOD);
        // Who was held up does not make up for it: the load stays light.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = stopped.wait_for(|stopped| *stopped) => return,
                _ = ticks.tick() => {}
            }
            let path = if self.target.keeps_connections { path(self.sent) } else { "/" };
            self.sent = self.sent.wrapping_add(1);
            let outcome = match timeout(PATIENCE, self.request(path)).await {
                Ok(Ok(answer)) => answer.backend(path),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err(format!("no whole answer within {PATIENCE:?}")),
            };
            match outcome {
                Ok(backend) => self.tally.answered(self.number as usize, backend, Instant::now()),
                Err(why) => self.tally.failed(why),
            }
        }
    }

    /// Requests a path, on the connection that is kept or on a new one.
    async fn request(&mut self, path: &str) -> io::Result<LoadAnswer> {
        // Not used again, if anything goes wrong.
        let kept = match self.connection.take() {
            Some(mut kept) => (!is_closed(&mut kept).await).then_some(kept),
            None => None,
        };
        let mut stream = match kept {
            Some(kept) => kept,
            None => {
                let stream = self.target.connect().await?;
                self.tally.connected();
                self.sent_here = 0;
                stream
            }
        };
        self.sent_here += 1;
        let keeps = self.target.keeps_connections && self.sent_here < REQUESTS;
        let connection = if keeps { "keep-alive" } else { "close" };
        let request = format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: {connection}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        let answer = read_answer(&mut stream, !keeps).await?;
        if keeps {
            self.connection = Some(stream);
        }
        Ok(answer)
    }
}

/// What the request with this number asks for: of forty, two for what is not there, and one for an error of the server.
fn path(number: u32) -> &'static str {
    match number % 40 {
        7 | 27 => "/status/404",
        33 => "/status/503",
        _ => "/",
    }
}

/// Whether the other side has closed it, or sent bytes without a request.
async fn is_closed(stream: &mut Box<dyn LoadStream>) -> bool {
    tokio::select! {
        biased;
        _ = stream.read_u8() => true,
        () = std::future::ready(()) => false,
    }
}

/// An answer.
#[derive(Debug, PartialEq, Eq)]
struct LoadAnswer {
    status: u16,
    body: String,
}

impl LoadAnswer {
    /// The backend of which this is the answer to the path.
    ///
    /// # Errors
    /// It is none.
    fn backend(&self, path: &str) -> Result<&'static str, String> {
        let LoadAnswer { status, body } = self;
        let kind = KINDS.iter().find(|kind| kind.answer_to(path) == (*status, body.clone()));
        kind.map(|kind| kind.name).ok_or_else(|| {
            let first_line = body.lines().next().unwrap_or_default();
            format!("not the answer of a backend: status {status}, {} bytes, first line {first_line:?}", body.len())
        })
    }
}

/// Reads one whole answer. With `closes`, the end of the connection belongs to it.
async fn read_answer(stream: &mut (impl AsyncRead + Unpin), closes: bool) -> io::Result<LoadAnswer> {
    let (mut received, mut has_ended) = (Vec::new(), false);
    loop {
        if let Some((answer, length)) = parse_answer(&received)?
            && (has_ended || !closes)
        {
            return match received.len() - length {
                0 => Ok(answer),
                more => Err(io::Error::other(format!("{more} bytes after the answer"))),
            };
        }
        if has_ended {
            let why = format!("closed after {} bytes, before the answer was whole", received.len());
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
        }
        if received.len() >= MAX_ANSWER {
            return Err(io::Error::other(format!("an answer of more than {MAX_ANSWER} bytes")));
        }
        has_ended = stream.read_buf(&mut received).await? == 0;
    }
}

/// The answer that the bytes begin with, and its length; `None` while it has not ended.
fn parse_answer(received: &[u8]) -> io::Result<Option<(LoadAnswer, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let start = match head.parse(received).map_err(io::Error::other)? {
        httparse::Status::Complete(start) => start,
        httparse::Status::Partial => return Ok(None),
    };
    let length = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|length| std::str::from_utf8(length.value).ok()?.trim().parse::<usize>().ok());
    let length = length.filter(|length| *length <= MAX_ANSWER).ok_or_else(|| io::Error::other("no length"))?;
    let status = head.code.unwrap_or_default();
    let body = received.get(start..start + length);
    Ok(body.map(|body| (LoadAnswer { status, body: String::from_utf8_lossy(body).into_owned() }, start + length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read of these bytes, and whose it is.
    async fn outcome(bytes: &str, closes: bool, path: &str) -> Option<&'static str> {
        let answer = read_answer(&mut bytes.as_bytes(), closes).await;
        answer.ok().and_then(|answer| answer.backend(path).ok())
    }

    #[tokio::test]
    async fn only_a_whole_answer_of_a_backend_will_do() {
        let hello = "HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\nhello from slow\n";
        for (bytes, path, expected) in [
            (hello.to_owned(), "/", Some("slow")),
            (hello.to_owned(), "/status/404", None),
            (format!("{hello}{hello}"), "/", None),
            (hello[..hello.len() - 1].to_owned(), "/", None),
            (hello.replace("slow", "nobd"), "/", None),
            (hello.replace("200 OK", "503 No"), "/", None),
            (hello.replace("Content-Length: 16", "Content-Length: 99999"), "/", None),
            (hello.replace("Content-Length: 16", "A: b"), "/", None),
            (
                "HTTP/1.1 404 Not Found\r\nContent-Length: 14\r\n\r\n404 from slow\n".to_owned(),
                "/status/404",
                Some("slow"),
            ),
            ("HTTP/1.1 200 OK\r\n".to_owned(), "/", None),
            ("nonsense\r\n\r\n".to_owned(), "/", None),
            (String::new(), "/", None),
        ] {
            assert_eq!(outcome(&bytes, true, path).await, expected, "{bytes:?}");
        }
        assert_eq!(outcome(hello, false, "/").await, Some("slow"));
        assert_eq!(outcome(&hello[..hello.len() - 1], false, "/").await, None);
    }

    #[test]
    fn of_forty_requests_three_are_for_an_error() {
        let errors: Vec<&str> = (0..40).map(path).filter(|path| *path != "/").collect();
        assert_eq!(errors, ["/status/404", "/status/404", "/status/503"]);
    }
}
