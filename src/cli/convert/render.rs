//! A draft as a YAML file, with what was not translated in comments at its end.

use std::time::Duration;

use super::draft::{
    Draft, DraftBackend, DraftHealth, DraftListener, DraftPersist, DraftPool, DraftPoolTls, DraftProbe, DraftRoute,
    DraftTls,
};
use super::ledger::{Ledger, Outcome, Remark};
use super::quantity::{bandwidth, period};
use super::yaml::{Yaml, comment, write_list, write_map};

/// Heading of what must not be overlooked.
const DIVERTED: &str =
    "WARNING: without these lines, connections go elsewhere than before, or are let in that were refused:";

/// The entries of a mapping.
#[derive(Default)]
struct Entries(Vec<(String, Yaml)>);

impl Entries {
    fn set(&mut self, key: &str, value: Yaml) {
        self.0.push((key.to_owned(), value));
    }

    fn set_some(&mut self, key: &str, value: Option<Yaml>) {
        if let Some(value) = value {
            self.set(key, value);
        }
    }

    fn number(&mut self, key: &str, value: Option<u32>) {
        self.set_some(key, value.map(Yaml::Number));
    }

    fn period(&mut self, key: &str, value: Option<Duration>) {
        self.set_some(key, value.map(|length| Yaml::text(period(length))));
    }

    fn texts(&mut self, key: &str, texts: &[String]) {
        if !texts.is_empty() {
            self.set(key, Yaml::texts(texts));
        }
    }

    fn flag(&mut self, key: &str, value: bool) {
        if value {
            self.set(key, Yaml::Bool(true));
        }
    }

    /// A section, unless it is empty.
    fn section(&mut self, key: &str, entries: Entries) {
        if !entries.0.is_empty() {
            self.set(key, Yaml::Map(entries.0));
        }
    }
}

/// The whole file. `from` is the file that was read.
pub(super) fn file(draft: &Draft, ledger: &Ledger, from: &str) -> String {
    let mut out = String::new();
    comment(&mut out, &format!("Converted from {from}. Read it, then: tidegate check FILE"), 0);
    let with_file = ledger.files().len() > 1;
    remarks(&mut out, DIVERTED, &ledger.remarks(Outcome::Diverted), with_file);
    let mut top = Entries::default();
    top.number("workers", draft.workers);
    if !draft.admin.is_empty() {
        let note = "Dashboard, metrics and commands. Other addresses than loopback need `token_file`.".to_owned();
        let mut admin = Entries::default();
        one_or_more(&mut admin, "bind", &draft.admin);
        admin.set_some("socket_mode", draft.socket_mode.clone().map(Yaml::Text));
        top.set("admin", noted(&[note], admin));
    }
    if let Some(target) = &draft.access_log {
        let notes = vec![
            "One line for each connection, in the field order of HAProxy's tcplog: stderr, a file or a syslog server."
                .to_owned(),
        ];
        let log = Yaml::Map(vec![("access".to_owned(), Yaml::text(target.clone()))]);
        top.set("log", Yaml::Noted(notes, Box::new(log)));
    }
    let mut shutdown = Entries::default();
    shutdown.period("delay", draft.delay);
    shutdown.period("drain", draft.drain);
    top.section("shutdown", shutdown);
    for entry in &top.0 {
        out.push('\n');
        write_map(&mut out, std::slice::from_ref(entry), 0);
    }
    section(&mut out, "listeners", draft.listeners.iter().map(listener));
    section(&mut out, "pools", draft.pools.iter().map(pool));
    remarks(&mut out, "Not translated:", &ledger.remarks(Outcome::Left), with_file);
    remarks(&mut out, "Not needed:", &ledger.remarks(Outcome::NotNeeded), with_file);
    out
}

/// A list at the top, with an empty line between elements.
fn section(out: &mut String, key: &str, elements: impl Iterator<Item = Yaml>) {
    out.push_str(&format!("\n{key}:\n"));
    for (index, element) in elements.enumerate() {
        if index > 0 {
            out.push('\n');
        }
        write_list(out, &[element], 2);
    }
}

