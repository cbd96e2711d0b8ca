//! Whose certificates are good: the authorities of a `ca` file, the certificates in it that are trusted by themselves, and
//! what was revoked.

use std::collections::HashSet;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::{CertificateError, Error, RootCertStore};
use x509_cert::Certificate;
use x509_cert::der::{Decode, Encode};

use super::provider::provider;
use super::unfit::Unfit;
use super::x509::{
    Purpose, RevocationList, Shown, check_dates, check_intermediate, check_purpose, is_authority, is_constrained,
    may_sign_lists, not_after,
};

/// Authorities between a certificate of an old version and the one in `ca`, at most; as in rustls.
const MAX_DEPTH: usize = 6;
/// Signatures that are verified for one certificate of an old version. Its peer chooses what else it sends.
const MAX_SIGNATURES: usize = 16;

/// The end of what rests on nothing that ends.
pub(super) const ALWAYS: UnixTime = UnixTime::since_unix_epoch(Duration::MAX);
/// The end of what never held.
pub(super) const NEVER: UnixTime = UnixTime::since_unix_epoch(Duration::ZERO);

/// What one `ca` vouches for.
#[derive(Debug)]
pub(super) struct Trust {
    /// As rustls knows the authorities.
    pub(super) roots: RootCertStore,
    authorities: Vec<Certificate>,
    /// All certificates, in DER: one that is shown and is the same as one of these needs no authority.
    pins: HashSet<Vec<u8>>,
    /// Names by which clients recognise that a pinned certificate of theirs is asked for.
    pub(super) pinned_issuers: Vec<Vec<u8>>,
    lists: Vec<RevocationList>,
    /// A file was named. Authorities of the whole world are trusted for less than one's own.
    pub(super) is_own: bool,
}

impl Trust {
    pub(super) fn new(is_own: bool) -> Trust {
        Trust {
            roots: RootCertStore::empty(),
            authorities: Vec::new(),
            pins: HashSet::new(),
            pinned_issuers: Vec::new(),
            lists: Vec::new(),
            is_own,
        }
    }

    /// Adds a certificate of `ca`. One that is no authority is good for itself.
    ///
    /// # Errors
    /// It can be neither.
    pub(super) fn add(&mut self, der: CertificateDer<'static>) -> Result<(), Error> {
        let parsed = Certificate::from_der(&der).map_err(|_| CertificateError::BadEncoding)?;
        self.pins.insert(der.to_vec());
        if is_authority(&parsed) {
            self.roots.add(der)?;
            self.authorities.push(parsed);
        } else {
            self.pinned_issuers.extend(parsed.tbs_certificate.issuer.to_der());
        }
        Ok(())
    }

    pub(super) fn set_lists(&mut self, lists: Vec<RevocationList>) {
        self.lists = lists;
    }

    pub(super) fn is_pinned(&self, der: &CertificateDer<'_>) -> bool {
        self.pins.contains(der.as_ref())
    }

    /// Whether some authority is trusted for some names only.
    pub(super) fn has_constrained_authority(&self) -> bool {
        self.authorities.iter().any(is_constrained)
    }

    /// Verifies a certificate that is in `ca` itself: its dates, its use, and that it was not revoked.
    pub(super) fn verify_pinned(&self, shown: &Shown, now: UnixTime, purpose: Purpose) -> Result<(), Error> {
        check_dates(&shown.certificate, now)?;
        check_purpose(&shown.certificate, purpose)?;
        match self.lists.iter().any(|list| list.revokes(&shown.certificate)) {
            true => Err(CertificateError::Revoked.into()),
            false => Ok(()),
        }
    }

