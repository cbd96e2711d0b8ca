use std::fmt::Debug;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use proptest::prelude::*;

use super::address::SUN_PATH;
use super::*;
use crate::config::model::{BackendAddress, ListenAddress};
use crate::net::addr::Address;
use crate::net::interfaces;

fn refused<T: FromStr<Err = Diagnostic> + Debug>(texts: &[&str]) {
    for text in texts {
        let result = text.parse::<T>();
        assert!(result.is_err(), "{text:?} gave {result:?}");
    }
}

fn written<T: FromStr<Err = Diagnostic> + Debug + fmt::Display>(pairs: &[(&str, &str)]) {
    for (text, expected) in pairs {
        assert_eq!(text.parse::<T>().unwrap().to_string(), *expected, "{text:?}");
    }
}

#[test]
fn durations_and_rates_are_parsed_or_rejected() {
    written::<Period>(&[
        ("0s", "0s"),
        ("250ms", "250ms"),
        ("1000ms", "1s"),
        ("90s", "90s"),
        ("60s", "1m"),
        ("5m", "5m"),
        ("120m", "2h"),
        ("8760h", "8760h"),
    ]);
    written::<Frequency>(&[
        ("0", "0"),
        ("0/s", "0"),
        ("20/s", "20/s"),
        ("60/m", "60/m"),
        ("4294967295/h", "4294967295/h"),
    ]);
    refused::<Frequency>(&["", "5", "5/", "/s", "-5/s", "5/S", "5 /s", "5/1s", "1.5/s", "5s", "5/d", "4294967296/s"]);
    refused::<Period>(&[
        "",
        "s",
        "5",
        "-5s",
        "5S",
        "5 s",
        " 5s",
        "5s ",
        "1m30s",
        "1.5s",
        "5us",
        "1d",
        "8761h",
        "٣s",
        "18446744073709551616ms",
        "18446744073709551615h",
        "0x5s",
    ]);
}

#[test]
fn sizes_and_percentages_are_parsed_or_rejected() {
    written::<Size>(&[("0B", "0B"), ("1024B", "1KiB"), ("64KiB", "64KiB"), ("1536KiB", "1536KiB")]);
    refused::<Size>(&["", "64", "64kb", "64KB", "-1B", "1.5MiB", "18446744073709551615GiB"]);
    written::<Percent>(&[("0%", "0%"), ("50%", "50%"), ("100%", "100%")]);
    refused::<Percent>(&["", "%", "50", "101%", "-1%", "256%", "50 %", "5.5%"]);
}

#[test]
fn statuses_are_parsed_or_rejected() {
    written::<StatusRange>(&[("200-399", "200-399"), ("204", "204"), ("200-200", "200")]);
    refused::<StatusRange>(&["", "-", "200-", "-200", "2xx", "99", "600", "399-200", "+200", "0200", "200-300-400"]);
}

#[test]
fn addresses_are_parsed_or_rejected() {
    written::<BindAddress>(&[
        ("127.0.0.1:8080", "127.0.0.1:8080"),
        ("0.0.0.0:0", "0.0.0.0:0"),
        ("[::1]:8080", "[::1]:8080"),
        ("[0:0::1]:80", "[::1]:80"),
        ("unix:/run/app.sock", "unix:/run/app.sock"),
        ("unix:/run/a:1-2", "unix:/run/a:1-2"),
        ("0.0.0.0:30000-30099", "0.0.0.0:30000-30099"),
        ("[::1]:1-65535", "[::1]:1-65535"),
        ("127.0.0.1:7-7", "127.0.0.1:7"),
    ]);
    refused::<BindAddress>(&[
        "127.0.0.1:*",
        "127.0.0.1:2-1",
        "127.0.0.1:0-9",
        "127.0.0.1:1-65536",
        "127.0.0.1:1-99999999999999999999",
        "127.0.0.1:1-",
        "127.0.0.1:-1",
        "127.0.0.1:1-2-3",
        "localhost:1-2",
        ":1-2",
        "::1:1-2",
        "",
        ":",
        "unix:",
        "unix:/",
        "unix:/a/",
        "unix:@abstract",
        "unix:/a\0b",
        "localhost:80",
        "[::1]",
        "[::1]:",
        "1.2.3.4:+5",
    ]);
    let path = format!("unix:/{}", "x".repeat(SUN_PATH - 1));
    written::<BindAddress>(&[(&path, &path)]);
    refused::<BindAddress>(&[&format!("{path}x")]);

    let name = |host: &str, port| BackendAddress::Name { host: host.to_owned(), port };
    assert_eq!("localhost:1".parse::<BackendEndpoint>().unwrap().address, name("localhost", 1));
    assert_eq!("db.example.:65535".parse::<BackendEndpoint>().unwrap().address, name("db.example.", 65535));
    for (text, address) in [("10.0.0.1:*", "10.0.0.1:*"), ("[::0:1]:*", "[::1]:*"), ("db.example:*", "db.example:*")] {
        let endpoint = text.parse::<BackendEndpoint>().unwrap();
        assert_eq!((endpoint.to_string().as_str(), endpoint.address.to_string().as_str()), (text, address));
        assert!(endpoint.address.has_client_port());
        assert_eq!(endpoint.address.to_string().parse::<BackendEndpoint>().unwrap().address, endpoint.address);
    }
    assert!(!"unix:/a:*".parse::<BackendEndpoint>().unwrap().address.has_client_port());
    refused::<BackendEndpoint>(&[":*", "*", "*:*", "0.0.0.0:*", "::1:*", "10.0.0.1:1-2", "a:1-2", "10.0.0.1:**"]);
    let label = "x".repeat(63);
    assert!(format!("{label}.{label}.{label}.{}:1", "x".repeat(61)).parse::<BackendEndpoint>().is_ok());
    refused::<BackendEndpoint>(&[
        &format!("{label}.{label}.{label}.{}:1", "x".repeat(62)),
        &format!("{label}x:1"),
        ":1",
        ".:1",
        "a.:0",
        "a-:1",
        "a b:1",
        "a:65536",
        "0.0.0.0:1",
        "[::]:1",
    ]);
}

