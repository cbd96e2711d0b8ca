//! What is said of files that cannot be used, or should not be.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use rcgen::{CertificateParams, KeyPair, PKCS_ED25519, PKCS_RSA_SHA256, date_time_ymd};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use crate::config::Severity;
use crate::config::files::{Diagnostic, Files, Part};
use crate::config::model::CertificateFiles;
use crate::tls::testing::{Authority, Folder, Pair};
use crate::tls::{OnDisk, describe};

/// What is said of these two files: `cert: error: message (hint)`, with the folder's path left out.
fn said(folder: &Folder, cert: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Vec<String> {
    let files = CertificateFiles { cert: folder.write("a.pem", cert), key: folder.write("a.key", key).into() };
    said_of(folder, &files)
}

fn said_of(folder: &Folder, files: &CertificateFiles) -> Vec<String> {
    let line = |(part, fault): &(Part, Diagnostic)| format!("{part:?}: {}", written(folder, fault)).to_lowercase();
    OnDisk.certificate(files).iter().map(line).collect()
}

fn written(folder: &Folder, fault: &Diagnostic) -> String {
    let severity = if fault.severity == Severity::Error { "error" } else { "warning" };
    let text = format!("{severity}: {} ({})", fault.message, fault.hint.as_deref().unwrap_or("no hint"));
    text.replace(&folder.path("").display().to_string(), "")
}

fn der(pem: &str) -> Vec<u8> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec()
}

#[test]
fn what_is_good_is_not_spoken_of() {
    let (folder, authority) = (Folder::new(), Authority::new("authority"));
    let rsa = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
    let ed25519 = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    for key in [&rsa, &ed25519, &KeyPair::generate().unwrap()] {
        let Pair { cert, key } = authority.issue_with(&["localhost", "10.0.0.1"], key, |_| {});
        let chain = format!("subject: a comment\r\n{cert}{}", authority.pem());
        assert_eq!(said(&folder, &chain, &key), [""; 0]);
        // Both in one file, as other programs want it.
        assert_eq!(said(&folder, format!("{cert}{key}"), format!("{key}{cert}")), [""; 0]);
    }
    assert_eq!(OnDisk.authorities(&folder.write("ca.pem", authority.pem())), []);
    assert_eq!(OnDisk.revocations(&folder.write("ca.crl", authority.revoke(&[1], 2040))), []);
}

#[test]
fn a_byte_order_mark_hides_no_section() {
    let (folder, authority) = (Folder::new(), Authority::new("authority"));
    let Pair { cert, key } = authority.issue(&["localhost"]);
    let marked = |text: &str| format!("\u{feff}{text}");
    assert_eq!(said(&folder, marked(&cert), marked(&key)), [""; 0]);
    assert_eq!(OnDisk.authorities(&folder.write("ca.pem", marked(&authority.pem()))), []);
    assert_eq!(OnDisk.revocations(&folder.write("ca.crl", marked(&authority.revoke(&[1], 2040)))), []);
    let wide: Vec<u8> = marked(&cert).encode_utf16().flat_map(u16::to_le_bytes).collect();
    let found = said(&folder, wide, &key);
    assert_eq!(
        found,
        ["cert: error: a.pem is text in utf-16, not pem (convert it: iconv -f utf-16 -t ascii a.pem >a.pem.pem)"]
    );
}

