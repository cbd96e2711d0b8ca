//! Questions about the files that a configuration names, each asked once.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::config::files::{Diagnostic, Files, Part};
use crate::config::model::CertificateFiles;

/// Checks each file once: a fault is reported where the file is named first.
pub(super) struct FileLookup<'f> {
    pub(super) files: &'f dyn Files,
    asked: HashSet<FileQuery>,
}

#[derive(PartialEq, Eq, Hash)]
enum FileQuery {
    Certificate(CertificateFiles),
    Authorities(PathBuf),
    Revocations(PathBuf),
    Socket(PathBuf),
}

impl<'f> FileLookup<'f> {
    pub(super) fn new(files: &'f dyn Files) -> FileLookup<'f> {
        FileLookup { files, asked: HashSet::new() }
    }

    pub(super) fn certificate(&mut self, files: &CertificateFiles) -> Vec<(Part, Diagnostic)> {
        let new = self.asked.insert(FileQuery::Certificate(files.clone()));
        if new { self.files.certificate(files) } else { Vec::new() }
    }

    pub(super) fn authorities(&mut self, path: &Path) -> Vec<Diagnostic> {
        let new = self.asked.insert(FileQuery::Authorities(path.to_owned()));
        if new { self.files.authorities(path) } else { Vec::new() }
    }

    pub(super) fn revocations(&mut self, path: &Path) -> Vec<Diagnostic> {
        let new = self.asked.insert(FileQuery::Revocations(path.to_owned()));
        if new { self.files.revocations(path) } else { Vec::new() }
    }

    pub(super) fn socket(&mut self, path: &Path) -> Vec<Diagnostic> {
        let new = self.asked.insert(FileQuery::Socket(path.to_owned()));
        if new { self.files.socket(path) } else { Vec::new() }
    }

    /// As [`Files::real`].
    pub(super) fn real(&self, path: &Path) -> PathBuf {
        self.files.real(path)
    }

    /// As [`Files::is_own`].
    pub(super) fn is_own(&self, ip: IpAddr) -> bool {
        self.files.is_own(ip)
    }
}
