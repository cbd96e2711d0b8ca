use hyper::Request;

use super::*;

/// A request's verdict: its version, method, target and fields.
fn checked(version: Version, method: &str, target: &str, fields: &[(&str, &str)]) -> Result<(), RequestFault> {
    let mut request = Request::builder().version(version).method(method).uri(target);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    check_request(&request.body(()).unwrap().into_parts().0)
}

/// Version, method, target, fields, and the verdict.
type CheckedRow<'a> = (Version, &'a str, &'a str, &'a [(&'a str, &'a str)], Result<(), RequestFault>);

#[test]
fn requests_are_checked_by_version_and_form() {
    use RequestFault::*;
    let (v10, v11, v2) = (Version::HTTP_10, Version::HTTP_11, Version::HTTP_2);
    let a: (&str, &str) = ("host", "a");
    let rows: &[CheckedRow<'_>] = &[
        (v11, "GET", "/", &[a], Ok(())),
        (v11, "GET", "/", &[], Err(NoHost)),
        (v11, "GET", "http://a/", &[], Err(NoHost)),
        (v11, "GET", "/", &[a, a], Err(SeveralHosts)),
        (v10, "GET", "/", &[], Ok(())),
        (v10, "GET", "http://a/", &[], Ok(())),
        (v10, "GET", "http://u@a/", &[], Err(BadHost)),
        (v10, "GET", "/", &[a, ("host", "b")], Err(SeveralHosts)),
        (v2, "GET", "/", &[], Err(NoHost)),
        (v2, "GET", "/", &[a], Ok(())),
        (v2, "GET", "https://a/", &[], Ok(())),
        (v2, "GET", "https://a/", &[a], Ok(())),
        (v2, "GET", "https://a/", &[("host", "b")], Err(HostMismatch)),
        (v2, "GET", "https://u@a/", &[], Err(BadHost)),
        (v2, "GET", "ftp://a/", &[], Err(BadScheme)),
        (v2, "CONNECT", "a:1", &[], Ok(())),
        (v11, "GET", "http://a/", &[a], Ok(())),
        (v11, "GET", "HTTP://A/", &[a], Ok(())),
        (v11, "GET", "http://a:80/", &[a], Ok(())),
        (v11, "GET", "http://a/", &[("host", "A:80")], Ok(())),
        (v11, "GET", "https://a:443/", &[a], Ok(())),
        (v11, "GET", "https://a:80/", &[a], Err(HostMismatch)),
        (v11, "GET", "http://a:8080/", &[a], Err(HostMismatch)),
        (v11, "GET", "http://a/", &[("host", "ab")], Err(HostMismatch)),
        (v11, "GET", "ws://a/", &[a], Err(BadScheme)),
        (v11, "GET", "a:80", &[("host", "a:80")], Err(TargetForm)),
        (v11, "GET", "a", &[a], Err(TargetForm)),
        (v11, "CONNECT", "a:1", &[("host", "a:1")], Ok(())),
        (v11, "CONNECT", "a:1", &[("host", "b:1")], Err(HostMismatch)),
        (v11, "CONNECT", "/", &[a], Err(TargetForm)),
        (v11, "CONNECT", "http://a/", &[a], Err(TargetForm)),
        (v11, "OPTIONS", "*", &[a], Ok(())),
        (v11, "GET", "*", &[a], Err(TargetForm)),
        (v11, "GET", "/", &[a, ("upgrade", "websocket")], Ok(())),
        (v11, "POST", "/", &[a, ("upgrade", "x"), ("content-length", "0")], Ok(())),
        (v11, "POST", "/", &[a, ("upgrade", "x"), ("content-length", "1")], Err(UpgradeWithBody)),
        (v11, "POST", "/", &[a, ("upgrade", "H2C"), ("content-length", "1")], Ok(())),
        (v11, "POST", "/", &[a, ("upgrade", "h2c"), ("upgrade", "x"), ("content-length", "1")], Err(UpgradeWithBody)),
        (v11, "POST", "/", &[a, ("upgrade", "x"), ("transfer-encoding", "chunked")], Err(UpgradeWithBody)),
        (v11, "POST", "/", &[a, ("expect", "100-Continue")], Ok(())),
        (v11, "POST", "/", &[a, ("expect", "100-continue"), ("expect", "100-continue")], Err(BadExpect)),
        (v11, "POST", "/", &[a, ("expect", "100-continue, x")], Err(BadExpect)),
        (v11, "POST", "/", &[a, ("expect", "")], Err(BadExpect)),
        (v2, "POST", "/", &[a, ("content-length", "5")], Ok(())),
        (v2, "POST", "/", &[a, ("content-length", "5"), ("content-length", "5")], Err(BadLength)),
        (v2, "POST", "/", &[a, ("content-length", "+5")], Err(BadLength)),
        (v2, "POST", "/", &[a, ("content-length", "")], Err(BadLength)),
        (v2, "POST", "/", &[a, ("content-length", "9223372036854775808")], Err(BadLength)),
        (v11, "GET", "/", &[a, ("x_forwarded_for", "b")], Ok(())),
    ];
    for row in rows {
        let (version, method, target, fields, wanted) = row;
        assert_eq!(checked(*version, method, target, fields), *wanted, "{row:?}");
    }
}

