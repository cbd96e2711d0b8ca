//! `protocol: http`, from the file to the model.

use super::*;

/// Messages of errors, and those of warnings, of a listener and a pool with these keys more.
fn found(listener: &str, pool: &str) -> (Vec<String>, Vec<String>) {
    let diagnostics = match parse("test.yaml", &with(listener, pool), &Unread) {
        Ok(loaded) => loaded.warnings,
        Err(failure) => failure.diagnostics,
    };
    let (errors, warnings): (Vec<_>, Vec<_>) =
        diagnostics.into_iter().partition(|diagnostic| diagnostic.severity == Severity::Error);
    let messages =
        |found: Vec<Diagnostic>| found.into_iter().map(|it| it.message.replacen("listeners[0].", "", 1)).collect();
    (messages(errors), messages(warnings))
}

fn errors(listener: &str, pool: &str) -> Vec<String> {
    let (errors, warnings) = found(listener, pool);
    assert_eq!(warnings, [""; 0], "{listener} {pool}");
    errors
}

const TLS: &str = "certificates: [{ cert: a, key: b }]";
const NONE: [&str; 0] = [];

#[test]
fn keys_of_requests_arrive_as_written_and_have_their_defaults() {
    let of_requests = |keys: &str| listener(&format!("protocol: http, {keys}"));
    let seconds = |count| Some(Duration::from_secs(count));
    let defaults = HttpListener {
        forwarded: Forwarded::Append,
        max_head: 65_536,
        head_timeout: seconds(10),
        keep_alive: seconds(75),
        request_timeout: seconds(60),
    };
    assert_eq!(of_requests("").http, Some(defaults.clone()));
    assert_eq!(of_requests("http: {}").http, Some(defaults));
    assert_eq!([listener("").http, listener("protocol: tcp").http], [None, None]);
    let http = of_requests(
        "http: { forwarded: off, max_head: 1MiB, head_timeout: 1s, keep_alive: 0s, request_timeout: 2m }, \
         limits: { request_rate_per_ip: 100/m }",
    );
    let rate = Rate { count: NonZeroU32::new(100).unwrap(), per: Duration::from_secs(60) };
    assert_eq!(http.limits.request_rate_per_ip, Some(rate));
    assert_eq!(http.speaks(), Some(SpokenProtocol::Http));
    let expected = HttpListener {
        forwarded: Forwarded::Off,
        max_head: 1 << 20,
        head_timeout: seconds(1),
        keep_alive: None,
        request_timeout: seconds(120),
    };
    assert_eq!(http.http, Some(expected));

    let behind = |keys: &str| loaded(&with("protocol: http", keys)).config.pools.remove(0);
    assert_eq!(
        [behind("").http, behind("http: {}").http, pool("").http],
        [const { HttpPool::default }; 3].map(|it| it())
    );
    let written = "http: { version: 2, idle_connections: 0, idle_timeout: 0s, retry: [504, connect, 502] }";
    let expected = HttpPool {
        version: HttpVersion::Http2,
        idle_connections: 0,
        idle_timeout: None,
        retry: vec![HttpRetry::Status(504), HttpRetry::Connect, HttpRetry::Status(502)],
    };
    assert_eq!(behind(written).http, expected);
    assert_eq!(behind("http: { version: '1.1', retry: [] }").http.retry, []);

    let persist = behind("persist: { by: cookie, name: Backend-1 }").persist;
    let cookie = |ttl, same_site| Some(Persist::Cookie(PersistCookie { name: "Backend-1".into(), ttl, same_site }));
    assert_eq!(persist, cookie(None, SameSite::Lax));
    let persist = behind("persist: { by: cookie, name: Backend-1, ttl: 1h, same_site: strict }").persist;
    assert_eq!(persist, cookie(seconds(3600), SameSite::Strict));
}

#[test]
fn routes_by_each_request_arrive_as_written() {
    let listener = listener(
        "protocol: http, routes: [{ pool: p, match: { path: [/a, /b], path_prefix: [/], method: [GET, M-SEARCH], \
         header: { X-B: 'v 1', x-a: '*' }, host: [a.x], client: [10.0.0.0/8] } }]",
    );
    let [route] = &listener.routes[..] else { panic!() };
    assert_eq!((route.path.len(), &*route.path[1], route.path_prefix.len()), (2, "/b", 1));
    assert_eq!(route.method, ["GET".into(), "M-SEARCH".into()]);
    let field = |name: &str, value: Option<&str>| HeaderMatch { name: name.into(), value: value.map(Into::into) };
    assert_eq!(route.header, [field("x-a", None), field("x-b", Some("v 1"))], "by name, in lower case");
    assert!(route.needs_request());
}

