//! Files whose content is in service, and what becomes of a change to them. Nothing here waits: `now` comes in.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::certificate::Facts;
use super::files::{Content, LoadError, Occasion, Stamp};
use super::report::Summary;
use crate::config::Severity;
use crate::config::files::FileFault;

/// How long a change may look wrong before it is told: a certificate and its key are replaced one after the
/// other, and a file is written piece by piece.
pub(super) const SETTLE: Duration = Duration::from_secs(2);

/// What a look at the files of a [`Acceptor`](super::Acceptor) or a [`Connector`](super::Connector) came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// What is in service stays, and nothing is to be told.
    Unchanged,
    /// Something is new and cannot be used as it is; another look within seconds will tell.
    Settling,
    /// Something new was refused, and what was in service stays.
    Refused,
    /// Something new is in service.
    Replaced,
}

impl Outcome {
    /// The outcome that decides what is next: another look within seconds, or else news.
    pub(super) fn worst(outcomes: &[Outcome]) -> Outcome {
        let order = [Outcome::Settling, Outcome::Refused, Outcome::Replaced];
        order.into_iter().find(|outcome| outcomes.contains(outcome)).unwrap_or(Outcome::Unchanged)
    }
}

/// How the files of a listener or a pool stand. Each look makes it anew; it is read without waiting for one, as a file
/// system may hang.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// What is in the certificates in service.
    pub facts: Vec<Facts>,
    /// Replacements that went into service.
    pub replaced: u64,
    /// Replacements that were refused, each content once.
    pub refused: u64,
    /// Why what the files hold now is not in service, for people; empty when it is.
    pub faults: Vec<String>,
}

impl Standing {
    /// After a look that came to this.
    pub(super) fn after(&self, outcomes: &[Outcome], facts: Vec<Facts>, faults: Vec<String>) -> Standing {
        let count = |wanted| outcomes.iter().filter(|&&outcome| outcome == wanted).count() as u64;
        Standing {
            facts,
            replaced: self.replaced + count(Outcome::Replaced),
            refused: self.refused + count(Outcome::Refused),
            faults,
        }
    }
}

/// The time of a look, by the clock that only goes forward and by the one that certificates go by.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For how long something lasts.
    pub instant: Instant,
    /// For dates.
    pub wall: SystemTime,
}

impl Now {
    /// The present.
    pub fn read() -> Now {
        Now { instant: Instant::now(), wall: SystemTime::now() }
    }
}

/// What was made of files, and the faults they had; `None` when one of these is an error.
pub(super) type Made<T> = (Option<T>, Vec<FileFault>);

/// Makes something of the contents of files, in the order of their paths.
type Make<T> = dyn Fn(&[Content], Occasion, SystemTime) -> Made<T> + Send + Sync;

/// Files that make one thing together: a certificate and its key, authorities and their lists.
pub(super) struct Piece<T> {
    /// With the largest size of each.
    paths: Vec<(PathBuf, u64)>,
    make: Box<Make<T>>,
    in_service: Arc<T>,
    /// Of the contents in service.
    digest: u64,
    /// Of the last look; empty when a change may not have shown in them.
    stamps: Vec<Stamp>,
    trouble: Option<Trouble>,
}

/// New contents that cannot be used.
struct Trouble {
    digest: u64,
    since: Instant,
    is_told: bool,
    /// The errors that were told last, also of the contents before.
    faults: Vec<String>,
}

/// What a look at one piece came to, with the faults that are to be told.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    Unchanged,
    Settling,
    Refused(Vec<FileFault>),
    /// With warnings.
    Replaced(Vec<FileFault>),
}

