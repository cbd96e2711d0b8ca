mod keywords;
mod refusals;

use proptest::prelude::*;

use super::*;

/// What has become of each line that is neither empty nor a comment.
fn lines_are_accounted_for(text: &str, ledger: &Ledger) {
    let outcomes: Vec<_> = ledger.outcomes().collect();
    for (index, line) in text.lines().enumerate() {
        let is_blank = line.trim().is_empty() || line.trim().starts_with('#');
        let of_line = outcomes.iter().filter(|(_, first, ..)| *first == index + 1).count();
        assert_eq!(of_line, usize::from(!is_blank), "line {}: {line:?}", index + 1);
    }
    assert!(outcomes.iter().all(|(_, _, last, outcome)| *last <= text.lines().count() && *outcome != Outcome::Open));
}

const WORDS: &str = "(global|defaults|frontend|backend|listen|resolvers|bind|server|default-server|balance|option|acl|use_backend|\
default_backend|timeout|mode|http-check|tcp-check|stats|maxconn|\\.if|\\.endif|a|b|web|\\*:80|:443|10\\.0\\.0\\.1:80|10\\.0\\.0\\.1|\
ssl|crt|/x\\.pem|/certs/|check|port|inter|weight|5|300|3s|send|expect|string|role:master|PING|httpchk|/|if|\\{|\\}|req\\.ssl_sni|\
hdr\\(host\\)|path_beg|-i|-m|end|x\\.example|/api|or|!a|http|tcp|client|server|roundrobin|enable|verify|none|alpn|h2,http/1\\.1|accept-proxy|\"|')";

const NGINX: &str = "(stream|http|server|upstream|map|location|listen|proxy_pass|server_name|include|events|\\{|\\}|;|;|;|\
80|443|\\[::\\]:443|127\\.0\\.0\\.1:80|unix:/run/a\\.sock|ssl|udp|proxy_protocol|reuseport|default_server|so_keepalive=5m|ipv6only=on|\
10\\.0\\.0\\.1:80|10\\.0\\.0\\.1|web|app|http://web|https://web|http://app/x|\\$to|\\$ssl_preread_server_name|hostnames|default|x\\.example|\
\\*\\.x\\.example|\\.y\\.example|~\\^a\\\\\\.b\\$|/|/api|=|weight=5|max_conns=3|backup|down|max_fails=2|least_conn|ip_hash|hash|\\$remote_addr|\
random|two|proxy_timeout|0|5s|proxy_connect_timeout|on|off|proxy_ssl|proxy_ssl_verify|proxy_ssl_name|sni|proxy_protocol|proxy_bind|10\\.9\\.9\\.9|\
ssl_certificate|/a\\.pem|ssl_certificate_key|ssl_protocols|TLSv1\\.3|TLSv1|ssl_verify_client|ssl_client_certificate|set_real_ip_from|\
ssl_alpn|h2|access_log|worker_processes|4|\"|'|#|_)";

/// Statements are within their file, and none is left open.
fn statements_are_within(text: &str, ledger: &Ledger) {
    let lines = text.lines().count();
    for (_, first, last, outcome) in ledger.outcomes() {
        assert!(1 <= first && first <= last && last <= lines && outcome != Outcome::Open, "{first}-{last} {outcome:?}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_accounted_for_as_nginx(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let text = String::from_utf8_lossy(&bytes);
        let mut ledger = Ledger::default();
        let file = ledger.file("x");
        let _ = (Dialect::of(&text), nginx::translate(&text, file, Path::new("/nonexistent"), &mut ledger));
        ledger.close();
        statements_are_within(&text, &ledger);
    }

    #[test]
    fn what_looks_like_nginx_becomes_a_valid_file(
        statements in proptest::collection::vec((proptest::collection::vec(NGINX, 1..6), 0..10), 0..20),
        inside in any::<bool>(),
        http in any::<bool>(),
    ) {
        let end = |end: i32| match end { 0 => " {", 1 => " }", 2 => "\n", _ => ";\n" };
        let words: String = statements.into_iter().map(|(words, kind)| words.join(" ") + end(kind)).collect();
        let (kind, pass) = if http { ("http", "location / { proxy_pass http://app; }") } else { ("stream", "proxy_pass app;") };
        // Either in the server block, or beside it.
        let (inner, outer) = if inside { (words.as_str(), "") } else { ("", words.as_str()) };
        let start = "map $ssl_preread_server_name $to { hostnames; x.example web; default app; }\n\
                     upstream app { server 10.0.0.9:1; }\nupstream web { server 10.0.0.8:1; }";
        let text = format!("{kind} {{\n{start}\nserver {{ listen 8080; {pass}\n{inner}\n}}\n{outer}\n}}\n");
        let converted = translate(&text, "/nonexistent/x.conf", Dialect::Nginx);
        // An open brace in front takes the server away.
        let Ok(Converted { yaml, ledger }) = converted else { return Err(TestCaseError::reject("no server")) };
        statements_are_within(&text, &ledger);
        let parsed = config::parse("x", &yaml, &Unread);
        prop_assert!(parsed.is_ok(), "{text}\n{yaml}\n{}", parsed.unwrap_err());
    }

    #[test]
    fn any_text_is_accounted_for(text in "[ -~\\n\\t\u{e9}\u{2028}]{0,300}") {
        let mut ledger = Ledger::default();
        let file = ledger.file("x");
        let _ = haproxy::translate(&text, file, &mut ledger);
        ledger.close();
        lines_are_accounted_for(&text, &ledger);
    }

    #[test]
    fn what_looks_like_haproxy_becomes_a_valid_file(lines in proptest::collection::vec(proptest::collection::vec(WORDS, 1..8), 0..30)) {
        let lines: Vec<String> = lines.iter().map(|words| words.join(" ")).collect();
        let text = format!("frontend f\n bind :8080\n default_backend p\nbackend p\n server s 10.0.0.9:1\n{}\n", lines.join("\n"));
        let Converted { yaml, ledger } = translate(&text, "x.cfg", Dialect::Haproxy).unwrap();
        lines_are_accounted_for(&text, &ledger);
        let parsed = config::parse("x", &yaml, &Unread);
        prop_assert!(parsed.is_ok(), "{text}\n{yaml}\n{}", parsed.unwrap_err());
    }
}

#[test]
fn the_content_says_whose_file_it_is() {
    for (text, expected) in [
        ("# x\nglobal\n log /dev/log local0\nfrontend a\n bind :80 # {\n", Dialect::Haproxy),
        ("listen a\n http-request deny if { src 10.0.0.0/8 }\n", Dialect::Haproxy),
        ("user www;\nevents {}\nstream {\n", Dialect::Nginx),
        ("server {\n  listen 80; # web\n}\n", Dialect::Nginx),
        ("upstream backend { server a:1; }\nlisten 80;\n", Dialect::Nginx),
        ("stream { server { listen 6432; proxy_pass 10.0.0.1:5432; } }\n", Dialect::Nginx),
        ("stream { server {\n listen 6432; proxy_pass 10.0.0.1:5432; }}", Dialect::Nginx),
        ("listen a\n http-request deny if { src 10.0.0.0/8 }", Dialect::Haproxy),
        ("", Dialect::Haproxy),
    ] {
        assert_eq!(Dialect::of(text), expected, "{text}");
    }
}
