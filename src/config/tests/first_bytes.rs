//! TLS, routes and the PROXY protocol, from the file to the model; and what is asked about files.

use std::cell::RefCell;
use std::num::NonZeroU32;

use super::*;
use crate::config::files::{FileFault, Files, Part};
use crate::net::name::NamePattern;

/// A listener and a pool with these keys more.
fn with(listener: &str, pool: &str) -> String {
    format!(
        "listeners: [{{ name: l, bind: 127.0.0.1:1, pool: p, {listener} }}]
pools: [{{ name: p, backends: [{{ address: db.example:2 }}], {pool} }}]
"
    )
}

fn listener(keys: &str) -> ListenerConfig {
    loaded(&with(keys, "")).config.listeners.remove(0)
}

fn pool(keys: &str) -> PoolConfig {
    loaded(&with("", keys)).config.pools.remove(0)
}

fn files(cert: &str, key: &str) -> CertificateFiles {
    CertificateFiles { cert: cert.into(), key: PathBuf::from(key).into() }
}

#[test]
fn termination_has_the_defaults_of_the_contract() {
    let expected = ListenerTls {
        certificates: vec![files("a.pem", "a.key")],
        unknown_sni: UnknownSni::Default,
        min_version: TlsVersion::V1_2,
        alpn: vec![],
        client_auth: None,
        starttls: None,
        plaintext: Plaintext::Refuse,
        session_tickets: true,
    };
    assert_eq!(listener("tls: { certificates: [{ cert: a.pem, key: a.key }] }").tls, Some(expected.clone()));
    let written = "tls: { certificates: [{ cert: a.pem, key: a.key }], unknown_sni: default, min_version: 1.2, alpn: [], \
                   client_auth: { mode: off, ca: , crl: }, starttls: off, plaintext: refuse, session_tickets: true }";
    assert_eq!(listener(written).tls, Some(expected));
}

#[test]
fn termination_arrives_as_written() {
    let tls = listener(
        "tls: { certificates: [{ cert: certs/a.pem, key: certs/a.key }, { cert: /b.pem, key: /b.pem }], \
         unknown_sni: refuse, min_version: 1.3, alpn: [postgresql, h2], \
         client_auth: { mode: optional, ca: ca.pem, crl: crl.pem }, starttls: postgres, plaintext: allow, \
         session_tickets: false }",
    )
    .tls;
    let expected = ListenerTls {
        certificates: vec![files("certs/a.pem", "certs/a.key"), files("/b.pem", "/b.pem")],
        unknown_sni: UnknownSni::Refuse,
        min_version: TlsVersion::V1_3,
        alpn: vec!["postgresql".into(), "h2".into()],
        client_auth: Some(ClientAuth { required: false, ca: "ca.pem".into(), crl: Some("crl.pem".into()) }),
        starttls: Some(StartTls::Postgres),
        plaintext: Plaintext::Allow,
        session_tickets: false,
    };
    assert_eq!(tls, Some(expected));
    let tls = listener(
        "tls: { certificates: [{ cert: a, key: b }], min_version: '1.3', client_auth: { mode: required, ca: c } }",
    )
    .tls
    .unwrap();
    assert_eq!(tls.min_version, TlsVersion::V1_3);
    assert_eq!(tls.client_auth, Some(ClientAuth { required: true, ca: "c".into(), crl: None }));
}

/// A route without a condition.
fn any(pool: PoolIndex) -> RouteConfig {
    RouteConfig { sni: vec![], alpn: vec![], host: vec![], path_prefix: vec![], pool }
}

#[test]
fn sniffing_and_routes_by_requests_arrive_as_written() {
    let exact = |name: &str| NamePattern::Exact(name.into());
    let listener = listener(
        "sniff: http, routes: [{ match: { host: [WWW.Example.com, '*.example.com', 10.0.0.1], path_prefix: [/api/, /] }, \
         pool: p }, { match: { path_prefix: [/%20a] }, pool: p }]",
    );
    assert_eq!(listener.sniff, Sniff::Http);
    let expected = [
        RouteConfig {
            host: vec![exact("www.example.com"), NamePattern::Wildcard("example.com".into()), exact("10.0.0.1")],
            path_prefix: vec!["/api/".into(), "/".into()],
            ..any(PoolIndex(0))
        },
        RouteConfig { path_prefix: vec!["/%20a".into()], ..any(PoolIndex(0)) },
    ];
    assert_eq!(listener.routes, expected);
    for off in ["", "sniff: off", "sniff: null"] {
        assert_eq!(self::listener(off).sniff, Sniff::Off);
    }
}

