//! The configuration in effect, as a file.

use std::path::PathBuf;

use super::*;
use crate::config::model::{HIDDEN, HealthCheck, MysqlCheck, PostgresCheck, RedisCheck};
use crate::config::{files::Unread, parse};

/// Every key has another value than its default somewhere.
const TEXT: &str = r#"
workers: 3
admin: { bind: 127.0.0.1:9907 }
log: { level: debug, format: json, access: /tmp/access.log }
shutdown: { delay: 2s, drain: 1500ms }
listeners:
  - name: one
    bind: ["127.0.0.1:8081", "[::1]:8081", "unix:/tmp/one.sock"]
    pool: a
    max_connections: 7
    limits: { handshakes: 9, connections_per_ip: 7, connection_rate_per_ip: 20/s, connection_rate: 600/m, bandwidth: 10MiB/s }
    timeouts: { sniff: 1s, handshake: 2s, idle: 90s, half_close: 2h, lifetime: 3m }
    socket: { backlog: 9, nodelay: false, keepalive: 0s, fast_open: 3, defer_accept: 4s, mptcp: true, reuse_port: true, transparent: true, freebind: true, mode: "0660" }
    proxy_protocol: { trusted: [10.0.0.0/8, "::1"], required: false }
    routes:
      - { match: { sni: ["*.example", b.example], alpn: [h2] }, pool: b }
      - { match: { alpn: [h3] }, pool: c }
  - { name: two, bind: "127.0.0.1:8082", pool: b, socket: { reuse_port: false } }
  - name: web
    bind: "127.0.0.1:8083"
    pool: w
    protocol: http
    http: { forwarded: replace, max_head: 3KiB, head_timeout: 1s, keep_alive: 0s, request_timeout: 0s }
    limits: { request_rate_per_ip: 100/s }
    tls: { certificates: [{ cert: /tmp/c.pem, key: /tmp/c.key }] }
    routes:
      - match: { sni: [a.example], host: [b.example], path: [/a], path_prefix: [/], method: [GET, M-SEARCH], header: { X-B: "$$1", x-a: "*" } }
        pool: w2
  - { name: "$${PORTS}", bind: ["127.0.0.1:9000-9009", "[::1]:9000-9001"], pool: "d$$" }
pools:
  - name: a
    balance: ip_hash
    hash: { ipv4_prefix: 24, ipv6_prefix: 48 }
    backends:
      - { name: x, address: "10.0.0.1:80", weight: 0, max_connections: 5, backup: true }
      - { address: "name.example:81" }
      - { address: "unix:/tmp/x.sock" }
    health: { http: { path: /up, method: HEAD, host: h, status: 200-204, tls: true }, interval: 3s, timeout: 500ms, rise: 3, fall: 4, port: 81, initial: up }
    on_down: cut
    slow_start: 10s
    outlier: { failures: 3, window: 10s, ejection: 5s, max_ejection: 1m, max_ejected: 34%, http_5xx: true }
    fail_open: 20%
    persist: { by: client_ip, ttl: 1h, size: 7 }
    queue: { size: 9, timeout: 250ms }
    retries: 0
    timeouts: { connect: 250ms }
    send_proxy: v2
    source: [10.0.0.9, "::1"]
  - name: b
    balance: least_latency
    backends: [{ address: "10.0.0.2:80" }]
    health: { http: { path: /, status: 200 } }
    send_proxy: v1
  - name: c
    balance: random
    backends: [{ address: "10.0.0.3:80" }]
    health: { tls: { server_name: d.example } }
    tls: { verify: ca, ca: /tmp/ca.pem, server_name: c.example, alpn: [h2], starttls: postgres }
  - name: pg
    backends: [{ address: "10.0.0.3:5432" }]
    health: { postgres: { user: u, password_file: /tmp/p, database: d, role: replica, max_lag: 16MiB } }
  - name: my
    backends: [{ address: "10.0.0.3:3306" }]
    health: { mysql: { user: u, password_file: /tmp/p, role: replica, max_lag: 30s } }
  - name: rd
    backends: [{ address: "10.0.0.3:6379" }]
    health: { redis: { user: u, password_file: /tmp/p, role: primary, plaintext: allow } }
  - { name: "d$$", backends: [{ address: "10.0.0.4:*" }, { address: "ports.example:*" }, { address: "[2001:db8::1]:*" }] }
  - { name: empty }
  - name: w
    backends: [{ address: "10.0.0.5:80" }]
    http: { version: 2, idle_connections: 0, idle_timeout: 0s, retry: [504, closed] }
    persist: { by: cookie, name: b, ttl: 1h, same_site: none }
    tls: {}
  - { name: w2, backends: [{ address: "10.0.0.6:80" }], persist: { by: cookie, name: c, same_site: strict } }
