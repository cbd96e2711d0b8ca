//! Verification of clients and backends: rustls' own for certificates of version 3, and what private authorities need
//! besides. An old version, a certificate that is trusted by itself, a common name in place of subjectAltName.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{
    WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature, verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use x509_cert::Certificate;
use x509_cert::der::{Decode, Encode};
use x509_cert::spki::SubjectPublicKeyInfoOwned;

use super::certificate::subject;
use super::provider::provider;
use super::tickets::ResumptionDeadline;
use super::trust::Trust;
use super::unfit::Unfit;
use super::x509::{Purpose, Shown, has_alternative_names, is_constrained, key_parts};
use crate::net::name::{NamePattern, normal};

/// Verifies backends.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    /// `None`: nothing is verified but, where that is possible, that the backend has the key of its certificate.
    pub(super) trust: Option<Arc<Trust>>,
    pub(super) checks_name: bool,
    /// Certificates that are accepted as they are, whatever their names and dates.
    pub(super) accepted: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.accepted.iter().any(|it| it == certificate) {
            return Ok(ServerCertVerified::assertion());
        }
        if let Some(trust) = &self.trust {
            let by_rustls = || {
                let parsed = ParsedCertificate::try_from(certificate)?;
                verify_server_cert_signed_by_trust_anchor(&parsed, &trust.roots, others, now, algorithms().all)
            };
            verify(trust, certificate, others, now, Purpose::Server, by_rustls)?;
            if self.checks_name {
                verify_name(trust, certificate, others, name)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let verified = tls12_signature(message, certificate, signature);
        if self.trust.is_none() { unless_impossible(certificate, verified) } else { verified }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let verified = tls13_signature(message, certificate, signature);
        if self.trust.is_none() { unless_impossible(certificate, verified) } else { verified }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}

/// What verifies the clients of a listener.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    trust: Arc<Trust>,
    /// `None`: `ca` has no authority, only certificates that are trusted by themselves.
    by_rustls: Option<Arc<dyn ClientCertVerifier>>,
    is_required: bool,
    hints: Vec<DistinguishedName>,
}

impl ClientVerifier {
    /// `by_rustls` knows the same authorities and revocation lists as `trust`.
    pub(super) fn new(
        trust: Arc<Trust>,
        by_rustls: Option<Arc<dyn ClientCertVerifier>>,
        is_required: bool,
    ) -> ClientVerifier {
        let mut hints = trust.roots.subjects();
        hints.extend(trust.pinned_issuers.iter().map(|name| DistinguishedName::from(name.clone())));
        ClientVerifier { trust, by_rustls, is_required, hints }
    }

    fn verify(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let by_rustls = || match &self.by_rustls {
            Some(verifier) => verifier.verify_client_cert(certificate, others, now).map(|_| ()),
            None => Err(CertificateError::UnknownIssuer.into()),
        };
        verify(&self.trust, certificate, others, now, Purpose::Client, by_rustls)
    }
}

/// Verifies the client of one connection, and keeps until when that holds.
#[derive(Debug)]
pub(super) struct BoundVerifier {
    /// `None` takes every certificate whose key the client proves to have (`client_auth.mode: request`). Backends learn that it
    /// is not verified.
    pub(super) verifier: Option<Arc<ClientVerifier>>,
    pub(super) bound: ResumptionDeadline,
}

impl ClientCertVerifier for BoundVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.verifier.as_ref().is_some_and(|verifier| verifier.is_required)
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verifier.as_ref().map_or(&[], |verifier| &verifier.hints)
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if let Some(verifier) = &self.verifier {
            verifier.verify(certificate, others, now)?;
            let chain: Vec<CertificateDer<'_>> = std::iter::once(certificate).chain(others).cloned().collect();
            self.bound.set(verifier.trust.holds_until(&chain).as_secs());
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}

fn algorithms() -> WebPkiSupportedAlgorithms {
    provider().signature_verification_algorithms
}