#[test]
fn alpn_of_requests_is_that_of_http() {
    let alpn = |listener: &str| {
        let tls = self::listener(&format!("{listener} tls: {{ {TLS} }}")).tls.unwrap();
        tls.alpn.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!((alpn("protocol: http,"), alpn("")), (vec!["h2".to_owned(), "http/1.1".to_owned()], vec![]));
    let with_alpn = |alpn: &str| errors(&format!("protocol: http, tls: {{ {TLS}, alpn: {alpn} }}"), "");
    for good in ["[]", "[http/1.1]", "[h2]", "[http/1.1, h2]"] {
        assert_eq!(with_alpn(good), NONE, "{good}");
    }
    assert_eq!(with_alpn("[h2, postgresql]"), ["tls.alpn: `postgresql` is not spoken with `protocol: http`"]);

    let offered = |http: &str, tls: &str| {
        let loaded = loaded(&with("protocol: http", &format!("http: {{ {http} }}, tls: {{ {tls} }}")));
        let tls = loaded.config.pools[0].tls.as_ref().unwrap();
        tls.alpn.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(offered("version: 2", ""), ["h2"]);
    assert_eq!(offered("version: 2", "alpn: [http/1.1, h2]"), ["http/1.1", "h2"]);
    assert_eq!((offered("version: 1.1", ""), offered("", "alpn: [h2, http/1.1]").len()), (Vec::new(), 2));
    let refused =
        |http: &str, alpn: &str| errors("protocol: http", &format!("http: {{ {http} }}, tls: {{ alpn: {alpn} }}"));
    for alpn in ["[http/1.1]", "[]"] {
        let expected = ["pools[0].tls.alpn: `h2` is missing, which `http.version: 2` speaks"];
        assert_eq!(refused("version: 2", alpn), expected, "{alpn}");
    }
    let expected = ["pools[0].tls.alpn: `h2` alone is offered, but `http.version: 1.1` is spoken"];
    assert_eq!(refused("", "[h2]"), expected);
    assert_eq!(errors("", "tls: { alpn: [h2] }"), NONE, "connections go on as they are");
}

#[test]
fn keys_that_need_each_request_are_refused_without_it() {
    let needs = |key: &str| vec![format!("{key}: requires `protocol: http`")];
    for (sniff, also) in [("", ""), ("sniff: http,", ""), ("protocol: tcp,", " or `sniff: http`")] {
        assert_eq!(errors(&format!("{sniff} http: {{}}"), ""), needs("http"));
        let route =
            |conditions: &str| errors(&format!("{sniff} routes: [{{ match: {{ {conditions} }}, pool: p }}]"), "");
        for (key, conditions) in [("path", "path: [/a]"), ("method", "method: [GET]"), ("header", "header: { a: b }")] {
            assert_eq!(route(conditions), needs(&format!("routes[0].match.{key}")), "{sniff}");
        }
        if !also.is_empty() {
            assert_eq!(route("host: [a.x]"), ["routes[0].match.host: requires `protocol: http` or `sniff: http`"]);
        }
    }
    let limited = |rate: &str| errors(&format!("limits: {{ request_rate_per_ip: {rate} }}"), "");
    let expected = ["limits.request_rate_per_ip: requires `protocol: http`, which reads each request"];
    assert_eq!((limited("9/s"), limited("0")), (expected.map(str::to_owned).to_vec(), vec![]));
    // What is misspelt is the only error.
    let misspelt = errors("protokol: http, http: {}, routes: [{ match: { path: [/a] }, pool: p }]", "");
    assert_eq!(misspelt, ["unknown key `protokol`".to_owned()]);
}

#[test]
fn keys_that_each_request_excludes_are_refused() {
    let of_requests = |keys: &str| errors(&format!("protocol: http, {keys}"), "");
    for (keys, key) in [
        ("sniff: http", "sniff"),
        ("sniff: redis", "sniff"),
        ("protocol_hint: http", "protocol_hint"),
        ("limits: { bandwidth: 1MiB/s }", "limits.bandwidth"),
        ("tls: { certificates: [{ cert: a, key: b }], starttls: mysql }", "tls.starttls"),
    ] {
        let name = key.rsplit('.').next().unwrap();
        assert_eq!(of_requests(keys), [format!("{key}: `{name}` and `protocol: http` exclude each other")]);
    }
    for without_effect in
        ["sniff: off", "limits: { bandwidth: 0 }", "tls: { certificates: [{ cert: a, key: b }], starttls: off }"]
    {
        assert_eq!(of_requests(without_effect), NONE);
    }
    let route = |conditions: &str| of_requests(&format!("routes: [{{ match: {{ {conditions} }}, pool: p }}]"));
    assert_eq!(route("protocol: [http]").len(), 1);
    let expected = "routes[0].match.sni: requires `tls`: with `protocol: http`, TLS does not pass through";
    assert_eq!(route("sni: [a.x], host: [a.x]"), [expected]);
    let with_tls = format!("tls: {{ {TLS} }}, routes: [{{ match: {{ sni: [a.x], alpn: [h2], path: [/] }}, pool: p }}]");
    assert_eq!(of_requests(&with_tls), NONE);
    let starttls = errors("protocol: http", "tls: { starttls: postgres }");
    assert_eq!(starttls, ["pools[0].tls.starttls: the clients of listener `l` speak http"]);
}

#[test]
fn values_out_of_their_range_are_refused() {
    let of_requests = |keys: &str| errors(&format!("protocol: http, {keys}"), "");
    for (size, is_valid) in [("1KiB", true), ("1023B", false), ("1025KiB", false), ("16777216GiB", false)] {
        assert_eq!(of_requests(&format!("http: {{ max_head: {size} }}")).is_empty(), is_valid, "{size}");
    }
    let route = |conditions: &str| of_requests(&format!("routes: [{{ match: {{ {conditions} }}, pool: p }}]"));
    for wrong in [
        "path: [a]",
        "path: ['/a?b']",
        "path: []",
        "path: [/a, /a]",
        "method: [get]",
        "method: ['G T']",
        "method: ['']",
        "header: {}",
        "header: { 'a b': c }",
        "header: { '': c }",
        "header: { Host: c }",
        "header: { a: b, A: c }",
        "header: { a: ' b' }",
        "header: { a: \"b\\n\" }",
        "header: { a: [b] }",
    ] {
        assert_eq!(route(wrong).len(), 1, "{wrong}");
    }
    assert_eq!(route("header: { upgrade: websocket, a: '' }, method: [PROPFIND, X_1]"), NONE);
    for wrong in [
        "http: { version: 1 }",
        "http: { version: 3 }",
        "http: { retry: [500] }",
        "http: { retry: [connect, connect] }",
        "http: { idle_connections: -1 }",
        "persist: { by: cookie }",
        "persist: { by: cookie, name: 'a b' }",
        "persist: { by: cookie, name: a, size: 7 }",
        "persist: { by: cookie, name: a, same_site: no }",
        "persist: { name: a }",
        "persist: { by: client_ip, same_site: lax }",
        "persist: { by: header, name: a }",
        "persist: { by: cookie, name: a, ttl: 1500ms }",
    ] {
        assert_eq!(errors("protocol: http", wrong).len(), 1, "{wrong}");
    }
    let (errors, warnings) = found("protocol: http, http: { head_timeout: 0s }", "");
    assert_eq!((errors.len(), warnings.len()), (0, 1));
}

/// Two listeners with these keys in front of a pool, which the second one reaches by a route.
fn two_fronts(first: &str, second: &str, pool: &str) -> (Vec<String>, Vec<String>) {
    let text = format!(
        "listeners:\n- {{ name: a, bind: 127.0.0.1:1, pool: p, {first} }}\n\
         - {{ name: b, bind: 127.0.0.1:2, pool: q, routes: [{{ match: {{ client: [10.0.0.0/8] }}, pool: p }}], {second} }}\n\
         pools:\n- {{ name: q, backends: [{{ address: 127.0.0.1:4 }}] }}\n\
         - {{ name: p, backends: [{{ address: 127.0.0.1:3 }}], {pool} }}\n"
    );
    let diagnostics = match parse("test.yaml", &text, &Unread) {
        Ok(loaded) => loaded.warnings,
        Err(failure) => failure.diagnostics,
    };
    let of = |severity| {
        let those = diagnostics.iter().filter(move |it| it.severity == severity);
        those.map(|it| it.message.clone()).collect::<Vec<_>>()
    };
    (of(Severity::Error), of(Severity::Warning))
}

#[test]
fn rules_of_requests_at_a_pool_depend_on_the_listeners_in_front() {
    let http = "protocol: http";
    let cookie = "persist: { by: cookie, name: a }";
    assert_eq!(two_fronts(http, http, cookie), (vec![], vec![]));
    for (first, second, named) in [("", http, "a"), (http, "", "b"), (http, "sniff: http", "b")] {
        let message = format!("pools[1].persist.by: listener `{named}` balances connections, not requests");
        assert_eq!(two_fronts(first, second, cookie), (vec![message], vec![]));
    }
    let message = "pools[1].persist.same_site: listener `b` has no `tls`: browsers refuse its cookie";
    let with_tls = format!("{http}, tls: {{ {TLS} }}");
    let of_any_site = "persist: { by: cookie, name: a, same_site: none }";
    assert_eq!(two_fronts(&with_tls, http, of_any_site), (vec![], vec![message.to_owned()]));
    assert_eq!(two_fronts(&with_tls, &with_tls, of_any_site), (vec![], vec![]));
    let rules = "http: { version: 1.1 }";
    for (first, second) in [(http, ""), ("", http)] {
        assert_eq!(two_fronts(first, second, rules), (vec![], vec![]));
        assert_eq!(two_fronts(first, second, "outlier: { http_5xx: true }"), (vec![], vec![]));
    }
    let message = "pools[1].http: has no effect: no listener in front of this pool has `protocol: http`";
    assert_eq!(two_fronts("sniff: http", "", rules), (vec![], vec![message.to_owned()]));

    let message = "pools[1].http.version: connections of listener `b` offer h2 too";
    let http_2 = "http: { version: 2 }, tls: {}";
    assert_eq!(two_fronts(http, "", http_2), (vec![], vec![message.to_owned()]));
    assert_eq!(two_fronts(http, http, http_2), (vec![], vec![]));
}

#[test]
fn route_by_requests_that_an_earlier_one_covers_is_a_warning() {
    let dead = |routes: &[&str]| -> Vec<usize> {
        let routes: String = routes.iter().map(|route| format!("{{ match: {{ {route} }}, pool: p }}, ")).collect();
        let (errors, warnings) = found(&format!("protocol: http, routes: [{routes}]"), "");
        assert_eq!(errors, NONE);
        let message = |index| format!("routes[{index}]: never matches");
        (0..9).filter(|index| warnings.iter().any(|warning| warning.starts_with(&message(*index)))).collect()
    };
    let none: [usize; 0] = [];
    let [a, ab, under_a, below_a] = ["path: [/a]", "path: [/a/b, /a]", "path_prefix: [/a]", "path_prefix: [/a/]"];
    assert_eq!(dead(&[under_a, a, ab, below_a]), [1, 2, 3]);
    assert_eq!(dead(&[a, ab, below_a, under_a]), none);
    assert_eq!(dead(&[under_a, "path_prefix: [/ab]", "path: [/abc]", "path_prefix: [/a/b]"]), [3], "by segments");
    assert_eq!(dead(&[below_a, a, under_a, "path: [/a/]"]), [3]);
    assert_eq!(dead(&["path_prefix: [/]", a, under_a, "host: [a.x]"]), [1, 2]);
    let [get, get_or_put, get_a] = ["method: [GET]", "method: [PUT, GET]", "method: [GET], path: [/a]"];
    assert_eq!(dead(&[get, get_or_put, get_a]), [2]);
    assert_eq!(dead(&[get_or_put, get, get_a, a]), [1, 2]);
    let [any, one, other, both] =
        ["header: { a: '*' }", "header: { A: '1' }", "header: { a: '2' }", "header: { a: '1', b: c }"];
    assert_eq!(dead(&[any, one, other, both]), [1, 2, 3]);
    assert_eq!(dead(&[both, one, other, any]), none);
    assert_eq!(dead(&[one, both, other, "path: [/a], header: { a: '1' }"]), [1, 3]);
    assert_eq!(dead(&["path: [/a], path_prefix: [/b]", "path: [/a, /b/c], path_prefix: [/b]"]), [0]);
}

/// Its requests go the same way each time, unless a field decides.
#[test]
fn loop_of_requests_is_an_error() {
    let looped = |routes: &str| {
        let text = format!(
            "listeners: [{{ name: l, bind: 127.0.0.1:1, pool: p, protocol: http, routes: [{{ match: {{ {routes} }}, pool: q }}] }}]\n\
             pools: [{{ name: p, backends: [{{ address: 127.0.0.1:2 }}] }}, {{ name: q, backends: [{{ address: 127.0.0.1:1 }}] }}]\n"
        );
        parse("test.yaml", &text, &Unread).is_err()
    };
    assert!(looped("path: [/a]"));
    assert!(!looped("path: [/a], header: { x-forwarded-for: '*' }"), "possible only: a warning");
}

/// What is in effect, as a file, is found as good as the file was.
#[test]
fn values_in_effect_are_no_findings() {
    for (listener, pool) in [
        ("", ""),
        ("protocol: http", ""),
        ("protocol: http, tls: { certificates: [{ cert: a, key: b }] }", "http: { version: 2 }, tls: {}"),
        ("protocol: http", "persist: { by: cookie, name: a }, outlier: { http_5xx: true }"),
    ] {
        let text = with(listener, pool);
        assert_eq!(loaded(&text).warnings, []);
        let findings = recheck::findings(&loaded(&text).config, &[]);
        assert_eq!(findings, recheck::Findings::default(), "{text}");
        let shown = effective::configuration(&loaded(&text).config);
        let expected = if listener.is_empty() { "tcp" } else { "http" };
        assert_eq!(shown["listeners"][0]["protocol"], expected);
        assert_eq!(shown["pools"][0]["http"].is_object(), !listener.is_empty());
    }
}
