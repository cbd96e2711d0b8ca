//! PROXY headers for backends: `pools[].send_proxy`. A parser that is not ours reads them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};

use proxy_header::{Error, ParseConfig, ProxiedAddress, ProxyHeader};
use rustls::pki_types::ServerName;
use rustls::{ALL_VERSIONS, HandshakeKind, ServerConfig, ServerConnection, StreamOwned};

use crate::support::authority::{Authority, client_connection, handshake};
use crate::support::backend::{Backend, Scripted, in_thread};
use crate::support::client::{Place, connect, expect, read_to_end};
use crate::support::pgwire::SSL_REQUEST;
use crate::support::tidegate::{Tidegate, forward};

/// Reads a header, and not one byte of what follows it.
fn header_of(stream: &mut TcpStream) -> (ProxyHeader<'static>, Vec<u8>) {
    let mut bytes = Vec::new();
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap_or_else(|error| panic!("after {bytes:?}: {error}"));
        bytes.push(byte[0]);
        match ProxyHeader::parse(&bytes, ParseConfig::default()) {
            Ok((header, length)) => {
                assert_eq!(length, bytes.len());
                return (header.into_owned(), bytes);
            }
            Err(Error::BufferTooShort) => {}
            Err(error) => panic!("{bytes:?}: {error}"),
        }
    }
}

fn stream(from: SocketAddr, to: SocketAddr) -> Option<ProxiedAddress> {
    Some(ProxiedAddress::stream(from, to))
}

fn unique_id(header: &ProxyHeader<'_>) -> String {
    String::from_utf8(header.unique_id().expect("a unique id").to_vec()).unwrap()
}

#[test]
fn backends_are_told_who_is_connected_to_what() {
    for (version, bind) in [("v1", "127.0.0.1:0"), ("v2", "127.0.0.1:0"), ("v1", "[::1]:0"), ("v2", "[::1]:0")] {
        let scripted = Scripted::start();
        let tidegate = Tidegate::start(&format!(
            "listeners: [{{ name: in, bind: \"{bind}\", pool: p }}]\n\
             pools: [{{ name: p, send_proxy: {version}, backends: [{{ name: b, address: \"{}\" }}] }}]\n",
            scripted.place()
        ));
        let mut client = connect(&tidegate.at("in"));
        let mut backend = scripted.accept();
        let (header, bytes) = header_of(&mut backend);
        let (own, there) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
        assert_eq!(header.proxied_address().cloned(), stream(own, there));
        assert_eq!(bytes.starts_with(b"PROXY TCP"), version == "v1");
        assert!(header.ssl().is_none() && header.authority().is_none() && header.alpn().is_none(), "{header:?}");

        client.write_all(b"hello").unwrap();
        expect(&mut backend, b"hello");
        drop(client);
        assert_eq!(read_to_end(&mut backend).0, b"");
        drop(backend);
        let line = tidegate.only_access();
        assert_eq!(line.bytes(), (5, 0), "the header is not the client's");
        match version {
            "v2" => assert_eq!(unique_id(&header), line.field("id")),
            _ => assert!(header.unique_id().is_none()),
        }
        assert_eq!(line.field("id").len(), 16);
    }
}

#[test]
fn clients_of_a_socket_for_both_families_are_of_their_own() {
    for version in ["v1", "v2"] {
        let scripted = Scripted::start();
        let tidegate = Tidegate::start(&format!(
            "listeners: [{{ name: in, bind: \"[::]:0\", pool: p }}]\n\
             pools: [{{ name: p, send_proxy: {version}, backends: [{{ name: b, address: \"{}\" }}] }}]\n",
            scripted.place()
        ));
        let port = tidegate.at("in").tcp().port();
        for ip in ["127.0.0.1", "[::1]"] {
            let client = connect(&Place::parse(&format!("{ip}:{port}")));
            let header = header_of(&mut scripted.accept()).0;
            let ends = stream(client.local_addr().unwrap(), client.peer_addr().unwrap());
            assert_eq!(header.proxied_address().cloned(), ends);
        }
    }
}

/// They have no address, and a header that said so is one that every receiver has to accept.
#[test]
fn clients_of_a_unix_socket_are_unknown() {
    let directory = tempfile::tempdir().unwrap();
    for version in ["v1", "v2"] {
        let scripted = Scripted::start();
        let tidegate = Tidegate::start(&format!(
            "listeners: [{{ name: in, bind: \"unix:{}\", pool: p }}]\n\
             pools: [{{ name: p, send_proxy: {version}, backends: [{{ name: b, address: \"{}\" }}] }}]\n",
            directory.path().join(version).display(),
            scripted.place()
        ));
        let client = connect(&tidegate.at("in"));
        let (header, bytes) = header_of(&mut scripted.accept());
        assert_eq!(header.proxied_address(), None);
        match version {
            "v1" => assert_eq!(bytes, b"PROXY UNKNOWN\r\n"),
            _ => {
                drop(client);
                assert_eq!(unique_id(&header), tidegate.only_access().field("id"));
            }
        }
    }
}

