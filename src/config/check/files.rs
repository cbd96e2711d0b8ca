//! Questions about the files that a configuration names.

use std::net::IpAddr;
use std::path::Path;

use super::Checker;
use crate::config::files::{FileFault, Part};
use crate::config::model::CertificateFiles;
use crate::config::report::Diagnostic;
use crate::config::tree::NodeId;

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
            self.warning(at, Diagnostic::error(format!("this host has no address {ip}")).hint(hint));
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
        let diagnostic = self.located(at, Diagnostic { severity, hint, ..Diagnostic::error(message) });
        self.diagnostics.push(diagnostic);
    }
}
