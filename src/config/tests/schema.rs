//! What editors are offered, and what the program takes.

use super::*;

#[test]
fn schema_accepts_the_reference_and_the_examples() {
    let schema = schema();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let mut files = vec!["tests/it/reference.yaml".to_owned()];
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("config")).unwrap() {
        files.push(format!("config/{}", entry.unwrap().file_name().into_string().unwrap()));
    }
    // Prometheus' own is not ours.
    files.retain(|file| file.ends_with(".yaml") && file != "config/alerts.yaml");
    assert!(files.len() >= 6, "{files:?}");
    for file in files {
        let document = json(&repository(&file));
        let errors: Vec<String> =
            validator.iter_errors(&document).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(errors.is_empty(), "{file}: {errors:#?}");
    }
}

/// A schema in which something else stands for `anyOf` and references says which key is wrong, and why.
#[test]
fn schema_errors_name_the_key() {
    let schema = schema();
    let text = schema.to_string();
    assert!(!text.contains("$ref") && !text.contains("x-given"), "{text}");
    let validator = jsonschema::validator_for(&schema).unwrap();
    let wrong = |pointer: &str, key: &str, value: Value| {
        let mut document = json(SMALLEST);
        document.pointer_mut(pointer).unwrap()[key] = value;
        let errors = validator.iter_errors(&document);
        errors.map(|error| format!("{}: {error}", error.instance_path())).collect::<Vec<_>>()
    };
    for (pointer, key, value, expected) in [
        ("", "log", json!({ "level": "loud" }), "/log/level: \"loud\" is not one of "),
        ("", "workers", json!(0), "/workers: 0 is less than the minimum of 1"),
        ("/listeners/0", "socket", json!({ "backlog": "4k" }), "/listeners/0/socket/backlog: \"4k\" is not of types "),
        ("/listeners/0", "bind", json!("localhost:80"), "/listeners/0/bind: \"localhost:80\" does not match "),
        ("/listeners/0", "bind", json!([":80"]), "/listeners/0/bind/0: \":80\" does not match "),
        ("/listeners/0", "tls", Value::Null, "/listeners/0/tls: null is not of type "),
        (
            "/listeners/0",
            "limits",
            json!({ "connection_rate": 10 }),
            "/listeners/0/limits/connection_rate: 10 is greater ",
        ),
        ("/pools/0", "tls", json!({ "starttls": "smtp" }), "/pools/0/tls/starttls: \"smtp\" is not one of "),
        ("/pools/0", "health", json!({ "tcp": {}, "interval": 5 }), "/pools/0/health/interval: 5 is not of types "),
        ("/pools/0", "health", json!({ "tcp": {}, "http": {} }), "/pools/0/health: "),
    ] {
        let errors = wrong(pointer, key, value);
        assert_eq!(errors.len(), 1, "{expected}: {errors:?}");
        assert!(errors[0].starts_with(expected), "{expected}: {errors:?}");
        assert!(!errors[0].contains("anyOf"), "{errors:?}");
    }
}

#[test]
fn schema_accepts_what_the_program_accepts() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    for (pointer, key, value) in [
        ("/listeners/0", "bind", json!("[fe80::1%lo]:80")),
        ("/listeners/0", "bind", json!(["[::ffff:127.0.0.1]:80", "unix:/run/a.sock"])),
        (
            "/listeners/0",
            "limits",
            json!({ "connection_rate": 0, "connection_rate_per_ip": "20/s", "handshakes": null }),
        ),
        ("/listeners/0", "socket", json!({ "reuse_port": false })),
        ("/listeners/0", "timeouts", Value::Null),
        ("/pools/0/backends/0", "address", json!("[fe80::1%lo]:80")),
        ("/pools/0", "health", json!({ "http": { "status": 204 }, "tcp": null })),
        ("/pools/0", "health", Value::Null),
        ("/pools/0", "tls", json!({})),
        ("", "admin", json!({ "bind": "[::ffff:127.0.0.1]:9900" })),
        ("", "admin", json!({ "bind": "0.0.0.0:9900", "token_file": "token" })),
        ("", "admin", json!({})),
        ("", "log", json!({ "access": "./access.log" })),
        ("", "workers", json!(2)),
    ] {
        let mut document = json(SMALLEST);
        document.pointer_mut(pointer).unwrap()[key] = value;
        let errors: Vec<String> = validator.iter_errors(&document).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{document}: {errors:?}");
        loaded(&document.to_string());
    }
}

