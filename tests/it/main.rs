//! The integration tests that need nothing but this host: the binary, real sockets, scripted backends and clients. One file a
//! feature; what they stand on is in `tests/support`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "helpers of tests fail their test, and print what helps to see why"
)]

mod access;
mod admin_access;
mod admin_tls;
mod architecture;
mod balance;
mod bandwidth;
mod certificates;
mod config;
mod config_files;
mod connections;
mod convert;
mod demo;
mod docs_commands;
mod docs_examples;
mod docs_pages;
mod docs_recipes;
mod ending;
mod explain;
mod failed_connects;
mod failover;
mod fuzz_corpus;
mod half_close;
mod healthcheck;
mod histograms;
mod host_names;
mod http2_frames;
mod http_dialogues;
mod http_ends;
mod http_failures;
mod http_interim;
mod http_requests;
mod http_route_statistics;
mod http_routes;
mod http_sniff;
mod http_targets;
mod http_unavailable;
mod init;
mod integrity;
mod limits;
mod log_access_empty;
mod log_journal;
mod log_json;
mod log_syslog;
mod log_write_errors;
mod logs;
mod memory;
mod mysql_check;
mod mysql_tls;
mod outlier;
mod passthrough;
mod persist;
mod pool_percentiles;
mod port_ranges;
mod privileges;
mod protocol_routes;
mod proxy_protocol_sent;
mod query_sniff;
mod queue;
mod readiness;
mod refusals;
mod reload;
mod reload_keeps;
mod runtime_api;
mod runtime_commands;
mod selftest;
mod service_manager;
mod signals;
mod socket_activation;
mod socket_options;
mod starttls;
mod stats_api;
mod stats_clients;
mod stats_port;
#[path = "../support/mod.rs"]
mod support;
mod tls;
mod tls_backends;
mod tls_checks;
mod tls_integrity;
mod top;
mod turnaround;
mod udp;
mod unchecked;
mod upgrade;
mod upgrade_drain;
