use super::*;

fn headers(fields: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    headers
}

#[track_caller]
fn are(headers: &HeaderMap, wanted: &[(&str, &str)]) {
    let mut found: Vec<(&str, &str)> =
        headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    let mut wanted = wanted.to_vec();
    found.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(found, wanted);
}

#[test]
fn fields_of_the_connection_are_stripped() {
    let mut of_connection = headers(&[
        ("connection", "keep-alive, X-Own"),
        ("connection", " close ,, \"x\" , x-other"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("te", "gzip"),
        ("te", "deflate;q=0.5"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
        ("proxy-authenticate", "Basic"),
        ("x-own", "1"),
        ("x-own", "2"),
        ("x-other", "3"),
        ("proxy-authorization", "Basic x"),
        ("x-kept", "4"),
        ("x-kept", "5"),
    ]);
    strip_hop_by_hop(&mut of_connection);
    are(&of_connection, &[("proxy-authorization", "Basic x"), ("x-kept", "4"), ("x-kept", "5")]);
}

#[test]
fn te_is_kept_as_trailers() {
    for value in ["trailers", "gzip, Trailers", "trailers ,deflate"] {
        let mut with_trailers = headers(&[("te", "gzip"), ("te", value), ("connection", "TE")]);
        strip_hop_by_hop(&mut with_trailers);
        are(&with_trailers, &[("te", "trailers")]);
    }
    let mut without = headers(&[("te", "trailers2")]);
    strip_hop_by_hop(&mut without);
    are(&without, &[]);
}

#[test]
fn what_routes_and_frames_cannot_be_nominated() {
    let mut nominating = headers(&[
        ("connection", "host, Content-Length, authorization, x-forwarded-for"),
        ("host", "a"),
        ("content-length", "3"),
        ("authorization", "Basic x"),
        ("x-forwarded-for", "10.0.0.1"),
    ]);
    strip_hop_by_hop(&mut nominating);
    are(&nominating, &[("host", "a"), ("content-length", "3")]);
    let facts = ForwardedFacts { client: Some([192, 0, 2, 1].into()), is_tls: false, host: None };
    set_forwarded(&mut nominating, Forwarded::Append, facts);
    assert_eq!(nominating[X_FORWARDED_FOR], "192.0.2.1");
    assert_eq!(nominating[X_REAL_IP], "192.0.2.1");
}

/// What came, what is known, and what goes.
type ForwardedRow<'a> = (Forwarded, Option<&'a str>, bool, &'a [(&'a str, &'a str)], [Option<&'a str>; 4]);

#[test]
fn forwarded_fields_say_who_the_client_is() {
    let spoofed: &[(&str, &str)] = &[
        ("x-forwarded-for", "10.0.0.1"),
        ("x-forwarded-for", ""),
        ("x-forwarded-for", "10.0.0.2, 10.0.0.3"),
        ("x-real-ip", "10.0.0.1"),
        ("x-real-ip", "10.0.0.2"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "evil"),
    ];
    let joined = "10.0.0.1, 10.0.0.2, 10.0.0.3, 192.0.2.1";
    let rows: &[ForwardedRow<'_>] = &[
        (Forwarded::Append, Some("192.0.2.1"), false, &[], [Some("192.0.2.1"), Some("192.0.2.1"), Some("http"), None]),
        (Forwarded::Append, Some("192.0.2.1"), false, spoofed, [Some(joined), Some("192.0.2.1"), Some("http"), None]),
        (
            Forwarded::Replace,
            Some("192.0.2.1"),
            true,
            spoofed,
            [Some("192.0.2.1"), Some("192.0.2.1"), Some("https"), None],
        ),
        (Forwarded::Replace, None, true, spoofed, [Some("unix:"), Some("unix:"), Some("https"), None]),
        (Forwarded::Append, None, true, &spoofed[..1], [Some("10.0.0.1, unix:"), Some("unix:"), Some("https"), None]),
        (
            Forwarded::Replace,
            Some("2001:db8::1"),
            false,
            &[],
            [Some("2001:db8::1"), Some("2001:db8::1"), Some("http"), None],
        ),
        (
            Forwarded::Append,
            Some("::ffff:192.0.2.1"),
            false,
            &[],
            [Some("192.0.2.1"), Some("192.0.2.1"), Some("http"), None],
        ),
    ];
    let host = HeaderValue::from_static("a.example:8443");
    let names = [X_FORWARDED_FOR, X_REAL_IP, X_FORWARDED_PROTO, X_FORWARDED_HOST];
    for row in rows {
        let (forwarded, client, is_tls, fields, wanted) = row;
        for known in [None, Some(&host)] {
            let mut map = headers(fields);
            let client = client.map(|client| client.parse().unwrap());
            set_forwarded(&mut map, *forwarded, ForwardedFacts { client, is_tls: *is_tls, host: known });
            let mut wanted: Vec<(&str, &str)> =
                names.iter().zip(wanted).filter_map(|(name, value)| Some((name.as_str(), (*value)?))).collect();
            wanted.extend(known.map(|_| ("x-forwarded-host", "a.example:8443")));
            are(&map, &wanted);
        }
    }
    let mut untouched = headers(spoofed);
    set_forwarded(&mut untouched, Forwarded::Off, ForwardedFacts { client: None, is_tls: true, host: Some(&host) });
    are(&untouched, spoofed);
}

#[test]
fn the_longest_address_fits_its_buffer() {
    let longest: IpAddr = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap();
    assert!(longest.to_string().len() <= MAX_ADDRESS);
}
