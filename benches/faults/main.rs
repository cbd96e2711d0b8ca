//! The fault run: clients and backends that misbehave, by a seed, on every kind of listener. Each byte is verified by the
//! side that receives it; in the end nothing may be left.
//!
//! `make faults` runs it for ten minutes, `make test` for some seconds.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a program whose results are what it prints, and which ends with the first thing that is wrong"
)]

mod backend;
mod balancer;
mod client;
mod content;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use fastrand::Rng;

use self::backend::{Backend, Listening};
use self::balancer::Balancer;
use self::client::Client;

/// Memory that may be more at the end than after the warm-up.
const GROWTH_KIB: u64 = 24 * 1024;
/// Descriptors that may be more: pipes that are kept.
const KEPT_FILES: usize = 2 * 64 * 2 + 8;

/// Runs seeded faults against tidegate.
#[derive(Parser, Debug)]
#[command(name = "faults")]
struct Cli {
    /// `cargo bench` passes this to every benchmark.
    #[arg(long, hide = true, global = true)]
    bench: bool,
    /// As does `cargo test`.
    #[arg(long, hide = true, global = true)]
    test: bool,
    #[command(subcommand)]
    command: Option<Task>,
}

#[derive(Subcommand, Debug)]
enum Task {
    /// The fault run.
    Run(Args),
    #[command(hide = true)]
    Backend(backend::Args),
}

#[derive(clap::Args, Clone, Debug)]
struct Args {
    /// What decides everything but the timing of threads. Random unless given.
    #[arg(long)]
    seed: Option<u64>,
    /// How long.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Clients at a time.
    #[arg(long, default_value_t = 48)]
    clients: u64,
    /// The tidegate that is run.
    #[arg(long, default_value = env!("CARGO_BIN_EXE_tidegate"))]
    tidegate: PathBuf,
}

/// What clients and the fault maker share.
struct Shared {
    /// No new connections, no new faults.
    stopping: AtomicBool,
    /// No client is left.
    over: AtomicBool,
    /// Twice the backends that were killed so far, and odd while one dies: it ends its connections by FIN, wherever they
    /// are.
    kills: AtomicU64,
    exchanges: AtomicU64,
    cut: AtomicU64,
    bytes: AtomicU64,
}

