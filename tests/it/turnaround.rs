//! How long backends take to answer, as the stats port says it, against what they and their clients measured themselves.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tidegate::admin::snapshot_model::{Latency, LatencySummary};
use tidegate::stats::latency::{Stage, Window};

use crate::support::backend::{Backend, in_thread};
use crate::support::client::connect;
use crate::support::most_runs_agree;
use crate::support::stats::{ADMIN, backend, listener};
use crate::support::tidegate::{Tidegate, forward};
use crate::support::tls::{Authority, Tls, terminate};

/// Requests on each connection, and connections.
const REQUESTS: usize = 25;
const CLIENTS: usize = 4;
/// The most that may lie between the medians of both, in microseconds.
const TOLERANCE: u64 = 1_000;

/// A request and its answer.
#[derive(Clone, Copy)]
struct Exchange {
    delay: Duration,
    request: usize,
    answer: usize,
}

/// Answers after a delay, and notes how long that really was.
fn slow(exchange: Exchange) -> (Backend, Arc<Mutex<Vec<u64>>>) {
    let took = Arc::new(Mutex::new(Vec::new()));
    let backend = Backend::start(in_thread({
        let took = Arc::clone(&took);
        move |mut stream: TcpStream| {
            let (mut request, answer) = (vec![0; exchange.request], vec![7; exchange.answer]);
            while stream.read_exact(&mut request).is_ok() {
                let asked = Instant::now();
                thread::sleep(exchange.delay);
                let waited = asked.elapsed();
                if stream.write_all(&answer).is_err() {
                    return;
                }
                took.lock().unwrap().push(u64::try_from(waited.as_micros()).unwrap());
            }
        }
    }));
    (backend, took)
}

fn converse(mut stream: impl Read + Write, exchange: Exchange) {
    let (request, mut answer) = (vec![1; exchange.request], vec![0; exchange.answer]);
    for _ in 0..REQUESTS {
        stream.write_all(&request).unwrap();
        stream.read_exact(&mut answer).unwrap();
    }
}

/// What quantile the values have, by the definition that histograms use.
fn quantile(values: &mut [u64], quantile: f64) -> u64 {
    values.sort_unstable();
    values[((quantile * values.len() as f64).ceil() as usize).clamp(1, values.len()) - 1]
}

/// The stats port says what the backend itself measured.
fn agrees(what: &str, exchange: Exchange, run: impl Fn(&Backend) -> Tidegate) {
    most_runs_agree(&format!("{what}, after {:?}", exchange.delay), || {
        let (server, took) = slow(exchange);
        let tidegate = run(&server);
        let view = tidegate.view();
        let turnaround = |latency: &Latency| *latency.get(Stage::Turnaround, Window::All).unwrap();
        let (LatencySummary { count, p50_us, p99_us, .. }, of_listener) =
            (turnaround(&backend(&view, "b").latency), turnaround(&listener(&view, "in").latency));
        assert_eq!((count, of_listener.count), ((CLIENTS * REQUESTS) as u64, count), "{what}: each answer once");
        let mut took = took.lock().unwrap().clone();
        let (p50, p99) = (quantile(&mut took, 0.5), quantile(&mut took, 0.99));
        assert!(p50_us >= p50 - p50 / 100, "{what}: an answer cannot come before it is given: {p50_us} < {p50} us");
        assert!(p99_us >= p99 - p99 / 100, "{what}: an answer cannot come before it is given: {p99_us} < {p99} us");
        // The slowest answers also waited for a CPU in tidegate, which is not the backend's to say.
        let agrees = p50_us.abs_diff(p50) < TOLERANCE;
        (agrees, format!("p50 {p50_us} us for {p50}, p99 {p99_us} us for {p99}"))
    });
}

fn plain(exchange: Exchange) -> impl Fn(&Backend) -> Tidegate {
    move |server| {
        let tidegate = Tidegate::start(&format!("{ADMIN}{}", forward(server.place(), "", "")));
        let at = tidegate.at("in");
        thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| converse(connect(&at), exchange));
            }
        });
        tidegate
    }
}

fn over_tls(exchange: Exchange) -> impl Fn(&Backend) -> Tidegate {
    let authority = Authority::new();
    let certificate = authority.issue(&["a.example"]);
    move |server| {
        let tidegate = Tidegate::start(&format!("{ADMIN}{}", terminate(server.place(), &[&certificate], "", "")));
        let (at, client) = (tidegate.at("in"), authority.client());
        thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| {
                    let tls = Tls::connect(&at, &client, "a.example");
                    converse(&mut Both(&tls), exchange);
                });
            }
        });
        tidegate
    }
}

/// Reads and writes.
struct Both<'t>(&'t Tls);

impl Read for Both<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let mut tls = self.0;
        tls.read(buffer)
    }
}

impl Write for Both<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut tls = self.0;
        tls.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

const FIVE: Duration = Duration::from_millis(5);
const FIFTY: Duration = Duration::from_millis(50);

#[test]
fn a_backend_that_answers_after_5_and_50_ms() {
    for delay in [FIVE, FIFTY] {
        let exchange = Exchange { delay, request: 64, answer: 64 };
        agrees("plain", exchange, plain(exchange));
    }
}

/// After the second full buffer a direction goes over to splice, and stays there for what is large.
#[test]
fn the_same_when_answers_are_spliced() {
    for delay in [FIVE, FIFTY] {
        let exchange = Exchange { delay, request: 64, answer: 512 * 1024 };
        agrees("spliced", exchange, plain(exchange));
    }
}

#[test]
fn the_same_over_tls() {
    for delay in [FIVE, FIFTY] {
        let exchange = Exchange { delay, request: 64, answer: 64 };
        agrees("over TLS", exchange, over_tls(exchange));
    }
}
