//! The integration tests with programs of others (servers, clients, browsers, readers of metrics), and those that take long.
//! One file a feature; what they stand on is in `tests/support`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "helpers of tests fail their test, and print what helps to see why"
)]

mod api_fuzz;
mod certificate_changes;
mod client_tables;
mod container;
mod dashboard;
mod dashboard_changes;
mod dashboard_connections;
mod database_failover;
mod debian_package;
mod docs;
mod ends;
mod examples;
mod failover;
mod haproxy_csv;
mod histograms;
mod http_mode;
mod http_mode_browser;
mod http_mode_curl;
mod http_mode_grpc;
mod http_mode_malformed;
mod http_mode_many;
mod http_mode_reload;
mod http_mode_websocket;
mod http_sniff;
mod leaks;
mod man;
mod metrics;
mod monitoring;
mod mysql_checks;
mod mysql_queries;
mod mysql_tls;
mod openssl;
mod postgres;
mod postgres_checks;
mod postgres_queries;
mod postgres_tls;
mod postgres_tls_backends;
mod private_pki;
mod protocol_routes;
mod proxy_headers;
mod proxy_protocol;
mod psql_drain;
mod queue;
mod redis;
mod redis_checks;
mod redis_queries;
mod redis_roles;
mod refusals;
mod reload_under_load;
mod stats_exact;
#[path = "../support/mod.rs"]
mod support;
mod tls_clients;
mod turnaround;
mod udp;
mod upgrades;