#[test]
fn each_wrong_file_is_named_with_what_to_do() {
    let (folder, authority) = (Folder::new(), Authority::new("authority"));
    let good = authority.issue(&["localhost"]);
    let other = authority.issue(&["localhost"]);
    let key = KeyPair::from_pem(&good.key).unwrap();
    let request = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let expired = authority.issue_with(&["localhost"], &key, |params| params.not_after = date_time_ymd(2025, 6, 1));
    let early = authority.issue_with(&["localhost"], &key, |params| params.not_before = date_time_ymd(3000, 6, 1));
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let older = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nMIIB\n-----END RSA PRIVATE KEY-----\n";
    let bundle = [&[0x30, 0x82, 0x0a, 0x00, 2, 1, 3][..], &[0; 40]].concat();
    let (cert_der, key_der) = (der(&good.cert), key.serialize_der());
    let reversed = format!("{}{}", authority.pem(), good.cert);
    let cut = &good.cert[..good.cert.len() - 40];
    let garbage = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    let public = key.public_key_pem();
    let cert = good.cert.as_bytes();
    let cases: [(&[u8], &[u8], &[&str]); 20] = [
        (b"", good.key.as_bytes(), &["cert: error: a.pem is empty"]),
        (b"hello", good.key.as_bytes(), &["cert: error: a.pem holds nothing in pem (a certificate begins with"]),
        (&cert_der, good.key.as_bytes(), &["cert: error: a.pem is der, not pem (convert it: openssl x509 -inform der"]),
        (
            &bundle,
            good.key.as_bytes(),
            &["cert: error: a.pem is a pkcs #12 bundle, not pem (take it apart: openssl pkcs12"],
        ),
        (
            cut.as_bytes(),
            good.key.as_bytes(),
            &["cert: error: a.pem is not good pem: -----end certificate----- is missing"],
        ),
        (garbage.as_bytes(), good.key.as_bytes(), &["cert: error: a.pem: cannot be understood"]),
        (
            request.as_bytes(),
            good.key.as_bytes(),
            &["cert: error: a.pem holds a certificate request, not a certificate"],
        ),
        (
            good.key.as_bytes(),
            cert,
            &[
                "cert: error: a.pem holds a private key and no certificate",
                "key: error: a.key holds a certificate and no private key",
            ],
        ),
        (cert, b"hello", &["key: error: a.key holds nothing in pem (a private key begins with"]),
        (cert, &key_der, &["key: error: a.key is der, not pem (convert it: openssl pkey -inform der"]),
        (
            cert,
            encrypted.as_bytes(),
            &["key: error: a.key holds an encrypted private key (take the password off: openssl pkey -in a.key"],
        ),
        (cert, older.as_bytes(), &["key: error: a.key holds an encrypted private key"]),
        (cert, public.as_bytes(), &["key: error: a.key holds a public key"]),
        (cert, other.key.as_bytes(), &["key: error: a.key does not belong to a.pem"]),
        (expired.cert.as_bytes(), good.key.as_bytes(), &["cert: warning: a.pem has expired on 2025-06-01 ("]),
        (early.cert.as_bytes(), good.key.as_bytes(), &["cert: warning: a.pem is not valid before 3000-06-01 (in "]),
        (
            reversed.as_bytes(),
            good.key.as_bytes(),
            &[
                "cert: warning: a.pem has no names",
                "cert: warning: a.pem: certificate 1 is not followed by its issuer's",
                "key: error: a.key belongs to certificate 2 in a.pem, not to the first",
            ],
        ),
        (
            b"-----BEGIN PKCS7-----\nMIIB\n-----END PKCS7-----\n",
            good.key.as_bytes(),
            &["cert: error: a.pem holds no certificate, but pkcs7"],
        ),
        (
            cert,
            b"-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n",
            &["key: error: a.key holds a private key that cannot be used (use ecdsa"],
        ),
        (
            cert,
            b"-----BEGIN PRIVATE KEY-----\n!!\n-----END PRIVATE KEY-----\n",
            &["key: error: a.key is not good pem: a section is not base64"],
        ),
    ];
    for (place, (cert, key, expected)) in cases.iter().enumerate() {
        let found = said(&folder, cert, key);
        assert_eq!(found.len(), expected.len(), "case {place}: {found:#?}");
        for (found, expected) in found.iter().zip(*expected) {
            assert!(found.starts_with(expected), "case {place}: {found}\nexpected: {expected}");
        }
    }
    let two = format!("{}{}", good.key, other.key);
    assert!(said(&folder, cert, two)[0].starts_with("key: error: a.key holds 2 private keys (leave only"));
}

#[test]
fn what_cannot_be_read_is_told_from_what_is_wrong() {
    let folder = Folder::new();
    fs::create_dir(folder.path("directory")).unwrap();
    let large = folder.write("large.pem", vec![b'a'; 1024 * 1024 + 1]);
    let files = |cert| CertificateFiles { cert, key: folder.path("missing.key").into() };
    let missing = "key: error: missing.key does not exist (check the path; a relative one begins at the directory that tidegate is started in)";
    let cases = [
        (folder.path("directory"), "cert: error: directory is a directory (name the file in it)"),
        (large, "cert: error: large.pem is larger than 1 mib (this is probably not the file that was meant)"),
        ("/dev/null".into(), "cert: error: /dev/null is not a regular file (name a pem file)"),
    ];
    for (cert, expected) in cases {
        assert_eq!(said_of(&folder, &files(cert)), [expected, missing]);
    }
}

#[test]
fn what_can_be_used_and_is_hardly_meant_is_a_warning() {
    let (folder, authority) = (Folder::new(), Authority::new("authority"));
    let good = authority.issue(&["localhost"]);
    let unrelated = format!("{}{}", good.cert, Authority::new("unrelated").pem());
    let found = said(&folder, unrelated, &good.key);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("cert: warning: a.pem: certificate 1 is not followed by its issuer's"), "{found:?}");

    let nameless = authority.issue(&[]);
    let found = said(&folder, &nameless.cert, &nameless.key);
    assert!(found[0].starts_with("cert: warning: a.pem has no names (subjectaltname)"), "{found:?}");
    let for_clients = authority.issue_client(1);
    assert_eq!(said(&folder, &for_clients.cert, &for_clients.key), [""; 0], "a client needs no names");

    let files = folder.pair("b", &good);
    for (mode, expected) in [(0o600, 0), (0o640, 0), (0o644, 1), (0o604, 1)] {
        fs::set_permissions(files.key.reveal(), fs::Permissions::from_mode(mode)).unwrap();
        let found = said_of(&folder, &files);
        assert_eq!(found.len(), expected, "{mode:o}: {found:?}");
        for found in found {
            let mode = format!("(mode {mode:o})");
            assert!(found.contains(&mode) && found.ends_with("(chmod 600 b.key)"), "{found}");
        }
    }
}

