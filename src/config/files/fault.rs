//! What is wrong with a file that the configuration names.

use crate::config::report::Severity;

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileFault {
    /// Whether it can be used all the same.
    pub severity: Severity,
    /// One sentence that names the file.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}
