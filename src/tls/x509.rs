//! X.509 certificates and revocation lists of any version, as far as verification needs them and rustls' own verifier
//! does not read them or keeps them to itself.

use rustls::pki_types::{SignatureVerificationAlgorithm, UnixTime};
use rustls::{CertificateError, Error};
use x509_cert::der::asn1::{BitStringRef, ObjectIdentifier};
use x509_cert::der::{self, AnyRef, Decode, Encode, Reader, SliceReader};
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages};
use x509_cert::spki::SubjectPublicKeyInfoOwned;
use x509_cert::time::Time;
use x509_cert::{Certificate, Version};

use super::unfit::Unfit;

const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");
const EXTENDED_KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37");
const SUBJECT_ALT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");
const NAME_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.30");
/// RFC 5280, 4.2.1.12.
const ANY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37.0");
const SERVER_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1");
const CLIENT_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2");

/// Which end of a connection a certificate is shown by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Server,
    Client,
}

/// What certificates and revocation lists have in common: `tbs`, the algorithm, the signature (RFC 5280, 4.1 and 5.1).
#[derive(Clone, Debug)]
pub(super) struct Signed {
    tbs: Vec<u8>,
    /// The content of the AlgorithmIdentifier.
    algorithm: Vec<u8>,
    signature: Vec<u8>,
}

impl Signed {
    pub(super) fn read(bytes: &[u8]) -> der::Result<Signed> {
        let mut reader = SliceReader::new(bytes)?;
        let signed = reader.sequence(|inner| {
            let tbs = inner.tlv_bytes()?.to_vec();
            let algorithm = AnyRef::decode(inner)?.value().to_vec();
            let bits = BitStringRef::decode(inner)?;
            let signature = bits.as_bytes().ok_or_else(|| der::Tag::BitString.value_error())?.to_vec();
            Ok(Signed { tbs, algorithm, signature })
        })?;
        reader.finish(signed)
    }

    /// Whether the signature is one by `key`.
    pub(super) fn verify(
        &self,
        key: &SubjectPublicKeyInfoOwned,
        algorithms: &[&dyn SignatureVerificationAlgorithm],
    ) -> Result<(), Error> {
        let (kind, bits) = key_parts(key)?;
        let mut fitting = algorithms
            .iter()
            .filter(|known| known.signature_alg_id().as_ref() == self.algorithm)
            .filter(|known| known.public_key_alg_id().as_ref() == kind);
        let Some(algorithm) = fitting.next() else { return Err(Unfit::algorithm(&self.algorithm).into()) };
        algorithm
            .verify_signature(bits, &self.tbs, &self.signature)
            .map_err(|_| Unfit::short_key(key).map_or(CertificateError::BadSignature.into(), Error::from))
    }
}

/// The content of a key's AlgorithmIdentifier, and its bits.
pub(super) fn key_parts(key: &SubjectPublicKeyInfoOwned) -> Result<(Vec<u8>, &[u8]), Error> {
    let bad = || Error::InvalidCertificate(CertificateError::BadEncoding);
    let algorithm = key.algorithm.to_der().map_err(|_| bad())?;
    let kind = AnyRef::from_der(&algorithm).map_err(|_| bad())?.value().to_vec();
    Ok((kind, key.subject_public_key.as_bytes().ok_or_else(bad)?))
}

/// A certificate that a peer has shown.
pub(super) struct Shown {
    pub(super) certificate: Certificate,
    pub(super) signed: Signed,
}

impl Shown {
    pub(super) fn read(bytes: &[u8]) -> Option<Shown> {
        let certificate = Certificate::from_der(bytes).ok()?;
        // RFC 5280, 4.1.1.2: the algorithm stands in two places, and only one of them is signed.
        if certificate.tbs_certificate.signature != certificate.signature_algorithm {
            return None;
        }
        Some(Shown { certificate, signed: Signed::read(bytes).ok()? })
    }