#[test]
fn access_targets_are_parsed_or_rejected() {
    let same = [
        "off",
        "stderr",
        "./a.log",
        "/syslog:/a",
        "syslog:/dev/log",
        "syslog:10.0.0.9:514",
        "syslog:[::1]:514",
        "syslog+tcp:10.0.0.9:601",
    ];
    written::<AccessTarget>(&same.map(|text| (text, text)));
    refused::<AccessTarget>(&["", "on", "stdout", "access.log", "/var/log/", "/a\nb"]);
    refused::<AccessTarget>(&[
        "syslog",
        "syslog:",
        "syslog:/",
        "syslog:/dev/",
        "syslog:dev/log",
        "syslog://10.0.0.9:514",
        "syslog:10.0.0.9",
        "syslog:10.0.0.9:0",
        "syslog:0.0.0.0:514",
        "syslog:224.0.0.1:514",
        "syslog:loghost:514",
        "syslog:tcp:10.0.0.9:514",
        "syslog+tcp:/dev/log",
        "syslog+udp:10.0.0.9:514",
        "syslog+tls:10.0.0.9:6514",
    ]);
}

fn survives<T: FromStr<Err = Diagnostic> + PartialEq + Debug + fmt::Display>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        assert_eq!(value.to_string().parse::<T>().unwrap(), value);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_rejected_or_survives_a_round_trip(text in prop_oneof![
        ".*",
        "[0-9]{1,20}(ms|s|m|h|B|KiB|MiB|GiB|%|/s|/m|/h)?",
        "(unix:)?/?[a-z0-9:.%\\[\\]-]{0,40}",
        "[1-6][0-9]{2}(-[1-6][0-9]{2})?",
        "syslog(\\+tcp)?:(/[a-z/]{0,9}|[0-9a-f.:\\[\\]]{1,20}:[0-9]{1,5})",
    ]) {
        survives::<Period>(&text);
        survives::<Frequency>(&text);
        survives::<Size>(&text);
        survives::<Percent>(&text);
        survives::<StatusRange>(&text);
        survives::<BindAddress>(&text);
        survives::<BackendEndpoint>(&text);
        survives::<SourceAddress>(&text);
        survives::<AccessTarget>(&text);
    }

    #[test]
    fn duration_survives_a_round_trip(millis in 0..=LONGEST.as_millis() as u64) {
        let period = Period(Duration::from_millis(millis));
        prop_assert_eq!(period.to_string().parse::<Period>(), Ok(period));
    }

    #[test]
    fn size_survives_a_round_trip(bytes: u64) {
        prop_assert_eq!(Size(bytes).to_string().parse::<Size>(), Ok(Size(bytes)));
    }

    #[test]
    fn socket_address_survives_a_round_trip(ip: IpAddr, port: u16) {
        let is_link_local = matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
        prop_assume!(!ip.is_multicast() && ip != IpAddr::V4(Ipv4Addr::BROADCAST) && !is_link_local);
        let bind = BindAddress(ListenAddress::One(Address::Tcp(SocketAddr::new(ip, port))));
        prop_assert_eq!(bind.to_string().parse::<BindAddress>(), Ok(bind));
    }

    #[test]
    fn range_of_ports_survives_a_round_trip(ip: Ipv4Addr, one in 1..=u16::MAX, other in 1..=u16::MAX) {
        prop_assume!(!ip.is_multicast() && ip != Ipv4Addr::BROADCAST);
        let (first, last) = (one.min(other), one.max(other));
        let bind = format!("{ip}:{first}-{last}").parse::<BindAddress>().unwrap();
        prop_assert_eq!(bind.to_string().parse::<BindAddress>(), Ok(bind.clone()));
        prop_assert_eq!(bind.0.addresses().count(), usize::from(last - first) + 1);
        if first < last {
            let reversed = format!("{ip}:{last}-{first}").parse::<BindAddress>();
            prop_assert!(reversed.is_err());
        }
    }
}

