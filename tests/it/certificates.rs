//! Certificates as their owners meet them.

use std::fs;
use std::path::Path;
use std::process::Command;

use rcgen::date_time_ymd;
use rustls::{CertificateError, Error};
use tempfile::TempDir;

use crate::support::authority::{Authority, handshake};
use crate::support::backend::Backend;
use crate::support::client::connect;
use crate::support::tidegate::{Tidegate, forward};

#[test]
fn check_tells_names_expiry_and_key_of_each_certificate() {
    let directory = TempDir::new().unwrap();
    let certs = Path::new(env!("CARGO_MANIFEST_DIR")).join("certs");
    for name in ["dev.pem", "dev.key"] {
        fs::copy(certs.join(name), directory.path().join(name)).unwrap();
    }
    let yaml = "listeners:
  - { name: a, bind: 127.0.0.1:0, pool: p, tls: { certificates: [{ cert: dev.pem, key: dev.key }] } }
  - { name: b, bind: 127.0.0.1:0, pool: p, tls: { certificates: [{ cert: dev.pem, key: dev.key }] } }
pools: [{ name: p, backends: [{ address: 127.0.0.1:3001 }] }]
";
    fs::write(directory.path().join("x.yaml"), yaml).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    let output = command.args(["check", "--config", "x.yaml"]).current_dir(directory.path()).output().unwrap();
    assert!(output.status.success(), "{output:?}");

    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "one certificate, one line: {text}");
    assert_eq!(lines[0], "x.yaml: ok (2 listeners, 1 pool, 1 backend)");
    let (before, rest) = lines[1].split_once(" (in ").unwrap();
    assert_eq!(
        before,
        "  dev.pem: localhost, *.localhost, admin.localhost, shop.localhost, 127.0.0.1, ::1; expires 2044-01-01"
    );
    assert!(rest.ends_with(" days); ECDSA P-256"), "{text}");
}

/// After a reboot as well: it must not keep the other listeners from starting.
#[test]
fn an_expired_certificate_is_served_with_a_warning() {
    let (authority, backend) = (Authority::new(), Backend::named("b"));
    let issued = authority.issue_with(&["localhost"], |params| params.not_after = date_time_ymd(2025, 6, 1));
    let tls =
        format!("tls: {{ certificates: [{{ cert: {}, key: {} }}] }}", issued.cert.display(), issued.key.display());
    let yaml = forward(backend.place(), &tls, "");
    let warning = format!("{} has expired on 2025-06-01 (", issued.cert.display());

    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("x.yaml"), &yaml).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    let output = command.args(["check", "--config", "x.yaml"]).current_dir(directory.path()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let (told, text) = (String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
    assert!(told.starts_with("warning: ") && told.contains(&warning) && told.contains(" --> x.yaml:1:"), "{told}");
    assert!(text.contains(": localhost; expired 2025-06-01 (") && text.contains(" days ago); ECDSA P-256"), "{text}");

    let tidegate = Tidegate::start(&yaml);
    tidegate.wait_for_log("the warning", |line| line.level() == "WARN" && line.text.contains(&warning));
    let Err(refused) = handshake(authority.client_for("localhost", &[]), connect(&tidegate.at("in"))) else {
        panic!("it is refused");
    };
    let reason = refused.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    assert!(
        matches!(reason, Some(Error::InvalidCertificate(CertificateError::ExpiredContext { .. }))),
        "it gets the certificate, and looks at its date: {refused}"
    );
    assert_eq!(tidegate.only_access().end(), "TLS handshake failed");
}
