//! The language as a whole: what the schema says, what the examples have and what is in effect agree.

mod files;
mod http;
mod include;
mod policy;
mod routing;
mod schema;
mod tls;
mod variables;

use std::fs;
use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::files::Unread;
use super::model::*;
use super::*;
use crate::net::addr::Address;

fn repository(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn loaded(text: &str) -> Loaded {
    parse("test.yaml", text, &Unread).unwrap_or_else(|failure| panic!("{failure}"))
}

/// A document as JSON, as an editor with the schema sees it.
fn json(text: &str) -> Value {
    let (tree, diagnostics, complete) = tree::parse(text);
    assert!(complete && diagnostics.is_empty(), "{diagnostics:?}");
    let (value, diagnostics) = de::read::<AnyValue>(&tree);
    assert!(diagnostics.is_empty(), "{diagnostics:?}");
    value.expect("a document").0
}

#[derive(Deserialize)]
#[serde(transparent)]
struct AnyValue(Value);

/// Every key of the schema below `schema`: its path, and its default.
fn keys(schema: &Value, path: &str, found: &mut Vec<(String, Option<Value>)>) {
    if schema["items"].is_object() {
        keys(&schema["items"], &format!("{path}[]"), found);
    }
    for (name, property) in schema["properties"].as_object().unwrap_or(&Map::new()) {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        found.push((path.clone(), property.get("default").cloned()));
        keys(property, &path, found);
    }
}

fn all_keys() -> Vec<(String, Option<Value>)> {
    let mut found = Vec::new();
    keys(&schema(), "", &mut found);
    assert!(found.len() > 70, "{found:?}");
    found
}

/// Every value at a path such as `pools[].name`.
fn values<'a>(document: &'a Value, path: &str) -> Vec<&'a Value> {
    let mut values = vec![document];
    for step in path.split('.') {
        let key = step.trim_end_matches("[]");
        values = values.into_iter().filter_map(|value| value.get(key)).collect();
        if step.ends_with("[]") {
            values = values.into_iter().flat_map(|value| value.as_array().into_iter().flatten()).collect();
        }
    }
    values
}

const SMALLEST: &str = "listeners: [{ name: web, bind: 127.0.0.1:8080, pool: web }]
pools: [{ name: web, backends: [{ address: 127.0.0.1:3001 }] }]
";

/// A listener and a pool with these keys more.
fn with(listener: &str, pool: &str) -> String {
    format!(
        "listeners: [{{ name: l, bind: 127.0.0.1:1, pool: p, {listener} }}]\npools: [{{ name: p, backends: [{{ address: db.example:2 }}], {pool} }}]
"
    )
}

fn listener(keys: &str) -> ListenerConfig {
    loaded(&with(keys, "")).config.listeners.remove(0)
}

fn pool(keys: &str) -> PoolConfig {
    loaded(&with("", keys)).config.pools.remove(0)
}

