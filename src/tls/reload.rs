//! Reload of the files in service: what a poll finds, and what becomes of it. Nothing here waits: `now` comes in.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::certificate::CertificateInfo;
use super::files::{Content, LoadError, LoadReason, Stamp};
use super::report::CertificateSummary;
use crate::config::Severity;
use crate::config::files::Diagnostic;

/// Time before a faulty change is reported: a certificate and its key are replaced one after the other, and a file is
/// written in parts.
pub(super) const SETTLE_TIME: Duration = Duration::from_secs(2);

/// The outcome of a poll of all files of an [`Acceptor`](super::Acceptor) or a [`Connector`](super::Connector).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadOutcome {
    /// Nothing to report: what is in service stays.
    Unchanged,
    /// A change that is faulty so far. Poll again after [`SETTLE_TIME`].
    Settling,
    /// A change was rejected: what is in service stays.
    Refused,
    /// A change is in service.
    Replaced,
}

impl ReloadOutcome {
    /// The outcome that counts for several: `Settling`, which asks for the earlier poll, or else news.
    pub(super) fn worst(outcomes: &[ReloadOutcome]) -> ReloadOutcome {
        let order = [ReloadOutcome::Settling, ReloadOutcome::Refused, ReloadOutcome::Replaced];
        order.into_iter().find(|outcome| outcomes.contains(outcome)).unwrap_or(ReloadOutcome::Unchanged)
    }
}

/// The state of the files of a listener or a pool. A poll replaces it, so that reading it never waits for a file system
/// that hangs.
#[derive(Clone, Debug, Default)]
pub struct ReloadStatus {
    /// The certificates in service.
    pub facts: Vec<CertificateInfo>,
    /// Changes that went into service.
    pub replaced: u64,
    /// Changes that were rejected, each content once.
    pub refused: u64,
    /// Why the present content of the files is not in service; empty when it is.
    pub faults: Vec<String>,
}

impl ReloadStatus {
    /// The state after a poll with these outcomes.
    pub(super) fn after(
        &self,
        outcomes: &[ReloadOutcome],
        facts: Vec<CertificateInfo>,
        faults: Vec<String>,
    ) -> ReloadStatus {
        let count = |wanted| outcomes.iter().filter(|&&outcome| outcome == wanted).count() as u64;
        ReloadStatus {
            facts,
            replaced: self.replaced + count(ReloadOutcome::Replaced),
            refused: self.refused + count(ReloadOutcome::Refused),
            faults,
        }
    }
}

/// The time of a poll, by the monotonic clock and by the system clock.
#[derive(Clone, Copy, Debug)]
pub struct PollTime {
    /// For durations.
    pub instant: Instant,
    /// For the dates of certificates.
    pub wall: SystemTime,
}

impl PollTime {
    /// The present.
    pub fn read() -> PollTime {
        PollTime { instant: Instant::now(), wall: SystemTime::now() }
    }
}

/// What was made of files, and their faults; `None` if a fault is an error.
pub(super) type Made<T> = (Option<T>, Vec<Diagnostic>);

/// Makes a `T` of the contents of files, in the order of their paths.
type Make<T> = dyn Fn(&[Content], LoadReason, SystemTime) -> Made<T> + Send + Sync;

/// Files that are used together: a certificate and its key, authorities and their revocation lists.
pub(super) struct ReloadableFiles<T> {
    /// With the maximum size of each in bytes.
    paths: Vec<(PathBuf, u64)>,
    make: Box<Make<T>>,
    in_service: Arc<T>,
    /// Of the contents in service.
    digest: u64,
    /// Of the last poll; empty when a later change could have the same stamps.
    stamps: Vec<Stamp>,
    rejected: Option<RejectedContent>,
}

/// New contents that cannot be used.
struct RejectedContent {
    digest: u64,
    since: Instant,
    is_reported: bool,
    /// The errors reported last, also those of an earlier content.
    faults: Vec<String>,
}

/// The outcome of a poll of some files, with the faults to report.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PollOutcome {
    Unchanged,
    Settling,
    Refused(Vec<Diagnostic>),
    /// With warnings.
    Replaced(Vec<Diagnostic>),
}

