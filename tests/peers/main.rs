//! The integration tests with programs of others: servers, clients, browsers, readers of metrics. One file a feature;
//! what they stand on is in `tests/support`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "helpers of tests fail their test, and print what helps to see why"
)]

mod dashboard;
mod examples;
mod failover;
mod haproxy_csv;
mod histograms;
mod http_sniff;
mod metrics;
mod monitoring;
mod openssl;
mod postgres;
mod postgres_tls;
mod postgres_tls_backends;
mod private_pki;
mod proxy_protocol;
mod readme;
mod redis;
mod stats_exact;
#[path = "../support/mod.rs"]
mod support;
mod tls_clients;
mod turnaround;
