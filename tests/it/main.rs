//! The integration tests: the binary, real sockets, real servers. One file a feature; what they stand on is in
//! `support`.

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
mod dashboard;
mod demo;
mod ending;
mod ends;
mod examples;
mod explain;
mod failed_connects;
mod failover;
mod fuzz_corpus;
mod half_close;
mod haproxy_csv;
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
mod metrics;
mod monitoring;
mod passthrough;
mod pool_percentiles;
mod postgres;
mod postgres_tls;
mod postgres_tls_backends;
mod private_pki;
mod privileges;
mod proxy_protocol;
mod proxy_protocol_peers;
mod proxy_protocol_sent;
mod readiness;
mod readme;
mod redis;
mod selftest;
mod signals;
mod stats_api;
mod stats_clients;
mod stats_exact;
mod stats_port;
mod support;
mod tls;
mod tls_backends;
mod tls_clients;
mod tls_integrity;
mod top;
mod turnaround;
mod unchecked;
