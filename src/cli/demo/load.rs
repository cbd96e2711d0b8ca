//! The demo's light load: a few clients that open short connections and check every answer.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::backends::KINDS;

/// Clients, each with one connection at a time.
pub(super) const CLIENTS: u32 = 4;
/// From the start of a client's connection to the start of its next.
const PERIOD: Duration = Duration::from_millis(50);
/// Connections a second that all clients open together, if each is over within [`PERIOD`].
pub(super) const RATE: u32 = CLIENTS * 1_000 / PERIOD.as_millis() as u32;
/// How long one connection may take, from connect to the end of the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest answer that is read, in bytes.
const ANSWER: u64 = 16 * 1024;

/// The running clients; they end when this is dropped.
pub(super) struct LoadGenerator {
    clients: JoinSet<()>,
    stop: watch::Sender<bool>,
    tally: Arc<Tally>,
}

/// What came of the requests.
#[derive(Default)]
pub(super) struct Tally {
    answered: AtomicU64,
    failed: AtomicU64,
    first_failure: OnceLock<String>,
}

impl Tally {
    /// Requests that were answered as they should be.
    pub(super) fn answered(&self) -> u64 {
        self.answered.load(Relaxed)
    }

    /// Requests that were not.
    pub(super) fn failed(&self) -> u64 {
        self.failed.load(Relaxed)
    }

    /// What was wrong the first time.
    pub(super) fn first_failure(&self) -> Option<&str> {
        self.first_failure.get().map(String::as_str)
    }
}

impl LoadGenerator {
    /// Starts the clients against `address`.
    pub(super) fn start(address: SocketAddr) -> LoadGenerator {
        let (stop, stopped) = watch::channel(false);
        let tally = Arc::new(Tally::default());
        let mut clients = JoinSet::new();
        let now = Instant::now();
        for number in 0..CLIENTS {
            // Evenly spread, not all at the same moment.
            let first = now + PERIOD * number / CLIENTS;
            clients.spawn(client(address, first, Arc::clone(&tally), stopped.clone()));
        }
        LoadGenerator { clients, stop, tally }
    }

    /// What came of the requests so far; it can be read on after the load has ended.
    pub(super) fn tally(&self) -> &Arc<Tally> {
        &self.tally
    }

    /// Begins no further requests, and returns once those under way have their answers.
    pub(super) async fn finish(mut self) {
        self.stop.send_replace(true);
        while self.clients.join_next().await.is_some() {}
    }
}

async fn client(address: SocketAddr, first: Instant, tally: Arc<Tally>, mut stopped: watch::Receiver<bool>) {
    let mut ticks = interval_at(first, PERIOD);
    // Who was held up does not make up for it: the load stays light.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            _ = stopped.wait_for(|stopped| *stopped) => return,
            _ = ticks.tick() => {}
        }
        let outcome = match timeout(PATIENCE, request(address)).await {
            Ok(Ok(answer)) => verify(&answer),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no whole answer within {PATIENCE:?}")),
        };
        match outcome {
            Ok(()) => tally.answered.fetch_add(1, Relaxed),
            Err(failure) => {
                let _ = tally.first_failure.set(failure);
                tally.failed.fetch_add(1, Relaxed)
            }
        };
    }
}

async fn request(address: SocketAddr) -> io::Result<Vec<u8>> {
    let mut socket = TcpStream::connect(address).await?;
    let request = format!("GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    socket.take(ANSWER).read_to_end(&mut answer).await?;
    Ok(answer)
}

/// Whether this is what one of the backends answers, whole and nothing else.
fn verify(answer: &[u8]) -> Result<(), String> {
    let text = String::from_utf8_lossy(answer);
    let expected = match text.split_once("\r\n\r\n") {
        Some((head, body)) => {
            head.starts_with("HTTP/1.1 200 ") && KINDS.iter().any(|backend| backend.greeting() == body)
        }
        None => false,
    };
    if expected {
        return Ok(());
    }
    let first_line = text.lines().next().unwrap_or_default();
    Err(format!("not the answer of a backend: {} bytes, first line {first_line:?}", answer.len()))
}

#[cfg(test)]
mod tests {
    use super::verify;

    #[test]
    fn only_a_whole_greeting_will_do() {
        for (answer, passes) in [
            ("HTTP/1.1 200 OK\r\nA: b\r\n\r\nhello from slow\n", true),
            ("HTTP/1.1 200 OK\r\nA: b\r\n\r\nhello from slow\nhello from slow\n", false),
            ("HTTP/1.1 200 OK\r\nA: b\r\n\r\nhello from slo", false),
            ("HTTP/1.1 200 OK\r\nA: b\r\n\r\nhello from nobody\n", false),
            ("HTTP/1.1 503 Unavailable\r\nA: b\r\n\r\nhello from slow\n", false),
            ("HTTP/1.1 200 OK\r\n", false),
            ("", false),
        ] {
            assert_eq!(verify(answer.as_bytes()).is_ok(), passes, "{answer:?}");
        }
    }
}
