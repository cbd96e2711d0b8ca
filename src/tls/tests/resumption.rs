//! Sessions that are resumed, and until when. Time is what the tests say it is.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{ExtendedKeyUsagePurpose, KeyPair, date_time_ymd};
use rustls::version::{TLS12, TLS13};
use rustls::{
    CertificateError, ClientConfig, Error, HandshakeKind, RootCertStore, ServerConfig, SupportedProtocolVersion,
};

use super::handshakes::bare_server;
use crate::config::model::{ClientAuth, ListenerTls, PoolTls, TlsVersion, VerifiedClients, Verify};
use crate::tls::provider::provider;
use crate::tls::testing::{Authority, Folder, HandshakeFailure, Pair, SetClock, handshake, pool_handshake};
use crate::tls::{Acceptor, Connector};

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// A whole second, which is how certificates count.
fn present() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

/// The first of January, at midnight.
fn new_year(year: i32) -> u64 {
    u64::try_from(date_time_ymd(year, 1, 1).unix_timestamp()).unwrap()
}

fn until(authority: &Authority, names: &[&str], end: u64, uses: ExtendedKeyUsagePurpose) -> Pair {
    authority.issue_with(names, &KeyPair::generate().unwrap(), |params| {
        params.not_after = (SystemTime::UNIX_EPOCH + Duration::from_secs(end)).into();
        params.extended_key_usages = vec![uses];
    })
}

/// A listener that wants certificates, and a client with one of TLS.
struct ResumptionStage {
    folder: Folder,
    servers: Authority,
    clients: Authority,
    clock: Arc<SetClock>,
}

impl ResumptionStage {
    fn new(clients: Authority) -> ResumptionStage {
        ResumptionStage {
            folder: Folder::new(),
            servers: Authority::new("servers"),
            clients,
            clock: SetClock::at(present()),
        }
    }

    fn listener(&self, required: bool, crl: Option<String>) -> Acceptor {
        let clients = self.folder.client_auth(&self.clients, required);
        let crl = crl.map(|list| self.folder.write("clients.crl", list));
        let pair = self.folder.pair("server", &self.servers.issue(&["localhost"]));
        let client_auth = Some(ClientAuth::Verify(VerifiedClients { crl, ..clients }));
        let tls = ListenerTls { client_auth, ..self.folder.listener(vec![pair]) };
        Acceptor::with_clock("web", &tls, self.clock.clone()).unwrap()
    }

    fn client(&self, version: &'static SupportedProtocolVersion, own: Option<&Pair>) -> Arc<ClientConfig> {
        use rustls::pki_types::pem::PemObject;
        let mut roots = RootCertStore::empty();
        roots.add(self.servers.der()).unwrap();
        let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[version]).unwrap();
        let builder = builder.with_root_certificates(roots);
        Arc::new(match own {
            None => builder.with_no_client_auth(),
            Some(Pair { cert, key }) => {
                let chain = rustls::pki_types::CertificateDer::pem_slice_iter(cert.as_bytes()).map(Result::unwrap);
                let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain.collect(), key).unwrap()
            }
        })
    }
}

fn kind(client: &Arc<ClientConfig>, server: &Acceptor) -> Result<HandshakeKind, HandshakeFailure> {
    // A group that is not the first choice costs a round trip more, and is no other kind of verification.
    Ok(match handshake(client, &server.current(), "localhost")?.server.handshake_kind().unwrap() {
        HandshakeKind::FullWithHelloRetryRequest => HandshakeKind::Full,
        kind => kind,
    })
}

#[track_caller]
fn assert_expired(result: &Result<HandshakeKind, HandshakeFailure>) {
    let Err(HandshakeFailure::Server(Error::InvalidCertificate(CertificateError::ExpiredContext { .. }))) = result
    else {
        panic!("{result:?}")
    };
}

#[test]
fn a_clients_session_ends_with_its_certificate() {
    for version in VERSIONS {
        let stage = ResumptionStage::new(Authority::new("clients"));
        let (start, end) = (present(), present() + 1000);
        let own = until(&stage.clients, &[], end, ExtendedKeyUsagePurpose::ClientAuth);
        let server = stage.listener(true, None);
        let client = stage.client(version, Some(&own));
        assert_eq!(kind(&client, &server), Ok(HandshakeKind::Full), "{version:?}");
        assert_eq!(kind(&client, &server), Ok(HandshakeKind::Resumed), "{version:?}");
        // What is given at a resumption rests on the same certificate, however often.
        for passed in [300, 600, 900] {
            stage.clock.set(start + passed);
            assert_eq!(kind(&client, &server), Ok(HandshakeKind::Resumed), "{version:?} after {passed} s");
        }
        stage.clock.set(end);
        assert_eq!(kind(&client, &server), Ok(HandshakeKind::Resumed), "{version:?}: its last second");
        stage.clock.set(end + 1);
        assert_expired(&kind(&client, &server));
    }
}