    /// Whether it is older than version 3, and so says nothing of names, uses and authorities.
    pub(super) fn is_old(&self) -> bool {
        self.certificate.tbs_certificate.version != Version::V3
    }
}

pub(super) fn unix_time(time: Time) -> UnixTime {
    UnixTime::since_unix_epoch(time.to_unix_duration())
}

/// Its last moment.
pub(super) fn not_after(certificate: &Certificate) -> UnixTime {
    unix_time(certificate.tbs_certificate.validity.not_after)
}

/// Whether the certificate is valid at this time.
pub(super) fn check_dates(certificate: &Certificate, now: UnixTime) -> Result<(), Error> {
    let (not_before, not_after) = (unix_time(certificate.tbs_certificate.validity.not_before), not_after(certificate));
    if now.as_secs() < not_before.as_secs() {
        return Err(CertificateError::NotValidYetContext { time: now, not_before }.into());
    }
    if now.as_secs() > not_after.as_secs() {
        return Err(CertificateError::ExpiredContext { time: now, not_after }.into());
    }
    Ok(())
}

/// Whether the certificate may be used for this (extendedKeyUsage): one that does not say may be used for anything.
pub(super) fn check_purpose(certificate: &Certificate, purpose: Purpose) -> Result<(), Error> {
    let wanted = match purpose {
        Purpose::Server => SERVER_AUTH,
        Purpose::Client => CLIENT_AUTH,
    };
    match certificate.tbs_certificate.get::<ExtendedKeyUsage>() {
        Ok(None) => Ok(()),
        Ok(Some((_, ExtendedKeyUsage(uses)))) if uses.contains(&wanted) || uses.contains(&ANY_USAGE) => Ok(()),
        Ok(Some(_)) => Err(CertificateError::InvalidPurpose.into()),
        Err(_) => Err(CertificateError::BadEncoding.into()),
    }
}

fn has_extension(certificate: &Certificate, id: ObjectIdentifier) -> bool {
    let extensions = certificate.tbs_certificate.extensions.as_deref().unwrap_or_default();
    extensions.iter().any(|extension| extension.extn_id == id)
}

/// Whether it may be an authority only for some names.
pub(super) fn is_constrained(certificate: &Certificate) -> bool {
    has_extension(certificate, NAME_CONSTRAINTS)
}

/// Whether it has subject alternative names.
pub(super) fn has_alternative_names(certificate: &Certificate) -> bool {
    has_extension(certificate, SUBJECT_ALT_NAME)
}

/// Whether a certificate that is trusted by configuration may vouch for others. One of version 1 or 2 cannot say so,
/// and is taken for an authority if it has signed itself, as OpenSSL does. One of version 3 must say so.
pub(super) fn is_authority(certificate: &Certificate) -> bool {
    let tbs = &certificate.tbs_certificate;
    if tbs.version != Version::V3 {
        return tbs.subject == tbs.issuer;
    }
    match tbs.get::<BasicConstraints>() {
        Ok(Some((_, constraints))) => constraints.ca && may(certificate, KeyUsages::KeyCertSign, true),
        Ok(None) => may(certificate, KeyUsages::KeyCertSign, false),
        Err(_) => false,
    }
}

/// Whether it may sign revocation lists.
pub(super) fn may_sign_lists(certificate: &Certificate) -> bool {
    may(certificate, KeyUsages::CRLSign, true)
}

fn may(certificate: &Certificate, wanted: KeyUsages, unsaid: bool) -> bool {
    match certificate.tbs_certificate.get::<KeyUsage>() {
        Ok(Some((_, KeyUsage(uses)))) => uses.contains(wanted),
        Ok(None) => unsaid,
        Err(_) => false,
    }
}

