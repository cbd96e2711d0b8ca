//! How long a worker is held up while somebody lists its connections, and what the list costs it.
//!
//! One worker has as many open connections as there are descriptors for, 20,000 at most. Over one more goes a round trip after
//! the other, first alone, then beside a reader that asks for list after list.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "it is a benchmark: it prints its results, and ends with the first thing that is wrong"
)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Connections that are wanted.
const OPEN: usize = 20_000;
/// Descriptors that are for everything else.
const OTHER_FILES: usize = 500;
/// Places of the list that a worker looks at in a turn of its loop, as in server/connections.rs.
const PORTION: f64 = 256.0;

/// A tidegate with one worker; its drop ends it.
struct Balancer {
    process: Child,
    listener: SocketAddr,
    stats: SocketAddr,
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Balancer {
    fn start(backend: SocketAddr, folder: &tempfile::TempDir) -> Balancer {
        let file = folder.path().join("tidegate.yaml");
        let yaml = format!(
            "workers: 1\nlog: {{ format: json, access: off }}\nadmin: {{ bind: \"127.0.0.1:0\" }}\n\
             listeners: [{{ name: in, bind: \"127.0.0.1:0\", pool: p }}]\n\
             pools: [{{ name: p, backends: [{{ name: b, address: \"{backend}\" }}] }}]\n"
        );
        fs::write(&file, yaml).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        let mut process = command.arg("run").arg(&file).stderr(Stdio::piped()).spawn().expect("tidegate");
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let mut address = |message: &str| -> SocketAddr {
            let line = lines.find_map(|line| {
                let line: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
                (line["message"] == message).then_some(line)
            });
            line.expect("it starts")["address"].as_str().unwrap().parse().unwrap()
        };
        let (listener, stats) = (address("listening"), address("stats port"));
        thread::spawn(move || lines.for_each(drop));
        Balancer { process, listener, stats }
    }

    /// The CPU time of its worker so far.
    fn worker_cpu(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.process.id())).unwrap();
        let of_worker = tasks
            .map(|task| task.unwrap().path())
            .find(|task| fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "worker-0"));
        let text = fs::read_to_string(of_worker.expect("a worker").join("schedstat")).unwrap();
        Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
    }

    /// How many connections there are.
    fn list(&self, query: &str) -> u64 {
        let mut stream = TcpStream::connect(self.stats).unwrap();
        write!(stream, "GET /api/connections?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let body = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap() + 4;
        let answer: serde_json::Value = serde_json::from_slice(&answer[body..]).expect("a list");
        answer["matched"].as_u64().unwrap()
    }
}

fn main() {
    // Without this argument it is a test's run: short, only to see that it runs.
    let is_whole = std::env::args().any(|argument| argument == "--bench");
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    // Each has two descriptors here and two there.
    let room = limit.maximum.map_or(OPEN, |files| (files as usize).saturating_sub(OTHER_FILES) / 2);
    let (open, trips, lists) = if is_whole { (OPEN.min(room), 50_000, 50) } else { (300, 200, 3) };

    let (backend, held) = backend();
    let folder = tempfile::tempdir().unwrap();
    let balancer = Balancer::start(backend, &folder);
    let mut traveller = TcpStream::connect(balancer.listener).unwrap();
    traveller.set_nodelay(true).unwrap();
    round_trip(&mut traveller);
    let _clients: Vec<TcpStream> = (0..open)
        .map(|number| {
            let client = TcpStream::connect(balancer.listener).unwrap();
            while held.load(Ordering::Relaxed) < number + 2 {
                thread::yield_now();
            }
            client
        })
        .collect();
    while balancer.list("backend=b&limit=1") < open as u64 + 1 {
        thread::yield_now();
    }

    for query in ["limit=1000", "limit=10000", "client=10.0.0.0/8"] {
        let before = balancer.worker_cpu();
        for _ in 0..lists {
            balancer.list(query);
        }
        let each = (balancer.worker_cpu() - before).as_secs_f64() / f64::from(lists);
        // The list has room for the next power of two.
        let portions = ((open + 1).next_power_of_two() as f64 / PORTION).ceil();
        println!(
            "{open} open, {query}: {:.2} ms of its worker's CPU a list, {:.0} µs a portion",
            each * 1e3,
            each * 1e6 / portions
        );
    }
    println!("round trips alone:      {}", percentiles(&mut traveller, trips));
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                balancer.list("limit=1000");
            }
        });
        println!("beside list after list: {}", percentiles(&mut traveller, trips));
        over.store(true, Ordering::Relaxed);
    });
}

/// Echoes its first connection, and keeps all others. Returns its address, and how many it has.
fn backend() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, accepted) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&accepted);
    thread::spawn(move || {
        let mut kept = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            if count.fetch_add(1, Ordering::Relaxed) == 0 {
                stream.set_nodelay(true).unwrap();
                thread::spawn(move || {
                    let mut byte = [0];
                    while stream.read_exact(&mut byte).and_then(|()| stream.write_all(&byte)).is_ok() {}
                });
            } else {
                kept.push(stream);
            }
        }
    });
    (address, accepted)
}

fn round_trip(stream: &mut TcpStream) -> Duration {
    let began = Instant::now();
    stream.write_all(b"x").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    began.elapsed()
}

fn percentiles(stream: &mut TcpStream, trips: usize) -> String {
    let mut took: Vec<Duration> = (0..trips).map(|_| round_trip(stream)).collect();
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_micros();
    format!("p50 {} µs, p99 {} µs, p99.9 {} µs, longest {} µs", at(0.5), at(0.99), at(0.999), at(1.0))
}
