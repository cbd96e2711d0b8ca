//! The files that are reloaded: certificates with keys, authorities with revocation lists.

use std::path::Path;
use std::sync::Arc;

use super::authorities;
use super::certificate::{self, Certificate};
use super::files::{Content, LoadError, MAX_CRL, MAX_PEM};
use super::reload::{Made, PollTime, ReloadableFiles};
use super::trust::Trust;
use super::verify::ClientVerifier;
use crate::config::model::{CertificateFiles, VerifiedClients};

/// A certificate and its key.
pub(super) fn certificate(files: &CertificateFiles, now: PollTime) -> Result<ReloadableFiles<Certificate>, LoadError> {
    let make = |contents: &[Content], occasion, now| match contents {
        [cert, key] => {
            let reading = certificate::read(cert, key, occasion, now);
            (reading.certificate, reading.faults.into_iter().map(|(_, fault)| fault).collect())
        }
        _ => (None, Vec::new()),
    };
    ReloadableFiles::load(vec![(files.cert.clone(), MAX_PEM), (files.key.reveal().clone(), MAX_PEM)], make, now)
}

/// The verifier of clients (mTLS).
pub(super) fn client_verifier(
    auth: &VerifiedClients,
    now: PollTime,
) -> Result<ReloadableFiles<Arc<ClientVerifier>>, LoadError> {
    let required = auth.required;
    let make = move |contents: &[Content], _, now| -> Made<Arc<ClientVerifier>> {
        let (ca, crl) = match contents {
            [ca] => (ca, None),
            [ca, crl] => (ca, Some(crl)),
            _ => return (None, Vec::new()),
        };
        let (trust, mut faults) = authorities::of_file(ca, now);
        let lists = match crl.map(|crl| authorities::revocations(crl, now)) {
            Some((lists, more)) => {
                faults.extend(more);
                lists.map(Some)
            }
            None => Some(None),
        };
        let Some((trust, lists)) = trust.zip(lists) else { return (None, faults) };
        match authorities::client_verifier(trust, lists, required) {
            Ok(verifier) => (Some(Arc::new(verifier)), faults),
            Err(fault) => {
                faults.push(fault);
                (None, faults)
            }
        }
    };
    let crl = auth.crl.iter().map(|path| (path.clone(), MAX_CRL));
    ReloadableFiles::load([(auth.ca.clone(), MAX_PEM)].into_iter().chain(crl).collect(), make, now)
}

/// The authorities that vouch for a pool's backends.
pub(super) fn backend_trust(path: &Path, now: PollTime) -> Result<ReloadableFiles<Arc<Trust>>, LoadError> {
    let make = |contents: &[Content], _, now| -> Made<Arc<Trust>> {
        let [file] = contents else { return (None, Vec::new()) };
        let (trust, faults) = authorities::of_file(file, now);
        (trust.map(Arc::new), faults)
    };
    ReloadableFiles::load(vec![(path.to_owned(), MAX_PEM)], make, now)
}