fn remarks(out: &mut String, heading: &str, remarks: &[Remark<'_>], with_file: bool) {
    if remarks.is_empty() {
        return;
    }
    out.push('\n');
    comment(out, heading, 0);
    for remark in remarks {
        let file = if with_file { format!("{}:", remark.file) } else { "line ".to_owned() };
        let Remark { first, last, text, why, .. } = remark;
        let lines = if first == last { first.to_string() } else { format!("{first}-{last}") };
        // One line each: grep finds them.
        out.push_str(&format!("#   {file}{lines}: {text}: {why}\n"));
    }
}

/// A text, or a list of several.
fn one_or_more(entries: &mut Entries, key: &str, texts: &[String]) {
    match texts {
        [one] => entries.set(key, Yaml::text(one.clone())),
        texts => entries.texts(key, texts),
    }
}

fn noted(notes: &[String], value: Entries) -> Yaml {
    let map = Yaml::Map(value.0);
    if notes.is_empty() { map } else { Yaml::Noted(notes.to_vec(), Box::new(map)) }
}

fn listener(listener: &DraftListener) -> Yaml {
    let mut all = Entries::default();
    all.set("name", Yaml::text(listener.name.clone()));
    one_or_more(&mut all, "bind", &listener.bind);
    all.set("pool", Yaml::text(listener.pool.clone()));
    all.number("max_connections", listener.max_connections);
    all.set_some("sniff", listener.sniff_http.then(|| Yaml::text("http")));
    if !listener.routes.is_empty() {
        all.set("routes", Yaml::List(listener.routes.iter().map(route).collect()));
    }
    all.set_some("tls", listener.tls.as_ref().map(tls));
    if !listener.trusted.is_empty() {
        all.set("proxy_protocol", Yaml::Map(vec![("trusted".to_owned(), Yaml::texts(&listener.trusted))]));
    }
    let mut limits = Entries::default();
    limits.number("connections_per_ip", listener.connections_per_ip);
    limits.set_some("connection_rate", listener.connection_rate.map(|rate| Yaml::text(format!("{rate}/s"))));
    limits.set_some("connection_rate_per_ip", listener.connection_rate_per_ip.clone().map(Yaml::Text));
    limits.set_some("bandwidth", listener.bandwidth.map(|bytes| Yaml::text(bandwidth(bytes))));
    all.section("limits", limits);
    let mut timeouts = Entries::default();
    timeouts.period("sniff", listener.sniff);
    timeouts.period("handshake", listener.handshake);
    timeouts.period("idle", listener.idle);
    timeouts.period("half_close", listener.half_close);
    all.section("timeouts", timeouts);
    let mut socket = Entries::default();
    socket.number("backlog", listener.socket.backlog);
    socket.set_some("nodelay", listener.socket.delays.then_some(Yaml::Bool(false)));
    socket.period("keepalive", listener.socket.keepalive);
    socket.number("fast_open", listener.socket.fast_open);
    socket.period("defer_accept", listener.socket.defer_accept);
    socket.flag("reuse_port", listener.socket.reuse_port);
    socket.flag("transparent", listener.socket.transparent);
    socket.set_some("mode", listener.socket.mode.clone().map(Yaml::Text));
    all.section("socket", socket);
    noted(&listener.notes, all)
}

fn route(route: &DraftRoute) -> Yaml {
    let mut condition = Entries::default();
    condition.texts("sni", &route.sni);
    condition.texts("alpn", &route.alpn);
    condition.texts("host", &route.host);
    condition.texts("path_prefix", &route.path_prefix);
    condition.texts("client", &route.client);
    let pool = Yaml::text(route.pool.clone());
    Yaml::Map(vec![("match".to_owned(), Yaml::Map(condition.0)), ("pool".to_owned(), pool)])
}

fn pair((cert, key): &(String, String)) -> Yaml {
    Yaml::Map(vec![("cert".to_owned(), Yaml::text(cert.clone())), ("key".to_owned(), Yaml::text(key.clone()))])
}

fn tls(tls: &DraftTls) -> Yaml {
    let mut all = Entries::default();
    all.set("certificates", Yaml::List(tls.certificates.iter().map(pair).collect()));
    all.set_some("unknown_sni", tls.refuse_unknown_sni.then(|| Yaml::text("refuse")));
    all.set_some("min_version", tls.only_1_3.then_some(Yaml::Quoted("1.3")));
    all.set_some("max_version", (tls.only_1_2 && !tls.only_1_3).then_some(Yaml::Quoted("1.2")));
    all.texts("alpn", &tls.alpn);
    if let Some(auth) = &tls.client_auth {
        let mut entries = Entries::default();
        entries.set("mode", Yaml::text(if auth.optional { "optional" } else { "required" }));
        entries.set("ca", Yaml::text(auth.ca.clone()));
        entries.set_some("crl", auth.crl.clone().map(Yaml::Text));
        all.section("client_auth", entries);
    }
    all.set_some("session_tickets", tls.no_tickets.then_some(Yaml::Bool(false)));
    all.number("session_cache", tls.session_cache);
    Yaml::Map(all.0)
}

fn pool(pool: &DraftPool) -> Yaml {
    let mut all = Entries::default();
    all.set("name", Yaml::text(pool.name.clone()));
    all.set_some("balance", pool.balance.map(Yaml::text));
    all.set("backends", Yaml::List(pool.backends.iter().map(backend).collect()));
    all.set_some("health", pool.health.as_ref().map(health));
    all.set_some("on_down", pool.on_down_cut.then(|| Yaml::text("cut")));
    all.period("slow_start", pool.slow_start);
    all.number("retries", pool.retries);
    if let Some(DraftPersist { ttl, size }) = pool.persist {
        let mut persist = Entries::default();
        persist.set("by", Yaml::text("client_ip"));
        persist.period("ttl", ttl);
        persist.number("size", size);
        all.section("persist", persist);
    }
    if let Some((size, timeout)) = pool.queue {
        let mut queue = Entries::default();
        queue.number("size", Some(size));
        queue.period("timeout", timeout);
        all.section("queue", queue);
    }
    let mut timeouts = Entries::default();
    timeouts.period("connect", pool.connect);
    all.section("timeouts", timeouts);
    all.set_some("send_proxy", pool.send_proxy.map(Yaml::text));
    all.texts("source", &pool.source);
    all.set_some("tls", pool.tls.as_ref().map(pool_tls));
    noted(&pool.notes, all)
}

fn backend(backend: &DraftBackend) -> Yaml {
    let mut all = Entries::default();
    all.set_some("name", backend.name.clone().map(Yaml::Text));
    all.set("address", Yaml::text(backend.address.clone()));
    all.number("weight", backend.weight);
    all.number("max_connections", backend.max_connections);
    all.flag("backup", backend.backup);
    all.set_some("state", backend.maintenance.then(|| Yaml::text("maintenance")));
    Yaml::Map(all.0)
}

fn health(health: &DraftHealth) -> Yaml {
    let mut all = Entries::default();
    let mut kind = Entries::default();
    match &health.probe {
        DraftProbe::Tcp => all.set("tcp", Yaml::Map(Vec::new())),
        DraftProbe::Tls => all.set("tls", Yaml::Map(Vec::new())),
        DraftProbe::Http(request) => {
            kind.set_some("path", request.path.clone().map(Yaml::Text));
            kind.set_some("method", request.method.clone().map(Yaml::Text));
            kind.set_some("host", request.host.clone().map(Yaml::Text));
            if !request.headers.is_empty() {
                let headers = request.headers.iter().map(|(name, value)| (name.clone(), Yaml::text(value.clone())));
                kind.set("headers", Yaml::Map(headers.collect()));
            }
            kind.set_some("status", request.status.clone().map(Yaml::Text));
            kind.set_some("body", request.body.clone().map(Yaml::Text));
            all.set("http", Yaml::Map(kind.0));
        }
        DraftProbe::Exchange { send, expect } => {
            kind.set_some("send", (!send.is_empty()).then(|| Yaml::Bytes(send.clone())));
            kind.set("expect", Yaml::Bytes(expect.clone()));
            all.section("exchange", kind);
        }
        DraftProbe::Database { kind: name, user } => {
            kind.set_some("user", user.clone().map(Yaml::Text));
            all.set(name, Yaml::Map(kind.0));
        }
    }
    all.period("interval", health.interval);
    all.period("timeout", health.timeout);
    all.number("rise", health.rise);
    all.number("fall", health.fall);
    all.number("port", health.port.map(u32::from));
    Yaml::Map(all.0)
}

fn pool_tls(tls: &DraftPoolTls) -> Yaml {
    let mut all = Entries::default();
    all.set_some("verify", tls.verify.map(Yaml::text));
    all.set_some("ca", tls.ca.clone().map(Yaml::Text));
    all.set_some("server_name", tls.server_name.clone().map(Yaml::Text));
    all.texts("alpn", &tls.alpn);
    all.set_some("client_certificate", tls.client_certificate.as_ref().map(pair));
    Yaml::Map(all.0)
}

#[cfg(test)]
mod tests {
    use tidegate::config::{files::Unread, parse};

    use super::*;
    use crate::cli::convert::draft::{DraftClientAuth, DraftRequest, DraftSocket};

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    /// Every key that can be written, at once.
    #[test]
    fn a_file_with_every_key_is_valid() {
        let second = Some(Duration::from_secs(1));
        let pair = ("/etc/a.pem".to_owned(), "/etc/a.key".to_owned());
        let request = DraftRequest {
            path: some("/x"),
            method: some("OPTIONS"),
            host: some("a.example"),
            headers: vec![("X-A".to_owned(), "on".to_owned())],
            status: some("200-299"),
            body: some("yes"),
        };
        let health = |probe| {
            Some(DraftHealth {
                probe,
                interval: second,
                timeout: second,
                rise: Some(1),
                fall: Some(5),
                port: Some(9200),
            })
        };
        let backend = DraftBackend {
            name: some("1"),
            address: "[::1]:80".to_owned(),
            weight: Some(5),
            max_connections: Some(7),
            backup: true,
            maintenance: true,
        };
        let pool = DraftPool {
            name: "on".to_owned(),
            balance: Some("least_connections"),
            backends: vec![backend, DraftBackend { address: "10.0.0.1:80".to_owned(), ..DraftBackend::default() }],
            health: health(DraftProbe::Http(request)),
            on_down_cut: true,
            queue: Some((500, second)),
            persist: Some(DraftPersist { ttl: second, size: Some(10) }),
            slow_start: second,
            retries: Some(1),
            connect: second,
            send_proxy: Some("v2"),
            source: vec!["127.0.0.1".to_owned()],
            tls: Some(DraftPoolTls {
                verify: Some("ca"),
                ca: some("/etc/ca.pem"),
                server_name: some("a.example"),
                alpn: vec!["h2".to_owned()],
                client_certificate: Some(pair.clone()),
            }),
            notes: vec!["a note".to_owned()],
        };
        let exchange = DraftProbe::Exchange { send: b"a\r\n\xff".to_vec(), expect: b"\"\\".to_vec() };
        let other = DraftPool { name: "b".to_owned(), health: health(exchange), tls: None, ..pool.clone() };
        let route = DraftRoute {
            sni: vec!["*.a.example".to_owned()],
            alpn: vec!["h2".to_owned()],
            host: vec!["b.example".to_owned()],
            path_prefix: vec!["/x y".replace(' ', "")],
            client: vec!["10.0.0.0/8".to_owned()],
            pool: "b".to_owned(),
            deep: true,
        };
        let listener = DraftListener {
            name: "l".to_owned(),
            bind: vec!["0.0.0.0:443".to_owned(), "[::]:443".to_owned()],
            pool: "on".to_owned(),
            max_connections: Some(5),
            sniff_http: true,
            routes: vec![route],
            tls: Some(DraftTls {
                certificates: vec![pair],
                refuse_unknown_sni: true,
                only_1_3: false,
                only_1_2: true,
                alpn: vec!["h2".to_owned()],
                client_auth: Some(DraftClientAuth {
                    optional: true,
                    ca: "/etc/ca.pem".to_owned(),
                    crl: some("/etc/crl.pem"),
                }),
                no_tickets: true,
                session_cache: Some(4000),
            }),
            trusted: vec!["10.0.0.0/8".to_owned(), "::/0".to_owned()],
            connections_per_ip: Some(3),
            connection_rate_per_ip: some("20/m"),
            connection_rate: Some(100),
            bandwidth: Some(1 << 20),
            sniff: second,
            handshake: second,
            idle: second,
            half_close: second,
            socket: DraftSocket {
                backlog: Some(10),
                delays: true,
                keepalive: second,
                fast_open: Some(10),
                defer_accept: second,
                reuse_port: true,
                transparent: true,
                mode: some("0660"),
            },
            notes: vec!["long ".repeat(60)],
        };
        let draft = Draft {
            workers: Some(2),
            admin: vec!["127.0.0.1:9900".to_owned(), "unix:/run/a.sock".to_owned()],
            socket_mode: some("0660"),
            access_log: some("syslog:10.0.0.5:514"),
            delay: second,
            drain: second,
            listeners: vec![listener],
            pools: vec![pool, other],
        };
        let text = file(&draft, &Ledger::default(), "a.cfg");
        let loaded = parse("x.yaml", &text, &Unread).unwrap_or_else(|failure| panic!("{text}\n{failure}"));
        let keys = [
            "socket_mode",
            "queue",
            "ttl",
            "trusted",
            "connections_per_ip",
            "connection_rate",
            "handshake",
            "half_close",
            "defer_accept",
            "unknown_sni",
            "client_certificate",
            "slow_start",
            "interval",
            "headers",
            "crl",
            "session_tickets",
            "session_cache",
            "nodelay",
            "bandwidth: 1MiB/s",
            "connection_rate_per_ip",
            "access: syslog:10.0.0.5:514",
            "server_name",
            "maintenance",
        ];
        assert!(keys.iter().all(|key| text.contains(key)), "{text}");
        assert_eq!(loaded.config.pools.len(), 2);
        assert!(text.lines().all(|line| line.len() <= 120), "{text}");
    }
}