"#;

fn read(text: &str) -> Config {
    parse("test", text, &Unread).unwrap_or_else(|failure| panic!("{failure}")).config
}

/// What is left of both when what is redacted is replaced by the same values in both.
fn comparable(mut config: Config) -> (Config, Config) {
    let mut shown = configuration(&config);
    for pool in shown["pools"].as_array_mut().unwrap() {
        if let Some(http) = pool.pointer_mut("/health/http").and_then(Value::as_object_mut) {
            http.retain(|key, _| !["path", "host", "headers", "body"].contains(&key.as_str()));
        }
        if let Some(exchange) = pool.pointer_mut("/health/exchange") {
            *exchange = json!({ "expect": "x" });
        }
        for kind in ["postgres", "mysql", "redis"] {
            if let Some(password_file) = pool.pointer_mut(&format!("/health/{kind}/password_file")) {
                *password_file = json!("p");
            }
        }
    }
    // YAML has JSON in it.
    let mut shown = read(&shown.to_string());
    for config in [&mut config, &mut shown] {
        let of_admin = config.admin.iter_mut().filter_map(|admin| admin.tls.as_mut());
        let of_listeners = config.listeners.iter_mut().filter_map(|listener| listener.tls.as_mut());
        for tls in of_admin.chain(of_listeners) {
            tls.certificates.iter_mut().for_each(|files| files.key = PathBuf::from("k").into());
        }
        for pool in &mut config.pools {
            if let Some(files) = pool.tls.as_mut().and_then(|tls| tls.client_certificate.as_mut()) {
                files.key = PathBuf::from("k").into();
            }
            match pool.health.as_mut().map(|health| &mut health.check) {
                Some(HealthCheck::Exchange { send, expect }) => {
                    (*send, *expect) = (Vec::new().into(), b"x".to_vec().into());
                }
                Some(HealthCheck::Http(http)) => {
                    http.path = "/health".to_owned().into();
                    (http.host, http.headers, http.body) = (None, Vec::new().into(), None);
                }
                Some(
                    HealthCheck::Postgres(PostgresCheck { account, .. })
                    | HealthCheck::Mysql(MysqlCheck { account, .. })
                    | HealthCheck::Redis(RedisCheck { account, .. }),
                ) => account.password_file = account.password_file.as_ref().map(|_| PathBuf::from("p").into()),
                _ => {}
            }
        }
    }
    (shown, config)
}

#[test]
fn as_a_file_it_means_the_same() {
    for text in [TEXT, include_str!("../../../config/full.yaml")] {
        let (shown, config) = comparable(read(text));
        assert_eq!(shown, config);
    }
}

#[test]
fn secrets_are_not_shown() {
    let shown = configuration(&read(
        r#"
admin: { bind: "0.0.0.0:9900", token_file: /secret/token }
listeners:
  - name: in
    bind: 127.0.0.1:1
    pool: p
    tls: { certificates: [{ cert: c.pem, key: /secret/c.key }], client_auth: { mode: optional, ca: ca.pem, crl: crl.pem } }
pools:
  - name: p
    backends: [{ address: "10.0.0.1:6379" }]
    health: { exchange: { send: "AUTH secret\r\nPING\r\n", expect: "+secret" } }
    tls: { client_certificate: { cert: c.pem, key: /secret/d.key } }
  - name: q
    backends: [{ address: "10.0.0.1:80" }]
    health: { http: { path: /secret, host: secret.example, headers: { X-Secret: secret }, body: secret, status: 204 } }
  - name: r
    backends: [{ address: "10.0.0.1:5432" }]
    health: { postgres: { user: u, password_file: /secret/password } }
"#,
    ))
    .to_string();
    assert!(!shown.to_ascii_lowercase().contains("secret"), "{shown}");
    assert_eq!(shown.matches(HIDDEN).count(), 10, "{shown}");
    assert!(shown.contains("\"status\":\"204-204\""), "{shown}");
    assert!(shown.contains("\"mode\":\"optional\"") && shown.contains("crl.pem"), "{shown}");
}
