//! What a listener and a pool agree on, with the real rustls on both ends.

use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{KeyPair, PKCS_RSA_SHA256, SanType, date_time_ymd};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, Error, HandshakeKind, NamedGroup, PeerIncompatible,
    ProtocolVersion, RootCertStore, SupportedProtocolVersion,
};

use crate::config::model::{
    Authorities, BackendAddress, ClientAuth, ListenerTls, NameSource, PoolTls, StartTls, TlsVersion, Verify,
};
use crate::tls::explain::explain;
use crate::tls::provider::provider;
use crate::tls::testing::{Authority, Established, Folder, HandshakeFailure, Pair, handshake};
use crate::tls::{Acceptor, Connector};

/// A listener for `localhost`, and a pool that knows who issued its certificate.
struct HandshakeStage {
    folder: Folder,
    authority: Authority,
}

impl HandshakeStage {
    fn new() -> HandshakeStage {
        HandshakeStage { folder: Folder::new(), authority: Authority::new("authority") }
    }

    fn listener(&self) -> ListenerTls {
        self.listener_with(&self.authority.issue(&["localhost"]))
    }

    fn listener_with(&self, pair: &Pair) -> ListenerTls {
        self.folder.listener(vec![self.folder.pair("server", pair)])
    }

    fn pool(&self) -> PoolTls {
        self.folder.pool(Verify::Full, &self.authority)
    }

    /// A client that can do less than a pool.
    fn client(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        change: impl FnOnce(&mut CryptoProvider),
    ) -> Arc<ClientConfig> {
        let mut abilities = provider().as_ref().clone();
        change(&mut abilities);
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der()).unwrap();
        let builder = ClientConfig::builder_with_provider(abilities.into()).with_protocol_versions(versions).unwrap();
        Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
    }
}

fn server(tls: &ListenerTls) -> Acceptor {
    Acceptor::new("web", tls).unwrap()
}

fn client(tls: &PoolTls) -> Arc<ClientConfig> {
    Connector::new("web", tls).unwrap().current()
}

fn meet(pool: &PoolTls, listener: &ListenerTls) -> Result<Established, HandshakeFailure> {
    handshake(&client(pool), &server(listener).current(), "localhost")
}

fn kind(client: &Arc<ClientConfig>, server: &Acceptor) -> HandshakeKind {
    handshake(client, &server.current(), "localhost").unwrap().client.handshake_kind().unwrap()
}

