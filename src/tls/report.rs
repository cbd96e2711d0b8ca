//! Certificates in words: for `check`, for the log.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::certificate::{self, Facts};
use super::files::{Content, MAX_PEM};
use crate::config::model::{CertificateFiles, Config};

const HOUR: u64 = 60 * 60;
const DAY: u64 = 24 * HOUR;

/// A certificate in service that ends within this time is worth a warning.
const SOON: Duration = Duration::from_secs(14 * DAY);

/// Names shown of one certificate.
const SHOWN: usize = 8;

/// What `check` says of one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateReport {
    /// The file.
    pub path: PathBuf,
    /// What is in it; `None` when it cannot be used, which the configuration's problems tell.
    pub facts: Option<Facts>,
    /// When it was looked at.
    pub now: SystemTime,
}

impl fmt::Display for CertificateReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(facts) = &self.facts else {
            return write!(f, "{}: cannot be used", self.path.display());
        };
        write!(f, "{}: {}", self.path.display(), Summary { facts, now: self.now })
    }
}

/// Every certificate that a configuration names, once, in its order: those of the listeners, then those that
/// backends get.
pub fn describe(config: &Config) -> Vec<CertificateReport> {
    let now = SystemTime::now();
    let of_listeners = config.listeners.iter().filter_map(|listener| listener.tls.as_ref());
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
    let (cert, key) = (Content::read(&files.cert, MAX_PEM), Content::read(&files.key, MAX_PEM));
    let facts = certificate::read(&cert, &key, now).certificate.map(|certificate| certificate.facts);
    CertificateReport { path: files.cert.clone(), facts, now }
}

/// Names, expiry and key on one line.
pub(super) struct Summary<'a> {
    pub(super) facts: &'a Facts,
    pub(super) now: SystemTime,
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Facts { names, not_after, key, .. } = self.facts;
        let shown: Vec<&str> = names.iter().take(SHOWN).map(String::as_str).collect();
        f.write_str(if shown.is_empty() { "no names" } else { "" })?;
        f.write_str(&shown.join(", "))?;
        if let Some(more) = names.len().checked_sub(SHOWN).filter(|more| *more > 0) {
            write!(f, " and {more} more")?;
        }
        write!(f, "; expires {} ({}); {key}", date(*not_after), distance(self.now, *not_after))
    }
}

/// How a certificate's end is near.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Age {
    Fresh,
    /// Within two weeks, or the last third of a shorter life: one of a day is renewed every day.
    EndsSoon,
    Expired,
}

impl Age {
    pub(super) fn of(facts: &Facts, now: SystemTime) -> Age {
        let life = facts.not_after.duration_since(facts.not_before).unwrap_or_default();
        match facts.not_after.duration_since(now) {
            Err(_) => Age::Expired,
            Ok(left) if left <= SOON.min(life / 3) => Age::EndsSoon,
            Ok(_) => Age::Fresh,
        }
    }
}

/// The day, as in 2027-01-31, of UTC.
pub(super) fn date(at: SystemTime) -> String {
    let mut text = humantime::format_rfc3339_seconds(at).to_string();
    text.truncate("2027-01-31".len());
    text
}

/// How far off a moment is: `in 41 days`, `3 hours ago`.
pub(super) fn distance(now: SystemTime, at: SystemTime) -> String {
    let (seconds, is_past) = match at.duration_since(now) {
        Ok(ahead) => (ahead.as_secs(), false),
        Err(behind) => (behind.duration().as_secs(), true),
    };
    let (number, unit) = match seconds {
        DAY.. => (seconds / DAY, "day"),
        HOUR.. => (seconds / HOUR, "hour"),
        _ => (seconds / 60, "minute"),
    };
    let plural = if number == 1 { "" } else { "s" };
    if is_past { format!("{number} {unit}{plural} ago") } else { format!("in {number} {unit}{plural}") }
}
