//! What is counted and measured: how connections end, how many there are, how long things take.

pub mod counters;
pub mod ending;
pub mod latency;