#[test]
fn authorities_and_lists_are_judged_too() {
    let (folder, authority) = (Folder::new(), Authority::new("authority"));
    let of = |faults: Vec<Diagnostic>| faults.iter().map(|fault| written(&folder, fault)).collect::<Vec<_>>();
    let ca = |content: &str| of(OnDisk.authorities(&folder.write("ca.pem", content)));
    let crl = |content: &str| of(OnDisk.revocations(&folder.write("ca.crl", content)));

    let expired = authority
        .issue_with(&["x"], &KeyPair::generate().unwrap(), |params| params.not_after = date_time_ymd(2025, 6, 1));
    let found = ca(&format!("{}{}", authority.pem(), expired.cert));
    assert!(found.len() == 1 && found[0].starts_with("warning: ca.pem, certificate 2 has expired on 2025-06-01"));
    let garbage = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    assert!(ca(garbage)[0].starts_with("error: ca.pem, certificate 1 cannot be used as an authority: the certificate"));
    assert!(ca(&expired.key)[0].starts_with("error: ca.pem holds a private key and no certificate"));
    assert!(ca(&authority.revoke(&[], 2040))[0].starts_with("error: ca.pem holds revocation lists and no certificate"));

    let found = crl(&authority.revoke(&[], 2025));
    assert!(
        found.len() == 1 && found[0].starts_with("warning: ca.crl, list 1 should have been replaced on 2025-01-01")
    );
    assert!(crl(&authority.pem())[0].starts_with("error: ca.crl holds certificates and no revocation list"));
    let garbage = "-----BEGIN X509 CRL-----\nMIIB\n-----END X509 CRL-----\n";
    assert!(crl(garbage)[0].starts_with("error: ca.crl, list 1 cannot be used: "), "{:?}", crl(garbage));
    assert!(crl("")[0].starts_with("error: ca.crl is empty"));
}

/// Every cut and every changed byte of a good file gives an answer.
#[test]
fn damaged_files_do_not_end_the_process() {
    let (folder, authority) = (Folder::new(), Authority::new("authority"));
    let good = authority.issue(&["localhost"]);
    let cert = der(&good.cert);
    for place in 0..cert.len() {
        let mut damaged = cert.clone();
        damaged[place] ^= 0x55;
        let pem = format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", base64(&damaged));
        said(&folder, pem, &good.key);
    }
    let key = PrivatePkcs8KeyDer::from_pem_slice(good.key.as_bytes()).unwrap();
    for length in 0..key.secret_pkcs8_der().len() {
        let pem = base64(&key.secret_pkcs8_der()[..length]);
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{pem}\n-----END PRIVATE KEY-----\n");
        assert!(!said(&folder, &good.cert, pem).is_empty(), "{length} bytes of a key");
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)) << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let value = group >> (18 - 6 * digit) & 63;
            text.push(if digit <= chunk.len() { char::from(DIGITS[value]) } else { '=' });
        }
    }
    text
}

#[test]
fn every_certificate_of_a_configuration_is_described_once() {
    let (folder, authority) = (Folder::new(), Authority::new("authority"));
    let ends = |names: &[&str]| {
        authority
            .issue_with(names, &KeyPair::generate().unwrap(), |params| params.not_after = date_time_ymd(2040, 1, 2))
    };
    let server = folder.pair("server", &ends(&["localhost", "*.example.com"]));
    let own = folder.pair("client", &ends(&[]));
    let yaml = "listeners: [{ name: a, bind: 127.0.0.1:1, pool: p }, { name: b, bind: 127.0.0.1:2, pool: p }]\n\
                pools: [{ name: p, backends: [{ address: 127.0.0.1:3 }] }]\n";
    let mut config = crate::config::parse("x.yaml", yaml, &crate::config::files::Unread).unwrap().config;
    for listener in &mut config.listeners {
        listener.tls = Some(folder.listener(vec![server.clone()]));
    }
    let pool = folder.pool(crate::config::model::Verify::Full, &authority);
    config.pools[0].tls = Some(crate::config::model::PoolTls { client_certificate: Some(own), ..pool });
    let lines: Vec<String> = describe(&config).iter().map(ToString::to_string).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    let root = folder.path("").display().to_string();
    assert!(lines[0].starts_with(&format!("{root}server.pem: localhost, *.example.com; expires 2040-01-02 (in ")));
    assert!(lines[0].ends_with(" days); ECDSA P-256"), "{lines:?}");
    assert!(lines[1].starts_with(&format!("{root}client.pem: a common name; expires 2040-01-02 (in ")), "{lines:?}");
}

/// The development certificate is good for what it is for.
#[test]
fn the_development_certificate_has_no_errors() {
    let certs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("certs");
    let files = CertificateFiles { cert: certs.join("dev.pem"), key: certs.join("dev.key").into() };
    let found = OnDisk.certificate(&files);
    // Git keeps no modes but one: after a checkout everybody may read the key.
    let others: Vec<_> = found.iter().filter(|(_, fault)| !fault.message.contains("everybody on this host")).collect();
    assert!(others.is_empty(), "{others:?}");
}