#[test]
fn absent_keys_have_their_defaults() {
    let loaded = loaded(SMALLEST);
    assert!(loaded.warnings.is_empty());
    assert_eq!(loaded.render_warnings(Style::Plain), "");
    let expected = Config {
        workers: std::thread::available_parallelism().unwrap(),
        reload: ReloadConfig { watch: false },
        admin: None,
        geoip: None,
        log: LogConfig { level: LogLevel::Info, format: LogFormat::Text, access: AccessLog::Off, access_empty: true },
        shutdown: Shutdown { delay: Duration::ZERO, drain: Duration::from_secs(30) },
        listeners: vec![ListenerConfig {
            state: ListenerState::Ready,
            name: "web".into(),
            bind: vec![ListenAddress::One(Address::Tcp("127.0.0.1:8080".parse().unwrap()))],
            pool: PoolIndex(0),
            http: None,
            udp: None,
            sniff: Sniff::Off,
            protocol_hint: None,
            routes: Vec::new(),
            access: AccessConfig::default(),
            tls: None,
            proxy_protocol: None,
            limits: LimitsConfig::default(),
            max_connections: None,
            timeouts: ListenerTimeouts {
                sniff: Some(Duration::from_secs(5)),
                handshake: Some(Duration::from_secs(10)),
                idle: Some(Duration::from_secs(3600)),
                half_close: Some(Duration::from_secs(60)),
                lifetime: None,
            },
            socket: ListenerSocket {
                backlog: 4096,
                nodelay: true,
                keepalive: Some(Duration::from_secs(60)),
                fast_open: 0,
                defer_accept: None,
                mptcp: false,
                reuse_port: ReusePort::Auto,
                transparent: false,
                freebind: false,
                mode: 0o755,
            },
        }],
        pools: vec![PoolConfig {
            name: "web".into(),
            balance: Balance::RoundRobin,
            hash: HashPrefix { ipv4: 32, ipv6: 64 },
            backends: vec![BackendConfig {
                state: AdminState::Ready,
                forced: None,
                name: "127.0.0.1:3001".into(),
                address: BackendAddress::Ip("127.0.0.1:3001".parse().unwrap()),
                weight: 1,
                max_connections: None,
                backup: false,
            }],
            health: None,
            outlier: None,
            fail_open: 0,
            on_down: OnDown::Keep,
            on_conflict: OnConflict::Refuse,
            slow_start: Duration::ZERO,
            retries: 2,
            persist: None,
            http: HttpPool::default(),
            queue: QueueConfig { size: 0, timeout: Duration::from_secs(5) },
            connect_timeout: Duration::from_secs(5),
            send_proxy: None,
            tls: None,
            source: vec![],
        }],
    };
    assert_eq!(loaded.config, expected);
}

