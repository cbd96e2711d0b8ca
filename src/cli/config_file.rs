//! The configuration file that a command reads.

use std::path::PathBuf;
use std::process::ExitCode;

use tidegate::config::{self, Loaded, Style};

use super::output::{USAGE, say};

/// Reads the file that was named, or the one that is found. What is wrong with it is said on stderr, and the error
/// is the exit code; warnings are left to the caller.
pub(crate) fn load(given: Option<PathBuf>) -> Result<(PathBuf, Loaded), ExitCode> {
    let path = config_path(given)?;
    match config::load(&path, &tidegate::tls::OnDisk) {
        Ok(loaded) => Ok((path, loaded)),
        Err(failure) => {
            say(failure.render(Style::of_stderr()).trim_end());
            Err(ExitCode::from(USAGE))
        }
    }
}

fn config_path(given: Option<PathBuf>) -> Result<PathBuf, ExitCode> {
    if let Some(path) = given {
        return Ok(path);
    }
    if let Some(path) = config::find() {
        say(format_args!("tidegate: using {}", path.display()));
        return Ok(path);
    }
    let [first, second] = config::DEFAULT_PATHS;
    say(format_args!(
        "error: no configuration: neither {first} nor {second} exists\n  = help: name a file: tidegate check FILE, tidegate run FILE, or by {}",
        config::PATH_VARIABLE
    ));
    Err(ExitCode::from(USAGE))
}
