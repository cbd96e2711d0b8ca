//! Python, with the packages that `make python` installs: other people's readers of what tidegate writes, and clients.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs a script with this on its standard input, and gives what it prints.
pub(crate) fn run(script: &str, input: &[u8]) -> String {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python/bin/python");
    assert!(program.is_file(), "{} is missing: run `make python`", program.display());
    let mut command = Command::new(program);
    command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("python");
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_owned();
    // Beside reading its output, so that neither waits for the other.
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().expect("python");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    writer.join().expect("a writer").expect("python reads all of it");
    String::from_utf8(output.stdout).expect("UTF-8")
}
