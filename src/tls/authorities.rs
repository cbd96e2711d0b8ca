//! Authorities that certificates are verified against, and their revocation lists.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use rustls::RootCertStore;
use rustls::pki_types::{CertificateRevocationListDer, TrustAnchor};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use x509_cert::der::Decode;

use super::dates::{date, distance};
use super::explain::{explain, unusable_list};
use super::files::{Content, LoadError, error, has_error, warning};
use super::pem;
use super::provider::provider;
use super::trust::Trust;
use super::verify::ClientVerifier;
use super::x509::{RevocationList, is_authority};
use crate::config::files::Diagnostic;

/// Those that this host trusts, read once in the life of the process.
pub(super) fn of_system() -> Result<Arc<Trust>, LoadError> {
    static SYSTEM: LazyLock<Result<Arc<Trust>, LoadError>> = LazyLock::new(|| {
        let found = rustls_native_certs::load_native_certs();
        let mut trust = Trust::new(false);
        for der in found.certs {
            // A system's collection may hold odd ones that nothing here depends on.
            _ = trust.add(der);
        }
        if !trust.roots.is_empty() {
            return Ok(Arc::new(trust));
        }
        let why = found.errors.first().map_or(String::new(), |failure| format!(": {failure}"));
        Err(LoadError::of(
            format!("no authorities that this system trusts were found{why}"),
            "install the package ca-certificates, set SSL_CERT_FILE, or name a PEM file under `ca`",
        ))
    });
    SYSTEM.clone()
}

/// What a file vouches for, all of it; there when no fault is an error.
pub(super) fn of_file(file: &Content, now: SystemTime) -> (Option<Trust>, Vec<Diagnostic>) {
    let certificates = match pem::certificates(file) {
        Ok(certificates) => certificates,
        Err(fault) => return (None, vec![fault]),
    };
    let (mut trust, mut faults) = (Trust::new(true), Vec::new());
    for (place, der) in certificates.into_iter().enumerate() {
        let name = format!("{}, certificate {}", file.path.display(), place + 1);
        if let Ok(parsed) = x509_cert::Certificate::from_der(&der) {
            faults.extend(outlived(&name, &parsed, now));
        }
        if let Err(failure) = trust.add(der) {
            let why = explain(&failure);
            faults.push(error(format!("{name} cannot be used as an authority: {why}"), "take it out, or replace it"));
        }
    }
    ((!has_error(&faults)).then_some(trust), faults)
}

/// Authorities outlive their use in bundles, and rustls does not look at their dates; a person should.
fn outlived(name: &str, certificate: &x509_cert::Certificate, now: SystemTime) -> Option<Diagnostic> {
    let end = SystemTime::UNIX_EPOCH + certificate.tbs_certificate.validity.not_after.to_unix_duration();
    let hint = match is_authority(certificate) {
        true => "replace it by the authority's present one; what it signed is still accepted, and not resumed",
        false => "replace it by the present one; a client that presents it is rejected",
    };
    (now > end).then(|| warning(format!("{name} has expired on {} ({})", date(end), distance(now, end)), hint))
}

/// Revocation lists, as rustls reads them and as certificates need them that rustls does not read.
pub(super) struct Lists {
    pub(super) ders: Vec<CertificateRevocationListDer<'static>>,
    read: Vec<RevocationList>,
}

/// The revocation lists of a file; there when no fault is an error.
pub(super) fn revocations(file: &Content, now: SystemTime) -> (Option<Lists>, Vec<Diagnostic>) {
    let ders = match pem::revocations(file) {
        Ok(ders) => ders,
        Err(fault) => return (None, vec![fault]),
    };
    let (mut faults, mut read): (Vec<Diagnostic>, Vec<RevocationList>) = (Vec::new(), Vec::new());
    for (place, der) in ders.iter().enumerate() {
        let name = format!("{}, list {}", file.path.display(), place + 1);
        let list = match (can_be_used(der), RevocationList::read(der)) {
            (Ok(()), Some(list)) => list,
            (used, _) => {
                let why = used.err().unwrap_or_else(|| "it cannot be parsed".to_owned());
                let hint = "a full list of version 2 is needed: openssl ca -gencrl writes one when the CA's section of its \
                            configuration has crl_extensions";
                faults.push(error(format!("{name} cannot be used: {why}"), hint));
                continue;
            }
        };
        let end = list.next_update.map(|next| SystemTime::UNIX_EPOCH + Duration::from_secs(next.as_secs()));
        if let Some(end) = end.filter(|end| now > *end) {
            faults.push(warning(
                format!("{name} should have been replaced on {} ({})", date(end), distance(now, end)),
                "fetch the authority's present list; this one is still used, and no session resumed",
            ));
        }
        read.push(list);
    }
    ((!has_error(&faults)).then_some(Lists { ders, read }), faults)
}

/// A list is only parsed when a verifier is built: here, for an authority that is none.
fn can_be_used(list: &CertificateRevocationListDer<'static>) -> Result<(), String> {
    let nobody =
        TrustAnchor { subject: Vec::new().into(), subject_public_key_info: Vec::new().into(), name_constraints: None };
    let roots = Arc::new(RootCertStore { roots: vec![nobody] });
    match WebPkiClientVerifier::builder_with_provider(roots, provider()).with_crls([list.clone()]).build() {
        Ok(_) => Ok(()),
        Err(VerifierBuilderError::InvalidCrl(failure)) => Err(unusable_list(&failure)),
        Err(_) => Err("it cannot be parsed".to_owned()),
    }
}

/// What verifies clients. A certificate that no list speaks of is refused when there are lists: each authority
/// of the chain below the root must have one.
pub(super) fn client_verifier(
    mut trust: Trust,
    lists: Option<Lists>,
    required: bool,
) -> Result<ClientVerifier, Diagnostic> {
    let Lists { ders, read } = lists.unwrap_or(Lists { ders: Vec::new(), read: Vec::new() });
    trust.set_lists(read);
    let by_rustls: Option<Arc<dyn ClientCertVerifier>> = match trust.roots.is_empty() {
        true => None,
        false => {
            let roots = Arc::new(trust.roots.clone());
            let builder = WebPkiClientVerifier::builder_with_provider(roots, provider()).with_crls(ders);
            Some(builder.build().map_err(|failure| {
                let why = match failure {
                    VerifierBuilderError::InvalidCrl(failure) => unusable_list(&failure),
                    _ => "there is no authority".to_owned(),
                };
                error(format!("clients cannot be verified: {why}"), "check the files under `client_auth`")
            })?)
        }
    };
    Ok(ClientVerifier::new(Arc::new(trust), by_rustls, required))
}