#[test]
fn values_arrive_as_written() {
    let text = r#"
workers: 3
log: { level: trace, format: json, access: /var/log/access.log, access_empty: false }
shutdown: { delay: 3s, drain: 0s }
listeners:
  - name: a
    bind: ["[::1]:81", unix:/run/a.sock]
    pool: second
    max_connections: 10
    timeouts: { idle: 0s, half_close: 2s, lifetime: 1h }
    socket: { backlog: 5, nodelay: false, keepalive: 0s, fast_open: 7, defer_accept: 3s, mptcp: true, reuse_port: off, transparent: true, freebind: true, mode: "0640" }
  - { name: b, bind: 127.0.0.1:82, pool: first, socket: { reuse_port: true, keepalive: } }
pools:
  - name: first
    balance: weighted_round_robin
    backends: [{ address: db.example:5432, weight: 0 }, { address: unix:/run/b.sock, weight: 0x10 }]
    health: { exchange: { send: "PING\r\n", expect: "+PONG" }, rise: 5, fall: 6, port: 7, initial: up, interval: 9s, timeout: 8s }
  - name: second
    balance: ip_hash
    hash: { ipv4_prefix: 24, ipv6_prefix: 0 }
    backends: [{ name: x, address: "[2001:db8::1]:1", max_connections: 4, backup: false }, { name: y, address: 10.0.0.1:2, backup: true }]
    health: { http: { path: "/a?b", method: POST, host: h, status: 204, body: "ok 1" } }
    on_down: cut
    slow_start: 10s
    retries: 0
    timeouts: { connect: 250ms }
    source: [10.0.0.7, "2001:db8::7"]
"#;
    let config = loaded(text).config;
    assert_eq!(config.workers.get(), 3);
    let access = AccessLog::File("/var/log/access.log".into());
    assert_eq!(config.log, LogConfig { level: LogLevel::Trace, format: LogFormat::Json, access, access_empty: false });
    assert_eq!(config.shutdown, Shutdown { delay: Duration::from_secs(3), drain: Duration::ZERO });
    let [a, b] = config.listeners.as_slice() else { panic!("two listeners") };
    assert_eq!((a.pool, b.pool), (PoolIndex(1), PoolIndex(0)));
    assert_eq!(a.bind[1], ListenAddress::One(Address::Unix(std::sync::Arc::new("/run/a.sock".into()))));
    assert_eq!(a.max_connections.map(std::num::NonZero::get), Some(10));
    let (none, seconds) = (None, |count| Some(Duration::from_secs(count)));
    assert_eq!(
        a.timeouts,
        ListenerTimeouts {
            sniff: seconds(5),
            handshake: seconds(10),
            idle: none,
            half_close: seconds(2),
            lifetime: seconds(3600)
        }
    );
    let socket = ListenerSocket {
        backlog: 5,
        nodelay: false,
        keepalive: None,
        fast_open: 7,
        defer_accept: seconds(3),
        mptcp: true,
        reuse_port: ReusePort::Off,
        transparent: true,
        freebind: true,
        mode: 0o640,
    };
    assert_eq!(a.socket, socket);
    assert_eq!((b.socket.reuse_port, b.socket.keepalive), (ReusePort::On, seconds(60)));
    let [first, second] = config.pools.as_slice() else { panic!("two pools") };
    assert_eq!(first.balance, Balance::RoundRobin);
    assert_eq!(&*first.backends[0].name, "db.example:5432");
    assert_eq!(first.backends[0].address, BackendAddress::Name { host: "db.example".into(), port: 5432 });
    assert_eq!(first.backends[1].address, BackendAddress::Unix("/run/b.sock".into()));
    assert_eq!((first.backends[0].weight, first.backends[1].weight), (0, 16));
    let health = first.health.as_ref().unwrap();
    assert_eq!(
        health.check,
        HealthCheck::Exchange { send: b"PING\r\n".to_vec().into(), expect: b"+PONG".to_vec().into() }
    );
    assert_eq!((health.rise.get(), health.fall.get(), health.port), (5, 6, Some(7)));
    assert_eq!((health.interval, health.timeout), (Duration::from_secs(9), Duration::from_secs(8)));
    assert_eq!(health.initial, Initial::Up);
    assert_eq!(second.hash, HashPrefix { ipv4: 24, ipv6: 0 });
    assert_eq!(second.backends[0].max_connections.map(std::num::NonZero::get), Some(4));
    assert_eq!((second.backends[0].backup, second.backends[1].backup), (false, true));
    let http = HttpCheck {
        path: "/a?b".to_owned().into(),
        method: "POST".into(),
        host: Some("h".to_owned().into()),
        headers: Vec::new().into(),
        status: 204..=204,
        body: Some(b"ok 1".to_vec().into()),
        tls: None,
    };
    assert_eq!(second.health.as_ref().unwrap().check, HealthCheck::Http(http));
    assert_eq!((second.on_down, second.retries), (OnDown::Cut, 0));
    assert_eq!((second.slow_start, second.connect_timeout), (Duration::from_secs(10), Duration::from_millis(250)));
    assert_eq!(second.source, ["10.0.0.7".parse::<std::net::IpAddr>().unwrap(), "2001:db8::7".parse().unwrap()]);
}