#[test]
fn hosts_are_a_name_or_an_address_with_an_optional_port() {
    let valid = [
        "a",
        "A.example",
        "a_b-c.example.",
        "xn--bcher-kva.example",
        "a:0",
        "a:65535",
        "127.0.0.1:80",
        "[::1]",
        "[2001:db8::1]:443",
        "a%2fb",
        "~!$&'()*+;=",
    ];
    for host in valid {
        assert!(is_host(host.as_bytes()), "{host}");
        assert_eq!(checked(Version::HTTP_11, "GET", "/", &[("host", host)]), Ok(()), "{host}");
    }
    let invalid = [
        "",
        ":80",
        "a:",
        "a:+1",
        "a:65536",
        "a:b",
        "a:80:80",
        "a b",
        "a,b",
        "a, b",
        "a/",
        "a?",
        "a#",
        "u@a",
        "a\\b",
        "a%",
        "a%2",
        "a%2g",
        "::1",
        "[]",
        "[::1",
        "::1]",
        "[::1]a",
        "[::1]:",
        "[::1]]",
        "[1.2.3.4]",
        "[v1.a]",
        "[fe80::1%25eth0]",
        "a\"",
        "a<b>",
        "a|b",
        "a^b",
        "\u{e9}",
        "a\t",
    ];
    for host in invalid {
        assert!(!is_host(host.as_bytes()), "{host}");
        let fault = checked(Version::HTTP_11, "GET", "/", &[("host", host)]);
        assert_eq!(fault, Err(RequestFault::BadHost), "{host}");
    }
}

#[test]
fn statuses_are_those_of_rfc_9110() {
    assert_eq!(RequestFault::BadExpect.status(), 417);
    assert_eq!(RequestFault::HostMismatch.status(), 400);
}

/// Version, fields, and the protocol that is asked for.
type UpgradeRow<'a> = (Version, &'a [(&'a str, &'a str)], Option<&'a str>);

#[test]
fn upgrades_are_asked_for_by_connection_and_upgrade_of_http_1_1() {
    let rows: &[UpgradeRow<'_>] = &[
        (Version::HTTP_11, &[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")], Some("websocket")),
        (Version::HTTP_11, &[("connection", "a"), ("connection", "upgrade"), ("upgrade", "a/1, b")], Some("a/1, b")),
        (Version::HTTP_11, &[("upgrade", "websocket")], None),
        (Version::HTTP_11, &[("connection", "upgrade")], None),
        (Version::HTTP_11, &[("connection", "xupgrade"), ("upgrade", "websocket")], None),
        (Version::HTTP_11, &[("connection", "upgrade"), ("upgrade", "a"), ("upgrade", "b")], None),
        (Version::HTTP_11, &[("connection", "Upgrade, HTTP2-Settings"), ("upgrade", "h2c")], None),
        (Version::HTTP_11, &[("connection", "upgrade"), ("upgrade", "websocket, H2C")], None),
        (Version::HTTP_10, &[("connection", "upgrade"), ("upgrade", "websocket")], None),
        (Version::HTTP_2, &[("connection", "upgrade"), ("upgrade", "websocket")], None),
    ];
    for row in rows {
        let (version, fields, wanted) = row;
        let mut request = Request::builder().version(*version).uri("/");
        for (name, value) in *fields {
            request = request.header(*name, *value);
        }
        let parts = request.body(()).unwrap().into_parts().0;
        assert_eq!(requested_upgrade(&parts).map(|value| value.to_str().unwrap()), *wanted, "{row:?}");
    }
}
