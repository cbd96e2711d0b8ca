//! `tidegate demo`.

use std::process::ExitCode;

/// Shows what tidegate does.
pub(crate) fn demo(seconds: Option<u64>) -> ExitCode {
    let _ = seconds;
    super::say("error: not built in this branch");
    ExitCode::FAILURE
}
