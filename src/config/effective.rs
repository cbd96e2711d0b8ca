//! The configuration in effect, as JSON with the keys of the file: every default is written out, so that as a file it
//! would mean the same. What could be a secret is [`Redacted`] by its type: keys, tokens, and what health checks send.
//!
//! Everything is taken apart by its fields, so that one that is added cannot be forgotten here.

mod health;
mod http;
mod values;

use std::collections::HashSet;

use serde_json::{Value, json};
use values::{limit, optional, period, rate, some, text};

use crate::config::expand;
use crate::config::model::{
    AccessConfig, AdminConfig, Authorities, BackendConfig, CertificateFiles, ClientAuth, ClientRule, Config,
    GeoIpConfig, HttpPool, LimitsConfig, ListenerConfig, ListenerSocket, ListenerTimeouts, ListenerTls, LogConfig,
    LogFormat, LogLevel, NameSource, OnConflict, OnDown, OutlierConfig, Persist, PersistConfig, PersistCookie,
    Plaintext, PoolConfig, PoolIndex, PoolTls, ProxyProtocol, ReusePort, RouteConfig, RouteTarget, SameSite, SendProxy,
    Shutdown, SplitShare, StartTls, TlsVersion, UdpListener, UnknownSni, VerifiedClients, Verify,
};
use crate::config::scalars::{ByteRate, Percent};

/// The whole configuration.
pub fn configuration(config: &Config) -> Value {
    escaped(whole(config))
}

/// With text that a file would have a variable in as the text that it is.
fn escaped(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(expand::escape(&text)),
        Value::Array(list) => list.into_iter().map(escaped).collect(),
        Value::Object(map) => Value::Object(map.into_iter().map(|(key, value)| (key, escaped(value))).collect()),
        other => other,
    }
}

fn whole(config: &Config) -> Value {
    let Config { workers, admin, reload, geoip, log, shutdown, listeners, pools } = config;
    let (LogConfig { level, format, access, access_empty }, Shutdown { delay, drain }) = (log, shutdown);
    let listener = |it: &ListenerConfig| listener(it, config);
    let of_requests: HashSet<PoolIndex> =
        listeners.iter().filter(|it| it.http.is_some()).flat_map(ListenerConfig::pools).collect();
    let takes_requests = |pool: PoolIndex| of_requests.contains(&pool);
    some([
        ("workers", Some(json!(workers.get()))),
        ("admin", admin.as_ref().map(self::admin)),
        ("reload", Some(json!({ "watch": if reload.watch { "on" } else { "off" } }))),
        ("geoip", geoip.as_ref().map(|GeoIpConfig { database }| json!({ "database": database.display().to_string() }))),
        (
            "log",
            Some(json!({
                "level": log_level(*level),
                "format": log_format(*format),
                "access": text(access),
                "access_empty": access_empty,
            })),
        ),
        ("shutdown", Some(json!({ "delay": period(*delay), "drain": period(*drain) }))),
        ("listeners", Some(listeners.iter().map(listener).collect())),
        (
            "pools",
            Some(pools.iter().enumerate().map(|(place, it)| pool(it, takes_requests(PoolIndex(place)))).collect()),
        ),
    ])
}

fn admin(AdminConfig { bind, socket_mode, token_file, tls, allow, state_file }: &AdminConfig) -> Value {
    some([
        ("bind", Some(bind.iter().map(text).collect())),
        ("socket_mode", Some(format!("{socket_mode:04o}").into())),
        ("token_file", token_file.as_ref().map(|path| json!(path))),
        ("tls", tls.as_ref().map(listener_tls)),
        ("allow", Some(allow.iter().map(text).collect())),
        ("state_file", state_file.as_ref().map(|path| path.display().to_string().into())),
    ])
}

/// Without what is of connections, where datagrams are balanced: as a file, it would be refused.
fn listener(listener: &ListenerConfig, config: &Config) -> Value {
    let mut value = any_listener(listener, config);
    if let (Some(keys), true) = (value.as_object_mut(), listener.udp.is_some()) {
        keys.retain(|key, _| !["sniff", "max_connections", "timeouts"].contains(&key.as_str()));
        let sections = [
            ("limits", &["bandwidth", "handshakes", "request_rate_per_ip"][..]),
            ("socket", &["backlog", "nodelay", "keepalive", "fast_open", "defer_accept", "mptcp", "mode"]),
        ];
        for (section, of_connections) in sections {
            if let Some(section) = keys.get_mut(section).and_then(Value::as_object_mut) {
                section.retain(|key, _| !of_connections.contains(&key.as_str()));
            }
        }
    }
    value
}

