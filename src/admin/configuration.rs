//! The configuration in effect, as JSON with the keys of the file: every default is written out, so that as a file it
//! would mean the same. What could be a secret is [`Redacted`] by its type: keys, tokens, and what health checks send.
//!
//! Everything is taken apart by its fields, so that one that is added cannot be forgotten here.

use std::fmt::Display;
use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::config::model::{
    AccessLog, AdminConfig, Authorities, BackendConfig, CertificateFiles, ClientAuth, Config, Health, HealthCheck,
    HttpCheck, Initial, LimitsConfig, ListenerConfig, ListenerSocket, ListenerTimeouts, ListenerTls, LogConfig,
    LogFormat, LogLevel, NameSource, OnDown, Plaintext, PoolConfig, PoolTls, ProxyProtocol, Rate, ReusePort,
    RouteConfig, SendProxy, Shutdown, Sniff, StartTls, TlsVersion, UnknownSni, Verify,
};

/// The whole configuration.
pub(super) fn configuration(config: &Config) -> Value {
    let Config { workers, admin, log, shutdown, listeners, pools } = config;
    let (LogConfig { level, format, access }, Shutdown { drain }) = (log, shutdown);
    let listener = |it: &ListenerConfig| listener(it, config);
    some([
        ("workers", Some(json!(workers.get()))),
        ("admin", admin.as_ref().map(self::admin)),
        (
            "log",
            Some(json!({ "level": log_level(*level), "format": log_format(*format), "access": log_access(access) })),
        ),
        ("shutdown", Some(json!({ "drain": period(*drain) }))),
        ("listeners", Some(listeners.iter().map(listener).collect())),
        ("pools", Some(pools.iter().map(pool).collect())),
    ])
}

fn admin(AdminConfig { bind, token_file }: &AdminConfig) -> Value {
    some([("bind", Some(text(bind))), ("token_file", token_file.as_ref().map(|path| json!(path)))])
}

fn listener(listener: &ListenerConfig, config: &Config) -> Value {
    let ListenerConfig {
        name,
        bind,
        pool,
        sniff,
        routes,
        tls,
        proxy_protocol,
        limits,
        max_connections,
        timeouts,
        socket,
    } = listener;
    let ListenerTimeouts { sniff: first_bytes, handshake, idle, half_close, lifetime } = timeouts;
    let ListenerSocket { backlog, nodelay, keepalive, fast_open, defer_accept, mptcp, reuse_port, transparent } =
        socket;
    let LimitsConfig { connections_per_ip, connection_rate_per_ip, connection_rate, handshakes } = limits;
    let route = |RouteConfig { sni, alpn, host, path_prefix, pool }: &RouteConfig| {
        let matched = some([
            ("sni", (!sni.is_empty()).then(|| sni.iter().map(text).collect())),
            ("alpn", (!alpn.is_empty()).then(|| alpn.iter().map(text).collect())),
            ("host", (!host.is_empty()).then(|| host.iter().map(text).collect())),
            ("path_prefix", (!path_prefix.is_empty()).then(|| path_prefix.iter().map(text).collect())),
        ]);
        json!({ "match": matched, "pool": config.pool(*pool).map(|pool| text(&pool.name)) })
    };
    some([
        ("name", Some(text(name))),
        ("bind", Some(bind.iter().map(text).collect())),
        ("pool", config.pool(*pool).map(|pool| text(&pool.name))),
        ("sniff", Some(self::sniff(*sniff).into())),
        ("routes", (!routes.is_empty()).then(|| routes.iter().map(route).collect())),
        ("tls", tls.as_ref().map(listener_tls)),
        ("proxy_protocol", proxy_protocol.as_ref().map(self::proxy_protocol)),
        (
            "limits",
            Some(json!({
                "connections_per_ip": limit(*connections_per_ip),
                "connection_rate_per_ip": rate(*connection_rate_per_ip),
                "connection_rate": rate(*connection_rate),
                "handshakes": limit(*handshakes),
            })),
        ),
        ("max_connections", Some(limit(*max_connections))),
        (
            "timeouts",
            Some(json!({
                "sniff": optional(*first_bytes),
                "handshake": optional(*handshake),
                "idle": optional(*idle),
                "half_close": optional(*half_close),
                "lifetime": optional(*lifetime),
            })),
        ),
        (
            "socket",
            Some(json!({
                "backlog": backlog,
                "nodelay": nodelay,
                "keepalive": optional(*keepalive),
                "fast_open": fast_open,
                "defer_accept": optional(*defer_accept),
                "mptcp": mptcp,
                "reuse_port": self::reuse_port(*reuse_port),
                "transparent": transparent,
            })),
        ),
    ])
}

fn sniff(sniff: Sniff) -> &'static str {
    match sniff {
        Sniff::Off => "off",
        Sniff::Http => "http",
    }
}

fn proxy_protocol(ProxyProtocol { trusted, required }: &ProxyProtocol) -> Value {
    json!({ "trusted": trusted.iter().map(text).collect::<Vec<_>>(), "required": required })
}

