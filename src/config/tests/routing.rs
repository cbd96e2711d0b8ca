//! Routes and sniffing, from the file to the model.

use super::*;
use crate::config::report::Diagnostic;
use crate::net::name::NamePattern;
use crate::net::protocol::ClientProtocol;

/// A route without a condition.
fn any(pool: PoolIndex) -> RouteConfig {
    RouteConfig {
        name: None,
        sni: vec![],
        alpn: vec![],
        host: vec![],
        path: vec![],
        path_prefix: vec![],
        method: vec![],
        header: vec![],
        client: [].into(),
        country: vec![],
        protocol: vec![],
        target: RouteTarget::Pool(pool),
    }
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
    let [warning] = &warnings(format!("sniff: redis, {}", tls("postgres")))[..] else { panic!() };
    assert!(warning.message.ends_with("clients of `tls.starttls: postgres` speak another protocol"));
    assert_eq!(warnings(format!("sniff: off, {}", tls("postgres"))), []);
    assert_eq!(warnings(format!("sniff: postgres, {}", tls("postgres"))), []);
    assert_eq!(warnings(format!("sniff: http, {}", tls("off"))), []);
    assert_eq!(warnings(format!("sniff: redis, {}", tls("off"))), []);
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
            ..any(PoolIndex(1))
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

#[test]
fn protocols_arrive_as_written_and_those_that_exclude_other_conditions_are_warned_of() {
    let listener = listener("routes: [{ match: { protocol: [ssh, tls, http, redis, postgres] }, pool: p }]");
    let [route] = &listener.routes[..] else { panic!() };
    let mut protocols = route.protocol.clone();
    protocols.sort_by_key(|protocol| ClientProtocol::ALL.iter().position(|it| it == protocol));
    assert_eq!(protocols, ClientProtocol::ALL);

    let dead = |keys: &str, routes: &[&str]| -> Vec<(usize, String)> {
        let routes: String = routes.iter().map(|route| format!("{{ match: {route}, pool: p }}, ")).collect();
        let loaded = loaded(&with(&format!("routes: [{routes}], {keys}"), ""));
        let warning = |warning: &Diagnostic| {
            let rest = warning.message.strip_prefix("listeners[0].routes[")?;
            let (index, why) = rest.split_once("]: never matches: ")?;
            Some((index.parse().unwrap(), why.to_owned()))
        };
        loaded.warnings.iter().filter_map(warning).collect()
    };
    let indices =
        |keys: &str, routes: &[&str]| dead(keys, routes).into_iter().map(|(index, _)| index).collect::<Vec<_>>();
    let [ssh, ssh_or_tls, tls] = ["{ protocol: [ssh] }", "{ protocol: [ssh, tls] }", "{ protocol: [tls] }"];
    assert_eq!(dead("", &[ssh, ssh_or_tls, tls]), [(2, "an earlier route takes all of its connections".to_owned())]);
    assert_eq!(indices("", &["{ sni: [a.x], protocol: [ssh] }", "{ sni: [a.x], protocol: [tls] }"]), [0]);
    assert_eq!(
        indices(
            "sniff: http",
            &["{ path_prefix: [/a], protocol: [ssh] }", "{ path_prefix: [/b], protocol: [http, ssh] }"]
        ),
        [0]
    );
    assert_eq!(indices("", &[tls, "{ sni: [a.x] }", "{ alpn: [h2] }"]), [1, 2], "they are of TLS clients");
    assert_eq!(
        indices("sniff: http", &["{ protocol: [http] }", "{ host: [a.x] }", "{ path_prefix: [/x] }", ssh]),
        [1, 2]
    );
    let terminates = |keys: &str| format!("tls: {{ certificates: [{{ cert: a, key: b }}], {keys} }}");
    assert_eq!(indices(&terminates(""), &[ssh, "{ sni: [a.x], protocol: [http] }", tls]), [2]);
    assert_eq!(
        indices(&terminates("starttls: postgres"), &[ssh, "{ protocol: [postgres] }", "{ sni: [a.x] }"]),
        [0, 2]
    );
}

#[test]
fn clients_countries_splits_and_refusals_arrive_as_written() {
    let loaded = loaded(
        "geoip: { database: country.mmdb }
admin: { allow: [10.0.0.0/8, \"country:DE\"] }
listeners:
  - name: l
    bind: 127.0.0.1:1
    pool: a
    access: { allow: [10.0.0.0/8, 10.1.2.3, \"country:NO\"], deny: [\"2001:db8::/32\"] }
    routes:
      - { match: { client: [10.0.0.0/8, 192.0.2.1] }, split: [{ pool: a, weight: 95 }, { pool: b }] }
      - { match: { country: [NO, AT] }, pool: b }
      - { match: { sni: [x.example] }, refuse: true }
pools:
  - { name: a, backends: [{ address: 127.0.0.1:2 }] }
  - { name: b, backends: [{ address: 127.0.0.1:3 }] }
",
    );
    assert_eq!(loaded.warnings, []);
    let (config, listener) = (&loaded.config, &loaded.config.listeners[0]);
    assert_eq!(config.geoip, Some(GeoIpConfig { database: "country.mmdb".into() }));
    let words = |rules: &[ClientRule]| rules.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(words(&config.admin.as_ref().unwrap().allow), ["10.0.0.0/8", "country:DE"]);
    // `NO` is no boolean.
    assert_eq!(words(&listener.access.allow), ["10.0.0.0/8", "10.1.2.3", "country:NO"]);
    assert_eq!(words(&listener.access.deny), ["2001:db8::/32"]);
    let [split, country, refused] = listener.routes.as_slice() else { panic!() };
    let share = |pool, weight| SplitShare { pool: PoolIndex(pool), weight };
    assert_eq!(split.target, RouteTarget::Split(vec![share(0, 95), share(1, 1)]));
    assert_eq!(*split.client, ["10.0.0.0/8".parse().unwrap(), "192.0.2.1/32".parse().unwrap()]);
    let codes: Vec<String> = country.country.iter().map(ToString::to_string).collect();
    assert_eq!((codes, &country.target), (vec!["NO".to_owned(), "AT".to_owned()], &RouteTarget::Pool(PoolIndex(1))));
    assert_eq!(refused.target, RouteTarget::Refuse);
}

#[test]
fn route_by_client_that_an_earlier_one_covers_is_a_warning() {
    let dead = |routes: &[&str]| -> Vec<usize> {
        let routes: String = routes.iter().map(|route| format!("{{ match: {route}, refuse: true }}, ")).collect();
        let text = format!("geoip: {{ database: x.mmdb }}\n{}", with(&format!("routes: [{routes}]"), ""));
        let loaded = loaded(&text);
        let message = |index| format!("listeners[0].routes[{index}]: never matches");
        (0..9).filter(|index| loaded.warnings.iter().any(|w| w.message.starts_with(&message(*index)))).collect()
    };
    let [halves, whole, part] =
        ["{ client: [10.0.0.0/9, 10.128.0.0/9] }", "{ client: [10.0.0.0/8] }", "{ client: [10.1.0.0/16], sni: [a.b] }"];
    let [two, one] = ["{ country: [DE, AT] }", "{ country: [AT], client: [192.0.2.0/24] }"];
    let none: [usize; 0] = [];
    assert_eq!(dead(&[halves, whole, part]), [1, 2]);
    assert_eq!(dead(&[part, whole, two]), none);
    assert_eq!(dead(&[two, one, whole]), [1]);
    assert_eq!(dead(&[one, two]), none);
}

#[test]
fn ejection_by_status_without_http_is_a_warning_at_its_key() {
    let warned = |first: &str, second: &str, outlier: &str| {
        let text = format!(
            "listeners:\n- {{ name: a, bind: 127.0.0.1:1, pool: p, {first} }}\n\
             - {{ name: b, bind: 127.0.0.1:2, pool: q, routes: [{{ match: {{ client: [10.0.0.0/8] }}, \
             split: [{{ pool: p, weight: 1 }}, {{ pool: q, weight: 1 }}] }}], {second} }}\n\
             pools:\n- {{ name: q, backends: [{{ address: 127.0.0.1:4 }}] }}\n\
             - name: p\n  backends: [{{ address: 127.0.0.1:3 }}]\n  outlier: {outlier}\n"
        );
        let loaded = loaded(&text);
        loaded
            .warnings
            .iter()
            .map(|it| (it.message.clone(), text[it.span.clone().unwrap()].to_owned()))
            .collect::<Vec<_>>()
    };
    let expected = (
        "pools[1].outlier.http_5xx: has no effect: no listener in front of this pool has `protocol: http` or `sniff: http`",
        "true",
    );
    let expected = [(expected.0.to_owned(), expected.1.to_owned())];
    assert_eq!(warned("", "", "{ http_5xx: true }"), expected);
    for (first, second, outlier) in [
        ("sniff: http", "", "{ http_5xx: true }"),
        ("", "sniff: http", "{ http_5xx: true }"),
        ("", "", "{ http_5xx: false }"),
        ("", "", "{}"),
    ] {
        assert_eq!(warned(first, second, outlier), [], "{first} {second} {outlier}");
    }
}

#[test]
fn protocol_hint_arrives_as_written_and_may_not_contradict() {
    let starttls = "tls: { certificates: [{ cert: a, key: b }], starttls: postgres }";
    for (keys, speaks) in [
        ("", None),
        ("protocol_hint: mysql", Some(SpokenProtocol::Mysql)),
        ("protocol_hint: redis", Some(SpokenProtocol::Redis)),
        ("sniff: http", Some(SpokenProtocol::Http)),
        ("sniff: http, protocol_hint: http", Some(SpokenProtocol::Http)),
        ("sniff: postgres", Some(SpokenProtocol::Postgres)),
        ("sniff: mysql, protocol_hint: mysql", Some(SpokenProtocol::Mysql)),
        ("sniff: redis", Some(SpokenProtocol::Redis)),
        (starttls, Some(SpokenProtocol::Postgres)),
    ] {
        assert_eq!(listener(keys).speaks(), speaks, "{keys}");
    }
    for (keys, contradicted) in
        [("sniff: http", "sniff: http"), ("sniff: postgres", "sniff: postgres"), (starttls, "tls.starttls: postgres")]
    {
        let failure = parse("test.yaml", &with(&format!("protocol_hint: mysql, {keys}"), ""), &Unread).unwrap_err();
        let errors: Vec<String> = failure.errors().iter().map(|error| error.message.clone()).collect();
        assert_eq!(errors, [format!("listeners[0].protocol_hint: contradicts `{contradicted}`")]);
    }
}
