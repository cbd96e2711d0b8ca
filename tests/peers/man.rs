//! groff renders the manual pages without a warning.

use std::fs;
use std::process::Command;

use crate::support::process::require;

#[test]
fn groff_renders_the_manual_pages_without_warnings() {
    require("groff", "groff-base");
    let folder = tempfile::tempdir().unwrap();
    for (name, words) in [("tidegate", ["SIGNALS", "SIGUSR2"]), ("tidegate.yaml", ["KEYS", "connection_rate_per_ip"])] {
        let page = Command::new(env!("CARGO_BIN_EXE_tidegate")).args(["man", name]).output().unwrap();
        assert!(page.status.success(), "{page:?}");
        let file = folder.path().join(name);
        fs::write(&file, page.stdout).unwrap();
        let output =
            Command::new("groff").args(["-man", "-Tutf8", "-ww", "-P-c", "-P-bou"]).arg(&file).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && told.is_empty(), "{name}: {told}");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(words.iter().all(|word| text.contains(word)), "{name}: {text}");
    }
}