fn main() -> ExitCode {
    let short = Args { seed: Some(7), seconds: 6, clients: 16, tidegate: env!("CARGO_BIN_EXE_tidegate").into() };
    let outcome = match Cli::parse().command {
        Some(Task::Backend(args)) => backend::serve(&args),
        Some(Task::Run(args)) => run(&args),
        None => run(&short),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("FAULT: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), String> {
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    println!("faults: seed {seed}, {} s, {} clients", args.seconds, args.clients);
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let outcome = run_in(directory.path(), seed, args);
    // What was logged is what a fault is found by.
    outcome.map_err(|error| format!("{error}; seed {seed}; the logs are in {}", directory.keep().display()))
}

fn run_in(folder: &Path, seed: u64, args: &Args) -> Result<(), String> {
    let certificate = content::certificate(folder);
    let backends = backends(folder);
    let mut balancer = Balancer::start(&args.tidegate, folder, &backends)?;
    let shared = Arc::new(Shared {
        stopping: AtomicBool::new(false),
        over: AtomicBool::new(false),
        kills: AtomicU64::new(0),
        exchanges: AtomicU64::new(0),
        cut: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
    });
    let clients: Vec<_> = (0..args.clients)
        .map(|number| {
            let (shared, certificate, listeners) =
                (Arc::clone(&shared), certificate.clone(), balancer.listeners.clone());
            let mut client =
                Client::new(Rng::with_seed(seed ^ (number + 1) << 32), number, shared, certificate, listeners);
            thread::spawn(move || client.run())
        })
        .collect();
    let faults = {
        let (shared, mut rng) = (Arc::clone(&shared), Rng::with_seed(seed));
        thread::spawn(move || make_faults(backends, &mut rng, &shared))
    };
    let outcome = watch(args, &shared, &mut balancer, folder);
    shared.stopping.store(true, Ordering::Release);
    let clients: Vec<_> = clients.into_iter().map(thread::JoinHandle::join).collect();
    shared.over.store(true, Ordering::Release);
    let backends = faults.join().map_err(|_| "the fault maker panicked")?;
    if clients.iter().any(Result::is_err) {
        return Err("a client has seen what must not be (above)".into());
    }
    let ended = outcome.and_then(|warm| settle(&mut balancer, folder, &warm));
    drop(backends);
    ended.map_err(|error| format!("{error}\nthe log:\n{}\n", balancer.log_tail()))?;
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "faults: {} exchanges complete, {} cut, {} kills, {} MB verified: nothing wrong, nothing left",
        count(&shared.exchanges),
        count(&shared.cut),
        count(&shared.kills) / 2,
        count(&shared.bytes) >> 20
    );
    if count(&shared.exchanges) == 0 { Err("no exchange was completed".into()) } else { Ok(()) }
}

/// Two of each kind.
fn backends(folder: &Path) -> Vec<Backend> {
    let tcp = (0..2).map(|_| Listening::tcp(false));
    let tls = (0..2).map(|_| Listening::tcp(true));
    let unix = (0..2).map(|number| Listening::Unix(folder.join(format!("backend-{number}.sock"))));
    tcp.chain(tls).chain(unix).map(|listening| Backend::start(listening, folder)).collect()
}

/// Kills, stops, continues and restarts backends until all is to stop. Then all of them run.
fn make_faults(mut backends: Vec<Backend>, rng: &mut Rng, shared: &Shared) -> Vec<Backend> {
    while !shared.stopping.load(Ordering::Acquire) {
        let count = backends.len();
        let backend = &mut backends[rng.usize(..count)];
        let pause = Duration::from_millis(rng.u64(30..600));
        match rng.u8(..5) {
            0 | 1 => {
                // Odd while it dies: a client that sees its FIN must know of it.
                shared.kills.fetch_add(1, Ordering::SeqCst);
                backend.kill();
                shared.kills.fetch_add(1, Ordering::SeqCst);
                thread::sleep(pause);
                backend.restart();
            }
            2 | 3 => {
                backend.stop();
                thread::sleep(pause * 2);
                backend.go_on();
            }
            _ => {}
        }
        thread::sleep(Duration::from_millis(rng.u64(50..400)));
    }
    // A process that asks for a signal at its parent's death means the thread that has started it.
    while !shared.over.load(Ordering::Acquire) {
        thread::sleep(Duration::from_millis(5));
    }
    backends
}

/// What the process held when it was warm.
struct Warm {
    files: usize,
    resident_kib: u64,
}

/// Looks every second, until the time is over or something is wrong.
fn watch(args: &Args, shared: &Shared, balancer: &mut Balancer, folder: &Path) -> Result<Warm, String> {
    let began = Instant::now();
    let before = balancer.open_files();
    let mut resident_kib = 0;
    let mut reported = 0;
    while began.elapsed() < Duration::from_secs(args.seconds) {
        thread::sleep(Duration::from_secs(1));
        balancer.check()?;
        wrong_bytes(folder)?;
        let passed = began.elapsed().as_secs();
        if passed * 4 < args.seconds || args.seconds < 60 {
            resident_kib = resident_kib.max(balancer.resident_kib());
        }
        if passed / 30 > reported {
            reported = passed / 30;
            let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            println!(
                "{passed:>4} s: {} exchanges, {} cut, {} kills, {} MB, {} files, {} MiB",
                count(&shared.exchanges),
                count(&shared.cut),
                count(&shared.kills) / 2,
                count(&shared.bytes) >> 20,
                balancer.open_files(),
                balancer.resident_kib() >> 10
            );
        }
    }
    Ok(Warm { files: before, resident_kib })
}

/// All are gone: so must be their connections.
fn settle(balancer: &mut Balancer, folder: &Path, warm: &Warm) -> Result<(), String> {
    let end = Instant::now() + Duration::from_secs(1);
    let mut open = balancer.open_connections()?;
    while open > 0 && Instant::now() < end {
        thread::sleep(Duration::from_millis(20));
        open = balancer.open_connections()?;
    }
    if open > 0 {
        return Err(format!("{open} connections are open a second after the last client left"));
    }
    wrong_bytes(folder)?;
    let (files, resident_kib) = (balancer.open_files(), balancer.resident_kib());
    if files > warm.files + KEPT_FILES {
        return Err(format!("{files} descriptors are open, {} were before", warm.files));
    }
    if resident_kib > warm.resident_kib + GROWTH_KIB {
        return Err(format!("{resident_kib} KiB are resident, {} were when warm", warm.resident_kib));
    }
    balancer.end()
}

/// What backends have found wrong.
fn wrong_bytes(folder: &Path) -> Result<(), String> {
    match fs::read_to_string(content::report(folder)) {
        Ok(found) if !found.is_empty() => Err(found),
        _ => Ok(()),
    }
}