    /// Verifies a certificate of version 1 or 2: its dates, that an authority of `ca` vouches for it, maybe by way of
    /// others that the peer has sent, and that it was not revoked.
    pub(super) fn verify_old(
        &self,
        shown: &Shown,
        others: &[CertificateDer<'_>],
        now: UnixTime,
        purpose: Purpose,
    ) -> Result<(), Error> {
        if shown.certificate.tbs_certificate.extensions.is_some() {
            return Err(Unfit::OldWithExtensions.into());
        }
        check_dates(&shown.certificate, now)?;
        let others = others.iter().filter_map(|der| Shown::read(der)).collect();
        PathSearch { trust: self, others, now, purpose, signatures: MAX_SIGNATURES }.find(shown, 0)
    }

    /// If a key of the authorities, or of one that the peer has sent, is too short for its signatures to be verified.
    pub(super) fn short_key(&self, others: &[CertificateDer<'_>]) -> Option<Unfit> {
        let others = others.iter().filter_map(|der| Certificate::from_der(der).ok());
        let mut all = self.authorities.iter().cloned().chain(others);
        all.find_map(|certificate| Unfit::short_key(&certificate.tbs_certificate.subject_public_key_info))
    }

    /// Until when a verification of this chain holds: the end of each certificate in it, of the authority in `ca`, and of
    /// the revocation lists that were asked.
    pub(super) fn holds_until(&self, chain: &[CertificateDer<'_>]) -> UnixTime {
        let Some((first, rest)) = chain.split_first() else { return NEVER };
        let Some(own) = Shown::read(first) else { return NEVER };
        if self.is_pinned(first) {
            return self.ends(&own.certificate);
        }
        let mut rest: Vec<Shown> = rest.iter().filter_map(|der| Shown::read(der)).collect();
        let (mut pending, mut until) = (vec![own], ALWAYS);
        while let Some(shown) = pending.pop() {
            let issuer = &shown.certificate.tbs_certificate.issuer;
            let (above, others) =
                rest.into_iter().partition(|other| other.certificate.tbs_certificate.subject == *issuer);
            rest = others;
            let named = self.authorities.iter().filter(|authority| authority.tbs_certificate.subject == *issuer);
            // One that is in `ca` ends the chain. Only where the peer has sent another of the same name is it worth a look
            // which of them has signed.
            let algorithms = provider().signature_verification_algorithms.all;
            let signed = |authority: &&Certificate| {
                let key = &authority.tbs_certificate.subject_public_key_info;
                Vec::is_empty(&above) || shown.signed.verify(key, algorithms).is_ok()
            };
            let above_all = named.filter(signed).map(not_after).min();
            if above_all.is_none() && above.is_empty() {
                return NEVER;
            }
            let end = self.ends(&shown.certificate).min(above_all.unwrap_or(until));
            until = until.min(end);
            if above_all.is_none() {
                pending.extend(above);
            }
        }
        until
    }

    /// The end of a certificate, or of the list that says that it was not revoked.
    fn ends(&self, certificate: &Certificate) -> UnixTime {
        let lists = self.lists.iter().filter(|list| list.is_of(certificate));
        lists.filter_map(|list| list.next_update).fold(not_after(certificate), UnixTime::min)
    }
}

/// The search for a path from a certificate of an old version to an authority in `ca`. rustls takes none.
struct PathSearch<'t> {
    trust: &'t Trust,
    /// What the peer has sent besides its own.
    others: Vec<Shown>,
    now: UnixTime,
    purpose: Purpose,
    signatures: usize,
}

impl PathSearch<'_> {
    /// `below` certificates of authorities were passed on the way to `shown`.
    fn find(&mut self, shown: &Shown, below: usize) -> Result<(), Error> {
        let issuer = &shown.certificate.tbs_certificate.issuer;
        let mut why = CertificateError::UnknownIssuer.into();
        for authority in &self.trust.authorities {
            if authority.tbs_certificate.subject != *issuer {
                continue;
            }
            match self.vouches(authority, shown) {
                Ok(()) if is_constrained(authority) => why = Unfit::ConstrainedAuthority.into(),
                Ok(()) => return Ok(()),
                Err(error) => why = error,
            }
        }
        if below == MAX_DEPTH {
            return Err(why);
        }
        for place in 0..self.others.len() {
            if self.others[place].certificate.tbs_certificate.subject != *issuer {
                continue;
            }
            // Taken out, so that no path goes through it twice.
            let other = self.others.swap_remove(place);
            let found = check_intermediate(&other.certificate, below, self.purpose, self.now)
                .and_then(|()| self.vouches(&other.certificate, shown))
                .and_then(|()| self.find(&other, below + 1));
            let last = self.others.len();
            self.others.push(other);
            self.others.swap(place, last);
            match found {
                Ok(()) => return Ok(()),
                Err(error) => why = error,
            }
        }
        Err(why)
    }

    /// Whether the authority has signed the certificate, and not revoked it. Where there are lists, there must be one of it.
    fn vouches(&mut self, authority: &Certificate, shown: &Shown) -> Result<(), Error> {
        let algorithms = provider().signature_verification_algorithms.all;
        let key = &authority.tbs_certificate.subject_public_key_info;
        self.count()?;
        shown.signed.verify(key, algorithms)?;
        let trust = self.trust;
        if trust.lists.is_empty() {
            return Ok(());
        }
        let mut is_known = false;
        for list in trust.lists.iter().filter(|list| list.is_of(&shown.certificate)) {
            if list.revokes(&shown.certificate) {
                return Err(CertificateError::Revoked.into());
            }
            self.count()?;
            is_known |= may_sign_lists(authority) && list.is_whole_and_by(key, algorithms);
        }
        if is_known { Ok(()) } else { Err(CertificateError::UnknownRevocationStatus.into()) }
    }

    fn count(&mut self) -> Result<(), Error> {
        self.signatures = self.signatures.checked_sub(1).ok_or(CertificateError::UnknownIssuer)?;
        Ok(())
    }
}
