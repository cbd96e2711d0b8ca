//! The ClientHello of another implementation, as the recogniser of first bytes reads it.

use std::sync::OnceLock;

use proptest::prelude::*;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::sniff::Recognition;
use crate::sniff::client_hello::{ClientHello, NotTls, Version, recognise};

/// Bytes before a record's content: type, version, length.
const RECORD_HEADER: usize = 5;

/// A record of a handshake.
fn record(content: &[u8]) -> Vec<u8> {
    [&[0x16, 3, 1][..], &(content.len() as u16).to_be_bytes(), content].concat()
}

fn asked(server_name: Option<&str>, alpn: Vec<Vec<u8>>) -> Recognition<ClientHello, NotTls> {
    Recognition::Yes(ClientHello { server_name: server_name.map(Into::into), alpn, newest: Version::TLS_1_3 })
}

/// A ClientHello as rustls writes it: TLS 1.2 and 1.3, with the key of a post-quantum key agreement.
fn rustls_hello(name: &str, alpn: &[Vec<u8>]) -> Vec<u8> {
    static CONFIG: OnceLock<ClientConfig> = OnceLock::new();
    let new = || ClientConfig::builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    let mut config = CONFIG.get_or_init(new).clone();
    config.alpn_protocols = alpn.to_vec();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut bytes = Vec::new();
    ClientConnection::new(config.into(), name).unwrap().write_tls(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_post_quantum_hello_is_read() {
    let name = format!("{:a<60}.example.com", "db");
    let bytes = rustls_hello(&name, &[b"postgresql".to_vec()]);
    assert!(bytes.len() > 1500, "{}", bytes.len());
    assert_eq!(recognise(&bytes), asked(Some(&name), vec![b"postgresql".to_vec()]));
    assert_eq!(recognise(&rustls_hello("192.0.2.1", &[])), asked(None, Vec::new()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_another_implementation_writes_is_read_however_it_is_split(
        name in "[a-z]([a-z0-9]{0,10}[a-z0-9])?(\\.[a-z]([a-z0-9-]{0,20}[a-z])?){0,4}",
        alpn in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 0..5),
        sizes in prop::collection::vec(prop_oneof![1..20_usize, 1..2000_usize], 1..40),
        portions in prop::collection::vec(1..700_usize, 1..40),
        after: Vec<u8>,
    ) {
        let written = rustls_hello(&name, &alpn);
        let mut rest = &written[RECORD_HEADER..];
        let mut bytes = Vec::new();
        for size in sizes.iter().cycle() {
            let (part, others) = rest.split_at((*size).min(rest.len()));
            bytes.extend_from_slice(&record(part));
            rest = others;
            if rest.is_empty() {
                break;
            }
        }
        let length = bytes.len();
        bytes.extend_from_slice(&after);
        let wanted = asked(Some(&name), alpn);

        let mut here = 0;
        for portion in portions.iter().cycle() {
            let verdict = recognise(&bytes[..here]);
            if here < length {
                let Recognition::More(more) = verdict else { panic!("{verdict:?} at {here} of {length}") };
                prop_assert!(more.get() > here && more.get() <= length, "{} at {} of {}", more, here, length);
            } else {
                prop_assert_eq!(&verdict, &wanted);
            }
            if here == bytes.len() {
                break;
            }
            here = (here + portion).min(bytes.len());
        }
    }
}
