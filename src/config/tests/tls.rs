//! TLS of listeners and pools, from the file to the model.

use super::*;

fn files(cert: &str, key: &str) -> CertificateFiles {
    CertificateFiles { cert: cert.into(), key: PathBuf::from(key).into() }
}

#[test]
fn termination_without_optional_keys_has_their_defaults() {
    let expected = ListenerTls {
        certificates: vec![files("a.pem", "a.key")],
        unknown_sni: UnknownSni::Default,
        min_version: TlsVersion::V1_2,
        max_version: TlsVersion::V1_3,
        alpn: vec![],
        client_auth: None,
        starttls: None,
        plaintext: Plaintext::Refuse,
        session_tickets: true,
        session_cache: 0,
    };
    assert_eq!(listener("tls: { certificates: [{ cert: a.pem, key: a.key }] }").tls, Some(expected.clone()));
    let written = "tls: { certificates: [{ cert: a.pem, key: a.key }], unknown_sni: default, min_version: 1.2, max_version: 1.3, session_cache: 0, alpn: [], \
                   client_auth: { mode: off, ca: , crl: }, starttls: off, plaintext: refuse, session_tickets: true }";
    assert_eq!(listener(written).tls, Some(expected));
}

#[test]
fn termination_arrives_as_written() {
    let tls = listener(
        "tls: { certificates: [{ cert: certs/a.pem, key: certs/a.key }, { cert: /b.pem, key: /b.pem }], \
         unknown_sni: refuse, min_version: 1.2, max_version: 1.2, session_cache: 77, alpn: [postgresql, h2], \
         client_auth: { mode: optional, ca: ca.pem, crl: crl.pem }, starttls: postgres, plaintext: allow, \
         session_tickets: false }",
    )
    .tls;
    let expected = ListenerTls {
        certificates: vec![files("certs/a.pem", "certs/a.key"), files("/b.pem", "/b.pem")],
        unknown_sni: UnknownSni::Refuse,
        min_version: TlsVersion::V1_2,
        max_version: TlsVersion::V1_2,
        alpn: vec!["postgresql".into(), "h2".into()],
        client_auth: Some(ClientAuth::Verify(VerifiedClients {
            required: false,
            ca: "ca.pem".into(),
            crl: Some("crl.pem".into()),
        })),
        starttls: Some(StartTls::Postgres),
        plaintext: Plaintext::Allow,
        session_tickets: false,
        session_cache: 77,
    };
    assert_eq!(tls, Some(expected));
    let tls = listener(
        "tls: { certificates: [{ cert: a, key: b }], min_version: '1.3', client_auth: { mode: required, ca: c } }",
    )
    .tls
    .unwrap();
    assert_eq!(tls.min_version, TlsVersion::V1_3);
    assert_eq!(
        tls.client_auth,
        Some(ClientAuth::Verify(VerifiedClients { required: true, ca: "c".into(), crl: None }))
    );
    let tls = listener("tls: { certificates: [{ cert: a, key: b }], client_auth: { mode: request } }").tls.unwrap();
    assert_eq!(tls.client_auth, Some(ClientAuth::Request));
}

#[test]
fn tls_to_the_backends_arrives_as_written() {
    let defaults = PoolTls {
        verify: Verify::Full,
        ca: Authorities::System,
        server_name: NameSource::Backend,
        alpn: vec![],
        client_certificate: None,
        starttls: None,
        resumption: true,
    };
    assert_eq!(pool("tls: {}").tls, Some(defaults));
    let written = pool(
        "send_proxy: v1, tls: { verify: ca, ca: ca.pem, server_name: db.internal, alpn: [postgresql], \
         client_certificate: { cert: c.pem, key: c.key }, starttls: postgres, resumption: false }",
    );
    let expected = PoolTls {
        verify: Verify::Ca,
        ca: Authorities::File("ca.pem".into()),
        server_name: NameSource::Fixed("db.internal".into()),
        alpn: vec!["postgresql".into()],
        client_certificate: Some(files("c.pem", "c.key")),
        starttls: Some(StartTls::Postgres),
        resumption: false,
    };
    assert_eq!(written.tls, Some(expected));
    assert_eq!(written.send_proxy, Some(SendProxy::V1));
    assert_eq!(pool("send_proxy: v2").send_proxy, Some(SendProxy::V2));
    assert_eq!(pool("send_proxy: off").send_proxy, None);
    assert_eq!(pool("tls: null").tls, None);
    assert_eq!(pool("tls: { verify: off, server_name: '::1' }").tls.unwrap().verify, Verify::Off);
}

#[test]
fn server_name_defaults_to_the_address_and_is_required_of_unix_sockets() {
    let yaml = |address: &str, tls: &str| {
        with("", &format!("tls: {tls}")).replace("address: db.example:2", &format!("address: {address}"))
    };
    let takes = |address: &str, tls: &str| parse("test.yaml", &yaml(address, tls), &Unread).is_ok();
    assert!(takes("10.0.0.1:5432", "{}"));
    assert!(takes("unix:/run/app.sock", "{ server_name: app.internal }"));
    assert!(takes("unix:/run/app.sock", "{ verify: ca }"));
    assert!(!takes("unix:/run/app.sock", "{}"));
}

#[test]
fn mysql_asks_for_tls_in_its_own_protocol() {
    let both = with(
        "tls: { certificates: [{ cert: a, key: b }], starttls: mysql, plaintext: allow }",
        "tls: { starttls: mysql }",
    );
    let parsed = parse("test.yaml", &both, &Unread).unwrap();
    assert_eq!(parsed.warnings.len(), 0, "{:?}", parsed.warnings);
    let (listener, pool) = (&parsed.config.listeners[0], &parsed.config.pools[0]);
    assert_eq!(listener.tls.as_ref().unwrap().starttls, Some(StartTls::Mysql));
    assert_eq!(pool.tls.as_ref().unwrap().starttls, Some(StartTls::Mysql));
    assert_eq!(listener.speaks(), Some(SpokenProtocol::Mysql));
    assert!(listener.server_speaks_first());
}
