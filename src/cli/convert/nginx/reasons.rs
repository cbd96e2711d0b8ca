//! Directives of nginx that become no key of tidegate, and why.

use super::tree::Directive;
use crate::cli::convert::ledger::Outcome;
use Outcome::{Diverted, Left, NotNeeded};

type Account = (Outcome, &'static str);

const HTTP: Account =
    (Left, "HTTP passes unchanged: nothing is rewritten, redirected or answered; leave it to the servers");
const FILES: Account = (Left, "nothing is served from files");
const CIPHERS: Account =
    (NotNeeded, "TLS 1.2 and 1.3 with forward secrecy and AEAD ciphers only; there is no choice of ciphers");
const PROCESS: Account = (NotNeeded, "a matter of the service manager: see packaging/tidegate.service");
const TUNING: Account = (NotNeeded, "buffers, threads and sockets are tuned already");
const REFUSALS: Account = (
    Diverted,
    "clients that it refused are let in: write `access: { deny }` of the listener, or a route with `refuse: true`",
);
const PASSWORDS: Account = (Diverted, "clients are let in without a password: let the servers ask for it");
const ADDRESSES: Account =
    (Left, "write `access: { allow, deny }` of the listener, or a route with `client` or `country`");
const LIMITS: Account = (
    Diverted,
    "requests that it refused are let in: `limits` of a listener bound connections, `connection_rate_per_ip`",
);
const INTERNAL: Account = (Diverted, "clients reach this location now: let its servers refuse them");
const NESTED: Account = (Diverted, "requests of the inner location go to the outer one: write them side by side");
const REWRITTEN: Account =
    (Diverted, "requests that it sent elsewhere go to this location's servers, in plain text too");
const BANDWIDTH: Account = (Left, "`limits.bandwidth` of a listener bounds each connection in each direction");
const LOGS: Account = (NotNeeded, "the fields of the access log are fixed");
const RESOLVER: Account = (Left, "names are looked up by the system's resolver every 30 s: enter its servers there");
const UNCHANGED: Account = (NotNeeded, "HTTP passes unchanged");
const SCRIPTS: Account = (Left, "there are no scripts");

#[rustfmt::skip]
const DIRECTIVES: &[(&[&str], Account)] = &[
    (&["user", "pid", "daemon", "master_process", "worker_rlimit_nofile", "worker_rlimit_core", "working_directory", "lock_file", "env"], PROCESS),
    (&["events", "worker_cpu_affinity", "worker_priority", "pcre_jit", "thread_pool", "timer_resolution", "tcp_nopush", "sendfile",
       "proxy_buffer_size", "proxy_buffers", "proxy_busy_buffers_size", "proxy_buffering", "proxy_request_buffering", "preread_buffer_size",
       "variables_hash_max_size", "variables_hash_bucket_size", "map_hash_max_size", "map_hash_bucket_size", "types_hash_max_size",
       "types_hash_bucket_size", "server_names_hash_max_size", "server_names_hash_bucket_size", "ssl_buffer_size", "aio", "directio",
       "client_header_buffer_size", "large_client_header_buffers", "client_body_buffer_size", "proxy_max_temp_file_size", "sendfile_max_chunk",
       "reset_timedout_connection", "open_file_cache", "open_file_cache_valid", "open_file_cache_min_uses", "ssl_engine"], TUNING),
    (&["load_module"], (NotNeeded, "all is built in")),
    (&["error_log", "open_log_file_cache", "log_not_found", "log_subrequest"], (NotNeeded, "logs go to stderr: `log.level`")),
    (&["log_format"], LOGS),
    (&["ssl_ciphers", "ssl_prefer_server_ciphers", "ssl_dhparam", "ssl_ecdh_curve", "proxy_ssl_ciphers", "proxy_ssl_protocols", "proxy_ssl_session_reuse", "proxy_ssl_verify_depth"], CIPHERS),
    (&["ssl_session_timeout"], (Left, "sessions are resumed for a fixed time")),
    (&["ssl_session_ticket_key"], (Left, "keys of tickets are not shared: clients resume sessions with the same instance only")),
    (&["ssl_verify_depth"], (Left, "chains of client certificates may be longer")),
    (&["ssl_conf_command", "proxy_ssl_conf_command"], (Left, "nothing of OpenSSL is configured")),
    (&["ssl_password_file", "proxy_ssl_password_file"], (Left, "keys have no passwords: decrypt the file")),
    (&["ssl_stapling", "ssl_stapling_verify", "ssl_stapling_file", "ssl_ocsp_cache", "ssl_ocsp_responder"], (Left, "OCSP is not spoken")),
    (&["ssl_ocsp"], (Diverted, "OCSP is not spoken: clients with revoked certificates get in, write `client_auth.crl`")),
    (&["ssl_trusted_certificate"], (NotNeeded, "only OCSP needs it")),
    (&["proxy_ssl_server_name"], (NotNeeded, "the name that is verified is sent as SNI")),
    (&["proxy_ssl_crl"], (Left, "certificates of servers are not looked up in lists")),
    (&["ssl_preread"], (NotNeeded, "routes by `sni` read the ClientHello by themselves")),
    (&["proxy_half_close"], (NotNeeded, "half-closed connections go on: `timeouts.half_close`")),
    (&["proxy_socket_keepalive"], (NotNeeded, "keepalive is on: `socket.keepalive`, 60 s")),
    (&["resolver"], RESOLVER),
    (&["resolver_timeout"], (NotNeeded, "names are looked up by the system's resolver every 30 s")),
    (&["allow", "deny", "satisfy", "limit_except", "secure_link", "valid_referers"], REFUSALS),
    (&["auth_basic", "auth_request", "auth_jwt"], PASSWORDS),
    (&["geo", "geoip_country", "geoip2"], ADDRESSES),
    (&["limit_conn_zone", "limit_conn_status", "limit_conn_log_level", "limit_req_zone", "limit_req_status", "limit_req_log_level"],
      (NotNeeded, "limits need no table, and answer nothing")),
    (&["limit_conn_dry_run", "limit_req_dry_run"], (Left, "limits are enforced: leave `limits` out")),
    (&["limit_req"], LIMITS),
    (&["limit_rate", "limit_rate_after"], BANDWIDTH),
    (&["proxy_next_upstream_timeout", "proxy_requests", "proxy_responses"], (Left, "tidegate has no such limit")),
    (&["health_check", "health_check_timeout", "match"], (Left, "write `health` below the pool")),
    (&["js_access", "js_preread"], (Diverted, "there are no scripts: clients that it refused are let in")),
    (&["js_import", "js_path", "js_filter", "js_set", "js_content", "perl", "perl_set"], SCRIPTS),
    (&["split_clients"], (Left, "write a route with `split: [{ pool: a, weight: 95 }, { pool: b, weight: 5 }]`")),
    (&["pass"], (Left, "connections are not handed on to other servers of this file")),
    (&["return"], (Left, "nothing is answered by itself: its connections are closed")),
    (&["internal"], INTERNAL),
    (&["location"], NESTED),
    (&["server_tokens", "server_name_in_redirect", "port_in_redirect", "absolute_redirect", "ignore_invalid_headers", "underscores_in_headers",
       "merge_slashes", "default_type", "types", "charset", "etag", "if_modified_since", "msie_padding", "proxy_http_version", "chunked_transfer_encoding",
       "keepalive_requests", "keepalive_disable", "proxy_cache_bypass", "proxy_no_cache", "lingering_close", "proxy_ignore_client_abort", "proxy_redirect", "proxy_pass_request_headers", "http2_max_concurrent_streams"], UNCHANGED),
    (&["keepalive_timeout", "client_body_timeout", "send_timeout", "lingering_timeout"],
      (NotNeeded, "HTTP passes unchanged: `timeouts.idle` bounds the time between requests")),
    (&["root", "alias", "index", "try_files", "autoindex", "expires", "gzip_static", "error_page", "stub_status"], FILES),
    (&["http2", "http3"], (Left, "HTTP passes unchanged, and servers would get this protocol")),
    (&["mail"], (Left, "mail is not spoken: balance its ports as TCP")),
    (&["proxy_set_header", "add_header", "proxy_hide_header", "proxy_pass_header", "rewrite", "if", "set", "gzip", "gzip_types", "gzip_vary",
       "gzip_proxied", "gzip_comp_level", "gzip_min_length", "sub_filter", "proxy_cache", "proxy_cache_path", "proxy_cache_valid", "proxy_cache_key",
       "proxy_cache_use_stale", "auth_basic_user_file", "client_max_body_size", "proxy_method", "proxy_set_body",
       "proxy_cookie_path", "proxy_cookie_domain", "proxy_intercept_errors", "fastcgi_pass", "uwsgi_pass", "grpc_pass", "scgi_pass", "memcached_pass",
       "real_ip_header", "real_ip_recursive", "mirror"], HTTP),
];

/// What becomes of a directive that no translation reads, with its block.
pub(super) fn of(directive: &Directive) -> Account {
    let last = directive.words.last().map_or("", String::as_str);
    match (directive.name(), directive.word(1)) {
        (
            "auth_basic" | "auth_request" | "auth_jwt" | "limit_req_dry_run" | "limit_conn_dry_run" | "ssl_ocsp",
            "off",
        )
        | ("allow" | "satisfy", "all") => (NotNeeded, "so without it"),
        ("if", _) => of_condition(directive),
        ("rewrite", _) if last != "break" => REWRITTEN,
        ("error_log", to) if to.starts_with("syslog:") => {
            (Left, "tidegate's own log goes to stderr, where the journal takes it; `log.access` takes a syslog server")
        }
        (name, _) => of_name(name),
    }
}

/// Of `if`, by what it does: the worst counts.
fn of_condition(directive: &Directive) -> Account {
    let does = |name: &'static str| directive.children().iter().filter(move |line| line.name() == name);
    let is_refusal = |line: &Directive| line.word(1).starts_with('4') || refuses(line.name());
    match () {
        () if does("return").any(is_refusal) || directive.children().iter().any(|line| refuses(line.name())) => {
            REFUSALS
        }
        () if does("return").next().is_some() => REWRITTEN,
        () if does("rewrite").any(|line| line.words.last().is_none_or(|flag| flag != "break")) => REWRITTEN,
        () if directive.children().iter().any(|line| line.name().ends_with("_pass")) => REWRITTEN,
        () => HTTP,
    }
}

/// Whether a directive keeps clients out.
pub(super) fn refuses(name: &str) -> bool {
    [REFUSALS, PASSWORDS, LIMITS, INTERNAL].contains(&of_name(name))
}

fn of_name(name: &str) -> Account {
    let known = DIRECTIVES.iter().find(|(names, _)| names.contains(&name));
    let nginx = ["gzip", "fastcgi", "uwsgi", "scgi", "grpc", "proxy_cache", "proxy_cookie", "auth"];
    match known {
        Some((_, reason)) => *reason,
        None if name.starts_with("access_by_lua") => {
            (Diverted, "there are no scripts: clients that it refused are let in")
        }
        None if name.starts_with("auth_") => PASSWORDS,
        None if name.ends_with("_by_lua_block") || name.contains("_by_lua") || name.starts_with("lua_") => SCRIPTS,
        None if nginx.iter().any(|module| name.starts_with(module)) => HTTP,
        None => (Left, "tidegate has nothing like it"),
    }
}

/// Every directive that is known here, for tests.
#[cfg(test)]
pub(in crate::cli::convert) fn known_directives() -> impl Iterator<Item = &'static str> {
    DIRECTIVES.iter().flat_map(|(names, _)| names.iter().copied())
}
