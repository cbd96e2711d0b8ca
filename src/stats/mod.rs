//! Measurements: how connections end, how many there are, how many bytes move, how long things take.

pub mod counters;
pub mod database;
pub mod histogram;
pub mod http;
pub mod latency;
pub mod queries;
pub mod rate;
pub mod recent_events;
pub mod registry;
mod series;
pub mod termination;
pub mod traffic;
pub mod udp;
