//! `tidegate man`: tidegate(1) and tidegate.yaml(5).

mod keys;
mod program;
mod roff;

use std::process::ExitCode;

use super::output::{print, say};

/// A manual page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Page {
    /// tidegate(1): the commands
    #[default]
    Tidegate,
    /// tidegate.yaml(5): the configuration file
    #[value(name = "tidegate.yaml")]
    Configuration,
}

/// Prints a manual page. That of the program has all its subcommands.
pub(crate) fn man(command: clap::Command, page: Page) -> ExitCode {
    let text = match page {
        Page::Tidegate => program::page(command),
        Page::Configuration => Ok(keys::page()),
    };
    match text {
        Ok(text) => print(text.as_bytes()),
        Err(error) => {
            say(format_args!("error: cannot make the manual page: {error}"));
            ExitCode::FAILURE
        }
    }
}
