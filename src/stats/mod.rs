//! What is counted and measured: how connections end, how many there are, how many bytes move, how long things take.

pub mod counters;
pub mod ending;
pub mod histogram;
pub mod http;
pub mod journal;
pub mod latency;
pub mod rate;
pub mod registry;
pub mod traffic;
