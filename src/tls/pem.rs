//! The sections of a PEM file (RFC 7468), and what is wrong with a file that has not the ones it should.

use rustls::pki_types::pem::{self, PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use super::files::{Content, error};
use crate::config::files::Diagnostic;

/// What a file holds.
#[derive(Debug, Default)]
struct Sections {
    certificates: Vec<CertificateDer<'static>>,
    keys: Vec<PrivateKeyDer<'static>>,
    revocations: Vec<CertificateRevocationListDer<'static>>,
    has_request: bool,
    has_public_key: bool,
}

/// The certificates of a file, at least one.
pub(super) fn certificates(file: &Content) -> Result<Vec<CertificateDer<'static>>, Diagnostic> {
    let name = file.path.display();
    let sections = sections(file, "x509")?;
    if !sections.certificates.is_empty() {
        return Ok(sections.certificates);
    }
    Err(if !sections.keys.is_empty() || is_encrypted(file) {
        error(
            format!("{name} holds a private key and no certificate"),
            "name the certificate's file here and the key's under `key`; were they exchanged?",
        )
    } else if sections.has_request {
        error(
            format!("{name} holds a certificate request, not a certificate"),
            "a request is what an authority gets; name the certificate that it sent back",
        )
    } else if !sections.revocations.is_empty() {
        error(format!("{name} holds revocation lists and no certificate"), "name a file of certificates")
    } else {
        none(file, "certificate", "-----BEGIN CERTIFICATE-----")
    })
}

/// The one private key of a file.
pub(super) fn private_key(file: &Content) -> Result<PrivateKeyDer<'static>, Diagnostic> {
    let name = file.path.display();
    if is_encrypted(file) {
        let hint =
            format!("take the password off: openssl pkey -in {name} -out decrypted.key; chmod 600 decrypted.key");
        return Err(error(format!("{name} holds an encrypted private key"), hint));
    }
    let mut sections = sections(file, "pkey")?;
    match (sections.keys.pop(), sections.keys.len()) {
        (Some(key), 0) => Ok(key),
        (Some(_), others) => Err(error(
            format!("{name} holds {} private keys", others + 1),
            "leave only the one that belongs to the certificate",
        )),
        (None, _) if !sections.certificates.is_empty() => Err(error(
            format!("{name} holds a certificate and no private key"),
            "name the key's file here and the certificate's under `cert`; were they exchanged?",
        )),
        (None, _) if sections.has_public_key => {
            Err(error(format!("{name} holds a public key"), "name the private key that belongs to the certificate"))
        }
        (None, _) => Err(none(file, "private key", "-----BEGIN PRIVATE KEY-----")),
    }
}

/// The revocation lists of a file, at least one.
pub(super) fn revocations(file: &Content) -> Result<Vec<CertificateRevocationListDer<'static>>, Diagnostic> {
    let sections = sections(file, "crl")?;
    if !sections.revocations.is_empty() {
        return Ok(sections.revocations);
    }
    Err(if sections.certificates.is_empty() {
        none(file, "revocation list", "-----BEGIN X509 CRL-----")
    } else {
        error(
            format!("{} holds certificates and no revocation list", file.path.display()),
            "name the file with the authority's list here: -----BEGIN X509 CRL-----",
        )
    })
}

/// Reads all sections; `command` is the part of openssl that converts what the file should hold.
fn sections(file: &Content, command: &str) -> Result<Sections, Diagnostic> {
    let bytes = file.bytes.as_ref().map_err(Clone::clone)?;
    let name = file.path.display();
    if let Some(fault) = is_binary(file, bytes, command) {
        return Err(fault);
    }
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err(error(
            format!("{name} is text in UTF-16, not PEM"),
            format!("convert it: iconv -f UTF-16 -t ASCII {name} >{name}.pem"),
        ));
    }
    let mut found = Sections::default();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(bytes) {
        let (kind, der) = section.map_err(|failure| {
            error(
                format!("{name} is not good PEM: {}", describe(&failure)),
                "copy the file again from where it came from",
            )
        })?;
        match kind {
            SectionKind::Certificate => found.certificates.push(der.into()),
            SectionKind::RsaPrivateKey => found.keys.push(PrivateKeyDer::Pkcs1(der.into())),
            SectionKind::PrivateKey => found.keys.push(PrivateKeyDer::Pkcs8(der.into())),
            SectionKind::EcPrivateKey => found.keys.push(PrivateKeyDer::Sec1(der.into())),
            SectionKind::Crl => found.revocations.push(der.into()),
            SectionKind::Csr => found.has_request = true,
            SectionKind::PublicKey => found.has_public_key = true,
            _ => {}
        }
    }
    Ok(found)
}

