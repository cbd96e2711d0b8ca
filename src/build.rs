//! Hands what `tidegate --version` says to the build: the git hash of the tree, and the versions of what TLS is done by.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=.git/HEAD");
    println!("cargo:rerun-if-changed=.git/refs/heads");
    let hash = Command::new("git")
        .args(["rev-parse", "--short=12", "HEAD"])
        .output()
        .ok()
        .filter(|output| output.status.success())
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .map_or_else(|| "unknown".to_owned(), |text| text.trim().to_owned());
    println!("cargo:rustc-env=TIDEGATE_GIT_HASH={hash}");
    println!("cargo:rerun-if-changed=Cargo.lock");
    let lock = std::fs::read_to_string("Cargo.lock").unwrap_or_default();
    let tls = format!("rustls {}, aws-lc-rs {}", version(&lock, "rustls"), version(&lock, "aws-lc-rs"));
    println!("cargo:rustc-env=TIDEGATE_TLS={tls}");
}

/// The version of a package according to the lock file.
fn version<'l>(lock: &'l str, package: &str) -> &'l str {
    let name = format!("name = \"{package}\"\nversion = \"");
    lock.split_once(&name).and_then(|(_, rest)| rest.split_once('"')).map_or("unknown", |(version, _)| version)
}