fn listener_tls(tls: &ListenerTls) -> Value {
    let ListenerTls { certificates, unknown_sni, min_version, alpn, client_auth, starttls, plaintext, session_tickets } =
        tls;
    some([
        ("certificates", Some(certificates.iter().map(certificate).collect())),
        ("unknown_sni", Some(self::unknown_sni(*unknown_sni).into())),
        ("min_version", Some(version(*min_version).into())),
        ("alpn", Some(alpn.iter().map(text).collect())),
        ("client_auth", client_auth.as_ref().map(self::client_auth)),
        ("starttls", Some(self::starttls(*starttls).into())),
        ("plaintext", Some(self::plaintext(*plaintext).into())),
        ("session_tickets", Some(json!(session_tickets))),
    ])
}

fn certificate(CertificateFiles { cert, key }: &CertificateFiles) -> Value {
    json!({ "cert": cert.display().to_string(), "key": key })
}

fn client_auth(ClientAuth { required, ca, crl }: &ClientAuth) -> Value {
    some([
        ("mode", Some(if *required { "required" } else { "optional" }.into())),
        ("ca", Some(ca.display().to_string().into())),
        ("crl", crl.as_ref().map(|path| path.display().to_string().into())),
    ])
}

fn pool(pool: &PoolConfig) -> Value {
    let PoolConfig {
        name,
        balance,
        hash,
        backends,
        health,
        on_down,
        slow_start,
        retries,
        connect_timeout,
        send_proxy,
        tls,
        source,
    } = pool;
    let on_down = match on_down {
        OnDown::Keep => "keep",
        OnDown::Cut => "cut",
    };
    let send_proxy = match send_proxy {
        None => "off",
        Some(SendProxy::V1) => "v1",
        Some(SendProxy::V2) => "v2",
    };
    some([
        ("name", Some(text(name))),
        ("balance", Some(balance.name().into())),
        ("hash", Some(json!({ "ipv4_prefix": hash.ipv4, "ipv6_prefix": hash.ipv6 }))),
        ("backends", Some(backends.iter().map(backend).collect())),
        ("health", health.as_ref().map(self::health)),
        ("on_down", Some(on_down.into())),
        ("slow_start", Some(period(*slow_start))),
        ("retries", Some(json!(retries))),
        ("timeouts", Some(json!({ "connect": period(*connect_timeout) }))),
        ("send_proxy", Some(send_proxy.into())),
        ("tls", tls.as_ref().map(pool_tls)),
        ("source", Some(source.iter().map(text).collect())),
    ])
}

fn backend(BackendConfig { name, address, weight, max_connections, backup }: &BackendConfig) -> Value {
    json!({
        "name": &**name,
        "address": address.to_string(),
        "weight": weight,
        "max_connections": limit(*max_connections),
        "backup": backup,
    })
}

fn health(Health { check, interval, timeout, rise, fall, port, initial }: &Health) -> Value {
    let (kind, rules) = match check {
        HealthCheck::Tcp => ("tcp", json!({})),
        HealthCheck::Http(HttpCheck { path, method, host, headers, status, body }) => {
            let rules = some([
                ("path", Some(json!(path))),
                ("method", Some(method.as_str().into())),
                ("host", host.as_ref().map(|host| json!(host))),
                ("headers", (!headers.reveal().is_empty()).then(|| json!(headers))),
                ("status", Some(format!("{}-{}", status.start(), status.end()).into())),
                ("body", body.as_ref().map(|body| json!(body))),
            ]);
            ("http", rules)
        }
        HealthCheck::Exchange { send, expect } => ("exchange", json!({ "send": send, "expect": expect })),
    };
    let initial = match initial {
        Initial::Probe => "probe",
        Initial::Up => "up",
    };
    some([
        (kind, Some(rules)),
        ("interval", Some(period(*interval))),
        ("timeout", Some(period(*timeout))),
        ("rise", Some(json!(rise))),
        ("fall", Some(json!(fall))),
        ("port", Some(json!(port.and_then(NonZeroU16::new).map_or(0, u16::from)))),
        ("initial", Some(initial.into())),
    ])
}

fn pool_tls(PoolTls { verify, ca, server_name, alpn, client_certificate, starttls }: &PoolTls) -> Value {
    let verify = match verify {
        Verify::Full => "full",
        Verify::Ca => "ca",
        Verify::Off => "off",
    };
    let server_name = match server_name {
        NameSource::Backend => None,
        NameSource::Fixed(name) => Some(text(name)),
        NameSource::Client => Some("sni".into()),
    };
    let ca = match ca {
        Authorities::System => "system".to_owned(),
        Authorities::File(path) => path.display().to_string(),
    };
    some([
        ("verify", Some(verify.into())),
        ("ca", Some(ca.into())),
        ("server_name", server_name),
        ("alpn", Some(alpn.iter().map(text).collect())),
        ("client_certificate", client_certificate.as_ref().map(certificate)),
        ("starttls", Some(self::starttls(*starttls).into())),
    ])
}

fn log_level(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    }
}

fn log_format(format: LogFormat) -> &'static str {
    match format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    }
}

