//! `tidegate man`.

use std::io;
use std::process::ExitCode;

use clap_mangen::Man;
use tidegate::config::DEFAULT_PATHS;

use super::output::{print, say};

/// What precedes each piece that clap_mangen renders by itself; once is enough.
const PREAMBLE: &str = ".ie \\n(.g .ds Aq \\(aq\n.el .ds Aq '\n";

/// Prints the manual page: one for the program and all its subcommands.
pub(crate) fn man(command: clap::Command) -> ExitCode {
    match page(command) {
        Ok(page) => print(page.as_bytes()),
        Err(error) => {
            say(format_args!("error: cannot make the manual page: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn page(command: clap::Command) -> io::Result<String> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let name = format!("tidegate {}", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone()).source(name).manual("tidegate");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_options_section(&mut page)?;
    let mut page = text(page)?;
    for subcommand in command.get_subcommands() {
        let mut section = Vec::new();
        let man = Man::new(subcommand.clone());
        man.render_synopsis_section(&mut section)?;
        man.render_description_section(&mut section)?;
        man.render_options_section(&mut section)?;
        // The subcommand's sections become one section of this page.
        let heading = format!(".SH {}", subcommand.get_name().to_uppercase());
        let section = text(section)?
            .replacen(".SH SYNOPSIS", &heading, 1)
            .replacen(".SH DESCRIPTION", ".PP", 1)
            .replacen(".SH OPTIONS\n", "", 1);
        page.push_str(&section);
    }
    page.push_str(".SH FILES\n");
    for path in DEFAULT_PATHS {
        page.push_str(&format!(".TP\n{path}\nRead by run, check, top and explain when no file is named.\n"));
    }
    page.push_str(
        ".SH EXIT STATUS\n0 for success, 2 for wrong arguments or a wrong configuration, 1 for any other failure.\n",
    );
    Ok(format!("{PREAMBLE}{page}"))
}

fn text(page: Vec<u8>) -> io::Result<String> {
    let text = String::from_utf8(page).map_err(io::Error::other)?;
    Ok(text.replace(PREAMBLE, ""))
}
