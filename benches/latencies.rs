//! What measuring costs the thread that takes the samples, and how much memory histograms take when there are many.

#![allow(clippy::print_stdout, reason = "it is a benchmark")]

use std::fs;
use std::hint::black_box;
use std::time::{Duration, Instant};

use tidegate::stats::latency::{Latencies, Sample, Stage};
use tidegate::stats::registry::{BackendId, ListenerId, Registry};

const BACKENDS: usize = 1_000;
/// Of each backend in a second: 100,000 round trips over all of them.
const A_SECOND: usize = 100;
/// As long as the longest window.
const SECONDS: u64 = 300;

fn main() {
    // Without this argument it is a test's run: short, only to see that it runs.
    let seconds = if std::env::args().any(|argument| argument == "--bench") { SECONDS } else { 3 };
    let before = resident();
    let mut random = fastrand::Rng::with_seed(7);
    let registry = Registry::default();
    let (listener, pool) = (registry.listener(), registry.pool());
    let backends: Vec<BackendId> = (0..BACKENDS).map(|_| registry.backend()).collect();
    let mut latencies = Latencies::new([listener], [(pool, backends.clone())]);
    let (mut took, mut count) = (Duration::ZERO, 0_u64);
    for second in 0..seconds {
        for _ in 0..A_SECOND {
            let samples: Vec<Sample> = backends.iter().map(|&backend| sample(listener, backend, &mut random)).collect();
            let began = Instant::now();
            latencies.absorb(black_box(&samples));
            took += began.elapsed();
            count += samples.len() as u64;
        }
        let began = Instant::now();
        latencies.advance(second + 1);
        took += began.elapsed();
    }
    println!("{:.1} ns a sample, windows included", took.as_nanos() as f64 / count as f64);
    let grown = resident().saturating_sub(before) as f64 / f64::from(1 << 20);
    println!("{grown:.0} MiB for {BACKENDS} backends with {A_SECOND} samples a second each, after {seconds} s");
}

/// One in ten is of a connection's stages, the others are turnarounds; around 1 ms, with a long tail.
fn sample(listener: ListenerId, backend: BackendId, random: &mut fastrand::Rng) -> Sample {
    let stage = match random.u8(..50) {
        0 => Stage::Queue,
        1 => Stage::Connect,
        2 => Stage::FirstByte,
        3 => Stage::Session,
        4 => Stage::TlsHandshake,
        _ => Stage::Turnaround,
    };
    // The sum of twelve is nearly normal; its power is log-normal with a deviation of an octave.
    let normal = (0..12).map(|_| random.f64()).sum::<f64>() - 6.0;
    let micros = 1_000.0 * normal.exp2();
    Sample::new(listener, backend, stage, Duration::from_micros(micros as u64))
}

/// Bytes of memory (proc(5)).
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or_default() * 1024
}