/// Whether a certificate that a peer has sent may be the authority for another, with `below` others between it and the
/// end's own (RFC 5280, 6.1.4).
pub(super) fn check_intermediate(
    certificate: &Certificate,
    below: usize,
    purpose: Purpose,
    now: UnixTime,
) -> Result<(), Error> {
    let tbs = &certificate.tbs_certificate;
    let known = [BASIC_CONSTRAINTS, KEY_USAGE, EXTENDED_KEY_USAGE, SUBJECT_ALT_NAME];
    let extensions = tbs.extensions.as_deref().unwrap_or_default();
    if extensions.iter().any(|extension| extension.critical && !known.contains(&extension.extn_id))
        || is_constrained(certificate)
    {
        return Err(Unfit::ConstrainedAuthority.into());
    }
    let Ok(Some((_, constraints))) = tbs.get::<BasicConstraints>() else { return Err(Unfit::NoAuthority.into()) };
    let is_long = constraints.path_len_constraint.is_some_and(|most| below > usize::from(most));
    if tbs.version != Version::V3 || !constraints.ca || is_long || !may(certificate, KeyUsages::KeyCertSign, true) {
        return Err(Unfit::NoAuthority.into());
    }
    check_purpose(certificate, purpose)?;
    check_dates(certificate, now)
}

/// A revocation list (RFC 5280, 5).
#[derive(Debug)]
pub(super) struct RevocationList {
    issuer: x509_cert::name::Name,
    /// When the next one is due; `None`: it does not say.
    pub(super) next_update: Option<UnixTime>,
    signed: Signed,
    /// Whether it is of only some of its issuer's certificates.
    is_partial: bool,
    /// Sorted.
    serials: Vec<Serial>,
}

/// Big-endian, without zeros in front but those that make up the length. RFC 5280, 4.1.2.2: no more than 20 octets,
/// and one for the sign.
type Serial = [u8; 21];

fn serial(number: &x509_cert::serial_number::SerialNumber) -> Serial {
    let bytes = number.as_bytes();
    let mut serial = Serial::default();
    let kept = bytes.len().min(serial.len());
    let start = serial.len() - kept;
    serial[start..].copy_from_slice(&bytes[bytes.len() - kept..]);
    serial
}

impl RevocationList {
    pub(super) fn read(bytes: &[u8]) -> Option<RevocationList> {
        const ISSUING_DISTRIBUTION_POINT: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.28");
        let list = x509_cert::crl::CertificateList::from_der(bytes).ok()?;
        let signed = Signed::read(bytes).ok()?;
        let tbs = list.tbs_cert_list;
        if tbs.signature != list.signature_algorithm {
            return None;
        }
        let mut serials: Vec<Serial> =
            tbs.revoked_certificates.iter().flatten().map(|revoked| serial(&revoked.serial_number)).collect();
        serials.sort_unstable();
        let mut extensions = tbs.crl_extensions.iter().flatten();
        Some(RevocationList {
            is_partial: extensions.any(|extension| extension.extn_id == ISSUING_DISTRIBUTION_POINT),
            issuer: tbs.issuer,
            next_update: tbs.next_update.map(unix_time),
            signed,
            serials,
        })
    }

    /// Whether it is by the authority that has issued this certificate.
    pub(super) fn is_of(&self, certificate: &Certificate) -> bool {
        self.issuer == certificate.tbs_certificate.issuer
    }

    /// Whether it has this certificate on it.
    pub(super) fn revokes(&self, certificate: &Certificate) -> bool {
        self.is_of(certificate)
            && self.serials.binary_search(&serial(&certificate.tbs_certificate.serial_number)).is_ok()
    }

    /// Whether it speaks of all certificates of the holder of `key`, and is signed by it.
    pub(super) fn is_whole_and_by(
        &self,
        key: &SubjectPublicKeyInfoOwned,
        algorithms: &[&dyn SignatureVerificationAlgorithm],
    ) -> bool {
        !self.is_partial && self.signed.verify(key, algorithms).is_ok()
    }
}
