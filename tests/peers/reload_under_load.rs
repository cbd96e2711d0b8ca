//! Reloads, one after the other, while connections come as fast as they can and others last: none of them notices.
//!
//! `RELOADS` says how many.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use fastrand::Rng;
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::support::authority::{Authority, Issued};
use crate::support::client::Place;
use crate::support::proc::allow_open_files;
use crate::support::stats::{ADMIN_SOCKET, counters};
use crate::support::tidegate::Tidegate;
use crate::support::tls::Tls;
use crate::support::{DEADLINE, eventually, own_address, tell};

const LONG: usize = 500;
/// Connections under way of those that end at once.
const SHORT: usize = 12;
/// The load alone, before the first reload: what its latencies are compared with.
const ALONE: Duration = Duration::from_secs(3);
/// The files of the process as they are at rest; health checks come and go.
const FEW_FILES: usize = 12;
const MEMORY: u64 = 24 * 1024 * 1024;

/// A thread with tasks until `over`.
fn tasks<F: Future<Output = ()> + 'static>(
    over: &Arc<AtomicBool>,
    run: impl FnOnce(Arc<AtomicBool>) -> F + Send + 'static,
) -> JoinHandle<()> {
    let over = Arc::clone(over);
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(over));
    })
}

/// Backends that echo, in one thread.
fn echoes(over: &Arc<AtomicBool>, count: usize) -> (Vec<SocketAddr>, JoinHandle<()>) {
    let listeners: Vec<std::net::TcpListener> =
        (0..count).map(|_| std::net::TcpListener::bind((own_address(), 0)).unwrap()).collect();
    let addresses = listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
    let thread = tasks(over, async move |over| {
        let mut accepting = JoinSet::new();
        for listener in listeners {
            listener.set_nonblocking(true).unwrap();
            let listener = TcpListener::from_std(listener).unwrap();
            accepting.spawn(async move {
                loop {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    tokio::spawn(async move {
                        let mut buffer = vec![0; 2048];
                        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                            if stream.write_all(&buffer[..count]).await.is_err() {
                                break;
                            }
                        }
                    });
                }
            });
        }
        while !over.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    (addresses, thread)
}

/// What the load has seen.
#[derive(Default)]
struct Seen {
    short: AtomicU64,
    long: AtomicU64,
    faults: Mutex<Vec<String>>,
    /// How long connects took until the first byte was back, in microseconds.
    took: Mutex<Vec<u64>>,
}

impl Seen {
    fn fault(&self, what: &str, error: &dyn std::fmt::Display) {
        self.faults.lock().unwrap().push(format!("{what}: {error}"));
    }

    /// The 50th and the 99th percentile since the last call.
    fn percentiles(&self) -> (u64, u64) {
        let mut took = std::mem::take(&mut *self.took.lock().unwrap());
        took.sort_unstable();
        let at = |part: usize| took.get(took.len() * part / 100).copied().unwrap_or_default();
        (at(50), at(99))
    }
}

async fn echo_once(stream: &mut TcpStream, sent: &[u8], back: &mut [u8]) -> io::Result<()> {
    stream.write_all(sent).await?;
    stream.read_exact(back).await?;
    match sent == back {
        true => Ok(()),
        false => Err(io::Error::other("wrong bytes")),
    }
}

async fn short(to: SocketAddr, rng: &mut Rng) -> io::Result<u64> {
    // Enough addresses for the ports of all that are in TIME_WAIT.
    let from = IpAddr::V4(Ipv4Addr::new(127, 1, rng.u8(..), rng.u8(1..255)));
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(from, 0))?;
    let (mut sent, mut back) = ([0; 64], [0; 64]);
    rng.fill(&mut sent);
    let started = Instant::now();
    let mut stream = socket.connect(to).await?;
    echo_once(&mut stream, &sent, &mut back).await?;
    let took = started.elapsed().as_micros() as u64;
    stream.shutdown().await?;
    match stream.read(&mut back).await? {
        0 => Ok(took),
        _ => Err(io::Error::other("more than was sent")),
    }
}