#[test]
fn the_newest_version_and_the_hybrid_group_are_agreed_on() {
    let stage = HandshakeStage::new();
    let ends = meet(&stage.pool(), &stage.listener()).unwrap();
    assert_eq!(ends.server.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(ends.server.negotiated_key_exchange_group().unwrap().name(), NamedGroup::X25519MLKEM768);
    assert_eq!(ends.server.alpn_protocol(), None);
}

#[test]
fn min_version_refuses_older_clients() {
    let stage = HandshakeStage::new();
    let old = stage.client(&[&TLS12], |_| {});
    let mut listener = stage.listener();
    let ends = handshake(&old, &server(&listener).current(), "localhost").unwrap();
    assert_eq!(ends.server.protocol_version(), Some(ProtocolVersion::TLSv1_2));

    listener.min_version = TlsVersion::V1_3;
    let refusal = handshake(&old, &server(&listener).current(), "localhost").unwrap_err();
    let HandshakeFailure::Server(error) = refusal else { panic!("{refusal:?}") };
    assert_eq!(explain(&error), "no version of TLS in common");
    let new = stage.client(&[&TLS13], |_| {});
    assert!(handshake(&new, &server(&listener).current(), "localhost").is_ok());
}

#[test]
fn application_protocols_are_chosen_in_the_listeners_order() {
    let stage = HandshakeStage::new();
    let with = |alpn: &[&str], starttls| ListenerTls {
        alpn: alpn.iter().map(|protocol| (*protocol).into()).collect(),
        starttls,
        ..stage.listener()
    };
    let chosen = |listener: &ListenerTls, offered: &[&str]| {
        let alpn = offered.iter().map(|protocol| (*protocol).into()).collect();
        let ends = meet(&PoolTls { alpn, ..stage.pool() }, listener)?;
        Ok(ends.server.alpn_protocol().map(|protocol| String::from_utf8(protocol.to_vec()).unwrap()))
    };
    let web = with(&["h2", "http/1.1"], None);
    assert_eq!(chosen(&web, &["http/1.1", "h2"]), Ok(Some("h2".to_owned())));
    assert_eq!(chosen(&web, &[]), Ok(None));
    assert_eq!(chosen(&web, &["other"]), Err(HandshakeFailure::Server(Error::NoApplicationProtocol)));
    assert_eq!(chosen(&with(&[], None), &["other"]), Ok(None));

    let postgres = with(&[], Some(StartTls::Postgres));
    assert_eq!(chosen(&postgres, &["postgresql"]), Ok(Some("postgresql".to_owned())));
    assert_eq!(chosen(&with(&["mine"], Some(StartTls::Postgres)), &["mine"]), Ok(Some("mine".to_owned())));
}

#[test]
fn the_certificate_is_the_one_for_the_name() {
    let (folder, authority) = (Folder::new(), Authority::new("authority"));
    let sets: [&[&str]; 4] =
        [&["default.org"], &["*.example.com", "example.com"], &["db.example.com"], &["Mixed.Example.NET"]];
    let pairs: Vec<_> = sets.iter().map(|names| authority.issue(names)).collect();
    let files = pairs.iter().enumerate().map(|(place, pair)| folder.pair(&place.to_string(), pair)).collect();
    let server = server(&folder.listener(files));
    let anybody = client(&folder.pool(Verify::Off, &authority));
    let cases = [
        ("default.org", 0, true),
        ("example.com", 1, true),
        ("web.example.com", 1, true),
        ("WEB.Example.COM", 1, true),
        ("db.example.com", 2, true),
        ("DB.example.com", 2, true),
        ("mixed.example.net", 3, true),
        ("a.web.example.com", 0, false),
        ("unknown.org", 0, false),
        ("com", 0, false),
    ];
    for (name, place, is_known) in cases {
        let ends = handshake(&anybody, &server.current(), name).unwrap();
        let facts = &server.reload_status().facts[place];
        let expected = std::fs::read_to_string(&facts.path).unwrap();
        let shown = ends.client.peer_certificates().unwrap()[0].to_vec();
        let der = <rustls::pki_types::CertificateDer<'_> as rustls::pki_types::pem::PemObject>::from_pem_slice(
            expected.as_bytes(),
        );
        assert_eq!(shown, der.unwrap().to_vec(), "{name}");
        assert_eq!(server.knows(Some(name)), is_known, "{name}");
    }
    assert!(server.knows(Some("db.example.com.")), "a dot at the end does not matter");
    assert!(!server.knows(None));
    // An address is not sent as a name: the default.
    assert!(handshake(&anybody, &server.current(), "127.0.0.1").is_ok());
}

#[test]
fn of_two_kinds_of_key_the_client_gets_the_one_it_can_verify() {
    let stage = HandshakeStage::new();
    let rsa = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
    let ecdsa = stage.folder.pair("ecdsa", &stage.authority.issue(&["localhost"]));
    let rsa = stage.folder.pair("rsa", &stage.authority.issue_with(&["localhost"], &rsa, |_| {}));
    let server = server(&stage.folder.listener(vec![ecdsa, rsa]));
    let speaks = |suite: &str| {
        stage.client(&[&TLS12], |provider| {
            provider.cipher_suites.retain(|known| format!("{:?}", known.suite()).contains(suite));
        })
    };
    for (suite, length) in [("ECDHE_RSA", 2048 / 8), ("ECDHE_ECDSA", 32)] {
        // Also as the default, for a name that nobody knows, which fails only at the client.
        let ends = handshake(&speaks(suite), &server.current(), "localhost").unwrap();
        let shown = ends.client.peer_certificates().unwrap()[0].len();
        assert_eq!(shown > 512, length == 256, "{suite}: {shown} bytes");
        let refusal = handshake(&speaks(suite), &server.current(), "unknown.org").unwrap_err();
        let HandshakeFailure::Client(Error::InvalidCertificate(CertificateError::NotValidForNameContext { .. })) =
            refusal
        else {
            panic!("{suite}: {refusal:?}")
        };
    }
}

