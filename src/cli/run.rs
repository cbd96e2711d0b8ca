//! `tidegate run`.

use std::path::PathBuf;
use std::process::ExitCode;

/// Balances until told to end.
pub(crate) fn run(config: Option<PathBuf>) -> ExitCode {
    match super::load(config) {
        Ok(_) => {
            super::say("error: not built in this branch");
            ExitCode::FAILURE
        }
        Err(code) => code,
    }
}
