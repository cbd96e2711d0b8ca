//! What choosing one of 1,000 backends costs: the choice alone, and the lease (choice, count, return); and what
//! preparing an algorithm for them costs.
//!
//! Targets: below 1 µs each, below 5 µs for `least_connections` and `least_latency`, which look at everybody.

use std::hint::black_box;
use std::net::IpAddr;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use tidegate::balance::{Balancer, Candidate, Draw, Live, identity};
use tidegate::config::model::{
    AdminState, BackendAddress, BackendConfig, Balance, HashPrefix, HttpPool, OnConflict, OnDown, PoolConfig as Config,
    QueueConfig,
};
use tidegate::pool::{Excluded, Pool};
use tidegate::stats::registry::Registry;

const BACKENDS: usize = 1_000;

const ALL: [(&str, Balance); 6] = [
    ("round_robin", Balance::RoundRobin),
    ("least_connections", Balance::LeastConnections),
    ("ip_hash", Balance::IpHash),
    ("power_of_two", Balance::PowerOfTwo),
    ("least_latency", Balance::LeastLatency),
    ("random", Balance::Random),
];

/// All different, so that no algorithm has it easy.
fn weight(index: usize) -> u32 {
    1 + (index as u32 * 7919) % 100
}

struct Numbers(Vec<(u32, u32)>);

impl Live for Numbers {
    fn connections(&self, index: usize) -> u32 {
        self.0[index].0
    }

    fn latency_us(&self, index: usize) -> u32 {
        self.0[index].1
    }

    fn can_take(&self, index: usize) -> bool {
        self.0[index].0 < 10_000
    }
}

fn pick(c: &mut Criterion) {
    let named = |i| Candidate { identity: identity(&format!("backend-{i}")), weight: weight(i) };
    let candidates: Vec<Candidate> = (0..BACKENDS).map(named).collect();
    let load = |i: usize| ((i as u32 * 31) % 500, 100 + (i as u32 * 17) % 9_000);
    let live = Numbers((0..BACKENDS).map(load).collect());
    let mut group = c.benchmark_group("pick");
    for (name, kind) in ALL {
        let balancer = Balancer::new(kind, &candidates);
        let mut turn = 0;
        group.bench_function(name, |b| {
            b.iter(|| {
                turn += 1;
                let mixed = turn * 0x9e37_79b9_7f4a_7c15_u64 as u128;
                let draw = Draw { key: mixed as u64, turn: turn as u64, random: mixed as u64 };
                balancer.pick(black_box(&draw), &live)
            });
        });
    }
}

/// What a change of health costs the control thread.
fn prepare(c: &mut Criterion) {
    let named = |i| Candidate { identity: identity(&format!("backend-{i}")), weight: weight(i) };
    let candidates: Vec<Candidate> = (0..BACKENDS).map(named).collect();
    let mut group = c.benchmark_group("prepare");
    for (name, kind) in ALL {
        group.bench_function(name, |b| b.iter(|| Balancer::new(kind, black_box(&candidates))));
    }
}

fn config(balance: Balance) -> Config {
    let backend = |i: usize| BackendConfig {
        state: AdminState::Ready,
        forced: None,
        name: format!("backend-{i}").into(),
        address: BackendAddress::Ip(([127, 0, 0, 1], 1_000 + i as u16).into()),
        weight: weight(i),
        max_connections: None,
        backup: false,
    };
    Config {
        name: "bench".into(),
        balance,
        hash: HashPrefix { ipv4: 32, ipv6: 64 },
        backends: (0..BACKENDS).map(backend).collect(),
        health: None,
        outlier: None,
        fail_open: 0,
        persist: None,
        http: HttpPool::default(),
        queue: QueueConfig { size: 0, timeout: Duration::from_secs(5) },
        on_down: OnDown::Keep,
        on_conflict: OnConflict::Refuse,
        slow_start: Duration::ZERO,
        retries: 2,
        connect_timeout: Duration::from_secs(5),
        send_proxy: None,
        tls: None,
        source: Vec::new(),
    }
}

fn lease(c: &mut Criterion) {
    let mut group = c.benchmark_group("lease");
    for (name, balance) in ALL {
        let pool = Pool::new(config(balance), &Registry::default(), 1);
        // Under load: nobody is idle, nobody is alike.
        let _held: Vec<_> = (0..50_u32 * BACKENDS as u32)
            .filter_map(|n| pool.lease(Some(IpAddr::from(n.to_be_bytes())), &Excluded::new()).ok())
            .collect();
        for (backend, n) in pool.backends().iter().zip(0_u64..) {
            backend.record_connect(Duration::from_micros(100 + n * 17 % 9_000));
        }
        let mut client = 0_u32;
        group.bench_function(name, |b| {
            b.iter(|| {
                client = client.wrapping_add(1);
                pool.lease(Some(IpAddr::from(client.to_be_bytes())), black_box(&Excluded::new()))
            });
        });
    }
}

criterion_group!(benches, pick, lease, prepare);
criterion_main!(benches);
