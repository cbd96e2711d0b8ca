//! A certificate with its chain and key, checked as a whole.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_cert::der::asn1::{ObjectIdentifier, UintRef};
use x509_cert::der::{Decode, Encode, Reader, SliceReader};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{ExtendedKeyUsage, SubjectAltName};
use x509_cert::spki::SubjectPublicKeyInfoOwned;

use super::dates::{date, distance};
use super::files::{Content, LoadReason, error, has_error, warning};
use super::pem;
use super::provider::provider;
use crate::config::files::{Diagnostic, Part};
use crate::net::name::NamePattern;

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const CURVES: [(ObjectIdentifier, &str); 3] = [
    (ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7"), "P-256"),
    (ObjectIdentifier::new_unwrap("1.3.132.0.34"), "P-384"),
    (ObjectIdentifier::new_unwrap("1.3.132.0.35"), "P-521"),
];
/// RFC 5280, 4.2.1.12: id-kp-serverAuth, and anyExtendedKeyUsage, which stands for all.
const SERVER: [ObjectIdentifier; 2] =
    [ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1"), ObjectIdentifier::new_unwrap("2.5.29.37.0")];
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// A chain and a key that fit each other.
#[derive(Clone, Debug)]
pub(super) struct Certificate {
    pub(super) key: Arc<CertifiedKey>,
    /// Its content.
    pub(super) facts: CertificateInfo,
}

/// The content of a certificate that is reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateInfo {
    /// The file.
    pub path: PathBuf,
    /// Its names and addresses (subjectAltName); without any, its common name, which most clients ignore (RFC 9525, 2).
    pub names: Vec<String>,
    /// Those of the names that a client may ask for.
    pub patterns: Vec<NamePattern>,
    /// The first moment at which it is valid.
    pub not_before: SystemTime,
    /// The last moment at which it is.
    pub not_after: SystemTime,
    /// The public key's kind.
    pub key: KeyKind,
}

/// The kind of a public key, such as `ECDSA P-256`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// With the bits of its modulus.
    Rsa(usize),
    /// With its curve's name, or number when it is an unusual one.
    Ecdsa(String),
    /// Edwards curve 25519.
    Ed25519,
    /// By the number of its algorithm.
    Other(String),
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyKind::Rsa(bits) => write!(f, "RSA {bits}"),
            KeyKind::Ecdsa(curve) => write!(f, "ECDSA {curve}"),
            KeyKind::Ed25519 => f.write_str("Ed25519"),
            KeyKind::Other(number) => write!(f, "key of type {number}"),
        }
    }
}

/// The result of reading a certificate and its key.
#[derive(Debug)]
pub(super) struct Reading {
    /// There when no fault is an error.
    pub(super) certificate: Option<Certificate>,
    pub(super) faults: Vec<(Part, Diagnostic)>,
}

/// Reads a chain and its key. Reports all faults at once.
pub(super) fn read(cert: &Content, key: &Content, occasion: LoadReason, now: SystemTime) -> Reading {
    let mut faults = Vec::new();
    let chain = take(Part::Cert, Chain::read(cert), &mut faults);
    if let Some(chain) = &chain {
        let about = chain.validity(occasion, now).into_iter().chain(chain.without_names()).chain(chain.out_of_order());
        faults.extend(about.map(|fault| (Part::Cert, fault)));
    }
    let signing = take(Part::Key, signing_key(key), &mut faults);
    faults.extend(open_to_others(key).map(|fault| (Part::Key, fault)));
    let whole = chain.zip(signing).and_then(|(chain, signing)| {
        let whole = CertifiedKey::new(chain.ders.clone(), signing);
        take(Part::Key, chain.belongs_to(&key.path, &whole), &mut faults)?;
        Some(Certificate { key: Arc::new(whole), facts: chain.facts })
    });
    let certificate = whole.filter(|_| !has_error(faults.iter().map(|(_, fault)| fault)));
    Reading { certificate, faults }
}

fn take<T>(part: Part, result: Result<T, Diagnostic>, faults: &mut Vec<(Part, Diagnostic)>) -> Option<T> {
    result.map_err(|fault| faults.push((part, fault))).ok()
}

/// The certificates of a file, the server's own first.
struct Chain {
    facts: CertificateInfo,
    ders: Vec<CertificateDer<'static>>,
    parsed: Vec<x509_cert::Certificate>,
}

