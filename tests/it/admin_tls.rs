//! TLS of the admin interface, and the commands that speak it.

use std::fs;
use std::io::{Read, Write};
use std::time::Duration;

use rustls::ClientConfig;

use crate::support::authority::{Authority, Issued};
use crate::support::backend::Backend;
use crate::support::client::{Place, connect, read_to_end};
use crate::support::stats::{ask, call, get};
use crate::support::tidegate::{Tidegate, forward};
use crate::support::tls::{Tls, read_all};
use crate::support::{DEADLINE, eventually, free_port, own_address};

/// With a unix socket beside, which stays plain.
struct Secured {
    _backend: Backend,
    authority: Authority,
    certificate: Issued,
    tidegate: Tidegate,
    place: Place,
    unix: Place,
}

fn start(tls: impl Fn(&Authority) -> String) -> Secured {
    let (backend, authority) = (Backend::echo(), Authority::new());
    let address = own_address().to_string();
    let certificate = authority.issue(&["lb.example", &address]);
    let admin = format!(
        "bind: [\"unix:DIRECTORY/a.sock\", \"{address}:{}\"], tls: {{ certificates: [{}]{} }}",
        free_port(),
        certificate.yaml(),
        tls(&authority)
    );
    let tidegate = Tidegate::start(&format!("admin: {{ {admin} }}\n{}", forward(backend.place(), "", "")));
    let lines = tidegate.logs();
    let mut addresses =
        lines.iter().filter(|line| line.is("stats port")).map(|line| Place::parse(&line.field("address")));
    let place = addresses.next_back().unwrap();
    let unix = Place::Unix(tidegate.directory().join("a.sock"));
    Secured { _backend: backend, authority, certificate, tidegate, place, unix }
}