#[test]
fn health_checks_send_and_expect_bytes() {
    let pool = |health: &str| {
        let text = format!(
            "listeners: [{{ name: a, bind: 127.0.0.1:1, pool: p }}]\n\
             pools: [{{ name: p, backends: [{{ address: 127.0.0.1:2 }}], health: {health} }}]\n"
        );
        parse("test", &text, &Unread).unwrap_or_else(|failure| panic!("{failure}")).config.pools.remove(0)
    };
    let exchange = pool(r#"{ exchange: { send: "\x00\xd2\u00d2Ò", expect: "\xff" } }"#).health.unwrap();
    assert_eq!(
        exchange.check,
        HealthCheck::Exchange { send: b"\x00\xd2\xc3\x92\xc3\x92".to_vec().into(), expect: b"\xff".to_vec().into() }
    );
    let HealthCheck::Http(http) =
        pool(r#"{ http: { body: "\xe9", headers: { X-A: "\xe9é", x-b: b } } }"#).health.unwrap().check
    else {
        panic!("an HTTP check")
    };
    assert_eq!(http.body, Some(b"\xe9".to_vec().into()));
    let headers: Vec<_> =
        http.headers.reveal().iter().map(|header| (header.name.as_str(), header.value.as_slice())).collect();
    assert_eq!(headers, [("X-A", &b"\xe9\xc3\xa9"[..]), ("x-b", b"b")]);
    // The longest text is counted in bytes.
    let longest = format!("{{ exchange: {{ expect: \"{}\" }} }}", "\\xff".repeat(16 * 1024));
    assert!(pool(&longest).health.is_some());
}

#[test]
fn proxy_headers_limits_and_timeouts_arrive_as_written() {
    let l = listener(
        "proxy_protocol: { trusted: [10.0.0.0/8, 192.0.2.7, '::1', '2001:db8::/32'], required: false }, \
         tls: { certificates: [{ cert: a, key: b }] }, limits: { handshakes: 9, connections_per_ip: 7, connection_rate_per_ip: 20/s, connection_rate: 600/m, bandwidth: 10MiB/s }, \
         timeouts: { sniff: 1s, handshake: 250ms }",
    );
    let trusted = ["10.0.0.0/8", "192.0.2.7/32", "::1/128", "2001:db8::/32"].map(|net| net.parse().unwrap()).to_vec();
    assert_eq!(l.proxy_protocol, Some(ProxyProtocol { trusted, required: false }));
    let rate =
        |count, seconds| Some(Rate { count: NonZeroU32::new(count).unwrap(), per: Duration::from_secs(seconds) });
    let limits = LimitsConfig {
        connections_per_ip: NonZeroU32::new(7),
        connection_rate_per_ip: rate(20, 1),
        connection_rate: rate(600, 60),
        handshakes: NonZeroU32::new(9),
        bandwidth: std::num::NonZeroU64::new(10 << 20),
        request_rate_per_ip: None,
    };
    assert_eq!(l.limits, limits);
    assert_eq!(l.timeouts.sniff, Some(Duration::from_secs(1)));
    assert_eq!(l.timeouts.handshake, Some(Duration::from_millis(250)));

    let l = listener(
        "proxy_protocol: { trusted: [10.0.0.1] }, timeouts: { handshake: 0s }, \
         limits: { connections_per_ip: 0, connection_rate_per_ip: 0, connection_rate: 0/s }",
    );
    assert!(l.proxy_protocol.unwrap().required);
    assert_eq!((l.timeouts.handshake, l.timeouts.sniff), (None, Some(Duration::from_secs(5))));
    assert_eq!(l.limits, LimitsConfig::default());
}

#[test]
fn full_yaml_has_exactly_the_supported_keys() {
    let full = json(&repository("config/full.yaml"));
    let all = all_keys();
    for (path, _) in &all {
        assert!(!values(&full, path).is_empty(), "{path}");
    }
    assert_eq!(all.len(), super::schema::keys().len());
}

/// Keys whose value in full.yaml is an example, which its comment says.
const EXAMPLES: [&str; 5] =
    ["listeners[].protocol", "listeners[].sniff", "pools[].balance", "pools[].persist.by", "pools[].persist.ttl"];

#[test]
fn full_yaml_has_the_defaults_of_the_schema() {
    let full = json(&repository("config/full.yaml"));
    for (path, default) in all_keys() {
        let Some(default) = default else { continue };
        let values = values(&full, &path);
        assert!(values.contains(&&default), "{path}: {values:?} for {default}");
        if !EXAMPLES.contains(&path.as_str()) {
            assert!(values.iter().all(|value| **value == default), "{path}: {values:?} for {default}");
        }
    }
}

/// Takes every key that has its default out of a document.
fn without_defaults(document: &Value, path: &str, defaults: &[(String, Option<Value>)]) -> Value {
    match document {
        Value::Object(map) => {
            let mut kept = Map::new();
            for (key, value) in map {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                let default = defaults.iter().find(|(of, _)| *of == path).and_then(|(_, default)| default.as_ref());
                if default != Some(value) {
                    kept.insert(key.clone(), without_defaults(value, &path, defaults));
                }
            }
            Value::Object(kept)
        }
        Value::Array(list) => {
            let path = format!("{path}[]");
            list.iter().map(|value| without_defaults(value, &path, defaults)).collect()
        }
        other => other.clone(),
    }
}

#[test]
fn schema_defaults_are_those_in_effect() {
    let text = repository("config/full.yaml");
    let full = json(&text);
    let short = without_defaults(&full, "", &all_keys());
    assert_eq!(short.pointer("/listeners/0/socket"), Some(&json!({})));
    // JSON is YAML.
    assert_eq!(loaded(&short.to_string()).config, loaded(&text).config);
}

#[test]
fn reference_fails_only_for_what_excludes_another() {
    let failure = parse("reference.yaml", &repository("tests/it/reference.yaml"), &Unread).unwrap_err();
    let (errors, warnings): (Vec<_>, Vec<_>) =
        failure.diagnostics.iter().partition(|diagnostic| diagnostic.severity == Severity::Error);
    // Its routes and sections are examples, and its `protocol`, `sniff` and `alpn` are the defaults; together they mean nothing.
    let [host, path, of_requests, of_datagrams] = errors.as_slice() else { panic!("{failure}") };
    for (unread, key) in [(host, "host"), (path, "path_prefix")] {
        let message = format!("listeners[0].routes[1].match.{key}: requires `protocol: http` or `sniff: http`");
        assert_eq!(unread.message, message);
    }
    assert_eq!(of_requests.message, "listeners[0].http: requires `protocol: http`");
    assert_eq!(of_datagrams.message, "listeners[0].udp: requires `protocol: udp`");
    let [dead, unused] = warnings.as_slice() else { panic!("{failure}") };
    assert!(unused.message.starts_with("pools[0].http: has no effect"), "{failure}");
    assert_eq!(
        dead.message,
        "listeners[0].routes[0]: never matches: the listener's `tls.alpn` has none of these protocols"
    );
}

#[test]
fn byte_order_mark_and_windows_line_ends_are_accepted() {
    let text = format!("\u{feff}{}", SMALLEST.replace('\n', "\r\n"));
    assert_eq!(loaded(&text).config, loaded(SMALLEST).config);
}

#[test]
fn alias_repeats_the_value_of_its_anchor() {
    let text = "listeners:
  - { name: a, bind: 127.0.0.1:1, pool: p, timeouts: &t { idle: 7s } }
  - { name: b, bind: 127.0.0.1:2, pool: p, timeouts: *t }
pools: [{ name: p, backends: [{ address: 127.0.0.1:3 }] }]
";
    let config = loaded(text).config;
    assert_eq!(config.listeners[1].timeouts.idle, Some(Duration::from_secs(7)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_parsed_or_rejected(text in prop_oneof![
        ".*",
        "([ \\n]|[-?:,\\[\\]{}&*!|>'\"%@`#]|[a-c]|🦀|\\r|\\t){0,60}",
    ]) {
        let _ = parse("x.yaml", &text, &Unread).map_err(|failure| failure.render(Style::Coloured));
    }

    /// Damages a good file at one place.
    #[test]
    fn damaged_file_is_parsed_or_rejected(at: prop::sample::Index, length in 0..40_usize, with in "([a-z]|[-:,\\[\\]{}&*!|>'\"\\n\\t ]){0,6}") {
        let text = repository("config/full.yaml").replace('±', "+");
        let start = at.index(text.len());
        let end = (start + length).min(text.len());
        let damaged = format!("{}{with}{}", &text[..start], &text[end..]);
        if let Err(failure) = parse("x.yaml", &damaged, &Unread) {
            prop_assert!(!failure.diagnostics.is_empty());
            prop_assert!(!failure.to_string().is_empty());
        }
    }
}