impl PollOutcome {
    /// Logs what became of the files of `owner`; `facts` are those of the certificate in service, if it is one.
    pub(super) fn log(&self, owner: &str, facts: Option<&CertificateInfo>, now: SystemTime) -> ReloadOutcome {
        match self {
            PollOutcome::Unchanged => ReloadOutcome::Unchanged,
            PollOutcome::Settling => ReloadOutcome::Settling,
            PollOutcome::Refused(faults) => {
                for Diagnostic { message, hint, .. } in faults.iter().filter(|fault| fault.severity == Severity::Error)
                {
                    tracing::warn!(owner, hint, "TLS: a change is refused, what was in service stays: {message}");
                }
                ReloadOutcome::Refused
            }
            PollOutcome::Replaced(warnings) => {
                for Diagnostic { message, hint, .. } in warnings {
                    tracing::warn!(owner, hint, "TLS: {message}");
                }
                match facts {
                    Some(facts) => {
                        let summary = CertificateSummary { facts, now };
                        tracing::info!(owner, "TLS: {} is replaced: {summary}", facts.path.display());
                    }
                    None => tracing::info!(owner, "TLS: the authorities are replaced"),
                }
                ReloadOutcome::Replaced
            }
        }
    }
}

impl<T> ReloadableFiles<T> {
    /// Reads the files and puts their content in service.
    pub(super) fn load(
        paths: Vec<(PathBuf, u64)>,
        make: impl Fn(&[Content], LoadReason, SystemTime) -> Made<T> + Send + Sync + 'static,
        now: PollTime,
    ) -> Result<ReloadableFiles<T>, LoadError> {
        let (stamps, contents) = read_all(&paths, now);
        match make(&contents, LoadReason::Start, now.wall) {
            (Some(made), _) => Ok(ReloadableFiles {
                paths,
                make: Box::new(make),
                in_service: Arc::new(made),
                digest: Content::digest(&contents),
                stamps,
                rejected: None,
            }),
            (None, faults) => Err(LoadError { faults }),
        }
    }

    pub(super) fn get(&self) -> &Arc<T> {
        &self.in_service
    }

    /// Why the present content is not in service; empty when it is, or while it settles.
    pub(super) fn faults(&self) -> impl Iterator<Item = String> {
        self.rejected.iter().flat_map(|rejected| rejected.faults.iter().cloned())
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.paths.iter().map(|(path, _)| path)
    }

    /// Reads files that changed, and puts them in service unless they are faulty.
    pub(super) fn poll(&mut self, now: PollTime) -> PollOutcome {
        // A rejected content is checked again even if it is the same: a certificate may have become valid.
        let same = |stamps: &[Stamp]| self.paths.iter().map(|(path, _)| Stamp::of(path)).eq(stamps.iter().cloned());
        if self.rejected.is_none() && !self.stamps.is_empty() && same(&self.stamps) {
            return PollOutcome::Unchanged;
        }
        let (stamps, contents) = read_all(&self.paths, now);
        self.stamps = stamps;
        let digest = Content::digest(&contents);
        if digest == self.digest {
            self.rejected = None;
            return PollOutcome::Unchanged;
        }
        match (self.make)(&contents, LoadReason::Replacement, now.wall) {
            (Some(made), warnings) => {
                self.in_service = Arc::new(made);
                self.digest = digest;
                self.rejected = None;
                PollOutcome::Replaced(warnings)
            }
            (None, faults) => self.refuse(digest, faults, now.instant),
        }
    }

    /// Reports each rejected content once, and only after it has settled.
    fn refuse(&mut self, digest: u64, faults: Vec<Diagnostic>, now: Instant) -> PollOutcome {
        match &mut self.rejected {
            Some(rejected) if rejected.digest == digest => {
                if rejected.is_reported {
                    return PollOutcome::Unchanged;
                }
                if now.saturating_duration_since(rejected.since) < SETTLE_TIME {
                    return PollOutcome::Settling;
                }
                let errors = faults.iter().filter(|fault| fault.severity == Severity::Error);
                rejected.faults = errors.map(|fault| fault.message.clone()).collect();
                rejected.is_reported = true;
                PollOutcome::Refused(faults)
            }
            other => {
                let faults = other.take().map(|before| before.faults).unwrap_or_default();
                *other = Some(RejectedContent { digest, since: now, is_reported: false, faults });
                PollOutcome::Settling
            }
        }
    }
}

/// Stamps come first: a change between the two shows in the next poll.
fn read_all(paths: &[(PathBuf, u64)], now: PollTime) -> (Vec<Stamp>, Vec<Content>) {
    let stamps: Vec<Stamp> = paths.iter().map(|(path, _)| Stamp::of(path)).collect();
    let contents = paths.iter().map(|(path, max)| Content::read(path, *max)).collect();
    let all_settled = stamps.iter().all(|stamp| stamp.is_settled(now.wall));
    (if all_settled { stamps } else { Vec::new() }, contents)
}