impl Chain {
    fn read(file: &Content) -> Result<Chain, Diagnostic> {
        let name = file.path.display();
        let ders = pem::certificates(file)?;
        let mut parsed = Vec::new();
        for (place, der) in ders.iter().enumerate() {
            let certificate = x509_cert::Certificate::from_der(der).map_err(|failure| {
                let which = if ders.len() == 1 { String::new() } else { format!(", certificate {}", place + 1) };
                error(
                    format!("{name}{which}: cannot be understood: {failure}"),
                    "openssl x509 -in FILE -text shows it, if it is one",
                )
            })?;
            parsed.push(certificate);
        }
        let none = || error(format!("{name} holds no certificate"), "name the file of a certificate");
        let facts = CertificateInfo::of(&file.path, parsed.first().ok_or_else(none)?);
        Ok(Chain { facts, ders, parsed })
    }

    /// A fault if it is not valid now: a warning at the start, since a balancer that does not start serves no client;
    /// an error for a replacement.
    fn validity(&self, occasion: LoadReason, now: SystemTime) -> Option<Diagnostic> {
        let CertificateInfo { path, not_before, not_after, .. } = &self.facts;
        let name = path.display();
        let (message, hint) = if now > *not_after {
            let message = format!("{name} has expired on {} ({})", date(*not_after), distance(now, *not_after));
            (message, "renew it: clients that verify it reject it")
        } else if now < *not_before {
            let message = format!("{name} is not valid before {} ({})", date(*not_before), distance(now, *not_before));
            (message, "wait, or use another one until then; is this host's clock right?")
        } else {
            return None;
        };
        Some(match occasion {
            LoadReason::Start => warning(message, hint),
            LoadReason::Replacement => error(message, hint),
        })
    }

    /// A warning when few clients that verify names can accept it. One that is only for clients needs no names.
    fn without_names(&self) -> Option<Diagnostic> {
        let tbs = &self.parsed.first()?.tbs_certificate;
        let has_names = tbs.filter::<SubjectAltName>().next().is_some();
        let purposes = tbs.filter::<ExtendedKeyUsage>().next().and_then(Result::ok);
        let for_servers = purposes.is_none_or(|(_, ExtendedKeyUsage(ids))| ids.iter().any(|id| SERVER.contains(id)));
        (!has_names && for_servers).then(|| {
            warning(
                format!(
                    "{} has no names (subjectAltName); only older clients and libpq look at its common name",
                    self.facts.path.display()
                ),
                "issue it with a name: openssl req -new -addext subjectAltName=DNS:the.name, and openssl x509 -req \
                 -copy_extensions copy",
            )
        })
    }

    /// A warning when a certificate is not followed by its issuer's (RFC 5246, 7.4.2).
    fn out_of_order(&self) -> Option<Diagnostic> {
        let mut links = self.parsed.iter().zip(self.parsed.iter().skip(1)).enumerate();
        let (place, _) = links.find(|(_, (one, next))| one.tbs_certificate.issuer != next.tbs_certificate.subject)?;
        let name = self.facts.path.display();
        Some(warning(
            format!("{name}: certificate {} is not followed by its issuer's", place + 1),
            "put the server's own first, then each one's issuer; clients may fail to build the chain otherwise",
        ))
    }

    /// Whether the key is the first certificate's.
    fn belongs_to(&self, key: &Path, whole: &CertifiedKey) -> Result<(), Diagnostic> {
        let (name, key) = (self.facts.path.display(), key.display());
        // A key that cannot tell its public half is taken on trust; none of aws-lc-rs is like that.
        let Some(public) = whole.key.public_key() else { return Ok(()) };
        let fits = |certificate: &x509_cert::Certificate| {
            let of_certificate = certificate.tbs_certificate.subject_public_key_info.to_der();
            of_certificate.is_ok_and(|of_certificate| of_certificate == public.as_ref())
        };
        match self.parsed.iter().position(fits) {
            Some(0) => Ok(()),
            Some(place) => Err(error(
                format!("{key} belongs to certificate {} in {name}, not to the first", place + 1),
                "put the server's own certificate first, then each one's issuer",
            )),
            None => Err(error(
                format!("{key} does not belong to {name}"),
                "name the key with which this certificate was asked for",
            )),
        }
    }
}

