//! What the configuration wants to know of the files that it names. Who can read them tells it by [`Files`].

use std::path::Path;

use super::Severity;
use super::model::CertificateFiles;

/// Looks into files that a configuration names. What it finds is shown at the line that names the file.
pub trait Files {
    /// A chain and its key, whether they can be used, and with each other.
    fn certificate(&self, files: &CertificateFiles) -> Vec<(Part, FileFault)>;
    /// Certificates of authorities.
    fn authorities(&self, path: &Path) -> Vec<FileFault>;
    /// Revocation lists.
    fn revocations(&self, path: &Path) -> Vec<FileFault>;
}

/// Which file of a [`CertificateFiles`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Part {
    Cert,
    Key,
}

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

/// Takes every file as good, without a look.
#[derive(Clone, Copy, Debug)]
pub struct Unread;

impl Files for Unread {
    fn certificate(&self, _: &CertificateFiles) -> Vec<(Part, FileFault)> {
        Vec::new()
    }

    fn authorities(&self, _: &Path) -> Vec<FileFault> {
        Vec::new()
    }

    fn revocations(&self, _: &Path) -> Vec<FileFault> {
        Vec::new()
    }
}
