//! `tidegate check`.

use std::path::PathBuf;
use std::process::ExitCode;

use tidegate::config::{self, Style};

/// Shows everything that is wrong with a configuration; what it amounts to if nothing is.
pub(crate) fn check(given: Option<PathBuf>) -> ExitCode {
    let path = match super::config_path(given) {
        Ok(path) => path,
        Err(code) => return code,
    };
    match config::load(&path) {
        Ok(loaded) => {
            let warnings = loaded.render_warnings(Style::of_stderr());
            if !warnings.is_empty() {
                super::say(warnings.trim_end());
            }
            let backends = loaded.config.pools.iter().map(|pool| pool.backends.len()).sum();
            let line = format!(
                "{}: ok ({}, {}, {})\n",
                path.display(),
                count(loaded.config.listeners.len(), "listener"),
                count(loaded.config.pools.len(), "pool"),
                count(backends, "backend"),
            );
            super::print(line.as_bytes())
        }
        Err(failure) => {
            super::say(failure.render(Style::of_stderr()).trim_end());
            ExitCode::from(super::USAGE)
        }
    }
}

fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}
