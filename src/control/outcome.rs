//! What became of a request for a change.

use std::fmt;

use crate::config::{Failure, LocatedError, Style};

/// A change that is in effect, or that would be possible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The generation of the configuration in effect.
    pub generation: u64,
    /// A line for each difference; empty when nothing has changed.
    pub changes: Vec<String>,
    /// Something is new that was not there.
    pub created: bool,
    /// What the asker should know all the same.
    pub warnings: Vec<String>,
}

/// Why nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The generation in effect is none of those that were named.
    Stale {
        /// The one in effect.
        generation: u64,
    },
    /// There is nothing of that name.
    NotFound(String),
    /// It contradicts what is there.
    Conflict(String),
    /// A value that cannot be.
    Unusable(String),
    /// The configuration is wrong or cannot be applied.
    Rejected {
        /// As `tidegate check` prints them.
        report: String,
        /// Each error.
        errors: Vec<LocatedError>,
    },
    /// The process ends.
    Ending,
}

impl Refusal {
    /// Of a configuration that is wrong.
    pub fn of_failure(failure: &Failure) -> Refusal {
        Refusal::Rejected { report: failure.render(Style::Plain), errors: failure.errors() }
    }

    /// Of a configuration that cannot be applied: a line for each error.
    pub fn of_lines(file: &str, lines: &[String]) -> Refusal {
        let error = |message: &String| LocatedError {
            file: file.to_owned(),
            line: None,
            column: None,
            message: message.clone(),
            help: None,
        };
        let errors = lines.iter().map(error).collect();
        let report = lines.iter().map(|line| format!("error: {line}\n")).collect();
        Refusal::Rejected { report, errors }
    }
}

impl Refusal {
    /// In one line: the first error, and how many more there are.
    pub fn summary(&self) -> String {
        match self {
            Refusal::Rejected { errors, .. } => match errors.as_slice() {
                [] => "the configuration is wrong".to_owned(),
                [first, rest @ ..] => {
                    let place = first.line.map(|line| format!("{}:{line}: ", first.file)).unwrap_or_default();
                    let more = if rest.is_empty() { String::new() } else { format!(" (and {} more)", rest.len()) };
                    format!("{place}{}{more}", first.message)
                }
            },
            other => other.to_string(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Stale { generation } => {
                write!(f, "the configuration has changed meanwhile: generation {generation} is in effect")
            }
            Refusal::NotFound(why) | Refusal::Conflict(why) | Refusal::Unusable(why) => f.write_str(why),
            Refusal::Rejected { report, .. } => f.write_str(report.trim_end()),
            Refusal::Ending => f.write_str("the process is shutting down: nothing changes any more"),
        }
    }
}

impl std::error::Error for Refusal {}