impl Look {
    /// Logs what became of the files of `owner`; `facts` are those of the certificate in service, if it is one.
    pub(super) fn log(&self, owner: &str, facts: Option<&Facts>, now: SystemTime) -> Outcome {
        match self {
            Look::Unchanged => Outcome::Unchanged,
            Look::Settling => Outcome::Settling,
            Look::Refused(faults) => {
                for FileFault { message, hint, .. } in faults.iter().filter(|fault| fault.severity == Severity::Error) {
                    tracing::warn!(owner, hint, "TLS: a change is refused, what was in service stays: {message}");
                }
                Outcome::Refused
            }
            Look::Replaced(warnings) => {
                for FileFault { message, hint, .. } in warnings {
                    tracing::warn!(owner, hint, "TLS: {message}");
                }
                match facts {
                    Some(facts) => {
                        let summary = Summary { facts, now };
                        tracing::info!(owner, "TLS: {} is replaced: {summary}", facts.path.display());
                    }
                    None => tracing::info!(owner, "TLS: the authorities are replaced"),
                }
                Outcome::Replaced
            }
        }
    }
}

impl<T> Piece<T> {
    /// Puts the files' present content in service.
    pub(super) fn load(
        paths: Vec<(PathBuf, u64)>,
        make: impl Fn(&[Content], Occasion, SystemTime) -> Made<T> + Send + Sync + 'static,
        now: Now,
    ) -> Result<Piece<T>, LoadError> {
        let (stamps, contents) = look(&paths, now);
        match make(&contents, Occasion::Start, now.wall) {
            (Some(made), _) => Ok(Piece {
                paths,
                make: Box::new(make),
                in_service: Arc::new(made),
                digest: Content::digest(&contents),
                stamps,
                trouble: None,
            }),
            (None, faults) => Err(LoadError { faults }),
        }
    }

    pub(super) fn get(&self) -> &Arc<T> {
        &self.in_service
    }

    /// Why what the files hold now is not in service; empty when it is, or may be within seconds.
    pub(super) fn faults(&self) -> impl Iterator<Item = String> {
        self.trouble.iter().flat_map(|trouble| trouble.faults.iter().cloned())
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.paths.iter().map(|(path, _)| path)
    }

    /// Looks at the files, and puts what is new and good in service.
    pub(super) fn refresh(&mut self, now: Now) -> Look {
        // What was refused is made again even if it is the same: a certificate may have become valid.
        let same = |stamps: &[Stamp]| self.paths.iter().map(|(path, _)| Stamp::of(path)).eq(stamps.iter().cloned());
        if self.trouble.is_none() && !self.stamps.is_empty() && same(&self.stamps) {
            return Look::Unchanged;
        }
        let (stamps, contents) = look(&self.paths, now);
        self.stamps = stamps;
        let digest = Content::digest(&contents);
        if digest == self.digest {
            self.trouble = None;
            return Look::Unchanged;
        }
        match (self.make)(&contents, Occasion::Replacement, now.wall) {
            (Some(made), warnings) => {
                self.in_service = Arc::new(made);
                self.digest = digest;
                self.trouble = None;
                Look::Replaced(warnings)
            }
            (None, faults) => self.refuse(digest, faults, now.instant),
        }
    }

    /// Each content that is refused is told once, and only when it stays so.
    fn refuse(&mut self, digest: u64, faults: Vec<FileFault>, now: Instant) -> Look {
        match &mut self.trouble {
            Some(trouble) if trouble.digest == digest => {
                if trouble.is_told {
                    return Look::Unchanged;
                }
                if now.saturating_duration_since(trouble.since) < SETTLE {
                    return Look::Settling;
                }
                let errors = faults.iter().filter(|fault| fault.severity == Severity::Error);
                trouble.faults = errors.map(|fault| fault.message.clone()).collect();
                trouble.is_told = true;
                Look::Refused(faults)
            }
            other => {
                let faults = other.take().map(|before| before.faults).unwrap_or_default();
                *other = Some(Trouble { digest, since: now, is_told: false, faults });
                Look::Settling
            }
        }
    }
}

/// Stamps first: a change between the two shows in the next.
fn look(paths: &[(PathBuf, u64)], now: Now) -> (Vec<Stamp>, Vec<Content>) {
    let stamps: Vec<Stamp> = paths.iter().map(|(path, _)| Stamp::of(path)).collect();
    let contents = paths.iter().map(|(path, max)| Content::read(path, *max)).collect();
    let all_settled = stamps.iter().all(|stamp| stamp.is_settled(now.wall));
    (if all_settled { stamps } else { Vec::new() }, contents)
}
