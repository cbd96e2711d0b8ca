//! `tidegate man`.

use std::io;
use std::process::ExitCode;

/// Prints the manual page of the program and, after it, those of its subcommands.
pub(crate) fn man() -> ExitCode {
    let mut page = Vec::new();
    let mut command = super::command().disable_help_subcommand(true);
    command.build();
    let pages = std::iter::once(command.clone()).chain(command.get_subcommands().cloned());
    let rendered: io::Result<()> = pages.map(|command| clap_mangen::Man::new(command).render(&mut page)).collect();
    if let Err(error) = rendered {
        super::say(format_args!("error: cannot make the manual page: {error}"));
        return ExitCode::FAILURE;
    }
    super::print(&page)
}