fn log_access(access: &AccessLog) -> String {
    match access {
        AccessLog::Off => "off".to_owned(),
        AccessLog::Stderr => "stderr".to_owned(),
        AccessLog::File(path) => path.display().to_string(),
    }
}

fn reuse_port(reuse: ReusePort) -> Value {
    match reuse {
        ReusePort::Auto => "auto".into(),
        ReusePort::On => true.into(),
        ReusePort::Off => false.into(),
    }
}

fn unknown_sni(unknown: UnknownSni) -> &'static str {
    match unknown {
        UnknownSni::Default => "default",
        UnknownSni::Refuse => "refuse",
    }
}

fn version(version: TlsVersion) -> &'static str {
    match version {
        TlsVersion::V1_2 => "1.2",
        TlsVersion::V1_3 => "1.3",
    }
}

fn starttls(starttls: Option<StartTls>) -> &'static str {
    match starttls {
        None => "off",
        Some(StartTls::Postgres) => "postgres",
    }
}

fn plaintext(plaintext: Plaintext) -> &'static str {
    match plaintext {
        Plaintext::Refuse => "refuse",
        Plaintext::Allow => "allow",
    }
}

/// Those that are there.
fn some<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    let fields = fields.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
    Value::Object(fields.collect::<Map<_, _>>())
}

fn text(value: impl Display) -> Value {
    Value::String(value.to_string())
}

/// 0 is no limit.
fn limit(limit: Option<NonZeroU32>) -> Value {
    json!(limit.map_or(0, u32::from))
}

fn rate(rate: Option<Rate>) -> Value {
    rate.map_or(json!(0), |rate| json!(rate.to_string()))
}

/// 0s is off.
fn optional(length: Option<Duration>) -> Value {
    period(length.unwrap_or_default())
}

/// As the file has it: a whole number of milliseconds, seconds, minutes or hours.
fn period(length: Duration) -> Value {
    let millis = length.as_millis();
    let (count, unit) = match millis {
        0 => (0, "s"),
        _ if millis.is_multiple_of(3_600_000) => (millis / 3_600_000, "h"),
        _ if millis.is_multiple_of(60_000) => (millis / 60_000, "m"),
        _ if millis.is_multiple_of(1000) => (millis / 1000, "s"),
        _ => (millis, "ms"),
    };
    Value::String(format!("{count}{unit}"))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::model::HIDDEN;
    use crate::config::{files::Unread, parse};

    /// Every key has another value than its default somewhere.
    const TEXT: &str = r#"
workers: 3
admin: { bind: 127.0.0.1:9907 }
log: { level: debug, format: json, access: /tmp/access.log }
shutdown: { drain: 1500ms }
listeners:
  - name: one
    bind: ["127.0.0.1:8081", "[::1]:8081", "unix:/tmp/one.sock"]
    pool: a
    max_connections: 7
    limits: { handshakes: 9, connections_per_ip: 7, connection_rate_per_ip: 20/s, connection_rate: 600/m }
    timeouts: { sniff: 1s, handshake: 2s, idle: 90s, half_close: 2h, lifetime: 3m }
    socket: { backlog: 9, nodelay: false, keepalive: 0s, fast_open: 3, defer_accept: 4s, mptcp: true, reuse_port: true, transparent: true }
    proxy_protocol: { trusted: [10.0.0.0/8, "::1"], required: false }
    routes:
      - { match: { sni: ["*.example", b.example], alpn: [h2] }, pool: b }
      - { match: { alpn: [h3] }, pool: c }
  - { name: two, bind: "127.0.0.1:8082", pool: b, socket: { reuse_port: false } }
pools:
  - name: a
    balance: ip_hash
    hash: { ipv4_prefix: 24, ipv6_prefix: 48 }
    backends:
      - { name: x, address: "10.0.0.1:80", weight: 0, max_connections: 5, backup: true }
      - { address: "name.example:81" }
      - { address: "unix:/tmp/x.sock" }
    health: { http: { path: /up, method: HEAD, host: h, status: 200-204 }, interval: 3s, timeout: 500ms, rise: 3, fall: 4, port: 81, initial: up }
    on_down: cut
    slow_start: 10s
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
    health: { tcp: {} }
    tls: { verify: ca, ca: /tmp/ca.pem, server_name: c.example, alpn: [h2], starttls: postgres }
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
        }
        // YAML has JSON in it.
        let mut shown = read(&shown.to_string());
        for config in [&mut config, &mut shown] {
            for tls in config.listeners.iter_mut().filter_map(|listener| listener.tls.as_mut()) {
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
                    _ => {}
                }
            }
        }
        (shown, config)
    }

    #[test]
    fn as_a_file_it_means_the_same() {
        for text in [TEXT, include_str!("../../config/full.yaml")] {
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
"#,
        ))
        .to_string();
        assert!(!shown.to_ascii_lowercase().contains("secret"), "{shown}");
        assert_eq!(shown.matches(HIDDEN).count(), 9, "{shown}");
        assert!(shown.contains("\"status\":\"204-204\""), "{shown}");
        assert!(shown.contains("\"mode\":\"optional\"") && shown.contains("crl.pem"), "{shown}");
    }
}
