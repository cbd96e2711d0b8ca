//! What commands write to stdout and stderr, and their exit codes.

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

/// The exit code of wrong arguments and wrong configurations; clap has the same.
pub(crate) const USAGE: u8 = 2;

/// Writes to stdout. That the reader is gone, as in `tidegate schema | head`, is no failure.
pub(crate) fn print(text: &[u8]) -> ExitCode {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            say(format_args!("error: cannot write to stdout: {error}"));
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Writes a line to stderr; a failure has no other place to be reported.
pub(crate) fn say(line: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}