fn signing_key(file: &Content) -> Result<Arc<dyn rustls::sign::SigningKey>, Diagnostic> {
    let der: PrivateKeyDer<'static> = pem::private_key(file)?;
    provider().key_provider.load_private_key(der).map_err(|_| {
        error(
            format!("{} holds a private key that cannot be used", file.path.display()),
            "use ECDSA (P-256, P-384, P-521), RSA (2048 to 8192 bits) or Ed25519",
        )
    })
}

/// A warning when every user of the host may read the key. A group may: it is how keys are shared with services.
fn open_to_others(key: &Content) -> Option<Diagnostic> {
    let name = key.path.display();
    (key.mode & 0o004 != 0).then(|| {
        warning(
            format!("{name} is a private key that everybody on this host may read (mode {:03o})", key.mode),
            format!("chmod 600 {name}"),
        )
    })
}

impl CertificateInfo {
    fn of(path: &Path, certificate: &x509_cert::Certificate) -> CertificateInfo {
        let tbs = &certificate.tbs_certificate;
        let alternatives =
            tbs.filter::<SubjectAltName>().filter_map(Result::ok).flat_map(|(_, SubjectAltName(names))| names);
        let mut names: Vec<String> = Vec::new();
        let mut patterns = Vec::new();
        for alternative in alternatives {
            match alternative {
                GeneralName::DnsName(name) => {
                    patterns.extend(NamePattern::parse(name.as_str()));
                    names.push(name.as_str().escape_debug().to_string());
                }
                GeneralName::IpAddress(octets) => names.extend(address(octets.as_bytes()).map(|ip| ip.to_string())),
                GeneralName::UniformResourceIdentifier(uri) => names.push(uri.as_str().escape_debug().to_string()),
                _ => {}
            }
        }
        if names.is_empty() {
            let common_name = subject(certificate);
            patterns.extend(common_name.as_deref().and_then(NamePattern::parse));
            names.extend(common_name);
        }
        let validity = &tbs.validity;
        CertificateInfo {
            path: path.to_owned(),
            names,
            patterns,
            not_before: SystemTime::UNIX_EPOCH + validity.not_before.to_unix_duration(),
            not_after: SystemTime::UNIX_EPOCH + validity.not_after.to_unix_duration(),
            key: KeyKind::of(&tbs.subject_public_key_info),
        }
    }
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    match octets.len() {
        4 => <[u8; 4]>::try_from(octets).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(octets).ok().map(IpAddr::from),
        _ => None,
    }
}

/// The common name of a certificate's subject, with control characters escaped; `None` if it has none.
pub(super) fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    subject(&x509_cert::Certificate::from_der(certificate).ok()?)
}

pub(super) fn subject(certificate: &x509_cert::Certificate) -> Option<String> {
    let mut parts = certificate.tbs_certificate.subject.0.iter().flat_map(|relative| relative.0.iter());
    let value = &parts.rfind(|part| part.oid == COMMON_NAME)?.value;
    Some(String::from_utf8_lossy(value.value()).escape_debug().to_string())
}

impl KeyKind {
    pub(super) fn of(spki: &SubjectPublicKeyInfoOwned) -> KeyKind {
        match spki.algorithm.oid {
            RSA => match modulus_bits(spki.subject_public_key.raw_bytes()) {
                Some(bits) => KeyKind::Rsa(bits),
                None => KeyKind::Other(RSA.to_string()),
            },
            EC => {
                let curve = spki.algorithm.parameters.as_ref().and_then(|parameters| parameters.decode_as().ok());
                let name = |id: ObjectIdentifier| {
                    CURVES.iter().find(|(known, _)| *known == id).map_or(id.to_string(), |(_, name)| (*name).to_owned())
                };
                KeyKind::Ecdsa(curve.map_or("of an unnamed curve".to_owned(), name))
            }
            ED25519 => KeyKind::Ed25519,
            other => KeyKind::Other(other.to_string()),
        }
    }
}

/// RFC 8017, A.1.1: a SEQUENCE of modulus and exponent.
fn modulus_bits(key: &[u8]) -> Option<usize> {
    let mut reader = SliceReader::new(key).ok()?;
    reader
        .sequence(|inner| {
            let modulus = UintRef::decode(inner)?;
            UintRef::decode(inner)?;
            let first = modulus.as_bytes().first().copied().unwrap_or(0);
            Ok(modulus.as_bytes().len() * 8 - first.leading_zeros() as usize)
        })
        .ok()
}
