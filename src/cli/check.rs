//! `tidegate check`.

use std::path::PathBuf;
use std::process::ExitCode;

use tidegate::config::Style;
use tidegate::tls;

use super::config_file::load;
use super::output::{print, say};

/// Shows everything that is wrong with a configuration; if nothing is, what it amounts to, and the names, the
/// expiry and the key type of each certificate.
pub(crate) fn check(given: Option<PathBuf>) -> ExitCode {
    let (path, loaded) = match load(given) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    if !loaded.warnings.is_empty() {
        say(loaded.render_warnings(Style::of_stderr()).trim_end());
    }
    let backends = loaded.config.pools.iter().map(|pool| pool.backends.len()).sum();
    let included = match loaded.texts().included().count() {
        0 => String::new(),
        files => format!(", {}", count(files, "included file")),
    };
    let mut text = format!(
        "{}: ok ({}, {}, {}{included})\n",
        path.display(),
        count(loaded.config.listeners.len(), "listener"),
        count(loaded.config.pools.len(), "pool"),
        count(backends, "backend"),
    );
    for report in tls::describe(&loaded.config) {
        text.push_str(&format!("  {report}\n"));
    }
    print(text.as_bytes())
}

fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}
