//! What is wrong with a file that the configuration names.

use crate::config::report::Severity;

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileFault {
    /// A warning leaves the file usable.
    pub severity: Severity,
    /// One sentence that names the file.
    pub message: String,
    /// The remedy.
    pub hint: Option<String>,
}
