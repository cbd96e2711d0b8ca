//! `tidegate run`.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use tidegate::app::{App, Drained};
use tidegate::config::Loaded;
use tidegate::log::{self, access::Access};

use super::signals::Signals;

/// The exit code when connections had to be cut, or nothing could be started.
const FAILED: u8 = 1;

/// Balances until told to end.
pub(crate) fn run(given: Option<PathBuf>) -> ExitCode {
    let loaded = match super::load(given) {
        Ok((_, loaded)) => loaded,
        Err(code) => return code,
    };
    let logging = match log::start(&loaded.config.log) {
        Ok(logging) => logging,
        Err(error) => {
            super::say(format_args!("error: {error}"));
            return ExitCode::from(super::USAGE);
        }
    };
    log::log_panics();
    loaded.log_warnings();
    let result = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .and_then(|runtime| runtime.block_on(serve(loaded, &logging)));
    logging.dropped_lines().report();
    // What is said from here on is said after the lines that wait.
    drop(logging);
    match result {
        Ok(Drained::Clean) => ExitCode::SUCCESS,
        Ok(Drained::Cut(_)) => ExitCode::from(FAILED),
        Err(error) => {
            super::say(format_args!("error: {error}"));
            ExitCode::from(FAILED)
        }
    }
}

async fn serve(loaded: Loaded, logging: &log::Logging) -> io::Result<Drained> {
    let mut signals = Signals::new()?;
    let access = Access::open(&loaded.config.log, logging)?;
    let drain = loaded.config.shutdown.drain;
    let started = tokio::select! {
        started = App::start(loaded.config, vec![logging.dropped_lines()], access) => started,
        // Nothing was accepted yet, so there is nothing to drain.
        () = signals.next() => return Ok(Drained::Clean),
    };
    let app = started.map_err(io::Error::other)?;
    signals.next().await;
    Ok(app.drain(drain, signals.next()).await)
}
