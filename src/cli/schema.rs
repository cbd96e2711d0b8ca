//! `tidegate schema`.

use std::process::ExitCode;

use tidegate::config;

use super::output::print;

/// Prints the JSON Schema of the configuration.
pub(crate) fn schema() -> ExitCode {
    print(format!("{:#}\n", config::schema()).as_bytes())
}