#[test]
fn a_clients_session_ends_with_the_authority_and_with_the_revocation_list() {
    for version in VERSIONS {
        let ends_2040 = || Authority::with("clients", |params| params.not_after = date_time_ymd(2040, 1, 1));
        for (clients, has_list) in [(ends_2040(), false), (Authority::new("clients"), true)] {
            let stage = ResumptionStage::new(clients);
            let list = has_list.then(|| stage.clients.revoke(&[], 2040));
            let server = stage.listener(true, list);
            let client = stage.client(version, Some(&stage.clients.issue_client(1)));
            assert_eq!(kind(&client, &server), Ok(HandshakeKind::Full), "{version:?}");
            stage.clock.set(new_year(2040));
            assert_eq!(kind(&client, &server), Ok(HandshakeKind::Resumed), "{version:?}");
            // A full handshake still takes them: their end was warned of, and is the operator's to decide.
            stage.clock.set(new_year(2040) + 1);
            for _ in 0..3 {
                assert_eq!(kind(&client, &server), Ok(HandshakeKind::Full), "{version:?}, list: {has_list}");
            }
        }
    }
}

#[test]
fn a_client_without_a_certificate_resumes_without_one() {
    for version in VERSIONS {
        let stage = ResumptionStage::new(Authority::new("clients"));
        let server = stage.listener(false, Some(stage.clients.revoke(&[], 2040)));
        let client = stage.client(version, None);
        assert_eq!(kind(&client, &server), Ok(HandshakeKind::Full), "{version:?}");
        stage.clock.set(new_year(2050));
        assert_eq!(kind(&client, &server), Ok(HandshakeKind::Resumed), "{version:?}");
    }
}

/// One ticket in the hands of another connection: each has a bound of its own.
#[test]
fn one_clients_end_is_not_anothers() {
    let stage = ResumptionStage::new(Authority::new("clients"));
    let (soon, later) = (present() + 100, present() + 10_000);
    let server = stage.listener(true, None);
    let of = |end| stage.client(&TLS13, Some(&until(&stage.clients, &[], end, ExtendedKeyUsagePurpose::ClientAuth)));
    let (short, long) = (of(soon), of(later));
    for client in [&short, &long, &short, &long] {
        kind(client, &server).unwrap();
    }
    stage.clock.set(soon + 1);
    assert_expired(&kind(&short, &server));
    assert_eq!(kind(&long, &server), Ok(HandshakeKind::Resumed));
}

fn pool_kind(client: &Connector, server: &Arc<ServerConfig>) -> Result<HandshakeKind, HandshakeFailure> {
    let ends = pool_handshake(client, server, "localhost")?;
    Ok(match ends.client.handshake_kind().unwrap() {
        HandshakeKind::FullWithHelloRetryRequest => HandshakeKind::Full,
        kind => kind,
    })
}

/// Tickets, and sessions that the backend keeps.
#[test]
fn a_backends_session_ends_with_its_certificate() {
    for version in VERSIONS {
        for has_tickets in [true, false] {
            let (folder, authority) = (Folder::new(), Authority::new("authority"));
            let (start, end) = (present(), present() + 1000);
            let own = until(&authority, &["localhost"], end, ExtendedKeyUsagePurpose::ServerAuth);
            let mut server = bare_server(&own, &[version]).as_ref().clone();
            if has_tickets {
                server.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().unwrap();
            }
            let server = Arc::new(server);
            let clock = SetClock::at(start);
            let new = |verify| Connector::with_clock("db", &folder.pool(verify, &authority), clock.clone()).unwrap();
            let (full, off) = (new(Verify::Full), new(Verify::Off));
            for pool in [&full, &off] {
                assert_eq!(pool_kind(pool, &server), Ok(HandshakeKind::Full), "{version:?} {has_tickets}");
                assert_eq!(pool_kind(pool, &server), Ok(HandshakeKind::Resumed), "{version:?} {has_tickets}");
            }
            clock.set(start + 900);
            assert_eq!(pool_kind(&full, &server), Ok(HandshakeKind::Resumed), "{version:?} {has_tickets}");
            clock.set(end);
            assert_eq!(pool_kind(&full, &server), Ok(HandshakeKind::Resumed), "{version:?} {has_tickets}");
            clock.set(end + 1);
            let refusal = pool_kind(&full, &server);
            let Err(HandshakeFailure::Client(Error::InvalidCertificate(CertificateError::ExpiredContext { .. }))) =
                refusal
            else {
                panic!("{version:?} {has_tickets}: {refusal:?}")
            };
            assert_eq!(pool_kind(&off, &server), Ok(HandshakeKind::Resumed), "it rests on no certificate");
        }
    }
}

