//! The integration tests that need nothing but this host: the binary, real sockets, scripted backends and clients. One file a
//! feature; what they stand on is in `tests/support`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "helpers of tests fail their test, and print what helps to see why"
)]

mod architecture;
mod balance;
mod certificate_changes;
mod certificates;
mod config;
mod demo;
mod ending;
mod ends;
mod explain;
mod failed_connects;
mod failover;
mod fuzz_corpus;
mod half_close;
mod histograms;
mod http_dialogues;
mod http_routes;
mod http_sniff;
mod http_unavailable;
mod integrity;
mod leaks;
mod limits;
mod log_write_errors;
mod logs;
mod memory;
mod passthrough;
mod pool_percentiles;
mod privileges;
mod proxy_protocol;
mod proxy_protocol_sent;
mod readiness;
mod readme;
mod selftest;
mod signals;
mod starttls;
mod stats_api;
mod stats_clients;
mod stats_port;
#[path = "../support/mod.rs"]
mod support;
mod tls;
mod tls_backends;
mod tls_integrity;
mod top;
mod turnaround;
mod unchecked;
