//! What refuses clients, or sends them elsewhere, is a warning: never a line among others.

use proptest::prelude::*;

use super::keywords::{CfgPart, haproxy_file, haproxy_parts, nginx_file, nginx_parts, some, with_all_pools};
use super::*;

/// Lines of HAProxy by which clients are refused, redirected or sent to one of the servers.
const OF_HAPROXY: [&str; 33] = [
    "http-request deny if { src 10.0.0.0/8 }",
    "http-request deny deny_status 403",
    "http-request return status 403",
    "http-request reject",
    "http-request silent-drop if a",
    "http-request tarpit if a",
    "http-request auth unless a",
    "http-request redirect scheme https unless { ssl_fc }",
    "http-request redirect location /x if a",
    "http-request use-service lua.a",
    "http-response deny if a",
    "redirect scheme https if !{ ssl_fc }",
    "block if a",
    "reqdeny ^x",
    "reqideny ^x",
    "reqtarpit ^x",
    "reqitarpit ^x",
    "tcp-request connection reject if { src 10.0.0.0/8 }",
    "tcp-request connection silent-drop if a",
    "tcp-request content reject unless a",
    "tcp-request session reject",
    "tcp-request content set-dst ipv4(10.0.0.3)",
    "tcp-request connection reject if { src_conn_cur gt 5 }",
    "tcp-request content reject if { sc0_conn_rate gt 5 }",
    "tcp-response content reject if a",
    "use-server s if a",
    "dispatch 10.0.0.1:80",
    "stats auth a:b",
    "stats http-request auth unless a",
    "use_backend q if { src -f /x }",
    "use_backend q if { hdr_dom(host) x }",
    "use_backend q if { hdr(host) -m dom x }",
    "use_backend q if { req_ssl_sni -m end .a.example }",
];

/// Directives of a location with servers.
const OF_NGINX: [&str; 17] = [
    "deny all",
    "allow 10.0.0.0/8",
    "auth_basic x",
    "auth_request /x",
    "auth_jwt x",
    "auth_digest x",
    "satisfy any",
    "valid_referers none",
    "limit_req zone=a burst=5",
    "limit_conn a 5",
    "internal",
    "return 403",
    "return 301 https://$host",
    "rewrite ^ https://$host permanent",
    "rewrite ^/x /y last",
    "js_access a",
    "access_by_lua_file a",
];

const BLOCKS_OF_NGINX: [&str; 7] = [
    "if ($a) { return 403; }",
    "if ($a) { return 444; }",
    "if ($a) { return 301 https://$host; }",
    "if ($a) { rewrite ^ /x last; }",
    "if ($a) { proxy_pass http://v; }",
    "location /inner { proxy_pass http://v; }",
    "limit_except GET { deny all; }",
];

/// Warnings, each with the text of its line.
fn warnings(text: &str, dialect: Dialect) -> (String, Vec<(String, String)>) {
    let Converted { yaml, ledger } =
        translate(text, "/nonexistent/x", dialect).unwrap_or_else(|why| panic!("{why}:\n{text}"));
    let found = ledger.remarks(Outcome::Diverted);
    (yaml, found.iter().map(|remark| (remark.text.to_owned(), remark.why.to_owned())).collect())
}

/// The line is a warning, and warnings come before all else in the result.
fn is_warning(text: &str, line: &str, dialect: Dialect) -> Result<(), String> {
    let (yaml, found) = warnings(text, dialect);
    let start: String = line.chars().take(20).collect();
    let is_first = yaml.find("WARNING: without").is_some_and(|at| at < yaml.find("listeners:").unwrap_or(0));
    if is_first && found.iter().any(|(text, _)| text.starts_with(start.trim_end())) {
        return Ok(());
    }
    Err(format!("{line} is no warning:\n{text}\n{found:#?}\n{yaml}"))
}

#[test]
fn each_refusal_is_a_warning() {
    let mut wrong = Vec::new();
    for line in OF_HAPROXY {
        let place = if line.starts_with("use_backend") { "frontend" } else { "listen" };
        wrong.extend(is_warning(&haproxy_file(&[CfgPart::new(place, line)]), line, Dialect::Haproxy).err());
    }
    for line in OF_NGINX {
        wrong.extend(is_warning(&nginx_file(&[CfgPart::new("location", line)]), line, Dialect::Nginx).err());
    }
    for block in BLOCKS_OF_NGINX {
        let line = block.split(" {").next().unwrap_or_default();
        let text = format!(
            "http {{ upstream v {{ server 10.0.0.8:80; }}\nserver {{ listen 80; location / {{ proxy_pass http://v;\n{block}\n}} }} }}"
        );
        wrong.extend(is_warning(&text, line, Dialect::Nginx).err());
    }
    assert!(wrong.is_empty(), "{} of them, such as {}", wrong.len(), wrong[0]);
}