/// Everything but the name.
fn verify(
    trust: &Trust,
    certificate: &CertificateDer<'_>,
    others: &[CertificateDer<'_>],
    now: UnixTime,
    purpose: Purpose,
    by_rustls: impl FnOnce() -> Result<(), Error>,
) -> Result<(), Error> {
    match Shown::read(certificate) {
        Some(shown) if trust.is_pinned(certificate) => trust.verify_pinned(&shown, now, purpose),
        Some(shown) if shown.is_old() => trust.verify_old(&shown, others, now, purpose),
        _ => by_rustls().map_err(|error| match error {
            Error::InvalidCertificate(CertificateError::BadSignature) => {
                trust.short_key(others).map_or(error, Error::from)
            }
            error => error,
        }),
    }
}

/// Whether the certificate is for `name`. Without subjectAltName, its common name says so, as for libpq and OpenSSL: only
/// under authorities of one's own, none of which is trusted for some names only.
fn verify_name(
    trust: &Trust,
    certificate: &CertificateDer<'_>,
    others: &[CertificateDer<'_>],
    name: &ServerName<'_>,
) -> Result<(), Error> {
    let shown = Shown::read(certificate).map(|shown| shown.certificate);
    let Some(nameless) = shown.filter(|shown| !has_alternative_names(shown)) else {
        return verify_server_name(&ParsedCertificate::try_from(certificate)?, name);
    };
    let is_restricted =
        |other: &CertificateDer<'_>| Certificate::from_der(other).is_ok_and(|other| is_constrained(&other));
    let is_free = || !trust.has_constrained_authority() && !others.iter().any(is_restricted);
    if !trust.is_own || !(trust.is_pinned(certificate) || is_free()) {
        return Err(Unfit::OnlyCommonName.into());
    }
    let presented = subject(&nameless);
    match presented.as_deref().is_some_and(|presented| is_named(presented, name)) {
        true => Ok(()),
        false => Err(CertificateError::NotValidForNameContext {
            expected: name.to_owned(),
            presented: presented.into_iter().map(|name| format!("DnsName({name:?})")).collect(),
        }
        .into()),
    }
}

fn is_named(common_name: &str, name: &ServerName<'_>) -> bool {
    match name {
        ServerName::DnsName(name) => {
            NamePattern::parse(common_name).is_some_and(|pattern| pattern.fits(&normal(name.as_ref())))
        }
        ServerName::IpAddress(ip) => common_name.parse::<IpAddr>().is_ok_and(|named| named == IpAddr::from(*ip)),
        _ => false,
    }
}

/// That the peer has the key of its certificate, by its signature of TLS 1.2.
fn tls12_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    if ParsedCertificate::try_from(certificate).is_ok() {
        return verify_tls12_signature(message, certificate, signature, &algorithms());
    }
    let key = key_of(certificate)?;
    let (kind, bits) = key_parts(&key)?;
    // TLS 1.2 does not tie a scheme to a curve (RFC 5246, 7.4.1.4.1): the one that fits the key counts.
    let algorithms = algorithms();
    let mut fitting = algorithms
        .mapping
        .iter()
        .filter(|(scheme, _)| *scheme == signature.scheme)
        .flat_map(|(_, algorithms)| *algorithms)
        .filter(|algorithm| algorithm.public_key_alg_id().as_ref() == kind);
    let bad = || Error::InvalidCertificate(CertificateError::BadSignature);
    let algorithm = fitting.next().ok_or_else(bad)?;
    algorithm
        .verify_signature(bits, message, signature.signature())
        .map_err(|_| Unfit::short_key(&key).map_or_else(bad, Error::from))?;
    Ok(HandshakeSignatureValid::assertion())
}

/// That the peer has the key of its certificate, by its signature of TLS 1.3.
fn tls13_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    if ParsedCertificate::try_from(certificate).is_ok() {
        return verify_tls13_signature(message, certificate, signature, &algorithms());
    }
    let key = key_of(certificate)?;
    let der = key.to_der().map_err(|_| CertificateError::BadEncoding)?;
    let spki = SubjectPublicKeyInfoDer::from(der);
    verify_tls13_signature_with_raw_key(message, &spki, signature, &algorithms())
}

/// Where nothing is verified, a key that cannot be used is no reason to refuse: who could pose as the backend would show
/// another certificate.
fn unless_impossible(
    certificate: &CertificateDer<'_>,
    verified: Result<HandshakeSignatureValid, Error>,
) -> Result<HandshakeSignatureValid, Error> {
    let is_usable = || {
        let key = key_of(certificate).ok()?;
        let (kind, _) = key_parts(&key).ok()?;
        let is_known = algorithms().all.iter().any(|known| known.public_key_alg_id().as_ref() == kind);
        (is_known && Unfit::short_key(&key).is_none()).then_some(())
    };
    match verified {
        Err(Error::InvalidCertificate(_)) if is_usable().is_none() => Ok(HandshakeSignatureValid::assertion()),
        verified => verified,
    }
}

fn key_of(certificate: &CertificateDer<'_>) -> Result<SubjectPublicKeyInfoOwned, Error> {
    let parsed = Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
    Ok(parsed.tbs_certificate.subject_public_key_info)
}
