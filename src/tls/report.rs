//! Certificates in words, for `check` and the log.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::certificate::{self, CertificateInfo};
use super::dates::{date, distance};
use super::files::{Content, LoadReason, MAX_PEM};
use crate::config::model::{CertificateFiles, Config};

/// A certificate in service that ends within this time is worth a warning.
const EXPIRES_SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// Names shown of one certificate.
const MAX_NAMES: usize = 8;

/// What `check` says of one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateReport {
    /// The file.
    pub path: PathBuf,
    /// Its content; `None` if it cannot be used.
    pub facts: Option<CertificateInfo>,
    /// When it was read.
    pub now: SystemTime,
}

impl fmt::Display for CertificateReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(facts) = &self.facts else {
            return write!(f, "{}: cannot be used", self.path.display());
        };
        write!(f, "{}: {}", self.path.display(), CertificateSummary { facts, now: self.now })
    }
}

/// Every certificate that a configuration names, once, in its order: those of the admin interface, of the listeners, then
/// those that backends get.
pub fn describe(config: &Config) -> Vec<CertificateReport> {
    let now = SystemTime::now();
    let of_admin = config.admin.as_ref().and_then(|admin| admin.tls.as_ref());
    let of_listeners = of_admin.into_iter().chain(config.listeners.iter().filter_map(|listener| listener.tls.as_ref()));
    let of_pools = config.pools.iter().filter_map(|pool| pool.tls.as_ref()?.client_certificate.as_ref());
    let mut seen: Vec<&Path> = Vec::new();
    let mut reports = Vec::new();
    for files in of_listeners.flat_map(|tls| &tls.certificates).chain(of_pools) {
        if !seen.contains(&files.cert.as_path()) {
            seen.push(&files.cert);
            reports.push(report(files, now));
        }
    }
    reports
}

fn report(files: &CertificateFiles, now: SystemTime) -> CertificateReport {
    let (cert, key) = (Content::read(&files.cert, MAX_PEM), Content::read(files.key.reveal(), MAX_PEM));
    let facts = certificate::read(&cert, &key, LoadReason::Start, now).certificate.map(|certificate| certificate.facts);
    CertificateReport { path: files.cert.clone(), facts, now }
}

/// Names, expiry and key on one line.
pub(super) struct CertificateSummary<'a> {
    pub(super) facts: &'a CertificateInfo,
    pub(super) now: SystemTime,
}

impl fmt::Display for CertificateSummary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CertificateInfo { names, not_after, key, .. } = self.facts;
        let shown: Vec<&str> = names.iter().take(MAX_NAMES).map(String::as_str).collect();
        f.write_str(if shown.is_empty() { "no names" } else { "" })?;
        f.write_str(&shown.join(", "))?;
        if let Some(more) = names.len().checked_sub(MAX_NAMES).filter(|more| *more > 0) {
            write!(f, " and {more} more")?;
        }
        let verb = if self.now > *not_after { "expired" } else { "expires" };
        write!(f, "; {verb} {} ({}); {key}", date(*not_after), distance(self.now, *not_after))
    }
}

/// How close a certificate is to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Age {
    Fresh,
    /// Within two weeks, or the last third of a shorter life: one of a day is renewed every day.
    EndsSoon,
    Expired,
}

impl Age {
    pub(super) fn of(facts: &CertificateInfo, now: SystemTime) -> Age {
        let life = facts.not_after.duration_since(facts.not_before).unwrap_or_default();
        match facts.not_after.duration_since(now) {
            Err(_) => Age::Expired,
            Ok(left) if left <= EXPIRES_SOON.min(life / 3) => Age::EndsSoon,
            Ok(_) => Age::Fresh,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::certificate::KeyKind;

    const HOUR: u64 = 60 * 60;
    const DAY: u64 = 24 * HOUR;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn facts(names: usize, from: u64, to: u64) -> CertificateInfo {
        let names = (0..names).map(|number| format!("n{number}.example.com")).collect();
        let (not_before, not_after) = (at(from), at(to));
        CertificateInfo {
            path: "a.pem".into(),
            names,
            patterns: Vec::new(),
            not_before,
            not_after,
            key: KeyKind::Rsa(2048),
        }
    }

    #[test]
    fn one_line_says_names_expiry_and_key() {
        let facts = facts(10, 0, 1_798_761_600);
        let summary = CertificateSummary { facts: &facts, now: at(1_798_761_600 - 41 * DAY - 5) };
        let names: Vec<String> = (0..8).map(|number| format!("n{number}.example.com")).collect();
        let expected = format!("{} and 2 more; expires 2027-01-01 (in 41 days); RSA 2048", names.join(", "));
        assert_eq!(summary.to_string(), expected);
        let summary = CertificateSummary { now: at(1_798_761_600 + 3 * DAY), ..summary };
        assert!(summary.to_string().ends_with("; expired 2027-01-01 (3 days ago); RSA 2048"), "{summary}");
    }

    #[test]
    fn two_weeks_before_its_end_or_a_third_of_a_short_life() {
        let year = facts(1, 0, 365 * DAY);
        assert_eq!(Age::of(&year, at(350 * DAY)), Age::Fresh);
        assert_eq!(Age::of(&year, at(351 * DAY)), Age::EndsSoon);
        assert_eq!(Age::of(&year, at(365 * DAY + 1)), Age::Expired);
        let day = facts(1, 0, 24 * HOUR);
        assert_eq!(Age::of(&day, at(15 * HOUR)), Age::Fresh);
        assert_eq!(Age::of(&day, at(16 * HOUR)), Age::EndsSoon);
    }
}