#[test]
fn version_2_tells_of_tls_that_has_ended() {
    const NAME: &str = "a.example.test";
    let authority = Authority::new();
    let (server, own) = (authority.issue(&[NAME]).yaml(), authority.issue_client("client-7"));
    let scripted = Scripted::start();
    let listener = format!(
        "tls: {{ certificates: [{server}], alpn: [h2], client_auth: {{ mode: optional, ca: {} }} }}",
        authority.file().display()
    );
    let tidegate = Tidegate::start(&forward(scripted.place(), &listener, "send_proxy: v2"));

    let config = authority.client_of(ALL_VERSIONS, &["http/1.1", "h2"], Some(&own));
    let none = authority.client_of(ALL_VERSIONS, &[], None);
    let old = authority.client_of(&[&rustls::version::TLS12], &["h2"], Some(&own));
    for (config, version, alpn, shown, resumed) in [
        (&config, "TLSv1.3", Some(&b"h2"[..]), true, false),
        (&config, "TLSv1.3", Some(b"h2"), true, true),
        (&none, "TLSv1.3", None, false, false),
        (&old, "TLSv1.2", Some(b"h2"), true, false),
        (&old, "TLSv1.2", Some(b"h2"), true, true),
    ] {
        let mut client = handshake(client_connection(config, NAME), connect(&tidegate.at("in"))).unwrap();
        let (from, to) = (client.sock.local_addr().unwrap(), client.sock.peer_addr().unwrap());
        let mut backend = scripted.accept();
        let (header, _) = header_of(&mut backend);
        client.write_all(b"hello").unwrap();
        expect(&mut backend, b"hello");
        backend.write_all(b"world").unwrap();
        client.read_exact(&mut [0; 5]).unwrap(); // and the tickets before it
        assert_eq!(client.conn.handshake_kind() == Some(HandshakeKind::Resumed), resumed);

        assert_eq!(header.proxied_address().cloned(), stream(from, to));
        assert_eq!(header.authority(), Some(NAME));
        assert_eq!(header.alpn(), alpn);
        let ssl = header.ssl().expect("what became of TLS");
        assert_eq!(ssl.version(), Some(version));
        let cipher = client.conn.negotiated_cipher_suite().expect("a suite").suite();
        let cipher = cipher.as_str().expect("a name").replace("TLS13_", "TLS_");
        assert_eq!(ssl.cipher(), Some(cipher.as_str()));
        assert!(ssl.client_ssl());
        assert_eq!((ssl.client_cert_conn(), ssl.client_cert_sess()), (shown && !resumed, shown));
        assert_eq!(ssl.verify() == 0, shown);
        assert_eq!(ssl.cn(), shown.then_some("client-7"));

        let id = unique_id(&header);
        drop((client, backend));
        let line = tidegate.wait_for_access("by its id", |line| line.field("id") == id);
        assert_eq!(line.field("client"), from.to_string());
        assert_eq!(line.bytes(), (5, 5));
    }
}

/// What is read of a ClientHello that is passed through.
#[test]
fn version_2_tells_the_name_of_a_connection_that_was_only_looked_at() {
    let (authority, scripted) = (Authority::new(), Scripted::start());
    let listener = "routes: [{ match: { sni: [\"*.example.test\"] }, pool: p }]";
    let tidegate = Tidegate::start(&forward(scripted.place(), listener, "send_proxy: v2"));
    let mut client = authority.client_for("a.example.test", &[]);
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    connect(&tidegate.at("in")).write_all(&hello).unwrap();
    let mut backend = scripted.accept();
    let (header, _) = header_of(&mut backend);
    assert_eq!(header.authority(), Some("a.example.test"));
    assert!(header.ssl().is_none(), "TLS did not end here");
    let mut rest = vec![0; hello.len()];
    backend.read_exact(&mut rest).unwrap();
    assert_eq!(rest, hello);
}

#[test]
fn the_header_comes_before_tls_to_the_backend() {
    let authority = Authority::new();
    let issued = authority.issue(&["db.example.test"]);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![issued.der.clone()], issued.private_key())
        .unwrap();
    let server = Arc::new(server);
    for starttls in ["off", "postgres"] {
        for version in ["v1", "v2"] {
            let scripted = Scripted::start();
            let pool = format!(
                "send_proxy: {version}, tls: {{ ca: {}, server_name: db.example.test, starttls: {starttls} }}",
                authority.file().display()
            );
            let tidegate = Tidegate::start(&forward(scripted.place(), "", &pool));
            let mut client = connect(&tidegate.at("in"));
            client.write_all(b"hello").unwrap();
            let mut backend = scripted.accept();
            let (header, _) = header_of(&mut backend);
            let ends = stream(client.local_addr().unwrap(), client.peer_addr().unwrap());
            assert_eq!(header.proxied_address().cloned(), ends);
            if starttls == "postgres" {
                expect(&mut backend, &SSL_REQUEST);
                backend.write_all(b"S").unwrap();
            }
            let mut tls = StreamOwned::new(ServerConnection::new(Arc::clone(&server)).unwrap(), backend);
            let mut got = [0; 5];
            tls.read_exact(&mut got).unwrap();
            assert_eq!(&got, b"hello");
            let name = ServerName::try_from(tls.conn.server_name().expect("SNI").to_owned()).unwrap();
            assert_eq!(name, ServerName::try_from("db.example.test").unwrap());
            assert!(header.ssl().is_none(), "the client's side has none");
        }
    }
}

