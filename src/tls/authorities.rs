//! Authorities that certificates are verified against, and their revocation lists.

use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::pki_types::{CertificateRevocationListDer, TrustAnchor};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use x509_cert::crl::CertificateList;
use x509_cert::der::Decode;

use super::files::{Content, LoadError, error, has_error, warning};
use super::pem;
use super::provider::provider;
use super::report::{date, distance};
use crate::config::files::FileFault;

/// Those that this host trusts, read once in the life of the process.
pub(super) fn of_system() -> Result<Arc<RootCertStore>, LoadError> {
    static SYSTEM: LazyLock<Result<Arc<RootCertStore>, LoadError>> = LazyLock::new(|| {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        // A system's collection may have odd ones in it, of which nobody here has ever heard.
        roots.add_parsable_certificates(found.certs);
        if !roots.is_empty() {
            return Ok(Arc::new(roots));
        }
        let why = found.errors.first().map_or(String::new(), |failure| format!(": {failure}"));
        Err(LoadError::of(
            format!("no authorities that this system trusts were found{why}"),
            "install the package ca-certificates, set SSL_CERT_FILE, or name a PEM file under `ca`",
        ))
    });
    SYSTEM.clone()
}

/// The authorities of a file, all of them; there when no fault is an error.
pub(super) fn roots(file: &Content, now: SystemTime) -> (Option<Arc<RootCertStore>>, Vec<FileFault>) {
    let certificates = match pem::certificates(file) {
        Ok(certificates) => certificates,
        Err(fault) => return (None, vec![fault]),
    };
    let (mut roots, mut faults) = (RootCertStore::empty(), Vec::new());
    for (place, der) in certificates.into_iter().enumerate() {
        let name = format!("{}, certificate {}", file.path.display(), place + 1);
        if let Ok(parsed) = x509_cert::Certificate::from_der(&der) {
            faults.extend(outlived(&name, &parsed, now));
        }
        if let Err(failure) = roots.add(der) {
            let why = super::explain(&failure);
            faults.push(error(format!("{name} cannot be used as an authority: {why}"), "take it out, or replace it"));
        }
    }
    ((!has_error(&faults)).then(|| Arc::new(roots)), faults)
}

/// Authorities outlive their use in bundles, and rustls does not look at their dates; a person should.
fn outlived(name: &str, authority: &x509_cert::Certificate, now: SystemTime) -> Option<FileFault> {
    let end = SystemTime::UNIX_EPOCH + authority.tbs_certificate.validity.not_after.to_unix_duration();
    (now > end).then(|| {
        warning(
            format!("{name} has expired on {} ({})", date(end), distance(now, end)),
            "replace it by the authority's present one; what it signed is still accepted",
        )
    })
}

/// The revocation lists of a file; there when no fault is an error.
pub(super) fn revocations(
    file: &Content,
    now: SystemTime,
) -> (Option<Vec<CertificateRevocationListDer<'static>>>, Vec<FileFault>) {
    let lists = match pem::revocations(file) {
        Ok(lists) => lists,
        Err(fault) => return (None, vec![fault]),
    };
    let mut faults: Vec<FileFault> = Vec::new();
    for (place, list) in lists.iter().enumerate() {
        let name = format!("{}, list {}", file.path.display(), place + 1);
        if let Err(why) = can_be_used(list) {
            faults
                .push(error(format!("{name} cannot be used: {why}"), "ask the authority for a full list of version 2"));
        }
        let next = CertificateList::from_der(list).ok().and_then(|parsed| parsed.tbs_cert_list.next_update);
        let end = next.map(|next| SystemTime::UNIX_EPOCH + next.to_unix_duration());
        if let Some(end) = end.filter(|end| now > *end) {
            faults.push(warning(
                format!("{name} should have been replaced on {} ({})", date(end), distance(now, end)),
                "fetch the authority's present list; this one is still used",
            ));
        }
    }
    ((!has_error(&faults)).then_some(lists), faults)
}

/// A list is only parsed when a verifier is built: here, for an authority that is none.
fn can_be_used(list: &CertificateRevocationListDer<'static>) -> Result<(), String> {
    let nobody =
        TrustAnchor { subject: Vec::new().into(), subject_public_key_info: Vec::new().into(), name_constraints: None };
    let roots = Arc::new(RootCertStore { roots: vec![nobody] });
    match WebPkiClientVerifier::builder_with_provider(roots, provider()).with_crls([list.clone()]).build() {
        Ok(_) => Ok(()),
        Err(failure) => Err(failure.to_string()),
    }
}

/// What verifies clients. A certificate that no list speaks of is refused when there are lists: each authority
/// of the chain below the root must have one.
pub(super) fn client_verifier(
    roots: Arc<RootCertStore>,
    lists: Vec<CertificateRevocationListDer<'static>>,
    required: bool,
) -> Result<Arc<dyn ClientCertVerifier>, FileFault> {
    let builder = WebPkiClientVerifier::builder_with_provider(roots, provider()).with_crls(lists);
    let builder = if required { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(|failure| {
        error(format!("clients cannot be verified: {failure}"), "check the files under `client_auth`")
    })
}
