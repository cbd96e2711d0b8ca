//! Routes and sniffing, from the file to the model.

use super::*;
use crate::net::name::NamePattern;

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
fn sniffing_with_starttls_is_a_warning() {
    let tls = |starttls: &str| format!("tls: {{ certificates: [{{ cert: a, key: b }}], starttls: {starttls} }}");
    let warnings = |keys: String| loaded(&with(&keys, "")).warnings;
    let [warning] = &warnings(format!("sniff: http, {}", tls("postgres")))[..] else { panic!() };
    assert!(warning.message.starts_with("listeners[0].sniff: has no effect"), "{}", warning.message);
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
fn route_covered_by_an_earlier_one_is_a_warning() {
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