proptest! {
    #[test]
    fn a_refusal_among_others_is_a_warning(line in proptest::sample::select(&OF_HAPROXY[..29]), parts in some(with_all_pools(haproxy_parts()))) {
        let mut parts = parts;
        // What closes the table's counters, or names the same once more.
        parts.retain(|part| !part.words.starts_with("stick-table") && !part.words.contains("track-sc0") && !line.starts_with(&part.words));
        parts.push(CfgPart::new("listen", line));
        is_warning(&haproxy_file(&parts), line, Dialect::Haproxy).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn a_refusal_among_others_of_nginx_is_a_warning(line in proptest::sample::select(&OF_NGINX[..]), parts in some(nginx_parts())) {
        let mut parts = parts;
        parts.retain(|part| part.words.split(' ').next() != line.split(' ').next());
        parts.push(CfgPart::new("location", line));
        is_warning(&nginx_file(&parts), line, Dialect::Nginx).map_err(TestCaseError::fail)?;
    }
}

/// The reasons of one outcome, a line each.
fn reasons(text: &str, dialect: Dialect, outcome: Outcome) -> String {
    let Converted { ledger, .. } =
        translate(text, "/nonexistent/x", dialect).unwrap_or_else(|why| panic!("{why}:\n{text}"));
    ledger.remarks(outcome).iter().map(|remark| format!("{}: {}\n", remark.text, remark.why)).collect()
}

fn yaml(text: &str, dialect: Dialect) -> String {
    translate(text, "/nonexistent/x", dialect).unwrap_or_else(|why| panic!("{why}:\n{text}")).yaml
}

/// Two servers of an address: what each says of TLS.
fn sites(first: &str, second: &str) -> String {
    let site = |name: &str, tls: &str| {
        format!(
            "server {{ listen 443 ssl; server_name {name}; ssl_certificate /{name}.pem; {tls} location / {{ proxy_pass http://10.0.0.1; }} }}\n"
        )
    };
    format!("http {{\n{}{}}}\n", site("a.example", first), site("b.example", second))
}

#[test]
fn client_certificates_of_a_second_server_are_not_lost_silently() {
    let mtls = "ssl_verify_client on; ssl_client_certificate /ca.pem;";
    let lost = reasons(&sites("", mtls), Dialect::Nginx, Outcome::Diverted);
    assert!(
        lost.contains("ssl_verify_client on") && lost.contains("clients get in whose certificates it refused"),
        "{lost}"
    );
    // The same of both is translated.
    let both = yaml(&sites(mtls, mtls), Dialect::Nginx);
    assert!(both.contains("mode: required") && !both.contains("WARNING"), "{both}");
    // Another CA lets others in; that of the first one alone keeps clients of the second out.
    let other = reasons(&sites(mtls, &mtls.replace("/ca", "/other")), Dialect::Nginx, Outcome::Diverted);
    assert!(other.contains("ssl_client_certificate /other.pem"), "{other}");
    let stricter = sites(mtls, "");
    assert_eq!(reasons(&stricter, Dialect::Nginx, Outcome::Diverted), "");
    assert!(reasons(&stricter, Dialect::Nginx, Outcome::Left).contains("it holds for all names of the address"));
    for lost in ["ssl_reject_handshake on;", "ssl_protocols TLSv1.3;"] {
        let found = reasons(&sites("", lost), Dialect::Nginx, Outcome::Diverted);
        assert!(found.contains(lost.trim_end_matches(';')), "{found}");
    }
    let no_ca = reasons(&sites("ssl_verify_client on;", ""), Dialect::Nginx, Outcome::Diverted);
    assert!(no_ca.contains("without ssl_client_certificate"), "{no_ca}");
}

#[test]
fn a_domain_inside_a_name_is_no_route() {
    for condition in ["hdr_dom(host) beta", "hdr(host) -m dom beta", "req.ssl_sni -m dom beta"] {
        let text = haproxy_file(&[CfgPart::new("frontend", format!("use_backend q if {{ {condition} }}"))]);
        let found = yaml(&text, Dialect::Haproxy);
        assert!(!found.contains("routes:") && found.contains("WARNING"), "{found}");
    }
}

#[test]
fn the_end_of_a_name_is_one_label_here() {
    for condition in ["req_ssl_sni -m end .a.example", "hdr_end(host) -i .a.example", "ssl_fc_sni_end a.example"] {
        let route = format!("use_backend q if {{ {condition} }}");
        let text = haproxy_file(&[CfgPart::new("frontend", route)]);
        assert!(yaml(&text, Dialect::Haproxy).contains("*.a.example"));
        let found = reasons(&text, Dialect::Haproxy, Outcome::Diverted);
        assert!(found.contains("names with several labels there no longer go to q"), "{found}");
    }
    // Where all go to the same pool, nothing is lost.
    let text = haproxy_file(&[CfgPart::new("frontend", "use_backend p if { hdr_end(host) .a.example }")]);
    assert_eq!(reasons(&text, Dialect::Haproxy, Outcome::Diverted), "");
}

#[test]
fn wildcards_of_nginx_stand_for_one_label_here() {
    let stream = |entries: &str| nginx_file(&[CfgPart::new("map", "hostnames"), CfgPart::new("map", entries)]);
    for (text, count) in [
        (stream("*.y.example w"), 1),
        (stream(".y.example w"), 1),
        (stream(r"~\.y\.example$ w"), 1),
        // The default, too.
        (stream("*.y.example u"), 0),
        (sites("", "").replace("server_name b", "server_name *.b"), 1),
        (sites("", "").replace("server_name b", "server_name .b"), 1),
        (sites("", "").replace("server_name a", "server_name *.a"), 0),
    ] {
        let found = reasons(&text, Dialect::Nginx, Outcome::Diverted);
        assert_eq!(found.matches("the star stands for one label").count(), count, "{text}\n{found}");
    }
}

#[test]
fn a_location_that_leads_nowhere_lets_nobody_in() {
    let text = "server { listen 80; location /a { deny all; internal; return 403; } location / { proxy_pass http://10.0.0.1; } }";
    assert_eq!(reasons(text, Dialect::Nginx, Outcome::Diverted), "");
    let text = "frontend f\n bind :80\n use_backend no if { path_beg /a }\n default_backend p\nbackend no\n http-request deny\n\
                backend p\n server s 10.0.0.1:80\n";
    assert_eq!(reasons(text, Dialect::Haproxy, Outcome::Diverted), "");
}

#[test]
fn limits_that_count_alike_are_translated() {
    let haproxy = |bind: &str, rule: &str| {
        format!(
            "listen l\n bind {bind}\n stick-table type ip size 1m expire 9m store conn_cur,conn_rate(1m)\n tcp-request connection track-sc0 src\n \
             tcp-request connection reject if {{ {rule} }}\n server s 10.0.0.1:1\n"
        )
    };
    for (text, expected) in [
        (haproxy(":80", "src_conn_cur gt 20"), "connections_per_ip: 20"),
        (haproxy(":80", "src_conn_cur ge 20"), "connections_per_ip: 19"),
        (haproxy(":80", "src_conn_rate gt 30"), "connection_rate_per_ip: 30/m"),
    ] {
        let found = yaml(&text, Dialect::Haproxy);
        assert!(found.contains(expected) && !found.contains("WARNING"), "{found}");
    }
    // IPv6 is counted by /64; PROXY headers come after the rule.
    for bind in ["[::]:80", ":80 accept-proxy"] {
        let found = reasons(&haproxy(bind, "src_conn_cur gt 20"), Dialect::Haproxy, Outcome::Diverted);
        assert!(found.contains("connections_per_ip: 20"), "{found}");
    }
    let nginx = |key: &str, more: &str| {
        format!(
            "stream {{ limit_conn_zone {key} zone=z:1m;\nserver {{ listen 80; limit_conn z 20; proxy_pass 10.0.0.1:1; }}\n\
             server {{ listen 81; {more} proxy_pass 10.0.0.1:1; }} }}"
        )
    };
    let found = yaml(&nginx("$binary_remote_addr", ""), Dialect::Nginx);
    assert!(found.contains("connections_per_ip: 20") && !found.contains("WARNING"), "{found}");
    for text in [nginx("$server_addr", ""), nginx("$binary_remote_addr", "limit_conn z 20;")] {
        let found = yaml(&text, Dialect::Nginx);
        assert!(!found.contains("limits: { connections_per_ip: 20 } }") && found.contains("WARNING"), "{found}");
    }
}

#[test]
fn what_has_a_key_is_not_called_unneeded() {
    let frontend =
        |line: &str| format!("{line}frontend f\n bind :80\n default_backend p\nbackend p\n server s 10.0.0.1:80\n");
    let stream = |line: &str| format!("stream {{ server {{ listen 80 {line} proxy_pass 10.0.0.1:1; }} }}");
    for (text, dialect, expected) in [
        (frontend("global\n log 10.0.0.5 local0\n"), Dialect::Haproxy, "access: syslog:10.0.0.5:514"),
        (frontend("global\n log /dev/log local0\n"), Dialect::Haproxy, "access: syslog:/dev/log"),
        (
            stream("; access_log syslog:server=10.0.0.5:515,facility=local0;"),
            Dialect::Nginx,
            "access: syslog:10.0.0.5:515",
        ),
        (
            stream("; access_log syslog:server=unix:/dev/log,facility=local0;"),
            Dialect::Nginx,
            "access: syslog:/dev/log",
        ),
        (stream("; tcp_nodelay off;"), Dialect::Nginx, "nodelay: false"),
        (stream("; proxy_upload_rate 1m; proxy_download_rate 1m;"), Dialect::Nginx, "bandwidth: 1MiB/s"),
        (
            stream("ssl; ssl_certificate /a.pem; ssl_session_cache shared:a:10m;"),
            Dialect::Nginx,
            "session_cache: 40000",
        ),
        (frontend("").replace(":80\n default", "/run/a.sock mode 660\n default"), Dialect::Haproxy, "mode: \"0660\""),
    ] {
        let found = yaml(&text, dialect);
        assert!(found.contains(expected), "{expected}: {found}");
    }
    for (text, dialect, expected) in [
        (
            frontend("global\n log loghost local0\n"),
            Dialect::Haproxy,
            "only an IP address or a path becomes `log.access`",
        ),
        (frontend("global\n log 10.0.0.5 local3\n"), Dialect::Haproxy, "the facility of access lines is local0"),
        (frontend("resolvers r\n nameserver a 10.0.0.53:53\n"), Dialect::Haproxy, "enter its servers there"),
        (stream("; resolver 10.0.0.53;"), Dialect::Nginx, "enter its servers there"),
        (stream("; proxy_download_rate 1m;"), Dialect::Nginx, "write `limits: { bandwidth: 1MiB/s }`"),
        (frontend("defaults\n no option redispatch\n"), Dialect::Haproxy, "a retry always takes another backend"),
    ] {
        let found = reasons(&text, dialect, Outcome::Left);
        assert!(found.contains(expected), "{expected}: {found}");
    }
}

#[test]
fn reasons_name_what_they_are_of() {
    // One of the sections uses it.
    let text = "defaults\n default-server inter 3s\nfrontend f\n bind :80\n default_backend p\nbackend p\n server s 10.0.0.1:80 check\n";
    let found = yaml(text, Dialect::Haproxy);
    assert!(found.contains("interval: 3s") && !found.contains("without `check`"), "{found}");
    let text =
        "listen l\n bind :80\n server a 10.0.0.1:80 slowstart 3s\n server b 10.0.0.2:80 slowstart 3s send-proxy\n";
    let found = reasons(text, Dialect::Haproxy, Outcome::Left);
    assert!(found.contains("send-proxy: it is one for all backends") && !found.contains("slowstart: it"), "{found}");
    let text = "listen l\n bind :80\n bind :443 ssl crt /a.pem\n maxconn 500\n server a 10.0.0.1:80\n";
    let found = reasons(text, Dialect::Haproxy, Outcome::Left);
    assert!(found.contains("each of the section's listeners, of which there are 2"), "{found}");
    let text =
        "stream { server { listen 53 udp; proxy_pass 10.0.0.1:53; } server { listen 80; proxy_pass 10.0.0.1:1; } }";
    let found = yaml(text, Dialect::Nginx);
    assert!(found.contains("udp: tidegate balances TCP") && !found.contains("no address to listen at"), "{found}");
    let text = "frontend f\n bind :80\n acl office src -f /x\n use_backend q if office\n default_backend p\nbackend p\n server s 10.0.0.1:1\n\
                backend q\n server t 10.0.0.2:1\n";
    let found = reasons(text, Dialect::Haproxy, Outcome::Left);
    assert!(found.contains("write them into a route, `match: { client: [...] }`"), "{found}");
}

#[test]
fn statistics_without_a_password_are_a_warning_and_on_loopback() {
    let text = "listen stats\n bind *:8404\n mode http\n stats enable\n stats auth a:b\nlisten l\n bind :80\n server s 10.0.0.1:80\n";
    let found = yaml(text, Dialect::Haproxy);
    assert!(found.contains("bind: 127.0.0.1:8404 ") && found.contains("WARNING"), "{found}");
    assert!(reasons(text, Dialect::Haproxy, Outcome::Left).contains("listens on loopback only"));
}
