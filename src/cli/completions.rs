//! `tidegate completions`.

use std::process::ExitCode;

use clap_complete::Shell;

use super::output::print;

/// Prints the completion script of a shell.
pub(crate) fn completions(shell: Shell, command: &mut clap::Command) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, command, "tidegate", &mut script);
    print(&script)
}
