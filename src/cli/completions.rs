//! `tidegate completions`.

use std::process::ExitCode;

use clap_complete::Shell;

/// Prints the completion script of a shell.
pub(crate) fn completions(shell: Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut super::command(), "tidegate", &mut script);
    super::print(&script)
}
