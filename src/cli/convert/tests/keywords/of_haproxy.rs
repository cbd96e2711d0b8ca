//! Keywords of HAProxy, each where it stands.

use super::{CfgPart, at};
use crate::cli::convert::haproxy;

/// A file with these parts.
pub(in crate::cli::convert::tests) fn haproxy_file(parts: &[CfgPart]) -> String {
    let lines = |place| at(parts, place, " ", "\n");
    let options = |place| at(parts, place, "", "");
    format!(
        "global\n{}defaults\n{}frontend f\n bind 10.0.0.1:8080{}\n default_backend p\n{}backend p\n{}{} server s 10.0.0.9:1 check{}\n\
         backend q\n server t 10.0.0.8:1\nlisten l\n bind 10.0.0.1:8081\n server u 10.0.0.7:1\n{}",
        lines("global"),
        lines("defaults"),
        options("bind"),
        lines("frontend"),
        lines("backend"),
        at(parts, "default-server", " default-server ", "\n"),
        options("server"),
        lines("listen"),
    )
}

/// Keywords that are translated or reported for themselves, with values.
pub(super) fn haproxy_by_hand() -> Vec<CfgPart> {
    let mut parts = Vec::new();
    let mut all =
        |place: &'static str, words: &[&str]| parts.extend(words.iter().map(|words| CfgPart::new(place, *words)));
    all(
        "global",
        &[
            "nbthread 3",
            "hard-stop-after 40s",
            "grace 3s",
            "log 10.0.0.5 local0",
            "stats socket /run/a.sock mode 660 level admin",
            "stats socket 127.0.0.1:9999",
            "stats socket *:9999",
            "stats timeout 3s",
            "maxconn 5000",
            "crt-base /certs",
            "ca-base /cas",
            "ssl-default-bind-options no-tls-tickets",
            "ssl-default-bind-options ssl-min-ver TLSv1.3",
            "ssl-server-verify none",
            "tune.bufsize 5",
            "unknown word",
        ],
    );
    let timeouts = [
        "client 33s",
        "server 44s",
        "connect 7s",
        "check 3s",
        "queue 9s",
        "tunnel 2h",
        "client-fin 9s",
        "server-fin 8s",
        "http-request 7s",
        "http-keep-alive 3s",
        "tarpit 3s",
        "unknown 3s",
        "client 0",
        "server x",
    ];
    for place in ["defaults", "frontend", "backend", "listen"] {
        all(place, &timeouts.map(|timeout| format!("timeout {timeout}")).each_ref().map(String::as_str));
        all(
            place,
            &[
                "retries 5",
                "retries 500",
                "maxconn 700",
                "backlog 77",
                "balance leastconn",
                "balance source",
                "balance uri",
                "balance first",
                "source 10.9.9.9",
                "source 0.0.0.0 usesrc clientip",
                "rate-limit sessions 5",
                "log global",
                "log 10.0.0.6 local1",
                "option tcplog",
                "option httplog",
                "option httpchk GET /x",
                "option httpchk x y",
                "option redis-check",
                "option smtpchk EHLO a",
                "option pgsql-check user x",
                "option ldap-check",
                "option tcp-check",
                "option mysql-check",
                "option dontlognull",
                "no option splice-auto",
                "mode http",
                "http-check expect status 200",
                "http-check expect string ok",
                "http-check send meth GET uri /y",
                "http-check connect",
                "tcp-check send PING",
                "tcp-check expect string +PONG",
                "tcp-check connect port 9",
                "stick-table type ip size 1m expire 9m",
                "stick-table type string size 9g store conn_rate(5s)",
                "stick on src",
                "stick match src",
                "stats enable",
                "stats uri /x",
                "stats auth a:b",
                "stats realm a",
                "stats scope a",
                "stats admin if TRUE",
                "tcp-request inspect-delay 5s",
                "tcp-request connection track-sc0 src",
                "tcp-request connection reject if { src_conn_cur gt 5 }",
                "tcp-request content reject if { sc0_conn_rate ge 5 }",
                "tcp-request content set-dst ipv4(10.0.0.3)",
                "http-request redirect scheme https unless { ssl_fc }",
                "http-request set-bandwidth-limit a",
                "filter bwlim-in a default-limit 1m default-period 1s",
                "use-server s if { src 10.0.0.0/8 }",
                "no option redispatch",
                "no option tcpka",
                "no log",
                "tcp-request connection reject if { src 10.0.0.0/8 }",
                "http-request deny",
                "unknown word",
            ],
        );
    }
    for place in ["frontend", "listen"] {
        all(
            place,
            &[
                "use_backend q if { req.ssl_sni a.example }",
                "use_backend q if { hdr(host) a.example }",
                "use_backend q if { path_beg /api }",
                "use_backend q if { path_beg -i /api }",
                "use_backend q if { src 10.0.0.0/8 }",
                "use_backend q if { src -f /x }",
                "use_backend q if { hdr_dom(host) a }",
                "use_backend q if { hdr(host) -m dom a }",
                "use_backend q if { hdr_end(host) .a.example }",
                "use_backend q unless { req.ssl_sni a.example }",
                "use_backend %[req.ssl_sni]",
                "use_backend q",
                "use_backend nobody if { req.ssl_sni a.example }",
                "acl unused src 10.0.0.0/8",
            ],
        );
    }
    all(
        "bind",
        &[
            "ssl crt /c.pem",
            "ssl crt c.pem",
            "crt /d.pem",
            "alpn h2",
            "verify required ca-file ca.pem",
            "ca-file /ca.pem",
            "crl-file /crl.pem",
            "strict-sni",
            "no-tls-tickets",
            "ssl-min-ver TLSv1.3",
            "ssl-min-ver TLSv1.0",
            "ssl-max-ver TLSv1.2",
            "no-tlsv12",
            "no-sslv3",
            "ciphers X",
            "curves X",
            "accept-proxy",
            "transparent",
            "tfo",
            "defer-accept",
            "backlog 99",
            "backlog x",
            "v4v6",
            "v6only",
            "name x",
            "id 3",
            "process 1",
            "nice 3",
            "level admin",
            "maxconn 5",
            "mss 5",
            "interface eth0",
            "tcp-ut 5s",
            "mode 660",
            "user a",
            "proto h2",
            "unknown",
        ],
    );
    let of_servers = [
        "weight 7",
        "weight 300",
        "maxconn 9",
        "backup",
        "disabled",
        "inter 9s",
        "inter x",
        "rise 4",
        "rise 5000",
        "fall 5",
        "port 99",
        "port 99999",
        "slowstart 9s",
        "send-proxy",
        "send-proxy-v2",
        "on-marked-down shutdown-sessions",
        "on-marked-down other",
        "ssl verify none",
        "ssl",
        "verify none",
        "ca-file ca.pem",
        "crt c.pem",
        "alpn h2",
        "sni str(a.example)",
        "sni ssl_fc_sni",
        "verifyhost b.example",
        "source 10.8.8.8",
        "source 10.8.8.8:1-9 usesrc client",
        "unknown",
    ];
    // The server is checked in any case.
    all("server", &["no-check"]);
    all("server", &of_servers);
    all("default-server", &of_servers);
    parts
}

/// These, and every keyword of the tables.
pub(in crate::cli::convert::tests) fn haproxy_parts() -> Vec<CfgPart> {
    let mut parts = haproxy_by_hand();
    for place in ["global", "defaults", "frontend", "backend", "listen"] {
        parts.extend(haproxy::reasons::known_lines().into_iter().map(|line| CfgPart::new(place, line)));
    }
    for place in ["server", "default-server"] {
        parts.extend(haproxy::reasons::known_server_options().into_iter().map(|option| CfgPart::new(place, option)));
    }
    parts
}