fn short_ones(over: &Arc<AtomicBool>, seen: &Arc<Seen>, to: Vec<SocketAddr>) -> JoinHandle<()> {
    let seen = Arc::clone(seen);
    tasks(over, async move |over| {
        let mut running = JoinSet::new();
        for number in 0..SHORT {
            let (over, seen, to) = (Arc::clone(&over), Arc::clone(&seen), to[number % to.len()]);
            running.spawn(async move {
                let mut rng = Rng::with_seed(number as u64);
                while !over.load(Ordering::Relaxed) {
                    match short(to, &mut rng).await {
                        Ok(took) => seen.took.lock().unwrap().push(took),
                        Err(error) => seen.fault("short", &error),
                    }
                    seen.short.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        while running.join_next().await.is_some() {}
    })
}

fn long_ones(over: &Arc<AtomicBool>, seen: &Arc<Seen>, to: SocketAddr) -> JoinHandle<()> {
    let seen = Arc::clone(seen);
    tasks(over, async move |over| {
        let mut running = JoinSet::new();
        for number in 0..LONG {
            let (over, seen) = (Arc::clone(&over), Arc::clone(&seen));
            running.spawn(async move {
                let mut rng = Rng::with_seed(1_000 + number as u64);
                let (mut sent, mut back) = ([0; 1024], [0; 1024]);
                let mut stream = match TcpStream::connect(to).await {
                    Ok(stream) => stream,
                    Err(error) => return seen.fault("long", &error),
                };
                while !over.load(Ordering::Relaxed) {
                    rng.fill(&mut sent);
                    if let Err(error) = echo_once(&mut stream, &sent, &mut back).await {
                        return seen.fault("long", &error);
                    }
                    seen.long.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(rng.u64(200..800))).await;
                }
            });
        }
        while running.join_next().await.is_some() {}
    })
}

/// Handshakes, one after the other; either certificate will do.
fn handshakes(over: &Arc<AtomicBool>, seen: &Arc<Seen>, to: Place, authority: &Authority) -> JoinHandle<u64> {
    let (over, seen, client) = (Arc::clone(over), Arc::clone(seen), authority.client());
    thread::spawn(move || {
        let mut count = 0;
        while !over.load(Ordering::Relaxed) {
            match Tls::try_connect(&to, &client, "localhost") {
                Ok(_) => count += 1,
                Err(error) => seen.fault("TLS", &error),
            }
            thread::sleep(Duration::from_millis(5));
        }
        count
    })
}

/// What the configurations are made of.
struct Material<'m> {
    backends: &'m [SocketAddr],
    certificates: &'m [Issued],
    /// Of the listener that changes its name, and of the one that comes and goes.
    addresses: [SocketAddr; 2],
}

impl Material<'_> {
    /// Each part changes with another period.
    fn configuration(&self, round: usize) -> String {
        let every = |period: usize| (round / period) % 2 == 1;
        let pick = |list: &[&'static str]| list[round % list.len()];
        let Material { backends, certificates, addresses: [named, passing] } = self;
        let limits = pick(&["", "limits: { connection_rate: 1000000/s }", "limits: { connections_per_ip: 5000 }"]);
        let max = if every(2) { "max_connections: 8000, " } else { "" };
        let timeouts = if every(3) { "timeouts: { half_close: 50s }, " } else { "" };
        let name = if every(2) { "one" } else { "other" };
        let certificate = certificates[usize::from(every(1))].yaml();
        let mut yaml = format!(
            "{ADMIN_SOCKET}workers: 2\nlisteners:\n\
             - {{ name: in, bind: \"127.0.0.1:0\", pool: p, {max}{timeouts}{limits} }}\n\
             - {{ name: {name}, bind: \"{named}\", pool: {} }}\n\
             - {{ name: tls, bind: \"127.0.0.1:0\", pool: p, tls: {{ certificates: [{certificate}] }} }}\n",
            if every(4) { "p" } else { "q" },
        );
        if every(1) {
            yaml += &format!("- {{ name: passing, bind: \"{passing}\", pool: r }}\n");
        }
        let balance = pick(&["round_robin", "least_connections", "random", "ip_hash", "power_of_two", "least_latency"]);
        yaml += &format!("pools:\n- name: p\n  balance: {balance}\n  retries: {}\n  backends:\n", round % 3);
        for (number, address) in backends.iter().enumerate() {
            // One of them comes and goes.
            if number > 0 || every(2) {
                let weight = 1 + (round + number) % 5;
                yaml += &format!("  - {{ name: b{number}, address: \"{address}\", weight: {weight} }}\n");
            }
        }
        if every(5) {
            yaml += "  health: { tcp: {}, interval: 2s }\n";
        }
        yaml += &format!("- {{ name: q, backends: [{{ name: c, address: \"{}\" }}] }}\n", backends[1]);
        if every(1) {
            yaml += &format!("- {{ name: r, backends: [{{ name: c, address: \"{}\" }}] }}\n", backends[2]);
        }
        yaml
    }
}

/// Each sample is at least what it last was, `high`, and is there.
fn never_back(high: &mut BTreeMap<String, f64>, now: BTreeMap<String, f64>, round: usize) {
    for (key, value) in &*high {
        // The series of what comes and goes begins at zero again.
        if ["passing", "one", "other", "\"r\"", "b0"].iter().any(|name| key.contains(name)) {
            continue;
        }
        match now.get(key) {
            Some(now) => assert!(now >= value, "{round}: {key} {value}: {now}"),
            // Without health checks they are not shown.
            None => assert!(key.contains("_check"), "{round}: {key} is gone"),
        }
    }
    high.extend(now);
}

#[test]
fn nobody_notices_reloads() {
    let reloads: usize = std::env::var("RELOADS").ok().and_then(|text| text.parse().ok()).unwrap_or(150);
    allow_open_files(8_000);
    let authority = Authority::new();
    let certificates = [(); 2].map(|()| authority.issue(&["localhost"]));
    let (over, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Seen::default()));
    let servers_over = Arc::new(AtomicBool::new(false));
    let (backends, servers) = echoes(&servers_over, 3);
    let addresses = [7000, 7001].map(|port| SocketAddr::from((own_address(), port)));
    let material = Material { backends: &backends, certificates: &certificates, addresses };
    let tidegate = Tidegate::with(&material.configuration(0)).open_files(8_000, 8_000).start();
    let port = tidegate.stats_port();
    let at = tidegate.at("in").tcp();

    let long = long_ones(&over, &seen, at);
    eventually(DEADLINE, "the long ones are there", || seen.long.load(Ordering::Relaxed) >= LONG as u64);
    let over_of_short = Arc::new(AtomicBool::new(false));
    let short = short_ones(&over_of_short, &seen, vec![at, addresses[0]]);
    let tls = handshakes(&over, &seen, tidegate.at("tls"), &authority);
    let ending = Ending([&over, &over_of_short, &servers_over]);
    thread::sleep(ALONE);
    let (alone, count_alone) = (seen.percentiles(), seen.short.load(Ordering::Relaxed));

    let (started, mut high) = (Instant::now(), counters(&port));
    let mut at_rest = None;
    for round in 1..=reloads {
        // Those that end with the test have the files and the memory of those that began it.
        let configuration = if round == reloads { 0 } else { round };
        tidegate.rewrite(&material.configuration(configuration));
        if round % 3 == 0 {
            let applied = || tidegate.count_logs(|line| line.is("audit") && line.field("actor") == "SIGHUP");
            let before = applied();
            tidegate.signal(Signal::HUP);
            eventually(DEADLINE, "it is applied", || applied() > before);
        } else {
            let answer = tidegate.call("POST", "/api/reload", "");
            assert_eq!(answer.status, 200, "{round}: {}", answer.text());
        }
        // Readers are slowed down when they ask all the time.
        if round % (reloads / 20).max(1) == 0 || round == reloads {
            never_back(&mut high, counters(&port), round);
        }
        assert!(seen.faults.lock().unwrap().is_empty(), "{round}: {:?}", seen.faults.lock().unwrap());
        // Caches and pools of memory are full by then.
        if round == (reloads / 3).max(1) {
            at_rest = Some((tidegate.open_files(), tidegate.resident()));
        }
    }
    let (took, during) = (started.elapsed(), seen.percentiles());
    let count = seen.short.load(Ordering::Relaxed) - count_alone;
    over_of_short.store(true, Ordering::Relaxed);
    short.join().unwrap();
    eventually(DEADLINE, "only long ones are left", || tidegate.view().plane.open <= LONG + 1);
    let listening = 2 * 3;
    // Each has two, and each of the process's own has its worth.
    let own = tidegate.open_files().saturating_sub(2 * LONG + listening);
    let memory = tidegate.resident();
    assert_eq!(tidegate.view().listeners[0].open, LONG as u64, "all of them are still there");
    over.store(true, Ordering::Relaxed);
    long.join().unwrap();
    let handshakes = tls.join().unwrap();
    drop(ending);
    servers.join().unwrap();

    let faults = seen.faults.lock().unwrap();
    assert!(faults.is_empty(), "{} faults: {:?}", faults.len(), &faults[..faults.len().min(20)]);
    let (files_before, memory_before) = at_rest.expect("there was a reload");
    tell(&format!(
        "{reloads} reloads in {took:.1?}: {count} short connections ({:.0}/s; {:.0}/s without reloads), {} messages of {LONG} \
         long ones, {handshakes} handshakes, no fault; connect to first byte p50 {} us and p99 {} us, without reloads {} us and {} us; \
         open files {files_before} under load, {own} of its own at rest; {} KiB resident, {} KiB after a third of them",
        count as f64 / took.as_secs_f64(),
        count_alone as f64 / ALONE.as_secs_f64(),
        seen.long.load(Ordering::Relaxed),
        during.0,
        during.1,
        alone.0,
        alone.1,
        memory / 1024,
        memory_before / 1024,
    ));
    assert!(memory < memory_before + MEMORY, "{memory} bytes, {memory_before} before");
    eventually(DEADLINE, "all have left", || tidegate.view().plane.open == 0);
    let files = |tidegate: &Tidegate| tidegate.open_files();
    let fresh = Tidegate::with(&material.configuration(0).replace(&addresses[0].to_string(), "127.0.0.1:0")).start();
    eventually(DEADLINE, "no more files than at a start", || files(&tidegate) <= files(&fresh) + FEW_FILES);
}

/// Ends the load however the test ends.
struct Ending<'f>([&'f Arc<AtomicBool>; 3]);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(|over| over.store(true, Ordering::Relaxed));
    }
}
