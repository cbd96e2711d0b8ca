//! Findings about the files that a configuration names.

use std::net::IpAddr;
use std::path::Path;

use super::Checker;
use crate::config::files::Part;
use crate::config::model::CertificateFiles;
use crate::config::report::Diagnostic;
use crate::config::tree::NodeId;

impl Checker<'_> {
    /// Checks a certificate chain, named at `cert`, and its key, named at `key`.
    pub(super) fn certificate_files(&mut self, files: &CertificateFiles, cert: NodeId, key: NodeId) {
        for (part, fault) in self.files.certificate(files) {
            let at = match part {
                Part::Cert => cert,
                Part::Key => key,
            };
            self.found(at, fault);
        }
    }

    /// Checks a file of CAs.
    pub(super) fn authorities_file(&mut self, path: &Path, at: NodeId) {
        for fault in self.files.authorities(path) {
            self.found(at, fault);
        }
    }

    /// Checks a file of revocation lists.
    pub(super) fn revocations_file(&mut self, path: &Path, at: NodeId) {
        for fault in self.files.revocations(path) {
            self.found(at, fault);
        }
    }

    /// Checks the path of a unix socket.
    pub(super) fn socket_file(&mut self, path: &Path, at: NodeId) {
        for fault in self.files.socket(path) {
            self.found(at, fault);
        }
    }

    /// Warns of an address that cannot be bound here. The host that runs the file may be another one, or get the address
    /// later.
    pub(super) fn own_address(&mut self, ip: IpAddr, at: NodeId, hint: &str) {
        // Whether IPv6 is enabled is not the file's concern.
        let is_everywhere = ip.to_canonical().is_loopback() || ip.is_unspecified();
        if !is_everywhere && !self.files.files.can_bind(ip) {
            self.warning(at, Diagnostic::new(format!("this host has no address {ip}")).hint(hint));
        }
    }

    /// Checks the path of a file that is written.
    pub(super) fn log_file(&mut self, path: &Path, at: NodeId) {
        for fault in self.files.files.log(path) {
            self.found(at, fault);
        }
    }

    /// Checks a file with one secret.
    pub(super) fn secret_file(&mut self, path: &Path, at: NodeId) {
        for fault in self.files.files.secret(path) {
            self.found(at, fault);
        }
    }

    /// Checks a database of countries.
    pub(super) fn country_database(&mut self, path: &Path, at: NodeId) {
        for fault in self.files.files.country_database(path) {
            self.found(at, fault);
        }
    }

    fn found(&mut self, at: NodeId, fault: Diagnostic) {
        let diagnostic = self.located(at, fault);
        self.diagnostics.push(diagnostic);
    }
}