fn https(place: &Place, config: &ClientConfig, host: &str) -> String {
    let tls = Tls::connect(place, config, "lb.example");
    (&tls).write_all(format!("GET /readyz HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).unwrap();
    read_all(&tls)
}

#[test]
fn tcp_speaks_tls_only_and_names_of_certificates_are_its_own() {
    let Secured { authority, tidegate, place, unix, .. } = start(|_| String::new());
    let config = authority.client_offering(&["h2", "http/1.1"]);
    assert!(https(&place, &authority.client(), "lb.example").starts_with("HTTP/1.1 200"));
    // The answer of the page tells them apart: probes get one by any name.
    let page = |host: &str| {
        let tls = Tls::connect(&place, &config, "lb.example");
        (&tls).write_all(format!("GET /stats HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).unwrap();
        read_all(&tls)[..12].to_owned()
    };
    assert_eq!(page("lb.example:443"), "HTTP/1.1 200");
    assert_eq!(page("evil.example"), "HTTP/1.1 403");
    let mut plain = connect(&place);
    plain.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert!(!read_to_end(&mut plain).0.starts_with(b"HTTP"));
    assert_eq!(get(&unix, "/readyz").status, 200);
    let metrics = get(&unix, "/metrics").text();
    assert!(metrics.contains("\ntidegate_admin_failed_handshakes_total 1\n"), "{metrics}");
    assert!(metrics.contains("interface=\"admin\""), "{metrics}");
    tidegate.wait_for_log("why", |line| line.is("admin: TLS handshake failed"));
}

#[test]
fn certificate_is_replaced_when_its_files_change() {
    let Secured { authority, certificate, place, tidegate, .. } = start(|_| String::new());
    let leaf = || Tls::connect(&place, &authority.client(), "lb.example").peer().unwrap();
    assert_eq!(leaf(), certificate.der);
    let new = authority.issue(&["lb.example"]);
    fs::copy(&new.key, &certificate.key).unwrap();
    fs::copy(&new.cert, &certificate.cert).unwrap();
    eventually(DEADLINE, "the new certificate", || leaf() == new.der);
    drop(tidegate);
}

#[test]
fn client_auth_requires_a_certificate_and_the_commands_say_so() {
    let auth =
        |authority: &Authority| format!(", client_auth: {{ mode: required, ca: {} }}", authority.file().display());
    let Secured { authority, tidegate, place, .. } = start(auth);
    let client = authority.issue_client("operator");
    let at = format!("https://{place}");
    let ca = authority.file().display().to_string();
    let (cert, key) = (client.cert.display().to_string(), client.key.display().to_string());
    let refused = tidegate.command(&["healthcheck", "--admin", &at, "--ca", &ca]);
    assert_ne!(refused.code, Some(0));
    assert!(refused.err.contains("--cert FILE --key FILE"), "{refused:?}");
    let served = tidegate.command(&["healthcheck", "--admin", &at, "--ca", &ca, "--cert", &cert, "--key", &key]);
    assert_eq!(served.code, Some(0), "{served:?}");
    // Beside it, a token: without one, nothing changes over TCP.
    let reload = tidegate.command(&["reload", "--admin", &at, "--ca", &ca, "--cert", &cert, "--key", &key]);
    assert!(reload.code != Some(0) && reload.err.contains("admin.token_file"), "{reload:?}");
}

#[test]
fn commands_trust_the_configured_certificate_or_an_authority() {
    let Secured { authority, certificate, tidegate, place, unix, .. } = start(|_| String::new());
    let config = tidegate.config_file().display().to_string();
    let at = format!("https://{place}");
    let untrusted = tidegate.command(&["healthcheck", "--admin", &at]);
    assert!(untrusted.code != Some(0) && untrusted.err.contains("--ca FILE"), "{untrusted:?}");
    let trusted = tidegate.command(&["healthcheck", "--admin", &at, "--ca", &authority.file().display().to_string()]);
    assert_eq!(trusted.code, Some(0), "{trusted:?}");
    let plain = tidegate.command(&["healthcheck", "--admin", &place.to_string()]);
    assert!(plain.err.contains(&format!("--admin {at}")), "{plain:?}");
    // The unix socket first; where it is gone, the next address, with the certificate of the file as a pin.
    assert_eq!(tidegate.command(&["healthcheck", "--config", &config]).code, Some(0));
    let Place::Unix(path) = &unix else { panic!("{unix}") };
    fs::remove_file(path).unwrap();
    let pinned = tidegate.command(&["healthcheck", "--config", &config]);
    assert_eq!(pinned.code, Some(0), "{pinned:?}");
    // Another one is no pin for it.
    let others = Authority::new();
    let other = others.issue(&["lb.example"]);
    let text = fs::read_to_string(tidegate.config_file()).unwrap();
    fs::write(tidegate.config_file(), text.replace(&certificate.yaml(), &other.yaml())).unwrap();
    let other = tidegate.command(&["healthcheck", "--config", &config]);
    assert!(other.code != Some(0) && other.err.contains("--ca FILE"), "{other:?}");
}

/// Strangers that never finish a handshake make room for those that come.
#[test]
fn silent_clients_do_not_keep_others_out_of_the_handshake() {
    let Secured { authority, place, tidegate: _tidegate, .. } = start(|_| String::new());
    let mut silent: Vec<_> = (0..100).map(|_| connect(&place)).collect();
    assert!(https(&place, &authority.client(), "lb.example").starts_with("HTTP/1.1 200"));
    for stream in &mut silent {
        stream.set_read_timeout(Some(DEADLINE.max(Duration::from_secs(20)))).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0, "closed after 5 s at the latest");
    }
}

#[test]
fn reload_turns_tls_on_and_off() {
    let Secured { _backend: backend, authority, tidegate, place, unix, .. } = start(|_| String::new());
    let bind = format!("bind: [\"unix:DIRECTORY/a.sock\", \"{place}\"]");
    tidegate.rewrite(&format!("admin: {{ {bind} }}\n{}", forward(backend.place(), "", "")));
    assert_eq!(call(&unix, "POST", "/api/reload", "").status, 200);
    assert_eq!(ask(&place, "GET /livez HTTP/1.0\r\n\r\n").status, 200);
    let tls = format!("tls: {{ certificates: [{}] }}", authority.issue(&["lb.example"]).yaml());
    tidegate.rewrite(&format!("admin: {{ {bind}, {tls} }}\n{}", forward(backend.place(), "", "")));
    assert_eq!(call(&unix, "POST", "/api/reload", "").status, 200);
    assert!(https(&place, &authority.client(), "localhost").starts_with("HTTP/1.1 200"));
}
