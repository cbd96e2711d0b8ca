//! Python, with the packages that `make python` installs: other people's readers of what tidegate writes, clients, servers.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};
use std::thread;

use rustix::process::Signal;

use super::process::{Process, bound};

fn program() -> PathBuf {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python/bin/python");
    assert!(program.is_file(), "{} is missing: run `make python`", program.display());
    program
}

/// Runs a script with this on its standard input, and gives what it prints.
pub(crate) fn run(script: &str, input: &[u8]) -> String {
    let mut command = Command::new(program());
    command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("python");
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_owned();
    // Beside reading its output, so that neither waits for the other.
    let writer = thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().expect("python");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    writer.join().expect("a writer").expect("python reads all of it");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Starts a server; dropping it kills it. Returns it and the first line that it prints: where it listens.
pub(crate) fn serve(script: &str, arguments: &[&str]) -> (Process, String) {
    let mut command = bound(program(), "KILL");
    command.args(["-c", script]).args(arguments).stdout(Stdio::piped());
    let mut process = Process::start(command, Signal::KILL);
    let mut output = BufReader::new(process.child().stdout.take().expect("piped"));
    let mut line = String::new();
    output.read_line(&mut line).expect("a line");
    assert!(line.ends_with('\n'), "it does not start");
    // A full pipe would block it.
    thread::spawn(move || output.lines().map_while(Result::ok).for_each(drop));
    (process, line.trim_end().to_owned())
}

/// A script that runs beside the test; dropping it kills it.
pub(crate) struct Script {
    process: Process,
    output: BufReader<ChildStdout>,
}

impl Script {
    /// Runs a script with this line on its standard input, and waits for the first line that it prints.
    pub(crate) fn start(script: &str, line: &str) -> Script {
        let mut command = bound(program(), "KILL");
        command.args(["-c", script]).stdout(Stdio::piped());
        let mut process = Process::start_with(command, Stdio::piped(), Signal::KILL);
        let stdin = process.child().stdin.as_mut().expect("piped");
        writeln!(stdin, "{line}").expect("python reads it");
        let mut output = BufReader::new(process.child().stdout.take().expect("piped"));
        let mut first = String::new();
        output.read_line(&mut first).expect("a line");
        assert!(first.ends_with('\n'), "it does not start");
        Script { process, output }
    }

    /// Ends its standard input. Returns what it has printed since.
    pub(crate) fn finish(mut self) -> String {
        drop(self.process.child().stdin.take());
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).expect("UTF-8");
        rest
    }
}
