//! Measurements: how connections end, how many there are, how many bytes move, how long things take.

pub mod counters;
pub mod database;
pub mod histogram;
pub mod http;
pub mod latency;
mod per_worker;
pub mod queries;
pub mod rate;
pub mod recent_events;
pub mod registry;
pub mod requests;
mod series;
pub mod termination;
pub mod traffic;
pub mod udp;