/// The fault of a file in a binary form: DER, or PKCS #12, both a SEQUENCE with a long length.
fn is_binary(file: &Content, bytes: &[u8], command: &str) -> Option<Diagnostic> {
    let name = file.path.display();
    let content = match bytes {
        [0x30, 0x80 | 0x81, _, content @ ..] | [0x30, 0x82, _, _, content @ ..] => content,
        // A key of Ed25519 is short enough for a length of one byte. No text has such a byte after a 0.
        [0x30, length, content @ ..] if *length < 0x80 && content.len() == usize::from(*length) => content,
        _ => return None,
    };
    // PFX begins with its version, which is 3 (RFC 7292, 4).
    Some(if content.starts_with(&[2, 1, 3]) {
        error(
            format!("{name} is a PKCS #12 bundle, not PEM"),
            format!(
                "take it apart: openssl pkcs12 -in {name} -nokeys -out cert.pem; \
                 openssl pkcs12 -in {name} -nocerts -noenc -out key.pem"
            ),
        )
    } else {
        error(
            format!("{name} is DER, not PEM"),
            format!("convert it: openssl {command} -inform der -in {name} -out {name}.pem"),
        )
    })
}

/// A key under a password: PKCS #8 (RFC 5958, 3) or the older header of a PEM section (RFC 1421, 4.6.1.1).
fn is_encrypted(file: &Content) -> bool {
    let is_mark = |line: &[u8]| {
        line.starts_with(b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || line.starts_with(b"Proc-Type: 4,ENCRYPTED")
    };
    file.bytes.as_ref().is_ok_and(|bytes| bytes.split(|byte| matches!(byte, b'\n' | b'\r')).any(is_mark))
}

fn none(file: &Content, what: &str, mark: &str) -> Diagnostic {
    let name = file.path.display();
    if file.bytes.as_ref().is_ok_and(Vec::is_empty) {
        return error(format!("{name} is empty"), format!("it should hold a {what}: {mark}"));
    }
    let labels = labels(file);
    let message = match labels.as_slice() {
        [] => format!("{name} holds nothing in PEM"),
        labels => format!("{name} holds no {what}, but {}", labels.join(", ")),
    };
    error(message, format!("a {what} begins with the line {mark}"))
}

/// What the sections call themselves, a few of them.
fn labels(file: &Content) -> Vec<String> {
    let text = String::from_utf8_lossy(file.bytes.as_deref().unwrap_or_default());
    let label = |line: &str| Some(line.strip_prefix("-----BEGIN ")?.split_once("-----")?.0.escape_debug().to_string());
    let mut labels: Vec<String> = text.lines().filter_map(label).filter(|label| label.len() < 40).collect();
    labels.dedup();
    labels.truncate(3);
    labels
}

fn describe(failure: &pem::Error) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).escape_debug().take(60).collect::<String>();
    match failure {
        pem::Error::MissingSectionEnd { end_marker } => {
            format!("-----END {}----- is missing; is the file cut off?", text(end_marker))
        }
        pem::Error::IllegalSectionStart { line } => format!("the line {} does not end with five dashes", text(line)),
        pem::Error::Base64Decode(_) => "a section is not base64".to_owned(),
        pem::Error::SectionTooLarge => "a section is too long".to_owned(),
        _ => "it cannot be read".to_owned(),
    }
}
