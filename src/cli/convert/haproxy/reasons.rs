//! Keywords of HAProxy that become no key of tidegate, and why.

/// What a keyword is, if it becomes no key.
#[derive(Clone, Copy)]
pub(super) enum Reason {
    /// tidegate does so by itself.
    NotNeeded(&'static str),
    /// There is no equivalent.
    Left(&'static str),
    /// Without it, clients are let in that it refused.
    Diverted(&'static str),
}

use Reason::{Diverted, Left, NotNeeded};

const HTTP: Reason =
    Left("HTTP passes unchanged: nothing is rewritten, redirected or answered; leave it to the servers");
const CIPHERS: Reason =
    NotNeeded("TLS 1.2 and 1.3 with forward secrecy and AEAD ciphers only; there is no choice of ciphers");
const PROCESS: Reason = NotNeeded("a matter of the service manager: see packaging/tidegate.service");
const TUNING: Reason = NotNeeded("buffers and threads adapt by themselves");
const RULES: Reason = Left(
    "there are no rules of this kind; `access` allows and denies networks, `limits.connection_rate_per_ip` and `limits.connections_per_ip` bound clients",
);
const ALIVE: Reason = NotNeeded("keepalive is on: `socket.keepalive`, 60 s");
/// Of a rule that keeps clients out.
const REFUSED: Reason = Diverted(
    "clients that it refused are let in: `access: { deny }` of a listener keeps networks out, `limits` bound their rate and number",
);
const REDIRECTED: Reason =
    Diverted("requests that it redirected reach the servers, in plain text too: let the servers redirect them");
const ANSWERED: Reason = Diverted("requests that it answered reach the servers: leave it to them");
const MOVED: Reason = Diverted("connections that it sent elsewhere go where all others go");
const NO_SERVER: Reason =
    Diverted("its connections go to any backend of the pool: give the server a pool of its own, and a route");
/// Of a rule that only counts.
pub(super) const COUNTERS: &str =
    "there are no counters by rules: `limits` of a listener count connections by address themselves";

#[rustfmt::skip]
const LINES: &[(&str, Reason)] = &[
    ("chroot", PROCESS), ("user", PROCESS), ("group", PROCESS), ("uid", PROCESS), ("gid", PROCESS), ("daemon", PROCESS),
    ("pidfile", PROCESS), ("master-worker", PROCESS), ("ulimit-n", PROCESS), ("nbproc", TUNING), ("cpu-map", TUNING),
    ("cpu-policy", TUNING), ("thread-groups", TUNING), ("spread-checks", NotNeeded("intervals of checks vary by 10 %")),
    ("fullconn", TUNING), ("quiet", PROCESS), ("description", NotNeeded("a comment")), ("node", NotNeeded("a comment")),
    ("ssl-default-bind-ciphers", CIPHERS), ("ssl-default-bind-ciphersuites", CIPHERS), ("ssl-default-bind-curves", CIPHERS),
    ("ssl-default-server-ciphers", CIPHERS), ("ssl-default-server-ciphersuites", CIPHERS),
    ("ssl-default-server-options", CIPHERS), ("ssl-dh-param-file", CIPHERS),
    ("tune.ssl.cachesize", Left("write `tls: { session_cache: N }` at each listener, for clients without tickets")),
    ("tune.ssl.lifetime", Left("sessions are resumed for a fixed time")),
    ("log-send-hostname", NotNeeded("the access log names no host")), ("log-tag", NotNeeded("lines begin with tidegate[PID]")),
    ("log-format", Left("the fields of the access log are fixed; `log.format: json` has all of them")),
    ("error-log-format", Left("the fields of the access log are fixed")),
    ("lua-load", Left("there are no scripts")), ("setenv", NotNeeded("its value is written where it is used")),
    ("presetenv", NotNeeded("its value is written where it is used")),
    ("http-request", HTTP), ("http-response", HTTP), ("http-after-response", HTTP), ("redirect", REDIRECTED), ("block", REFUSED), ("reqdeny", REFUSED), ("reqideny", REFUSED), ("reqtarpit", REFUSED),
    ("reqitarpit", REFUSED), ("reqadd", HTTP),
    ("rspadd", HTTP), ("reqrep", HTTP), ("rsprep", HTTP), ("rspdel", HTTP), ("reqidel", HTTP), ("errorfile", HTTP),
    ("errorfiles", HTTP), ("errorloc", HTTP), ("compression", HTTP), ("capture", Left("the access log has no fields of HTTP")),
    ("cookie", Left("no cookie is written; `persist` keeps a client address with its server")),
    ("appsession", Left("no cookie is read; `persist` keeps a client address with its server")),
    ("tcp-request", RULES), ("tcp-response", RULES), ("filter", Left("there are no filters")),
    ("http-reuse", NotNeeded("connections to servers are not shared")),
    ("use-server", NO_SERVER), ("dispatch", MOVED),
    ("unique-id-format", Left("every connection has an id; its form is fixed")), ("unique-id-header", HTTP),
    ("monitor-uri", Left("/readyz of the stats port says whether tidegate is ready")),
    ("external-check", Left("no programs are run as checks")), ("email-alert", Left("alert on the metrics: see config/alerts.yaml")),
    ("declare", HTTP), ("persist", Left("no cookies are read")),
    ("force-persist", Left("no cookies are read")), ("ignore-persist", Left("no cookies are read")),
    ("hash-type", NotNeeded("ip_hash is consistent")), ("id", NotNeeded("names identify everything")),
    ("log-stderr", NotNeeded("logs go to stderr")),
];

#[rustfmt::skip]
const OPTIONS: &[(&str, Reason)] = &[
    ("dontlognull", Left("`log.access_empty: false` does this, for all listeners")), ("dontlog-normal", Left("every connection is logged")),
    ("logasap", NotNeeded("the access log has a line when a connection ends")), ("redispatch", NotNeeded("a retry always takes another backend")),
    ("log-health-checks", NotNeeded("changes of health are logged")), ("log-separate-errors", NotNeeded("errors have their own reason")),
    ("tcpka", ALIVE), ("clitcpka", ALIVE), ("srvtcpka", ALIVE), ("splice-auto", NotNeeded("bytes are spliced where that pays")),
    ("splice-request", NotNeeded("bytes are spliced where that pays")), ("splice-response", NotNeeded("bytes are spliced where that pays")),
    ("tcp-smart-accept", NotNeeded("`socket.defer_accept` is off")), ("tcp-smart-connect", TUNING), ("socket-stats", NotNeeded("counted per listener")),
    ("allbackups", NotNeeded("all backups share the load")), ("contstats", NotNeeded("bytes are counted as they pass")),
    ("http-server-close", NotNeeded("connections stay as client and server keep them")), ("httpclose", NotNeeded("connections stay as client and server keep them")),
    ("forceclose", NotNeeded("connections stay as client and server keep them")), ("http-keep-alive", NotNeeded("connections stay as client and server keep them")),
    ("prefer-last-server", NotNeeded("a connection stays with its backend")), ("abortonclose", NotNeeded("a client that leaves ends its connection")),
    ("http-buffer-request", NotNeeded("requests pass as they come")), ("transparent", Left("the destination cannot be the client's")),
    ("forwardfor", Left("no header is added; `send_proxy: v2` tells servers that read PROXY headers the client's address")),
    ("originalto", HTTP), ("http_proxy", HTTP), ("http-use-htx", TUNING), ("nolinger", Left("connections are closed in order")),
    ("ssl-hello-chk", Left("write `health: { tls: {} }`")), ("external-check", Left("no programs are run as checks")),
    ("persist", Left("no cookies are read")), ("accept-invalid-http-request", NotNeeded("HTTP is not judged")), ("http-no-delay", NotNeeded("TCP_NODELAY is set")),
    ("h1-case-adjust-bogus-client", NotNeeded("HTTP passes unchanged")), ("idle-close-on-response", NotNeeded("HTTP passes unchanged")),
];

/// Of a line, by its first words.
pub(super) fn line(words: &[String]) -> Option<Reason> {
    let word = |index: usize| words.get(index).map_or("", String::as_str);
    Some(match (word(0), word(1)) {
        ("option", option) => return find(OPTIONS, option),
        ("no", "option") => turned_off(word(2)),
        ("no", "log") => Left("the access log is one for all listeners"),
        ("no", _) => NotNeeded("it is off unless a key turns it on"),
        ("tcp-request", "inspect-delay") => {
            NotNeeded("routes wait for the first bytes by themselves: `timeouts.sniff`, 5 s")
        }
        (first, _) if first.ends_with("-request") || first.ends_with("-response") => rule(words)?,
        ("stats", _) => stats(words),
        ("filter", kind) if kind.starts_with("bwlim-") => Left(
            "write `limits: { bandwidth: 1MiB/s }` at the listener, with its rate: of one connection in each direction",
        ),
        (first, _) => match find(LINES, first) {
            None if first.starts_with("tune.") || first.starts_with("profiling.") => TUNING,
            other => return other,
        },
    })
}

fn find(table: &[(&str, Reason)], word: &str) -> Option<Reason> {
    table.iter().find(|(known, _)| *known == word).map(|(_, reason)| *reason)
}

/// Of `no option`.
fn turned_off(option: &str) -> Reason {
    match find(OPTIONS, option) {
        _ if option == "redispatch" => Left("a retry always takes another backend; `retries: 0` is none"),
        _ if option.ends_with("tcpka") => Left("keepalive is on: write `socket: { keepalive: 0s }`"),
        Some(NotNeeded(why)) => NotNeeded(why),
        _ => NotNeeded("it is off unless a key turns it on"),
    }
}

/// Of a rule, by its action.
fn rule(words: &[String]) -> Option<Reason> {
    let action = words.iter().skip(1).map(String::as_str).take_while(|word| !["if", "unless"].contains(word));
    // `tcp-request` has the moment in front of the action. Some actions have values in parentheses behind them.
    let mut action = action.skip_while(|word| ["connection", "content", "session"].contains(word));
    let action = action.next().unwrap_or_default().split('(').next().unwrap_or_default();
    Some(match action {
        "reject" | "deny" | "tarpit" | "auth" | "silent-drop" => REFUSED,
        "redirect" => REDIRECTED,
        "return" | "use-service" | "cache-use" => ANSWERED,
        "set-dst" | "set-dst-port" | "attach-srv" => MOVED,
        "set-bandwidth-limit" => Left("`limits.bandwidth` of the listener bounds each connection in each direction"),
        "accept" if words[0] == "tcp-request" => NotNeeded("routes wait for the first bytes by themselves"),
        _ if action.starts_with("track-sc") || action.starts_with("sc-") => Left(COUNTERS),
        "expect-proxy" => Left("write `proxy_protocol` at the listener"),
        _ => return find(LINES, &words[0]),
    })
}

/// Of the statistics page.
fn stats(words: &[String]) -> Reason {
    match words.get(1).map_or("", String::as_str) {
        "auth" | "http-request" => Diverted(
            "the stats port asks for no password, and listens on loopback only: `admin.token_file` guards changes, `admin.allow` its clients",
        ),
        "admin" => Left("changes over TCP need `admin.token_file`, and a unix socket only its mode"),
        "bind-process" | "maxconn" | "timeout" | "realm" | "refresh" | "hide-version" | "show-legends"
        | "show-desc" | "show-node" | "show-modules" => {
            NotNeeded("the stats port has a dashboard of its own, without options")
        }
        _ => Left("the stats port shows all listeners and pools, and has no such option"),
    }
}

/// Whether a line keeps clients out.
pub(super) fn refuses(words: &[String]) -> bool {
    matches!(line(words), Some(Diverted(why)) if matches!(REFUSED, Diverted(refused) if refused == why))
}

#[rustfmt::skip]
const SERVER_OPTIONS: &[(&str, usize, Reason)] = &[
    ("cookie", 1, Left("no cookie is written; `persist` keeps a client address with its server")),
    ("resolvers", 1, NotNeeded("names are looked up every 30 s")), ("init-addr", 1, NotNeeded("names are looked up at start and again")),
    ("resolve-prefer", 1, Left("all addresses of a name are used")), ("resolve-opts", 1, Left("all addresses of a name are used")),
    ("id", 1, NotNeeded("names identify backends")), ("check-send-proxy", 0, NotNeeded("checks send a PROXY header where connections do")),
    ("fastinter", 1, Left("one interval for all states")), ("downinter", 1, Left("one interval for all states")),
    ("observe", 1, Left("failed connects eject backends by `outlier` of the pool")), ("error-limit", 1, Left("failed connects eject backends by `outlier` of the pool")),
    ("on-error", 1, Left("failed connects eject backends by `outlier` of the pool")), ("on-marked-up", 1, Left("connections to backups go on")),
    ("track", 1, Left("each pool checks its own backends")), ("agent-check", 0, Left("there are no agents: change weights by the API")),
    ("agent-port", 1, Left("there are no agents")), ("agent-inter", 1, Left("there are no agents")), ("agent-addr", 1, Left("there are no agents")),
    ("agent-send", 1, Left("there are no agents")), ("minconn", 1, Left("`max_connections` is fixed")), ("maxqueue", 1, Left("there is one queue for all backends: `queue.size` of the pool")),
    ("tfo", 0, Left("there is no TCP Fast Open to backends")), ("redir", 1, Left("HTTP passes unchanged")), ("ciphers", 1, CIPHERS),
    ("ciphersuites", 1, CIPHERS), ("no-sslv3", 0, CIPHERS), ("no-tlsv10", 0, CIPHERS), ("no-tlsv11", 0, CIPHERS), ("force-tlsv12", 0, CIPHERS),
    ("ssl-min-ver", 1, CIPHERS), ("ssl-max-ver", 1, CIPHERS), ("no-ssl-reuse", 0, CIPHERS), ("crl-file", 1, Left("backends' certificates are not checked for revocation")),
    ("check-ssl", 0, Left("write `health: { tls: {} }`, or `tls: true` of an http check")), ("check-sni", 1, Left("write `health: { tls: { server_name: ... } }`")), ("check-alpn", 1, Left("checks offer the protocols of the pool's `tls.alpn`")),
    ("check-proto", 1, Left("checks speak HTTP/1.1")), ("proto", 1, Left("the protocol is that of the client")), ("addr", 1, Left("checks go to the backend's own address")),
    ("pool-purge-delay", 1, NotNeeded("connections are not shared")), ("pool-max-conn", 1, NotNeeded("connections are not shared")), ("namespace", 1, Left("no network namespaces")),
];

/// Of an option of a server: how many words follow it, and why it becomes no key.
pub(super) fn server_option(word: &str) -> Option<(usize, Reason)> {
    SERVER_OPTIONS.iter().find(|(known, ..)| *known == word).map(|(_, count, reason)| (*count, *reason))
}

/// Every line that is known here, for tests.
#[cfg(test)]
pub(in crate::cli::convert) fn known_lines() -> Vec<String> {
    let options = OPTIONS.iter().map(|(option, _)| format!("option {option}"));
    LINES.iter().map(|(line, _)| format!("{line} x")).chain(options).collect()
}

/// Every option of a server that is known here, for tests.
#[cfg(test)]
pub(in crate::cli::convert) fn known_server_options() -> Vec<String> {
    SERVER_OPTIONS.iter().map(|(option, count, _)| format!("{option}{}", " x".repeat(*count))).collect()
}
