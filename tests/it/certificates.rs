//! Certificates as their owners meet them.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

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
    assert_eq!(before, "  dev.pem: localhost, *.localhost, 127.0.0.1, ::1; expires 2044-01-01");
    assert!(rest.ends_with(" days); ECDSA P-256"), "{text}");
}
