//! `tidegate schema`.

use std::process::ExitCode;

use tidegate::config;

/// Prints the JSON Schema of the configuration.
pub(crate) fn schema() -> ExitCode {
    super::print(format!("{:#}\n", config::schema()).as_bytes())
}