fn any_listener(listener: &ListenerConfig, config: &Config) -> Value {
    let ListenerConfig {
        name,
        bind,
        pool,
        http,
        udp,
        sniff,
        protocol_hint,
        routes,
        tls,
        proxy_protocol,
        access,
        limits,
        max_connections,
        timeouts,
        socket,
        state,
    } = listener;
    let ListenerTimeouts { sniff: first_bytes, handshake, idle, half_close, lifetime } = timeouts;
    let ListenerSocket {
        backlog,
        nodelay,
        keepalive,
        fast_open,
        defer_accept,
        mptcp,
        reuse_port,
        transparent,
        freebind,
        mode,
    } = socket;
    let LimitsConfig {
        connections_per_ip,
        connection_rate_per_ip,
        connection_rate,
        handshakes,
        bandwidth,
        request_rate_per_ip,
    } = limits;
    let named = |pool: PoolIndex| config.pool(pool).map(|pool| text(&pool.name));
    let route = |route: &RouteConfig| {
        let RouteConfig { name, sni, alpn, host, path, path_prefix, method, header, client, country, protocol, target } =
            route;
        let matched = some([
            ("sni", (!sni.is_empty()).then(|| sni.iter().map(text).collect())),
            ("alpn", (!alpn.is_empty()).then(|| alpn.iter().map(text).collect())),
            ("host", (!host.is_empty()).then(|| host.iter().map(text).collect())),
            ("path", (!path.is_empty()).then(|| path.iter().map(text).collect())),
            ("path_prefix", (!path_prefix.is_empty()).then(|| path_prefix.iter().map(text).collect())),
            ("method", (!method.is_empty()).then(|| method.iter().map(text).collect())),
            ("header", (!header.is_empty()).then(|| http::header(header))),
            ("client", (!client.is_empty()).then(|| client.iter().map(text).collect())),
            ("country", (!country.is_empty()).then(|| country.iter().map(text).collect())),
            ("protocol", (!protocol.is_empty()).then(|| protocol.iter().map(text).collect())),
        ]);
        let share = |SplitShare { pool, weight }: &SplitShare| json!({ "pool": named(*pool), "weight": weight });
        let (target, value) = match target {
            RouteTarget::Pool(pool) => ("pool", json!(named(*pool))),
            RouteTarget::Split(shares) => ("split", shares.iter().map(share).collect()),
            RouteTarget::Refuse => ("refuse", json!(true)),
        };
        some([("name", name.as_ref().map(text)), ("match", Some(matched)), (target, Some(value))])
    };
    some([
        ("name", Some(text(name))),
        ("bind", Some(bind.iter().map(text).collect())),
        ("pool", named(*pool)),
        ("protocol", Some(protocol(listener).into())),
        ("http", http.as_ref().map(http::listener)),
        ("udp", udp.as_ref().map(self::udp)),
        ("sniff", Some(sniff.name().into())),
        ("protocol_hint", protocol_hint.map(|hint| hint.name().into())),
        ("routes", (!routes.is_empty()).then(|| routes.iter().map(route).collect())),
        ("tls", tls.as_ref().map(listener_tls)),
        ("proxy_protocol", proxy_protocol.as_ref().map(self::proxy_protocol)),
        ("access", Some(self::access(access))),
        (
            "limits",
            Some(json!({
                "connections_per_ip": limit(*connections_per_ip),
                "connection_rate_per_ip": rate(*connection_rate_per_ip),
                "connection_rate": rate(*connection_rate),
                "bandwidth": ByteRate(*bandwidth).to_string(),
                "handshakes": limit(*handshakes),
                "request_rate_per_ip": rate(*request_rate_per_ip),
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
                "freebind": freebind,
                "mode": format!("{mode:04o}"),
            })),
        ),
        ("state", Some(state.name().into())),
    ])
}

fn protocol(listener: &ListenerConfig) -> &'static str {
    match (&listener.http, &listener.udp) {
        (Some(_), _) => "http",
        (None, Some(_)) => "udp",
        (None, None) => "tcp",
    }
}

fn udp(UdpListener { idle, max_sessions, responses, amplification }: &UdpListener) -> Value {
    json!({
        "idle": period(*idle),
        "max_sessions": max_sessions,
        "responses": limit(*responses),
        "amplification": limit(*amplification),
    })
}

fn proxy_protocol(ProxyProtocol { trusted, required }: &ProxyProtocol) -> Value {
    json!({ "trusted": trusted.iter().map(text).collect::<Vec<_>>(), "required": required })
}

fn access(AccessConfig { allow, deny }: &AccessConfig) -> Value {
    let list = |rules: &[ClientRule]| rules.iter().map(text).collect::<Vec<_>>();
    json!({ "allow": list(allow), "deny": list(deny) })
}

