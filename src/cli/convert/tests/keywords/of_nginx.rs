//! Directives of nginx, each where it stands.

use super::{CfgPart, at};
use crate::cli::convert::nginx;

/// A file with these parts.
pub(in crate::cli::convert::tests) fn nginx_file(parts: &[CfgPart]) -> String {
    let lines = |place| at(parts, place, "  ", ";\n");
    let options = |place| at(parts, place, "", "");
    format!(
        "{}stream {{\n{}upstream u {{ server 10.0.0.9:1{};\n{}}}\nupstream w {{ server 10.0.0.6:1; }}\n\
         map $ssl_preread_server_name $to {{ x.example w; default u;\n{}}}\n\
         server {{ listen 8080{}; proxy_pass u;\n{}}}\nserver {{ listen 8082; proxy_pass $to; }}\n}}\n\
         http {{\n{}upstream v {{ server 10.0.0.8:80; }}\nserver {{ listen 8081{}; server_name a.example;\n{}\
         location / {{ proxy_pass http://v;\n{}}}\n}}\n\
         server {{ listen 8081; server_name b.example; location / {{ proxy_pass http://10.0.0.5; }} }}\n}}\n",
        lines("main"),
        lines("stream"),
        options("upstream server"),
        lines("upstream"),
        lines("map"),
        options("listen"),
        lines("server"),
        lines("http"),
        options("http listen"),
        lines("http server"),
        lines("location"),
    )
}

/// Directives that are translated or reported for themselves, with values.
pub(super) fn nginx_by_hand() -> Vec<CfgPart> {
    let mut parts = Vec::new();
    let mut all =
        |place: &'static str, words: &[&str]| parts.extend(words.iter().map(|words| CfgPart::new(place, *words)));
    all(
        "main",
        &[
            "worker_processes 3",
            "worker_processes auto",
            "worker_shutdown_timeout 40s",
            "worker_shutdown_timeout x",
            "unknown",
        ],
    );
    for place in ["stream", "server", "http", "http server", "location"] {
        all(
            place,
            &[
                "proxy_timeout 33s",
                "proxy_timeout 0",
                "proxy_read_timeout 44s",
                "proxy_send_timeout 45s",
                "preread_timeout 3s",
                "client_header_timeout 4s",
                "ssl_handshake_timeout 7s",
                "proxy_connect_timeout 8s",
                "set_real_ip_from 10.0.0.0/8",
                "set_real_ip_from x",
                "access_log /a.log",
                "access_log off",
                "ssl_certificate /c.pem",
                "ssl_certificate_key /c.key",
                "ssl_protocols TLSv1.3",
                "ssl_protocols TLSv1 TLSv1.2",
                "ssl_verify_client on",
                "ssl_verify_client optional_no_ca",
                "ssl_client_certificate /ca.pem",
                "ssl_crl /crl.pem",
                "ssl_session_tickets off",
                "ssl_reject_handshake on",
                "ssl_alpn h2",
                "proxy_protocol on",
                "proxy_bind 10.9.9.9",
                "proxy_bind 10.9.9.9 transparent",
                "proxy_bind ::9",
                "proxy_bind $remote_addr transparent",
                "proxy_next_upstream off",
                "proxy_next_upstream error http_500",
                "proxy_next_upstream_tries 5",
                "proxy_next_upstream_tries 0",
                "proxy_next_upstream_tries 500",
                "proxy_ssl on",
                "proxy_ssl_verify on",
                "proxy_ssl_trusted_certificate /ca.pem",
                "proxy_ssl_certificate /k.pem",
                "proxy_ssl_certificate_key /k.key",
                "proxy_ssl_name a.example",
                "proxy_ssl_name $host",
                "limit_conn a 5",
                "limit_conn a x",
                "proxy_download_rate 5k",
                "proxy_upload_rate 5k",
                "proxy_upload_rate x",
                "ssl_session_cache shared:a:10m",
                "ssl_session_cache off",
                "ssl_session_cache shared:a:9g",
                "tcp_nodelay off",
                "tcp_nodelay on",
                "access_log syslog:server=10.0.0.6:515,tag=a",
                "auth_basic off",
                "rewrite ^ /x break",
                "rewrite ^ /x",
                "unknown word",
            ],
        );
    }
    let of_listen = [
        "ssl",
        "proxy_protocol",
        "reuseport",
        "deferred",
        "backlog=99",
        "backlog=x",
        "fastopen=5",
        "so_keepalive=on",
        "so_keepalive=off",
        "so_keepalive=5m",
        "so_keepalive=5m:1:2",
        "ipv6only=on",
        "ipv6only=off",
        "http2",
        "bind",
        "rcvbuf=5",
        "unknown",
    ];
    all("listen", &of_listen);
    all("http listen", &of_listen);
    all(
        "upstream server",
        &[
            "weight=7",
            "weight=5000",
            "weight=x",
            "max_conns=9",
            "max_conns=x",
            "backup",
            "down",
            "max_fails=0",
            "max_fails=3",
            "fail_timeout=9s",
            "fail_timeout=x",
            "slow_start=9s",
            "slow_start=x",
            "resolve",
            "service=a",
            "unknown",
        ],
    );
    all(
        "upstream",
        &[
            "least_conn",
            "ip_hash",
            "hash $remote_addr",
            "hash $x",
            "random",
            "random two",
            "random two least_time=connect",
            "least_time connect",
            "zone a 64k",
            "keepalive 9",
            "resolver a",
            "queue 9 timeout=7s",
            "queue x",
            "sticky cookie a",
            "check interval=5",
            "server x",
            "server 10.0.0.4:1 slow_start=3s",
            "unknown word",
        ],
    );
    all(
        "map",
        &["y.example w", "*.y.example w", "~^y w", "hostnames", "volatile", "\"\" w", "z.example", "k.example nobody"],
    );
    all("location", &["proxy_set_header Host $host", "proxy_set_header X y", "proxy_set_header Upgrade $http_upgrade"]);
    all("http server", &["server_name c.example", "server_name ~^x", "location /api", "return 301 /"]);
    parts
}

/// These, and every directive of the tables.
pub(in crate::cli::convert::tests) fn nginx_parts() -> Vec<CfgPart> {
    let mut parts = nginx_by_hand();
    for place in ["main", "stream", "server", "http", "http server", "location"] {
        parts.extend(nginx::reasons::known_directives().map(|name| CfgPart::new(place, format!("{name} x"))));
    }
    parts
}
