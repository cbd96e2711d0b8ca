//! What access lists, countries and splits cost a connection, and the memory that they take.
//!
//! Targets: below 1 µs for a list of 100,000 networks, and for a country among 300,000 ranges.

#![allow(clippy::print_stdout, clippy::expect_used, reason = "it is a benchmark")]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use criterion::{Criterion, criterion_group, criterion_main};
use ipnet::IpNet;
use tidegate::balance::Split;
use tidegate::config::model::{AccessConfig, ClientRule};
use tidegate::limits::AccessList;
use tidegate::net::country::Country;
use tidegate::net::networks::CountryMap;

const NETWORKS: u32 = 100_000;
const RANGES: u32 = 300_000;

/// Bits that look random, the same in each run.
fn mixed(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// A network of each length from /20 to /32.
fn v4_network(number: u32) -> IpNet {
    let address = Ipv4Addr::from((mixed(number.into()) >> 32) as u32);
    IpNet::new(address.into(), 20 + (number % 13) as u8).expect("a valid length").trunc()
}

/// A network of each length from /40 to /64.
fn v6_network(number: u32) -> IpNet {
    let address = Ipv6Addr::from(0x2000_u128 << 112 | u128::from(mixed(number.into())) << 48);
    IpNet::new(address.into(), 40 + (number % 25) as u8).expect("a valid length").trunc()
}

fn client(turn: u64, is_v6: bool) -> IpAddr {
    match is_v6 {
        false => Ipv4Addr::from((mixed(turn) >> 17) as u32).into(),
        true => Ipv6Addr::from(0x2000_u128 << 112 | u128::from(mixed(turn)) << 48 | 1).into(),
    }
}

fn access(c: &mut Criterion) {
    let mut group = c.benchmark_group("access");
    for (name, network, is_v6) in
        [("ipv4", v4_network as fn(u32) -> IpNet, false), ("ipv6", v6_network as fn(u32) -> IpNet, true)]
    {
        let deny = (0..NETWORKS).map(network).map(ClientRule::Network).collect();
        let list = AccessList::new(&AccessConfig { allow: [].into(), deny });
        println!("access/{name}: {NETWORKS} networks take {} bytes", list.heap_bytes());
        let mut turn = 0;
        group.bench_function(name, |b| {
            b.iter(|| {
                turn += 1;
                list.check(Some(black_box(client(turn, is_v6))), None)
            });
        });
    }
    group.finish();
}

fn country(c: &mut Criterion) {
    let code = |number: u32| Country::of_letters(["DE", "AT", "CH", "FR"][number as usize % 4]).expect("two letters");
    let range = |number| {
        let address = Ipv4Addr::from(number * (u32::MAX / RANGES));
        (IpNet::new(address.into(), 20).expect("a valid length").trunc(), code(number))
    };
    let map: CountryMap = (0..RANGES).map(range).collect();
    println!("country: {} ranges take {} bytes", map.len(), map.heap_bytes());
    let mut turn = 0;
    c.bench_function("country", |b| {
        b.iter(|| {
            turn += 1;
            map.get(black_box(client(turn, false)))
        });
    });
}

fn split(c: &mut Criterion) {
    let split = Split::new([("stable", 95), ("canary", 5)]);
    let mut turn = 0;
    c.bench_function("split", |b| {
        b.iter(|| {
            turn += 1;
            split.pick(black_box(mixed(turn)))
        });
    });
}

criterion_group!(benches, access, country, split);
criterion_main!(benches);
