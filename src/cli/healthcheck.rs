//! `tidegate healthcheck`.

use std::process::ExitCode;

use super::output::say;
use super::stats_port::Which;

/// What is asked.
#[derive(clap::Args)]
pub(crate) struct Healthcheck {
    #[command(flatten)]
    which: Which,
}

/// Asks a running tidegate whether it is ready. Every failure is exit code 1: container runtimes reserve others.
pub(crate) fn healthcheck(asked: Healthcheck) -> ExitCode {
    // What is wrong is on stderr already.
    let Ok(port) = asked.which.find_for_probe() else { return ExitCode::FAILURE };
    let answer = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())
        .and_then(|runtime| runtime.block_on(port.is_ready()));
    match answer {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            say(format_args!("not ready: {reason}"));
            ExitCode::FAILURE
        }
    }
}
