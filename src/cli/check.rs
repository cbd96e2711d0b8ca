//! `tidegate check`.

use std::path::PathBuf;
use std::process::ExitCode;

use tidegate::config::Style;

/// Shows everything that is wrong with a configuration; what it amounts to if nothing is.
pub(crate) fn check(given: Option<PathBuf>) -> ExitCode {
    let (path, loaded) = match super::load(given) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    if !loaded.warnings.is_empty() {
        super::say(loaded.render_warnings(Style::of_stderr()).trim_end());
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

fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}