#[test]
fn tls_versions_are_parsed_or_rejected() {
    written::<MinVersion>(&[("1.2", "1.2"), ("1.3", "1.3")]);
    refused::<MinVersion>(&["", "1", "1.0", "1.1", "1.4", "2", "TLSv1.2", "tls1.3", " 1.2"]);
}

#[test]
fn protocol_names_are_parsed_or_rejected() {
    written::<ProtocolName>(&[("h2", "h2"), ("http/1.1", "http/1.1"), (&"x".repeat(255), &"x".repeat(255))]);
    refused::<ProtocolName>(&["", &"x".repeat(256), &"ä".repeat(128)]);
}

#[test]
fn server_names_are_parsed_or_rejected() {
    written::<NameRule>(&[("a.example.com", "a.example.com"), ("*.Example.COM.", "*.example.com"), ("x_1", "x_1")]);
    refused::<NameRule>(&[
        "",
        "*",
        "a*.com",
        "*.*.com",
        "a.*",
        "10.0.0.1",
        "::1",
        "a.com:443",
        "https://a.com",
        "ä.de",
    ]);
    written::<ServerName>(&[("db.internal", "db.internal"), ("10.0.0.1", "10.0.0.1"), ("::1", "::1"), ("a_b", "a_b")]);
    refused::<ServerName>(&["", "*.a.com", "a.com:443", "[::1]", "https://a.com", "10.0.0", "-a", "a b", "ä.de"]);
}

#[test]
fn file_paths_are_parsed_or_rejected() {
    written::<FilePath>(&[("a.pem", "a.pem"), ("/etc/a b.pem", "/etc/a b.pem")]);
    refused::<FilePath>(&["", "/", "certs/", "a\nb", "-----BEGIN CERTIFICATE-----\nMII"]);
    written::<TrustedBy>(&[("system", "system"), ("./system", "./system"), ("ca", "ca"), ("sys.pem", "sys.pem")]);
    refused::<TrustedBy>(&["", "sytem", "System", "certs/"]);
}

#[test]
fn networks_are_parsed_or_rejected() {
    written::<Network>(&[
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("10.0.0.1", "10.0.0.1"),
        ("10.0.0.1/32", "10.0.0.1"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("::1", "::1"),
        ("2001:DB8::/32", "2001:db8::/32"),
        ("::/0", "::/0"),
    ]);
    refused::<Network>(&[
        "",
        "/",
        "/8",
        "10.0.0.0/",
        "10.0.0.0/33",
        "10.0.0.0/+8",
        "10.0.0.0/-1",
        "10.0.0.0/8/8",
        "10.0.0.1/8",
        "10.0.0/8",
        "10.0.0.0/255.0.0.0",
        "10.0.0.1:80",
        "[::1]",
        "::/129",
        "::1/64",
        "fe80::1%eth0",
        "::ffff:10.0.0.1",
        "::ffff:10.0.0.0/104",
        "::ffff:0:0/96",
        "localhost",
    ]);
}

#[test]
fn link_local_address_requires_its_interface() {
    let lo = interfaces::index("lo").unwrap();
    for text in ["[fe80::1%lo]:80", &format!("[fe80::1%{lo}]:80")] {
        let BindAddress(ListenAddress::One(Address::Tcp(SocketAddr::V6(bind)))) = text.parse().unwrap() else {
            panic!("{text}")
        };
        assert_eq!((bind.scope_id(), bind.port()), (lo, 80), "{text}");
        let target: BackendEndpoint = text.parse().unwrap();
        assert_eq!((target.text.as_str(), target.address), (text, BackendAddress::Ip(SocketAddr::V6(bind))));
    }
    let said = |text: &str| {
        let diagnostic = text.parse::<BackendEndpoint>().unwrap_err();
        assert_eq!(text.parse::<BindAddress>().unwrap_err(), diagnostic);
        format!("{} | {}", diagnostic.message, diagnostic.hint.unwrap_or_default())
    };
    for (text, expected) in [
        ("[fe80::1]:80", "`[fe80::1]:80` is a link-local address without its interface | write \"[fe80::1%"),
        ("[fe80::1%none-such]:80", "this host has no network interface `none-such` | the interfaces here are "),
        ("[fe80::1%4000000000]:80", "this host has no network interface `4000000000` | the interfaces here are "),
        ("[fe80::1%]:80", "this host has no network interface `` | "),
    ] {
        assert!(said(text).starts_with(expected), "{}", said(text));
        assert!(said(text).contains("lo"), "{}", said(text));
    }
}