#[test]
fn false_is_accepted_where_off_is() {
    let off = loaded(
        "log: { access: off }
listeners: [{ name: l, bind: 127.0.0.1:1, pool: p, sniff: off, socket: { reuse_port: off },
  tls: { certificates: [{ cert: a, key: a }], starttls: off, client_auth: { mode: off } } }]
pools: [{ name: p, send_proxy: off, backends: [{ address: db.example:2 }], tls: { verify: off, starttls: off } }]",
    );
    let text = off.source.main().text.replace("off", "false");
    assert_eq!(loaded(&text).config, off.config);
    let validator = jsonschema::validator_for(&schema()).unwrap();
    assert!(validator.is_valid(&json(&text)), "{text}");
    assert!(!validator.is_valid(&json(&text.replace("access: false", "access: true"))));
}

/// Plain words that YAML 1.1 has as something else than YAML 1.2: `off` is false there, `1:30` is ninety.
fn is_other_in_yaml_1_1(plain: &str) -> bool {
    let lower = plain.to_ascii_lowercase();
    let truth = ["y", "n", "yes", "no", "on", "off"].contains(&lower.as_str());
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_');
    let unsigned = plain.trim_start_matches(['+', '-']);
    let sixty = unsigned.rsplit_once(':').is_some_and(|(first, last)| {
        first.split(':').all(digits) && digits(last.split('.').next().unwrap_or_default())
    });
    let octal = unsigned.len() > 1 && unsigned.starts_with('0') && digits(unsigned);
    let number = unsigned.contains('_') && digits(unsigned);
    let date =
        plain.len() >= 10 && plain.split('-').count() == 3 && digits(plain.split('-').next().unwrap_or_default());
    truth || sixty || octal || number || date || plain == "=" || unsigned.starts_with("0b")
}

#[test]
fn examples_mean_the_same_in_yaml_1_1() {
    for word in ["off", "On", "y", "1:30", "0755", "1_000", "2026-01-02"] {
        assert!(is_other_in_yaml_1_1(word), "{word}");
    }
    for word in ["offer", "127.0.0.1:80", "0s", "0", "60s", "200-399", "[::1]:80"] {
        assert!(!is_other_in_yaml_1_1(word), "{word}");
    }
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("config")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".yaml") {
            let text = repository(&format!("config/{name}"));
            let (tree, diagnostics, _) = tree::parse(&text);
            assert!(diagnostics.is_empty(), "{name}: {diagnostics:?}");
            let wrong: Vec<&str> = tree.plain().filter(|plain| is_other_in_yaml_1_1(plain)).collect();
            assert!(wrong.is_empty(), "{name}: put {wrong:?} in quotes");
        }
    }
}