#[test]
fn ten_thousand_names_are_looked_up_like_one() {
    let (folder, authority) = (Folder::new(), Authority::new("authority"));
    // A certificate has room for 64 KiB of them.
    let files = (0..10).map(|tens| {
        let names: Vec<String> = (0..1000).map(|number| format!("n{}.example.com", 1000 * tens + number)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        folder.pair(&tens.to_string(), &authority.issue(&names))
    });
    let server = server(&folder.listener(files.collect()));
    assert!((0..10_000).all(|number| server.knows(Some(&format!("n{number}.example.com")))));
    assert!(!server.knows(Some("n10000.example.com")));
}

#[test]
fn clients_show_certificates_when_they_must_or_may() {
    let stage = HandshakeStage::new();
    let clients = Authority::new("clients");
    let with = |pair: Option<&Pair>| PoolTls {
        client_certificate: pair.map(|pair| stage.folder.pair("client", pair)),
        ..stage.pool()
    };
    let listener = |required| ListenerTls {
        client_auth: Some(ClientAuth::Verify(stage.folder.client_auth(&clients, required))),
        ..stage.listener()
    };
    let good = clients.issue_client(1);

    let shown = |ends: Established| ends.server.peer_certificates().map_or(0, <[_]>::len);
    assert_eq!(shown(meet(&with(Some(&good)), &stage.listener()).unwrap()), 0, "it was not asked for");
    for required in [true, false] {
        assert_eq!(shown(meet(&with(Some(&good)), &listener(required)).unwrap()), 1);
        let stranger = Authority::new("clients").issue_client(1);
        let refusal = meet(&with(Some(&stranger)), &listener(required)).unwrap_err();
        let HandshakeFailure::Server(error @ Error::InvalidCertificate(_)) = refusal else { panic!("{refusal:?}") };
        assert!(
            ["the certificate's signature is wrong", "the certificate was issued by an unknown authority"]
                .contains(&explain(&error).as_str())
        );
    }
    assert_eq!(shown(meet(&with(None), &listener(false)).unwrap()), 0);
    let refusal = meet(&with(None), &listener(true)).unwrap_err();
    assert_eq!(refusal, HandshakeFailure::Server(Error::NoCertificatesPresented));
}

#[test]
fn revoked_clients_are_refused_and_so_are_those_of_whom_no_list_speaks() {
    let stage = HandshakeStage::new();
    let clients = Authority::new("clients");
    let with = |serial| PoolTls {
        client_certificate: Some(stage.folder.pair("client", &clients.issue_client(serial))),
        ..stage.pool()
    };
    let listener = |list: String| {
        let mut auth = stage.folder.client_auth(&clients, true);
        auth.crl = Some(stage.folder.write("clients.crl", list));
        ListenerTls { client_auth: Some(ClientAuth::Verify(auth)), ..stage.listener() }
    };
    // One list that is long past its time: it is used all the same.
    for next in [2040, 2025] {
        let listener = listener(clients.revoke(&[7], next));
        assert!(meet(&with(8), &listener).is_ok());
        let refusal = meet(&with(7), &listener).unwrap_err();
        assert_eq!(refusal, HandshakeFailure::Server(Error::InvalidCertificate(CertificateError::Revoked)));
    }
    let other = listener(Authority::new("other").revoke(&[], 2040));
    let refusal = meet(&with(8), &other).unwrap_err();
    assert_eq!(refusal, HandshakeFailure::Server(Error::InvalidCertificate(CertificateError::UnknownRevocationStatus)));
}

#[test]
fn sessions_are_resumed_by_tickets_of_the_same_listener_and_by_nothing_else() {
    let stage = HandshakeStage::new();
    for version in [&TLS12, &TLS13] {
        let (one, other) = (server(&stage.listener()), server(&stage.listener()));
        let client = stage.client(&[version], |_| {});
        assert_ne!(kind(&client, &one), HandshakeKind::Resumed);
        assert_eq!(kind(&client, &one), HandshakeKind::Resumed);
        assert_ne!(kind(&client, &other), HandshakeKind::Resumed, "a ticket of another listener");

        let without = server(&ListenerTls { session_tickets: false, ..stage.listener() });
        let client = stage.client(&[version], |_| {});
        for _ in 0..2 {
            assert_ne!(kind(&client, &without), HandshakeKind::Resumed, "{version:?}");
        }
    }
}

/// `full`, `ca` and `off` against one flaw at a time.
#[test]
fn each_kind_of_verification_finds_what_it_should() {
    let stage = HandshakeStage::new();
    let key = || KeyPair::generate().unwrap();
    let stranger = Authority::new("stranger");
    let (mine, theirs) = (&stage.authority, &stranger);
    let meets = |pair: &Pair, verify, name: &str| {
        let pool = stage.folder.pool(verify, mine);
        let config = bare_server(pair, &[&TLS12, &TLS13]);
        handshake(&client(&pool), &config, name).map(|_| ()).map_err(|refusal| match refusal {
            HandshakeFailure::Client(error) => explain(&error),
            HandshakeFailure::Server(error) => panic!("the server refused: {error}"),
        })
    };
    let good = mine.issue(&["localhost"]);
    let expired = mine.issue_with(&["localhost"], &key(), |params| params.not_after = date_time_ymd(2025, 6, 1));
    let early = mine.issue_with(&["localhost"], &key(), |params| params.not_before = date_time_ymd(3000, 6, 1));
    let foreign = theirs.issue(&["localhost"]);
    let for_clients = mine.issue_client(1);
    let purpose = "the certificate is for another purpose (extendedKeyUsage)";
    // What `full` finds; `ca` finds the same, but for the name.
    let cases = [
        ("good", &good, "localhost", None),
        ("name", &good, "other.org", Some("the certificate is not for other.org, but for localhost")),
        ("expired", &expired, "localhost", Some("the certificate has expired on 2025-06-01")),
        ("early", &early, "localhost", Some("the certificate is not valid before 3000-06-01")),
        ("foreign", &foreign, "localhost", Some("the certificate was issued by an unknown authority")),
        ("purpose", &for_clients, "localhost", Some(purpose)),
    ];
    for (what, pair, name, full) in cases {
        assert_eq!(meets(pair, Verify::Full, name).err().as_deref(), full, "{what}, full");
        let ca = full.filter(|_| what != "name");
        assert_eq!(meets(pair, Verify::Ca, name).err().as_deref(), ca, "{what}, ca");
        assert_eq!(meets(pair, Verify::Off, name), Ok(()), "{what}, off");
    }
}

/// A server that shows a certificate whatever is wrong with it.
pub(super) fn bare_server(pair: &Pair, versions: &[&'static SupportedProtocolVersion]) -> Arc<rustls::ServerConfig> {
    use rustls::pki_types::pem::PemObject;
    let chain = rustls::pki_types::CertificateDer::pem_slice_iter(pair.cert.as_bytes()).map(Result::unwrap).collect();
    let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
    let builder = rustls::ServerConfig::builder_with_provider(provider()).with_protocol_versions(versions);
    Arc::new(builder.unwrap().with_no_client_auth().with_single_cert(chain, key).unwrap())
}

/// Also where nothing else is verified, the peer must have the key of the certificate that it shows.
#[test]
fn a_certificate_without_its_key_is_never_enough() {
    use rustls::pki_types::pem::PemObject;
    let stage = HandshakeStage::new();
    let (shown, owned) = (stage.authority.issue(&["localhost"]), stage.authority.issue(&["localhost"]));
    let chain = vec![rustls::pki_types::CertificateDer::from_pem_slice(shown.cert.as_bytes()).unwrap()];
    let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(owned.key.as_bytes()).unwrap();
    let key = provider().key_provider.load_private_key(key).unwrap();
    let thief = rustls::sign::SingleCertAndKey::from(rustls::sign::CertifiedKey::new(chain, key));
    let thief = Arc::new(thief);
    for version in [&TLS12, &TLS13] {
        let builder = rustls::ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[version]);
        let config = Arc::new(builder.unwrap().with_no_client_auth().with_cert_resolver(thief.clone()));
        for verify in [Verify::Full, Verify::Ca, Verify::Off] {
            let refusal = handshake(&client(&stage.folder.pool(verify, &stage.authority)), &config, "localhost");
            let expected = HandshakeFailure::Client(Error::InvalidCertificate(CertificateError::BadSignature));
            assert_eq!(refusal.unwrap_err(), expected, "{version:?} {verify:?}");
        }
    }
}

#[test]
fn a_backend_is_known_by_its_host_or_by_what_is_configured() {
    let stage = HandshakeStage::new();
    let name = |pool: &PoolTls, address: &BackendAddress| {
        Connector::new("db", pool).unwrap().backend_name(address).map(|name| match name.0 {
            ServerName::IpAddress(ip) => std::net::IpAddr::from(ip).to_string(),
            other => other.to_str().into_owned(),
        })
    };
    let host = |host: &str| BackendAddress::Name { host: host.to_owned(), port: 5432 };
    let address = |text: &str| BackendAddress::Ip(text.parse::<SocketAddr>().unwrap());
    let unix = BackendAddress::Unix("/run/db.sock".into());
    let full = stage.pool();
    assert_eq!(name(&full, &host("db.Example.com.")).unwrap(), "db.example.com");
    assert_eq!(name(&full, &address("10.0.0.1:5432")).unwrap(), "10.0.0.1");
    assert_eq!(name(&full, &address("[::1]:5432")).unwrap(), "::1");
    assert!(name(&full, &unix).unwrap_err().contains("tls.server_name in pool db"));
    assert!(name(&full, &host("not a name")).unwrap_err().starts_with("not a name is no name"));
    assert!(name(&PoolTls { verify: Verify::Ca, ..full.clone() }, &unix).is_ok());

    let set = |text: &str| PoolTls { server_name: NameSource::Fixed(text.into()), ..full.clone() };
    for backend in [host("db.example.com"), address("10.0.0.1:5432"), unix] {
        assert_eq!(name(&set("main.example.com"), &backend).unwrap(), "main.example.com");
    }
    assert!(Connector::new("db", &set("a b")).unwrap_err().to_string().contains("a b is no name"));
}

#[test]
fn an_address_is_verified_like_a_name() {
    let stage = HandshakeStage::new();
    let key = KeyPair::generate().unwrap();
    let pair = stage.authority.issue_with(&[], &key, |params| {
        params.subject_alt_names = vec![SanType::IpAddress("127.0.0.1".parse().unwrap())];
    });
    let (pool, server) = (client(&stage.pool()), server(&stage.listener_with(&pair)));
    assert!(handshake(&pool, &server.current(), "127.0.0.1").is_ok());
    let refusal = handshake(&pool, &server.current(), "127.0.0.2").unwrap_err();
    let HandshakeFailure::Client(error) = refusal else { panic!("{refusal:?}") };
    assert_eq!(explain(&error), "the certificate is not for 127.0.0.2, but for 127.0.0.1");
}

#[test]
fn what_the_peer_refuses_is_told_in_words() {
    assert!(explain(&Error::AlertReceived(AlertDescription::UnknownCA)).contains("(unknown_ca)"));
    assert_eq!(
        explain(&Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon)),
        "no cipher suite in common"
    );
    let stage = HandshakeStage::new();
    let mut server = rustls::ServerConnection::new(server(&stage.listener()).current()).unwrap();
    server.read_tls(&mut &b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..]).unwrap();
    assert_eq!(explain(&server.process_new_packets().unwrap_err()), "the peer does not speak TLS");
}

#[test]
fn the_authorities_of_the_system_are_found_or_their_absence_is_explained() {
    let stage = HandshakeStage::new();
    let pool = PoolTls { ca: Authorities::System, ..stage.pool() };
    match Connector::new("web", &pool) {
        Ok(found) => {
            let refusal = handshake(&found.current(), &server(&stage.listener()).current(), "localhost").unwrap_err();
            let HandshakeFailure::Client(error) = refusal else { panic!("{refusal:?}") };
            assert_eq!(explain(&error), "the certificate was issued by an unknown authority");
        }
        Err(failure) => assert!(failure.to_string().contains("ca-certificates"), "{failure}"),
    }
}
