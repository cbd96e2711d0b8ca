//! What is asked about the files that a configuration names.

use std::cell::RefCell;

use super::*;
use crate::config::files::{Diagnostic, Files, Part};

/// Finds something in every file, and remembers what it was asked.
#[derive(Default)]
struct Suspicious(RefCell<Vec<String>>);

impl Suspicious {
    fn diagnostic(&self, question: &str, severity: Severity) -> Diagnostic {
        self.0.borrow_mut().push(question.to_owned());
        Diagnostic { severity, ..Diagnostic::new(format!("{question} is odd")).hint("look") }
    }
}

impl Files for Suspicious {
    fn certificate(&self, files: &CertificateFiles) -> Vec<(Part, Diagnostic)> {
        let diagnostic =
            self.diagnostic(&format!("{}+{}", files.cert.display(), files.key.reveal().display()), Severity::Warning);
        vec![(Part::Key, diagnostic.clone()), (Part::Cert, diagnostic)]
    }

    fn authorities(&self, path: &Path) -> Vec<Diagnostic> {
        vec![self.diagnostic(&format!("ca {}", path.display()), Severity::Error)]
    }

    fn revocations(&self, path: &Path) -> Vec<Diagnostic> {
        vec![self.diagnostic(&format!("crl {}", path.display()), Severity::Warning)]
    }
}

const NAMES_FILES: &str = "listeners:
  - name: a
    bind: 127.0.0.1:1
    pool: p
    tls:
      certificates:
        - cert: a.pem
          key: a.key
        - { cert: b.pem, key: a.key }
      client_auth: { mode: required, ca: ca.pem, crl: crl.pem }
  - name: b
    bind: 127.0.0.1:2
    pool: p
    tls: { certificates: [{ cert: b.pem, key: a.key }] }
pools:
  - name: p
    backends: [{ address: 127.0.0.1:3 }]
    tls: { ca: ca.pem, client_certificate: { cert: a.pem, key: a.key } }
";

#[test]
fn file_named_twice_is_checked_once_and_reported_where_named_first() {
    let files = Suspicious::default();
    let failure = parse("test.yaml", NAMES_FILES, &files).unwrap_err();
    let mut asked = files.0.take();
    asked.sort();
    assert_eq!(asked, ["a.pem+a.key", "b.pem+a.key", "ca ca.pem", "crl crl.pem"]);
    let shown: Vec<(usize, &str, Severity)> = failure
        .diagnostics
        .iter()
        .map(|diagnostic| {
            assert_eq!(diagnostic.hint.as_deref(), Some("look"));
            let line = NAMES_FILES[..diagnostic.span.as_ref().unwrap().start].lines().count();
            (line, diagnostic.message.split(": ").next().unwrap(), diagnostic.severity)
        })
        .collect();
    let (error, warning) = (Severity::Error, Severity::Warning);
    let expected = [
        (7, "listeners[0].tls.certificates[0].cert", warning),
        (8, "listeners[0].tls.certificates[0].key", warning),
        (9, "listeners[0].tls.certificates[1].cert", warning),
        (9, "listeners[0].tls.certificates[1].key", warning),
        (10, "listeners[0].tls.client_auth.ca", error),
        (10, "listeners[0].tls.client_auth.crl", warning),
    ];
    assert_eq!(shown, expected);
}

#[test]
fn warning_about_a_file_leaves_the_configuration_valid() {
    let yaml = with("tls: { certificates: [{ cert: a, key: b }] }", "");
    let loaded = parse("test.yaml", &yaml, &Suspicious::default()).unwrap();
    assert_eq!(loaded.warnings.len(), 2);
}

#[test]
fn files_of_disabled_features_are_not_checked() {
    let files = Suspicious::default();
    let yaml = with(
        "tls: { certificates: [{ cert: a, key: b }], client_auth: { mode: off, ca: c, crl: d } }",
        "tls: { verify: off, ca: e }",
    );
    parse("test.yaml", &yaml, &files).unwrap();
    assert_eq!(files.0.take(), ["a+b"]);
}