#[test]
fn schema_rejects_what_the_program_rejects() {
    let schema = schema();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let smallest = json(SMALLEST);
    assert!(validator.is_valid(&smallest));
    let tls = |key: &str, value: Value| json!({ "certificates": [{ "cert": "a.pem", "key": "a.pem" }], key: value });
    for (pointer, key, value) in [
        ("", "worker", json!(1)),
        ("", "workers", json!(0)),
        ("", "listeners", json!([])),
        ("", "pools", Value::Null),
        ("", "log", json!({ "level": "loud" })),
        ("", "shutdown", json!({ "drain": 30 })),
        ("", "shutdown", json!({ "drain": "30" })),
        ("/listeners/0", "bind", json!("localhost:80")),
        ("/listeners/0", "bind", json!([])),
        ("/listeners/0", "name", Value::Null),
        ("/listeners/0", "max_connections", json!(-1)),
        ("/listeners/0", "socket", json!({ "reuse_port": "maybe" })),
        ("/listeners/0", "routes", json!([{ "pool": "web" }])),
        ("/listeners/0", "routes", json!([{ "match": { "sni": [] }, "pool": "web" }])),
        ("/listeners/0", "routes", json!([{ "match": { "sni": "a.example" }, "pool": "web" }])),
        ("/listeners/0", "routes", json!([{ "match": { "sni": ["*"] }, "pool": "web" }])),
        ("/listeners/0", "routes", json!([{ "match": { "alpn": [""] }, "pool": "web" }])),
        ("/listeners/0", "routes", json!([{ "match": { "alpn": ["h2"] } }])),
        ("/listeners/0", "routes", json!([{ "match": { "host": "a.example" }, "pool": "web" }])),
        ("/listeners/0", "routes", json!([{ "match": { "path_prefix": ["api/"] }, "pool": "web" }])),
        ("/listeners/0", "routes", json!([{ "match": { "path_prefix": ["/a b"] }, "pool": "web" }])),
        ("/listeners/0", "sniff", json!("https")),
        ("/listeners/0", "tls", json!({})),
        ("/listeners/0", "tls", json!({ "certificates": [] })),
        ("/listeners/0", "tls", json!({ "certificates": [{ "cert": "a.pem" }] })),
        ("/listeners/0", "tls", json!({ "certificates": [{ "cert": "", "key": "a.pem" }] })),
        ("/listeners/0", "tls", tls("min_version", json!("1.1"))),
        ("/listeners/0", "tls", tls("min_version", json!(1.1))),
        ("/listeners/0", "tls", tls("starttls", json!("smtp"))),
        ("/listeners/0", "tls", tls("client_auth", json!({ "mode": "on" }))),
        ("/listeners/0", "tls", tls("session_tickets", json!("yes"))),
        ("/listeners/0", "proxy_protocol", json!({})),
        ("/listeners/0", "proxy_protocol", json!({ "trusted": [] })),
        ("/listeners/0", "proxy_protocol", json!({ "trusted": ["localhost"] })),
        ("/listeners/0", "limits", json!({ "handshakes": -1 })),
        ("/listeners/0", "limits", json!({ "connection_rate": 10 })),
        ("/pools/0", "send_proxy", json!("v3")),
        ("/pools/0", "tls", json!({ "verify": "none" })),
        ("/pools/0", "tls", json!({ "server_name": "a b" })),
        ("/pools/0", "tls", json!({ "client_certificate": {} })),
        ("/pools/0", "balance", json!("least_conn")),
        ("/pools/0", "hash", json!({ "ipv4_prefix": 33 })),
        ("/pools/0", "backends", json!([{ "weight": 1 }])),
        ("/pools/0/backends/0", "weight", json!(1001)),
        ("/pools/0/backends/0", "address", json!("10.0.0.1")),
        ("/pools/0", "health", json!({ "http": { "path": "health" } })),
        ("/pools/0", "health", json!({ "http": { "status": "2xx" } })),
        ("/pools/0", "health", json!({ "exchange": { "send": "x" } })),
        ("", "admin", json!({ "bind": "0.0.0.0:9900" })),
        ("", "log", json!({ "access": "syslog:loghost:514" })),
        ("", "log", json!({ "access": "syslog+udp:10.0.0.9:514" })),
        ("", "log", json!({ "access": true })),
        ("/listeners/0", "routes", json!([{ "match": {}, "pool": "web" }])),
        ("/listeners/0", "tls", tls("plaintext", json!("allow"))),
        ("/listeners/0", "tls", tls("client_auth", json!({ "mode": "required" }))),
        ("/listeners/0", "tls", tls("client_auth", json!({ "ca": "ca.pem" }))),
        ("/pools/0", "health", json!({})),
        ("/pools/0", "health", json!({ "tcp": null })),
        ("/pools/0", "health", json!({ "tcp": {}, "http": {} })),
    ] {
        let mut document = smallest.clone();
        document.pointer_mut(pointer).unwrap()[key] = value;
        assert!(!validator.is_valid(&document), "the schema takes {document}");
        assert!(parse("test.yaml", &document.to_string(), &Unread).is_err(), "the program takes {document}");
    }
}

/// Examples name it in their first line, relative to themselves, so that editors need no network.
#[test]
fn schema_beside_the_examples_is_current() {
    let expected = format!("{:#}\n", schema());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/tidegate.schema.json");
    if std::env::var_os("TIDEGATE_BLESS").is_some() {
        fs::write(&path, &expected).unwrap();
    }
    let how = "write it again: TIDEGATE_BLESS=1 cargo test --lib schema_beside";
    assert!(fs::read_to_string(&path).unwrap_or_default() == expected, "config/tidegate.schema.json is old; {how}");
}