/// A handshake that one side has not finished says nothing of its certificate.
#[test]
fn a_backends_session_is_not_resumed_before_it_is_known_what_it_rests_on() {
    for version in VERSIONS {
        let (folder, authority) = (Folder::new(), Authority::new("authority"));
        let server = bare_server(&authority.issue(&["localhost"]), &[version]);
        let pool = Connector::new("db", &folder.pool(Verify::Full, &authority)).unwrap();
        for _ in 0..2 {
            let (config, _) = pool.config(Vec::new());
            let ends = handshake(&config, &server, "localhost").unwrap();
            assert_ne!(ends.client.handshake_kind(), Some(HandshakeKind::Resumed), "{version:?}");
        }
    }
}

/// A session cache takes the place of tickets, and ends where they would.
#[test]
fn sessions_are_kept_for_clients_without_tickets() {
    for version in VERSIONS {
        let stage = ResumptionStage::new(Authority::new("clients"));
        let (pair, end) = (stage.folder.pair("server", &stage.servers.issue(&["localhost"])), present() + 1000);
        let listener = |session_cache| {
            let clients = ClientAuth::Verify(stage.folder.client_auth(&stage.clients, true));
            let listener = stage.folder.listener(vec![pair.clone()]);
            let tls = ListenerTls { client_auth: Some(clients), session_tickets: false, session_cache, ..listener };
            Acceptor::with_clock("web", &tls, stage.clock.clone()).unwrap()
        };
        let own = until(&stage.clients, &[], end, ExtendedKeyUsagePurpose::ClientAuth);
        let (without, server) = (listener(0), listener(100));
        let client = stage.client(version, Some(&own));
        assert_eq!([(); 2].map(|()| kind(&client, &without)), [Ok(HandshakeKind::Full), Ok(HandshakeKind::Full)]);
        let client = stage.client(version, Some(&own));
        assert_eq!(kind(&client, &server), Ok(HandshakeKind::Full), "{version:?}");
        assert_eq!(kind(&client, &server), Ok(HandshakeKind::Resumed), "{version:?}");
        stage.clock.set(end + 1);
        assert_expired(&kind(&client, &server));
    }
}

#[test]
fn without_resumption_each_handshake_with_a_backend_is_full() {
    let stage = ResumptionStage::new(Authority::new("clients"));
    let server = stage.listener(false, None);
    for (resumption, second) in [(true, HandshakeKind::Resumed), (false, HandshakeKind::Full)] {
        let pool = PoolTls { resumption, ..stage.folder.pool(Verify::Full, &stage.servers) };
        let connector = Connector::new("web", &pool).unwrap();
        assert_eq!(pool_kind(&connector, &server.current()), Ok(HandshakeKind::Full));
        assert_eq!(pool_kind(&connector, &server.current()), Ok(second));
    }
}

#[test]
fn versions_are_bounded_on_both_sides_and_any_certificate_is_taken_on_request() {
    let stage = ResumptionStage::new(Authority::new("clients"));
    let pair = stage.folder.pair("server", &stage.servers.issue(&["localhost"]));
    let stranger = Authority::new("strangers").issue_client(1);
    let of = |min_version, max_version| {
        let listener = stage.folder.listener(vec![pair.clone()]);
        let tls = ListenerTls { min_version, max_version, client_auth: Some(ClientAuth::Request), ..listener };
        Acceptor::with_clock("web", &tls, stage.clock.clone()).unwrap()
    };
    for (version, min, max, fits) in [
        (&TLS12, TlsVersion::V1_2, TlsVersion::V1_2, true),
        (&TLS13, TlsVersion::V1_2, TlsVersion::V1_2, false),
        (&TLS12, TlsVersion::V1_3, TlsVersion::V1_3, false),
        (&TLS13, TlsVersion::V1_2, TlsVersion::V1_3, true),
    ] {
        for own in [None, Some(&stranger)] {
            let done = handshake(&stage.client(version, own), &of(min, max).current(), "localhost");
            assert_eq!(done.is_ok(), fits, "{version:?}");
            if let Ok(done) = done {
                assert_eq!(done.server.peer_certificates().is_some(), own.is_some());
            }
        }
    }
}
