//! Keys and values of HAProxy, nginx, Envoy and Traefik, and tidegate's equivalents, which are suggested for them.

use super::report::quoted;
use super::tree::{NodeId, NodeValue, Resolved, Tree};

const TOP: &str = "";
const LISTENER: &str = "listeners[]";
const ROUTE: &str = "listeners[].routes[]";
const MATCH: &str = "listeners[].routes[].match";
const LISTENER_TLS: &str = "listeners[].tls";
const LISTENER_TIMEOUTS: &str = "listeners[].timeouts";
const LIMITS: &str = "listeners[].limits";
const SOCKET: &str = "listeners[].socket";
const POOL: &str = "pools[]";
const BACKEND: &str = "pools[].backends[]";
const POOL_TIMEOUTS: &str = "pools[].timeouts";
const POOL_TLS: &str = "pools[].tls";
const HEALTH: &str = "pools[].health";
const HEALTH_HTTP: &str = "pools[].health.http";

/// Keys of other load balancers for one thing.
struct Synonym {
    /// Section in which they are recognised.
    section: &'static str,
    /// In lower case, with `_` for `-` and spaces.
    words: &'static [&'static str],
    /// The equivalent key of the same section.
    key: Option<&'static str>,
    /// Suggestion, where the key alone is not enough.
    hint: &'static str,
}