fn listener_tls(tls: &ListenerTls) -> Value {
    let ListenerTls {
        certificates,
        unknown_sni,
        min_version,
        max_version,
        alpn,
        client_auth,
        starttls,
        plaintext,
        session_tickets,
        session_cache,
    } = tls;
    some([
        ("certificates", Some(certificates.iter().map(certificate).collect())),
        ("unknown_sni", Some(self::unknown_sni(*unknown_sni).into())),
        ("min_version", Some(version(*min_version).into())),
        ("max_version", Some(version(*max_version).into())),
        ("alpn", Some(alpn.iter().map(text).collect())),
        ("client_auth", client_auth.as_ref().map(self::client_auth)),
        ("starttls", Some(self::starttls(*starttls).into())),
        ("plaintext", Some(self::plaintext(*plaintext).into())),
        ("session_tickets", Some(json!(session_tickets))),
        ("session_cache", Some(json!(session_cache))),
    ])
}

fn certificate(CertificateFiles { cert, key }: &CertificateFiles) -> Value {
    json!({ "cert": cert.display().to_string(), "key": key })
}

fn client_auth(auth: &ClientAuth) -> Value {
    let ClientAuth::Verify(VerifiedClients { required, ca, crl }) = auth else { return json!({ "mode": "request" }) };
    some([
        ("mode", Some(if *required { "required" } else { "optional" }.into())),
        ("ca", Some(ca.display().to_string().into())),
        ("crl", crl.as_ref().map(|path| path.display().to_string().into())),
    ])
}

/// With `http` if it takes requests, or would by other rules than the defaults.
fn pool(pool: &PoolConfig, takes_requests: bool) -> Value {
    let PoolConfig {
        name,
        balance,
        hash,
        backends,
        health,
        outlier,
        fail_open,
        on_down,
        on_conflict,
        slow_start,
        retries,
        persist,
        queue,
        connect_timeout,
        send_proxy,
        tls,
        source,
        http,
    } = pool;
    let on_down = match on_down {
        OnDown::Keep => "keep",
        OnDown::Cut => "cut",
    };
    let on_conflict = match on_conflict {
        OnConflict::Refuse => "refuse",
        OnConflict::Newest => "newest",
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
        ("health", health.as_ref().map(health::health)),
        ("outlier", outlier.as_ref().map(self::outlier)),
        ("fail_open", Some(Percent(*fail_open).to_string().into())),
        ("on_down", Some(on_down.into())),
        ("on_conflict", Some(on_conflict.into())),
        ("slow_start", Some(period(*slow_start))),
        ("retries", Some(json!(retries))),
        ("persist", persist.as_ref().map(self::persist)),
        ("queue", Some(json!({ "size": queue.size, "timeout": period(queue.timeout) }))),
        ("timeouts", Some(json!({ "connect": period(*connect_timeout) }))),
        ("send_proxy", Some(send_proxy.into())),
        ("tls", tls.as_ref().map(pool_tls)),
        ("http", (takes_requests || *http != HttpPool::default()).then(|| http::pool(http))),
        ("source", Some(source.iter().map(text).collect())),
    ])
}

fn outlier(outlier: &OutlierConfig) -> Value {
    let OutlierConfig { failures, window, ejection, max_ejection, max_ejected, http_5xx } = outlier;
    json!({
        "failures": failures,
        "window": period(window.unwrap_or_default()),
        "ejection": period(*ejection),
        "max_ejection": period(*max_ejection),
        "max_ejected": Percent(*max_ejected).to_string(),
        "http_5xx": http_5xx,
    })
}

fn persist(persist: &Persist) -> Value {
    match persist {
        Persist::ClientIp(PersistConfig { ttl, size }) => {
            json!({ "by": "client_ip", "ttl": period(*ttl), "size": size })
        }
        Persist::Cookie(PersistCookie { name, ttl, same_site }) => {
            let same_site = match same_site {
                SameSite::Lax => "lax",
                SameSite::Strict => "strict",
                SameSite::None => "none",
            };
            json!({ "by": "cookie", "name": text(name), "ttl": optional(*ttl), "same_site": same_site })
        }
    }
}

fn backend(backend: &BackendConfig) -> Value {
    // What is forced has no key in a file.
    let BackendConfig { name, address, weight, max_connections, backup, state, forced: _ } = backend;
    json!({
        "name": &**name,
        "address": address.to_string(),
        "weight": weight,
        "max_connections": limit(*max_connections),
        "backup": backup,
        "state": state.name(),
    })
}

fn pool_tls(PoolTls { verify, ca, server_name, alpn, client_certificate, starttls, resumption }: &PoolTls) -> Value {
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
        ("resumption", Some(json!(resumption))),
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
        Some(starttls) => starttls.name(),
    }
}

fn plaintext(plaintext: Plaintext) -> &'static str {
    match plaintext {
        Plaintext::Refuse => "refuse",
        Plaintext::Allow => "allow",
    }
}

#[cfg(test)]
mod tests;