#[test]
fn sniffing_where_nothing_is_http_is_warned_of() {
    let tls = |starttls: &str| format!("tls: {{ certificates: [{{ cert: a, key: b }}], starttls: {starttls} }}");
    let warnings = |keys: String| loaded(&with(&keys, "")).warnings;
    let [warning] = &warnings(format!("sniff: http, {}", tls("postgres")))[..] else { panic!() };
    assert!(warning.message.starts_with("listeners[0].sniff: nothing to watch"), "{}", warning.message);
    assert_eq!(warnings(format!("sniff: off, {}", tls("postgres"))), []);
    assert_eq!(warnings(format!("sniff: http, {}", tls("off"))), []);
}

#[test]
fn routes_arrive_as_written_and_count_as_use_of_a_pool() {
    let loaded = loaded(
        "listeners:
  - name: l
    bind: 127.0.0.1:1
    pool: a
    routes:
      - { match: { sni: [DB.Example.com., \"*.example.com\"], alpn: [h2, http/1.1] }, pool: b }
      - { match: { alpn: [postgresql] }, pool: a }
pools:
  - { name: a, backends: [{ address: 127.0.0.1:2 }] }
  - { name: b, backends: [{ address: 127.0.0.1:3 }] }
",
    );
    let exact = NamePattern::Exact("db.example.com".into());
    let expected = [
        RouteConfig {
            sni: vec![exact, NamePattern::Wildcard("example.com".into())],
            alpn: vec!["h2".into(), "http/1.1".into()],
            host: vec![],
            path_prefix: vec![],
            pool: PoolIndex(1),
        },
        RouteConfig { alpn: vec!["postgresql".into()], ..any(PoolIndex(0)) },
    ];
    assert_eq!(loaded.config.listeners[0].routes, expected);
    assert_eq!(loaded.warnings, []);
}

#[test]
fn proxy_headers_limits_and_timeouts_arrive_as_written() {
    let l = listener(
        "proxy_protocol: { trusted: [10.0.0.0/8, 192.0.2.7, '::1', '2001:db8::/32'], required: false }, \
         tls: { certificates: [{ cert: a, key: b }] }, limits: { handshakes: 9, connections_per_ip: 7, connection_rate_per_ip: 20/s, connection_rate: 600/m }, \
         timeouts: { sniff: 1s, handshake: 250ms }",
    );
    let trusted = ["10.0.0.0/8", "192.0.2.7/32", "::1/128", "2001:db8::/32"].map(|net| net.parse().unwrap()).to_vec();
    assert_eq!(l.proxy_protocol, Some(ProxyProtocol { trusted, required: false }));
    let rate =
        |count, seconds| Some(Rate { count: NonZeroU32::new(count).unwrap(), per: Duration::from_secs(seconds) });
    let limits = LimitsConfig {
        connections_per_ip: NonZeroU32::new(7),
        connection_rate_per_ip: rate(20, 1),
        connection_rate: rate(600, 60),
        handshakes: NonZeroU32::new(9),
    };
    assert_eq!(l.limits, limits);
    assert_eq!(l.timeouts.sniff, Some(Duration::from_secs(1)));
    assert_eq!(l.timeouts.handshake, Some(Duration::from_millis(250)));

    let l = listener(
        "proxy_protocol: { trusted: [10.0.0.1] }, timeouts: { handshake: 0s }, \
         limits: { connections_per_ip: 0, connection_rate_per_ip: 0, connection_rate: 0/s }",
    );
    assert!(l.proxy_protocol.unwrap().required);
    assert_eq!((l.timeouts.handshake, l.timeouts.sniff), (None, Some(Duration::from_secs(5))));
    assert_eq!(l.limits, LimitsConfig::default());
}

#[test]
fn tls_to_the_backends_arrives_as_written() {
    let defaults = PoolTls {
        verify: Verify::Full,
        ca: Authorities::System,
        server_name: NameSource::Backend,
        alpn: vec![],
        client_certificate: None,
        starttls: None,
    };
    assert_eq!(pool("tls: {}").tls, Some(defaults));
    let written = pool(
        "send_proxy: v1, tls: { verify: ca, ca: ca.pem, server_name: db.internal, alpn: [postgresql], \
         client_certificate: { cert: c.pem, key: c.key }, starttls: postgres }",
    );
    let expected = PoolTls {
        verify: Verify::Ca,
        ca: Authorities::File("ca.pem".into()),
        server_name: NameSource::Fixed("db.internal".into()),
        alpn: vec!["postgresql".into()],
        client_certificate: Some(files("c.pem", "c.key")),
        starttls: Some(StartTls::Postgres),
    };
    assert_eq!(written.tls, Some(expected));
    assert_eq!(written.send_proxy, Some(SendProxy::V1));
    assert_eq!(pool("send_proxy: v2").send_proxy, Some(SendProxy::V2));
    assert_eq!(pool("send_proxy: off").send_proxy, None);
    assert_eq!(pool("tls: null").tls, None);
    assert_eq!(pool("tls: { verify: off, server_name: '::1' }").tls.unwrap().verify, Verify::Off);
}

#[test]
fn an_address_without_a_name_is_verified_as_it_is_and_a_unix_socket_needs_one() {
    let yaml = |address: &str, tls: &str| {
        with("", &format!("tls: {tls}")).replace("address: db.example:2", &format!("address: {address}"))
    };
    let takes = |address: &str, tls: &str| parse("test.yaml", &yaml(address, tls), &Unread).is_ok();
    assert!(takes("10.0.0.1:5432", "{}"));
    assert!(takes("unix:/run/app.sock", "{ server_name: app.internal }"));
    assert!(takes("unix:/run/app.sock", "{ verify: ca }"));
    assert!(!takes("unix:/run/app.sock", "{}"));
}

#[test]
fn only_a_route_that_is_covered_by_one_before_it_is_called_dead() {
    let dead = |tls: &str, routes: &[&str]| -> Vec<usize> {
        let routes: String = routes.iter().map(|route| format!("{{ match: {route}, pool: p }}, ")).collect();
        let loaded = loaded(&with(&format!("routes: [{routes}], {tls}"), ""));
        let message = |index| format!("listeners[0].routes[{index}]: never matches");
        (0..9).filter(|index| loaded.warnings.iter().any(|w| w.message.starts_with(&message(*index)))).collect()
    };
    let [a, b, star, deep] = ["{ sni: [a.x.y] }", "{ sni: [b.x.y] }", "{ sni: ['*.x.y'] }", "{ sni: ['*.a.x.y'] }"];
    let [h2, a_h2, a_h1] = ["{ alpn: [h2] }", "{ sni: [a.x.y], alpn: [h2] }", "{ sni: [a.x.y], alpn: [http/1.1] }"];
    let none: [usize; 0] = [];
    assert_eq!(dead("", &[a, a]), [1]);
    assert_eq!(dead("", &[a, b, star, deep]), none);
    assert_eq!(dead("", &[star, a, deep, b]), [1, 3]);
    assert_eq!(dead("", &[a, a_h2]), [1]);
    assert_eq!(dead("", &[a_h2, a_h1, a]), none);
    assert_eq!(dead("", &[h2, a_h2, a_h1, h2]), [1, 3]);
    assert_eq!(dead("", &[a, "{ sni: [a.x.y, c.x.y] }", "{ sni: [c.x.y, a.x.y] }"]), [2]);
    assert_eq!(dead("", &["{ alpn: [h2, h3] }", h2, "{ alpn: [h3, h4] }"]), [1]);

    let [host, star_host, api, deep] =
        ["{ host: [a.x.y] }", "{ host: ['*.x.y'] }", "{ path_prefix: [/api] }", "{ path_prefix: [/api/a, /apis] }"];
    let [both, other, sni] = [
        "{ host: [a.x.y], path_prefix: [/api/] }",
        "{ host: [a.x.y], path_prefix: [/b] }",
        "{ sni: [a.x.y], path_prefix: [/api] }",
    ];
    let http = "sniff: http";
    assert_eq!(dead(http, &[star_host, host, both, api, deep]), [1, 2, 4]);
    assert_eq!(dead(http, &[both, other, host, deep, api, a, b]), none);
    assert_eq!(dead(http, &["{ path_prefix: [/b, /api] }", both, other, deep]), [1, 2, 3]);
    assert_eq!(dead(http, &[sni]), [0], "no ClientHello has a request");
    assert_eq!(dead(&format!("{http}, tls: {{ certificates: [{{ cert: a, key: b }}] }}"), &[sni, api, sni]), [2]);
    assert_eq!(dead(&format!("{http}, tls: {{ certificates: [{{ cert: a, key: b }}] }}"), &[a, sni, api]), [1]);

    let tls = |alpn: &str| format!("tls: {{ certificates: [{{ cert: a, key: b }}], alpn: {alpn} }}");
    assert_eq!(dead(&tls("[http/1.1]"), &[h2, a_h1]), [0]);
    assert_eq!(dead(&tls("[]"), &["{ alpn: [h2, h3] }", a]), [0]);
    assert_eq!(dead(&tls("[h3]"), &["{ alpn: [h2, h3] }"]), none);
}

/// Finds something in every file, and remembers what it was asked.
#[derive(Default)]
struct Suspicious(RefCell<Vec<String>>);

impl Suspicious {
    fn fault(&self, question: &str, severity: Severity) -> FileFault {
        self.0.borrow_mut().push(question.to_owned());
        FileFault { severity, message: format!("{question} is odd"), hint: Some("look".to_owned()) }
    }
}

impl Files for Suspicious {
    fn certificate(&self, files: &CertificateFiles) -> Vec<(Part, FileFault)> {
        let fault =
            self.fault(&format!("{}+{}", files.cert.display(), files.key.reveal().display()), Severity::Warning);
        vec![(Part::Key, fault.clone()), (Part::Cert, fault)]
    }

    fn authorities(&self, path: &Path) -> Vec<FileFault> {
        vec![self.fault(&format!("ca {}", path.display()), Severity::Error)]
    }

    fn revocations(&self, path: &Path) -> Vec<FileFault> {
        vec![self.fault(&format!("crl {}", path.display()), Severity::Warning)]
    }
}

const NAMES_FILES: &str = "listeners:
  - name: a
    bind: 127.0.0.1:1
    pool: p
    tls:
      certificates:
        - cert: a.pem
          key: a.key
        - { cert: b.pem, key: a.key }
      client_auth: { mode: required, ca: ca.pem, crl: crl.pem }
  - name: b
    bind: 127.0.0.1:2
    pool: p
    tls: { certificates: [{ cert: b.pem, key: a.key }] }
pools:
  - name: p
    backends: [{ address: 127.0.0.1:3 }]
    tls: { ca: ca.pem, client_certificate: { cert: a.pem, key: a.key } }
";

#[test]
fn each_file_is_looked_into_once_and_shown_where_it_is_named_first() {
    let files = Suspicious::default();
    let failure = parse("test.yaml", NAMES_FILES, &files).unwrap_err();
    let mut asked = files.0.take();
    asked.sort();
    assert_eq!(asked, ["a.pem+a.key", "b.pem+a.key", "ca ca.pem", "crl crl.pem"]);
    let shown: Vec<(usize, &str, Severity)> = failure
        .problems
        .iter()
        .map(|problem| {
            assert_eq!(problem.hint.as_deref(), Some("look"));
            let line = NAMES_FILES[..problem.span.as_ref().unwrap().start].lines().count();
            (line, problem.message.split(": ").next().unwrap(), problem.severity)
        })
        .collect();
    let (error, warning) = (Severity::Error, Severity::Warning);
    let expected = [
        (7, "listeners[0].tls.certificates[0].cert", warning),
        (8, "listeners[0].tls.certificates[0].key", warning),
        (9, "listeners[0].tls.certificates[1].cert", warning),
        (9, "listeners[0].tls.certificates[1].key", warning),
        (10, "listeners[0].tls.client_auth.ca", error),
        (10, "listeners[0].tls.client_auth.crl", warning),
    ];
    assert_eq!(shown, expected);
}

#[test]
fn what_is_only_odd_about_a_file_is_a_warning_of_a_configuration_that_loads() {
    let yaml = with("tls: { certificates: [{ cert: a, key: b }] }", "");
    let loaded = parse("test.yaml", &yaml, &Suspicious::default()).unwrap();
    assert_eq!(loaded.warnings.len(), 2);
}

#[test]
fn files_of_what_is_off_are_not_looked_into() {
    let files = Suspicious::default();
    let yaml = with(
        "tls: { certificates: [{ cert: a, key: b }], client_auth: { mode: off, ca: c, crl: d } }",
        "tls: { verify: off, ca: e }",
    );
    parse("test.yaml", &yaml, &files).unwrap();
    assert_eq!(files.0.take(), ["a+b"]);
}

#[test]
fn a_value_that_is_not_built_is_refused_by_name_and_not_in_the_schema() {
    assert!(!schema().to_string().contains("mysql"));
    for yaml in [
        with("tls: { certificates: [{ cert: a, key: b }], starttls: mysql }", ""),
        with("", "tls: { starttls: mysql }"),
    ] {
        let report = parse("test.yaml", &yaml, &Unread).unwrap_err().to_string();
        assert!(report.contains("tls.starttls: `mysql` is not supported yet"), "{report}");
        assert!(report.contains("this version has off or postgres"), "{report}");
    }
}