/// A key of the same section, by another name.
const fn same(section: &'static str, words: &'static [&'static str], key: &'static str) -> Synonym {
    Synonym { section, words, key: Some(key), hint: "" }
}

/// A key of the same section, with a different form of value.
const fn form(section: &'static str, words: &'static [&'static str], key: &'static str, hint: &'static str) -> Synonym {
    Synonym { section, words, key: Some(key), hint }
}

/// A key that belongs elsewhere, or is not needed.
const fn other(section: &'static str, words: &'static [&'static str], hint: &'static str) -> Synonym {
    Synonym { section, words, key: None, hint }
}

const MODE: &str =
    "TCP needs no key; to balance each HTTP request, set `protocol: http` of a listener; to watch HTTP, `sniff: http`";

#[rustfmt::skip]
const WORDS: &[Synonym] = &[
    form(TOP, &["frontend", "frontends", "listen", "entrypoints", "entry_points", "virtual_servers", "server"],
        "listeners", "write `listeners`: a list, each with `name`, `bind` and `pool`"),
    form(TOP, &["backend", "backends", "upstream", "upstreams", "services", "service", "clusters", "servers"],
        "pools", "write `pools`: a list, each with `name` and `backends`"),
    other(TOP, &["global", "defaults"], "there are no global settings of listeners and pools: each has its own"),
    other(TOP, &["stream", "http", "tcp", "events", "static_resources", "mode", "option"],
        "`listeners` and `pools` stand at the top of the file"),
    same(TOP, &["stats", "api", "metrics", "ping", "dashboard"], "admin"),
    other(TOP, &["routers", "routes", "rules"], "routes belong to a listener: `listeners[].routes`"),
    other(TOP, &["maxconn", "worker_connections"], "write `max_connections` of a listener or of a backend"),
    same(TOP, &["nbthread", "nbproc", "worker_processes", "worker_threads", "threads", "concurrency"], "workers"),
    form(TOP, &["accesslog", "access_log"], "log", "write `log: { access: /var/log/tidegate/access.log }`"),
    form(TOP, &["error_log", "log_level", "loglevel"], "log", "write `log: { level: info }`"),
    other(TOP, &["timeout", "timeouts", "timeout_client", "timeout_server", "timeout_connect"],
        "write `listeners[].timeouts` for clients, `pools[].timeouts` for connects"),
    other(TOP, &["resolvers", "resolver", "nameserver"], "the system's resolver is used: no key is needed"),
    same(TOP, &["includes", "import", "imports", "conf_dir"], "include"),

    same(LISTENER, &["maxconn", "max_conn", "max_conns", "connection_limit"], "max_connections"),
    same(LISTENER, &["default_backend", "use_backend", "backend", "proxy_pass", "upstream", "service", "cluster", "default_pool"],
        "pool"),
    other(LISTENER, &["server", "servers", "backends", "endpoints"],
        "define servers as `backends` of a pool, which the listener references by `pool`"),
    same(LISTENER, &["address", "listen", "port", "host", "entrypoints", "entry_points", "addresses", "ip"], "bind"),
    other(LISTENER, &["mode"], MODE),
    same(LISTENER, &["accept_proxy", "proxyprotocol"], "proxy_protocol"),
    form(LISTENER, &["ssl", "crt", "cert", "certificate", "ssl_certificate", "ssl_certificate_key", "key"],
        "tls", "write `tls: { certificates: [{ cert: server.pem, key: server.key }] }`"),
    form(LISTENER, &["acl", "rule", "rules", "router", "routers", "filter_chains", "filter_chain_match", "server_name"],
        "routes", "write `routes: [{ match: { sni: [www.example.com] }, pool: ... }]`"),
    form(LISTENER, &["timeout_client", "client_timeout", "proxy_timeout", "idle_timeout", "timeout_tunnel"],
        "timeouts", "write `timeouts: { idle: 1h }`"),
    form(LISTENER, &["timeout_client_fin", "timeout_server_fin"], "timeouts", "write `timeouts: { half_close: 1m }`"),
    other(LISTENER, &["timeout_connect", "timeout_server", "proxy_connect_timeout"],
        "write `timeouts: { connect: 5s }` of the pool"),
    other(LISTENER, &["log_format", "access_log", "option_tcplog", "option_httplog", "option_dontlognull"], "logs are of the whole process: `log` at the top of the file"),
    form(LISTENER, &["rate_limit", "maxconnrate", "rate_limit_sessions"], "limits", "write `limits: { connection_rate: 1000/s }`"),
    form(LISTENER, &["allow", "whitelist", "ip_allow_list", "ip_white_list", "ipallowlist", "ipwhitelist", "source_ranges"], "access", "write `access: { allow: [10.0.0.0/8] }`"),
    form(LISTENER, &["deny", "blacklist", "block", "blocklist", "denylist"], "access", "write `access: { deny: [192.0.2.0/24] }`"),
    form(LISTENER, &["limit_conn", "per_ip"], "limits", "write `limits: { connections_per_ip: 100 }`"),
    form(LISTENER, &["reuseport"], "socket", "write `socket: { reuse_port: true }`"),
    form(LISTENER, &["tcp_nodelay"], "socket", "write `socket: { nodelay: true }`"),
    form(LISTENER, &["so_keepalive", "clitcpka", "option_clitcpka", "option_tcpka"], "socket", "write `socket: { keepalive: 60s }`"),
    other(LISTENER, &["send_proxy", "send_proxy_v2"], "write `send_proxy: v2` of the pool"),

    same(ROUTE, &["rule", "rules", "if", "when", "acl", "condition", "conditions"], "match"),
    same(ROUTE, &["split_clients", "weighted", "weighted_clusters", "traffic_split"], "split"),
    same(ROUTE, &["reject", "deny", "block"], "refuse"),
    same(ROUTE, &["use_backend", "default_backend", "backend", "proxy_pass", "service", "upstream", "cluster", "to"], "pool"),
    same(MATCH, &["server_name", "server_names", "servername", "hostsni", "req_ssl_sni", "ssl_fc_sni", "req.ssl_sni"], "sni"),
    same(MATCH, &["path_beg", "location", "prefix", "pathprefix"], "path_prefix"),
    same(MATCH, &["paths", "uri", "url"], "path"),
    same(MATCH, &["methods"], "method"),
    same(MATCH, &["headers", "hdr", "fields"], "header"),
    same(MATCH, &["hdr(host)", "hosts", "hostname", "authority", "domains", "hdr_host"], "host"),
    same(MATCH, &["src", "source", "source_prefix_ranges", "client_ip", "clientip", "remote_addr"], "client"),
    same(MATCH, &["geo", "geoip", "countries", "geoip_country_code"], "country"),
    same(MATCH, &["req_ssl_alpn", "req.ssl_alpn", "application_protocols", "protocols"], "alpn"),

    form(LISTENER_TLS, &["crt", "crt_list", "certificate", "certfile", "ssl_certificate", "tls_certificates", "keyfile", "ssl_certificate_key"],
        "certificates", "write `certificates: [{ cert: server.pem, key: server.key }]`"),
    same(LISTENER_TLS, &["ssl_min_ver", "min_ver", "minversion", "ssl_protocols", "protocols", "min_tls_version"], "min_version"),
    form(LISTENER_TLS, &["ca", "ca_file", "cafile", "verify", "clientauth", "ssl_client_certificate", "ssl_verify_client", "client_ca"],
        "client_auth", "write `client_auth: { mode: required, ca: ca.pem }`"),
    form(LISTENER_TLS, &["crl_file", "ssl_crl"], "client_auth", "write `client_auth: { mode: required, ca: ca.pem, crl: crl.pem }`"),
    form(LISTENER_TLS, &["strict_sni", "snistrict"], "unknown_sni", "write `unknown_sni: refuse`"),
    form(LISTENER_TLS, &["no_tls_tickets", "ssl_session_tickets"], "session_tickets", "write `session_tickets: false`, or leave it out"),
    other(LISTENER_TLS, &["passthrough"], "omit `tls` for TLS passthrough"),

    same(LISTENER_TIMEOUTS, &["client", "tunnel", "server", "timeout", "proxy_timeout"], "idle"),
    same(LISTENER_TIMEOUTS, &["client_fin", "server_fin", "fin"], "half_close"),
    same(LISTENER_TIMEOUTS, &["http_request", "request", "inspect_delay", "preread_timeout"], "sniff"),
    same(LISTENER_TIMEOUTS, &["client_hs", "tls", "ssl"], "handshake"),
    same(LIMITS, &["maxconnrate", "rate_limit", "rate_limit_sessions"], "connection_rate"),
    same(LIMITS, &["limit_conn", "per_ip", "max_per_ip"], "connections_per_ip"),
    same(LIMITS, &["limit_req", "request_rate", "requests_per_ip", "http_req_rate"], "request_rate_per_ip"),
    same(LIMITS, &["maxsslrate"], "handshakes"),
    same(SOCKET, &["tcp_nodelay", "tcpnodelay"], "nodelay"),
    same(SOCKET, &["so_keepalive", "tcp_keepalive", "tcpka"], "keepalive"),
    same(SOCKET, &["reuseport", "so_reuseport"], "reuse_port"),
    same(SOCKET, &["tfo", "fastopen"], "fast_open"),
    same(SOCKET, &["deferred"], "defer_accept"),

    same(POOL, &["server", "servers", "endpoints", "hosts", "host", "members", "targets", "nodes", "instances", "upstreams"], "backends"),
    form(POOL, &["loadbalancer", "load_balancer"], "backends", "write the servers under `backends`, and how one is chosen as `balance`"),
    same(POOL, &["algorithm", "lb_algorithm", "lb_policy", "load_balancing", "method", "strategy", "policy", "scheduler"], "balance"),
    form(POOL, &["least_conn", "leastconn"], "balance", "write `balance: least_connections`"),
    form(POOL, &["roundrobin", "round_robin"], "balance", "write `balance: round_robin`"),
    form(POOL, &["ip_hash", "hash_type"], "balance", "write `balance: ip_hash`: sticky sessions by consistent hashing"),
    form(POOL, &["sticky", "stick_table", "stick", "session_affinity", "stick_on"],
        "persist", "write `persist: {}`, a table of clients, or `balance: ip_hash`, consistent hashing"),
    form(POOL, &["cookie"], "persist", "write `persist: { by: cookie, name: backend }`, with `protocol: http` of the listeners"),
    form(POOL, &["circuit_breaker", "circuit_breakers", "outlier_detection", "observe", "passive_health_check", "max_fails"],
        "outlier", "write `outlier: { failures: 5, ejection: 30s }`"),
    form(POOL, &["check", "checks", "health_check", "health_checks", "healthcheck", "healthchecks", "option_httpchk", "option_tcp_check", "tcp_check", "httpchk"],
        "health", "write `health: { tcp: {} }`, or `health: { http: { path: /health } }`"),
    form(POOL, &["inter"], "health", "write `health: { interval: 2s }` with a kind of check"),
    other(POOL, &["maxconn", "max_conn", "max_conns", "max_connections"], "write `max_connections` of each backend"),
    form(POOL, &["timeout_connect", "connect_timeout", "proxy_connect_timeout"], "timeouts", "write `timeouts: { connect: 5s }`"),
    other(POOL, &["timeout_server", "server_timeout", "proxy_timeout", "timeout_tunnel"], "write `timeouts: { idle: 1h }` of the listener"),
    other(POOL, &["default_server"], "each backend has its own `weight` and `max_connections`; checks are the pool's `health`"),
    other(POOL, &["mode"], MODE),
    form(POOL, &["send_proxy_v2", "proxy_protocol", "proxyprotocol"], "send_proxy", "write `send_proxy: v2`"),
    form(POOL, &["ssl", "transport_socket", "proxy_ssl"], "tls", "write `tls: {}` for TLS to the backends"),
    same(POOL, &["retry", "proxy_next_upstream_tries", "redispatch", "option_redispatch"], "retries"),
    same(POOL, &["slowstart"], "slow_start"),
    form(POOL, &["on_marked_down"], "on_down", "write `on_down: cut`"),

    same(BACKEND, &["host", "server", "ip", "addr", "url", "target", "hostname", "endpoint", "socket_address", "port"], "address"),
    same(BACKEND, &["maxconn", "max_conn", "max_conns"], "max_connections"),
    other(BACKEND, &["check", "checks", "health", "health_check", "healthcheck"], "checks are the pool's: write `health: { tcp: {} }` beside `backends`"),
    other(BACKEND, &["inter", "rise", "fall", "interval"], "checks are the pool's: write it under `health` beside `backends`"),
    other(BACKEND, &["max_fails", "fail_timeout"], "write `outlier: { failures: 5, ejection: 30s }` beside `backends`"),
    other(BACKEND, &["ssl", "tls", "verify", "sni"], "TLS to the backends is the pool's: write `tls` beside `backends`"),
    other(BACKEND, &["send_proxy", "send_proxy_v2"], "write `send_proxy: v2` beside `backends`"),
    form(BACKEND, &["down", "disabled"], "state", "write `state: maintenance`: no new connections, no health checks"),
    same(BACKEND, &["id", "label"], "name"),
    other(BACKEND, &["slowstart", "slow_start"], "write `slow_start` beside `backends`"),
    other(POOL_TIMEOUTS, &["server", "idle", "read", "tunnel", "queue"], "write `timeouts: { idle: 1h }` of the listener"),

    same(POOL_TLS, &["ca_file", "cafile", "ca_cert", "rootcas", "proxy_ssl_trusted_certificate"], "ca"),
    same(POOL_TLS, &["sni", "servername", "verifyhost", "proxy_ssl_name"], "server_name"),
    form(POOL_TLS, &["insecure", "insecure_skip_verify", "insecureskipverify", "proxy_ssl_verify"], "verify", "write `verify: \"off\"`"),
    form(POOL_TLS, &["crt", "cert", "key", "certificates", "certificate"],
        "client_certificate", "write `client_certificate: { cert: client.pem, key: client.key }`"),

    form(HEALTH, &["httpchk", "option_httpchk", "http_check", "uri", "url"], "http", "write `http: { path: /health }`"),
    form(HEALTH, &["tcp_check", "connect"], "tcp", "write `tcp: {}`"),
    other(HEALTH, &["type", "kind", "protocol"], "the kind is a key: `tcp: {}`, `http: { path: /health }` or `exchange: { expect: ... }`"),
    same(HEALTH, &["inter", "every", "period", "period_seconds", "interval_seconds"], "interval"),
    same(HEALTH, &["healthy_threshold", "passes", "success_threshold"], "rise"),
    same(HEALTH, &["unhealthy_threshold", "fails", "max_fails", "failure_threshold", "retries"], "fall"),
    same(HEALTH, &["timeout_check", "timeout_seconds"], "timeout"),
    same(HEALTH_HTTP, &["uri", "url", "endpoint"], "path"),
    same(HEALTH_HTTP, &["expect", "expected_status", "expected_statuses", "codes", "code"], "status"),
    same(HEALTH_HTTP, &["hostname"], "host"),

    same("log", &["file", "access_log", "accesslog", "path"], "access"),
    same("log", &["severity", "verbosity"], "level"),
    same("admin", &["address", "listen", "port", "host"], "bind"),
    form("admin", &["token", "auth", "stats_auth", "password"], "token_file", "write `token_file`: the path of a file with the token"),
    same("shutdown", &["hard_stop_after", "grace", "timeout", "grace_period", "graceful_timeout"], "drain"),
];

/// Keys, their values elsewhere, and the equivalent.
#[rustfmt::skip]
const VALUES: &[(&str, &[&str], &str)] = &[
    ("pools[].balance", &["roundrobin", "rr", "wrr", "static-rr", "smooth"], "round_robin"),
    ("pools[].balance", &["leastconn", "least_conn", "least_connection", "leastconns", "lc", "wlc", "least"], "least_connections"),
    ("pools[].balance", &["source", "hash", "ip", "client_ip", "iphash", "maglev", "ring_hash", "hrw", "consistent", "sticky"], "ip_hash"),
    ("pools[].balance", &["least_time", "leasttime", "least_response_time", "ewma", "peak_ewma", "latency"], "least_latency"),
    ("pools[].balance", &["p2c", "least_request", "random_two", "two_random_choices", "random(2)"], "power_of_two"),
    ("pools[].send_proxy", &["true", "on", "yes", "send-proxy-v2", "2"], "v2"),
    ("pools[].send_proxy", &["send-proxy", "1"], "v1"),
    ("pools[].send_proxy", &["no", "none"], "off"),
    ("pools[].tls.verify", &["none", "no", "insecure"], "off"),
    ("pools[].tls.verify", &["required", "true", "on", "yes", "verify-full", "hostname"], "full"),
    ("pools[].tls.verify", &["verify-ca"], "ca"),
    ("pools[].tls.starttls", &["postgresql", "pgsql", "pg", "true"], "postgres"),
    ("listeners[].tls.starttls", &["postgresql", "pgsql", "pg", "true"], "postgres"),
    ("pools[].tls.starttls", &["mariadb"], "mysql"),
    ("listeners[].tls.starttls", &["mariadb"], "mysql"),
    ("listeners[].tls.starttls", &["no", "none"], "off"),
    ("listeners[].protocol", &["https", "http1", "http2", "http/1.1", "h2", "h2c", "grpc"], "http"),
    ("listeners[].protocol", &["tls", "ssl"], "tcp"),
    ("listeners[].tls.client_auth.mode", &["true", "on", "yes", "require", "requireandverifyclientcert", "verify"], "required"),
    ("listeners[].tls.client_auth.mode", &["no", "none", "noclientcert"], "off"),
    ("listeners[].tls.unknown_sni", &["strict", "reject", "deny", "close"], "refuse"),
    ("listeners[].tls.plaintext", &["reject", "deny", "close", "no", "false"], "refuse"),
    ("listeners[].tls.plaintext", &["yes", "true", "accept"], "allow"),
    ("listeners[].sniff", &["true", "on", "yes", "http1", "http/1.1"], "http"),
    ("listeners[].sniff", &["no", "none", "tcp"], "off"),
    ("listeners[].sniff", &["postgresql", "pgsql", "pg"], "postgres"),
    ("listeners[].sniff", &["mariadb"], "mysql"),
    ("listeners[].sniff", &["valkey", "resp"], "redis"),
    ("log.level", &["err", "crit", "critical", "fatal", "alert", "emerg"], "error"),
    ("log.level", &["notice"], "info"),
    ("log.format", &["plain", "logfmt", "raw"], "text"),
    ("pools[].on_down", &["shutdown-sessions", "close", "kill", "true"], "cut"),
    ("pools[].on_down", &["none", "false"], "keep"),
    ("pools[].health.initial", &["down"], "probe"),
];

/// The key that a scalar most likely stands for where a section is expected.
const SHORT: &[(&str, &str)] = &[
    ("pools[].backends[]", "address"),
    ("listeners[]", "bind"),
    ("pools[].health.http", "path"),
    ("pools[].health.exchange", "expect"),
    ("listeners[].tls.client_auth", "mode"),
    ("admin", "bind"),
    ("shutdown", "drain"),
    ("pools[].timeouts", "connect"),
    ("listeners[].timeouts", "idle"),
];

/// Sections that are valid without any key.
const EMPTY: [&str; 3] = ["pools[].health.tcp", "pools[].health.http", "pools[].tls"];

/// Keys that elsewhere hold an address without its port.
const HOSTS: [&str; 10] = ["host", "address", "ip", "addr", "hostname", "server", "bind", "listen", "target", "url"];

fn normal(word: &str) -> String {
    word.trim().to_lowercase().replace(['-', ' '], "_")
}

fn word(section: &str, key: &str) -> Option<&'static Synonym> {
    let key = normal(key);
    WORDS.iter().find(|word| word.section == section && word.words.contains(&key.as_str()))
}

/// The suggestion for a key; `None` if no other load balancer has it.
pub(crate) fn key(tree: &Tree, at: NodeId, section: &str) -> Option<String> {
    let found = word(section, tree.key(at)?)?;
    if let Some(key @ ("address" | "bind")) = found.key
        && let Some(address) = tree.parent(at).and_then(|owner| host_and_port(tree, owner))
    {
        return Some(format!("append the port to the address: write `{key}: {address}`"));
    }
    Some(match (found.hint, found.key) {
        ("", Some(key)) => format!("write `{key}` instead"),
        (hint, _) => hint.to_owned(),
    })
}

/// Whether a key is a synonym of `name` in the same section.
pub(crate) fn means(section: &str, key: &str, name: &str) -> bool {
    word(section, key).is_some_and(|word| word.key == Some(name))
}

/// The equivalent of a value.
pub(crate) fn value(key: &str, written: &str) -> Option<&'static str> {
    let written = written.to_lowercase();
    VALUES.iter().find(|(of, words, _)| *of == key && words.contains(&written.as_str())).map(|(.., meant)| *meant)
}

/// An address whose host and port are separate keys.
fn host_and_port(tree: &Tree, owner: NodeId) -> Option<String> {
    let NodeValue::Map(children) = tree.value(owner) else { return None };
    let of = |wanted: &dyn Fn(&str) -> bool| {
        let child = children.iter().find(|child| tree.key(**child).is_some_and(|key| wanted(&normal(key))))?;
        tree.text(*child).filter(|text| !text.is_empty())
    };
    let host = of(&|key| HOSTS.contains(&key))?;
    let port = of(&|key| key == "port")?;
    let is_port = port.bytes().all(|byte| byte.is_ascii_digit());
    let is_v6 = host.parse::<std::net::Ipv6Addr>().is_ok();
    let is_host = is_v6 || !host.contains([':', '/', ' ']);
    let address = if is_v6 { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    (is_port && is_host).then(|| quoted(&address))
}

/// The long form of a section that is written as a scalar.
pub(crate) fn short_form(tree: &Tree, at: NodeId) -> Option<String> {
    let section = tree.section(at);
    let text = tree.text(at)?;
    if section == TOP {
        let language = match text.split_whitespace().next()? {
            "global" | "defaults" | "frontend" | "backend" | "listen" => "HAProxy's",
            "stream" | "http" | "events" | "upstream" | "user" | "worker_processes" => "nginx's",
            _ => return None,
        };
        return Some(format!("this is {language} configuration language; tidegate's is YAML: see config/web.yaml"));
    }
    match tree.resolve(at)? {
        Resolved::Null => None,
        Resolved::Bool(true) if EMPTY.contains(&section.as_str()) => Some(format!("write `{}: {{}}`", tree.key(at)?)),
        Resolved::Bool(false) => Some("leave the key out".to_owned()),
        Resolved::Bool(true) => None,
        _ if section == HEALTH => {
            let kind = match normal(text).as_str() {
                "http" | "https" | "httpchk" => "http: { path: /health }",
                _ => "tcp: {}",
            };
            Some(format!("write `health: {{ {kind} }}`"))
        }
        _ => {
            let (_, key) = SHORT.iter().find(|(of, _)| *of == section)?;
            Some(format!("write `{{ {key}: {} }}`", quoted(text)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::schema;

    /// Of each section, the keys that it has.
    fn has(section: &str, key: &str) -> bool {
        schema::keys().iter().any(|(of, name)| of == section && name == key)
    }

    #[test]
    fn suggested_keys_exist_and_synonyms_do_not() {
        for Synonym { section, words, key, .. } in WORDS {
            if let Some(key) = key {
                assert!(has(section, key), "{section} has no {key}");
            }
            for word in *words {
                assert_eq!(normal(word), *word, "never found");
                assert!(!has(section, word), "{section} has {word} itself");
                assert_eq!(
                    WORDS.iter().filter(|other| other.section == *section && other.words.contains(word)).count(),
                    1,
                    "{section}: {word}"
                );
            }
        }
    }

    #[test]
    fn suggested_values_are_accepted() {
        let schema = schema::schema();
        let property = |key: &str| {
            let pointer = key.replace("[]", "/items").replace('.', "/properties/");
            schema.pointer(&format!("/properties/{pointer}")).cloned().unwrap_or_default()
        };
        for (key, words, meant) in VALUES {
            let values = property(key)["enum"].as_array().cloned().unwrap_or_default();
            assert!(values.contains(&(*meant).into()), "{key} has no {meant}: {values:?}");
            assert!(words.iter().all(|word| !values.contains(&(*word).into())), "{key}: {words:?}");
        }
    }
}
