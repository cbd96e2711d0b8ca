//! The `tidegate` program: arguments in, exit code out. Everything else is in the library and in
//! one file for each subcommand.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