/// A server that demands the header demands it of a probe too: one that says that it speaks for itself.
#[test]
fn health_checks_send_one() {
    for (version, wanted) in [("v1", &b"PROXY UNKNOWN\r\n"[..]), ("v2", b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0")] {
        let (header, length) = ProxyHeader::parse(wanted, ParseConfig::default()).expect("a header");
        assert_eq!((header.proxied_address(), length), (None, wanted.len()));

        let (backend, asked) = pong();
        let check = "health: { exchange: { send: \"PING\\r\\n\", expect: \"+PONG\" } }";
        let tidegate = Tidegate::start(&forward(backend.place(), "", &format!("send_proxy: {version}, {check}")));
        tidegate.wait_for_up("b");
        assert_eq!(asked.recv().unwrap(), [wanted, b"PING\r\n"].concat());

        // A mere connect as well: servers complain of one that is closed without a header.
        let (backend, asked) = pong();
        let check = "health: { tcp: {} }";
        let tidegate = Tidegate::start(&forward(backend.place(), "", &format!("send_proxy: {version}, {check}")));
        tidegate.wait_for_up("b");
        assert_eq!(asked.recv().unwrap(), wanted);
    }
}

/// At a port of its own, a health check asks another service.
#[test]
fn health_checks_of_another_port_send_none() {
    let (page, asked) = pong();
    let backend = SocketAddr::new(page.address().ip(), 1);
    let port = page.address().port();
    let check = format!("health: {{ exchange: {{ send: \"PING\\r\\n\", expect: \"+PONG\" }}, port: {port} }}");
    let tidegate = Tidegate::start(&forward(backend, "", &format!("send_proxy: v2, {check}")));
    tidegate.wait_for_up("b");
    assert_eq!(asked.recv().unwrap(), b"PING\r\n");
}

/// A backend that answers a PING, and tells what each connection has sent up to that, or up to its end.
fn pong() -> (Backend, Receiver<Vec<u8>>) {
    let (sender, asked) = mpsc::channel();
    let backend = Backend::start(in_thread(move |mut stream| {
        let (mut bytes, mut byte) = (Vec::new(), [0]);
        while !bytes.ends_with(b"PING\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
            bytes.push(byte[0]);
        }
        _ = sender.send(bytes);
        _ = stream.write_all(b"+PONG\r\n");
    }));
    (backend, asked)
}

/// A chain: what the balancer in front says of the connection reaches the backend and the log.
#[test]
fn tlvs_of_a_trusted_peer_go_on() {
    let scripted = Scripted::start();
    let listener = "proxy_protocol: { trusted: [127.0.0.0/8] }";
    let tidegate = Tidegate::start(&forward(scripted.place(), listener, "send_proxy: v2"));
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11".to_vec();
    let mut rest = vec![192, 0, 2, 1, 192, 0, 2, 2, 0x30, 0x39, 0x15, 0x38];
    for (kind, value) in [(0x02_u8, &b"db.example"[..]), (0xea, b"\x01vpce-0abc"), (0xe4, &[0, 255]), (0x04, b"pad")] {
        rest.push(kind);
        rest.extend_from_slice(&(value.len() as u16).to_be_bytes());
        rest.extend_from_slice(value);
    }
    header.extend_from_slice(&(rest.len() as u16).to_be_bytes());
    header.extend_from_slice(&rest);
    let mut client = connect(&tidegate.at("in"));
    client.write_all(&header).unwrap();
    client.write_all(b"hello").unwrap();
    let mut backend = scripted.accept();
    let (sent, _) = header_of(&mut backend);
    expect(&mut backend, b"hello");
    let proxied = stream("192.0.2.1:12345".parse().unwrap(), "192.0.2.2:5432".parse().unwrap());
    assert_eq!(sent.proxied_address().cloned(), proxied);
    assert_eq!(sent.authority(), Some("db.example"));
    drop((client, backend));
    let line = tidegate.only_access();
    assert_eq!(unique_id(&sent), line.field("id"), "its own");
    assert_eq!(
        line.json("proxy_tlvs"),
        serde_json::json!([
            { "type": "authority", "value": "db.example" },
            { "type": "aws_vpc_endpoint_id", "value": "vpce-0abc" },
            { "type": "0xe4", "value": "00ff" },
        ])
    );
}
