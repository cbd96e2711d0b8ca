//! Questions about the files that a configuration names.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::Checker;
use crate::config::files::{FileFault, Files, Part};
use crate::config::model::CertificateFiles;
use crate::config::report::{Fault, Severity};
use crate::config::tree::NodeId;

/// Asks each question once. What is wrong with a file is wrong with it wherever it is named, and is shown where it is
/// named first.
pub(super) struct Lookup<'f> {
    files: &'f dyn Files,
    asked: HashSet<Question>,
}

#[derive(PartialEq, Eq, Hash)]
enum Question {
    Certificate(CertificateFiles),
    Authorities(PathBuf),
    Revocations(PathBuf),
    Socket(PathBuf),
}

impl<'f> Lookup<'f> {
    pub(super) fn new(files: &'f dyn Files) -> Lookup<'f> {
        Lookup { files, asked: HashSet::new() }
    }

    fn certificate(&mut self, files: &CertificateFiles) -> Vec<(Part, FileFault)> {
        let new = self.asked.insert(Question::Certificate(files.clone()));
        if new { self.files.certificate(files) } else { Vec::new() }
    }

    fn authorities(&mut self, path: &Path) -> Vec<FileFault> {
        let new = self.asked.insert(Question::Authorities(path.to_owned()));
        if new { self.files.authorities(path) } else { Vec::new() }
    }

    fn revocations(&mut self, path: &Path) -> Vec<FileFault> {
        let new = self.asked.insert(Question::Revocations(path.to_owned()));
        if new { self.files.revocations(path) } else { Vec::new() }
    }

    fn socket(&mut self, path: &Path) -> Vec<FileFault> {
        let new = self.asked.insert(Question::Socket(path.to_owned()));
        if new { self.files.socket(path) } else { Vec::new() }
    }

    /// A path in one spelling.
    pub(super) fn real(&self, path: &Path) -> PathBuf {
        self.files.real(path)
    }

    /// Whether an address is this host's.
    pub(super) fn is_own(&self, ip: IpAddr) -> bool {
        self.files.is_own(ip)
    }
}

impl Checker<'_> {
    /// Looks into a chain, named at `cert`, and its key, named at `key`.
    pub(super) fn certificate_files(&mut self, files: &CertificateFiles, cert: NodeId, key: NodeId) {
        for (part, fault) in self.files.certificate(files) {
            let at = match part {
                Part::Cert => cert,
                Part::Key => key,
            };
            self.found(at, fault);
        }
    }

    /// Looks into a file of authorities, named at `at`.
    pub(super) fn authorities_file(&mut self, path: &Path, at: NodeId) {
        for fault in self.files.authorities(path) {
            self.found(at, fault);
        }
    }

    /// Looks into a file of revocation lists, named at `at`.
    pub(super) fn revocations_file(&mut self, path: &Path, at: NodeId) {
        for fault in self.files.revocations(path) {
            self.found(at, fault);
        }
    }

    /// Looks at where a unix socket is to be, named at `at`.
    pub(super) fn socket_file(&mut self, path: &Path, at: NodeId) {
        for fault in self.files.socket(path) {
            self.found(at, fault);
        }
    }

    /// Warns of an address that no socket of this host can be bound to, named at `at`. The host that runs it may be
    /// another one, or get the address later.
    pub(super) fn own_address(&mut self, ip: IpAddr, at: NodeId, hint: &str) {
        // Whether IPv6 is on is no matter of the file.
        let is_everywhere = ip.to_canonical().is_loopback() || ip.is_unspecified();
        if !is_everywhere && !self.files.files.can_bind(ip) {
            self.warning(at, Fault::new(format!("this host has no address {ip}")).hint(hint));
        }
    }

    /// Looks at where a log is to be written, named at `at`.
    pub(super) fn log_file(&mut self, path: &Path, at: NodeId) {
        for fault in self.files.files.log(path) {
            self.found(at, fault);
        }
    }

    /// Looks into the file of the stats port's token, named at `at`.
    pub(super) fn token_file(&mut self, path: &Path, at: NodeId) {
        for fault in self.files.files.token(path) {
            self.found(at, fault);
        }
    }

    fn found(&mut self, at: NodeId, FileFault { severity, message, hint }: FileFault) {
        let fault = Fault { message, hint };
        match severity {
            Severity::Error => self.error(at, fault),
            Severity::Warning => self.warning(at, fault),
        }
    }
}
