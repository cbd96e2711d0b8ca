//! `tidegate run`.

use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use tidegate::app::{App, privileges};
use tidegate::config::Loaded;
use tidegate::log::{self, Logging, access::Access};

use super::config_file::load;
use super::exit::exit;
use super::output::{USAGE, say};
use super::signals::Requests;

/// The exit code when nothing could be started.
const FAILED: u8 = 1;

/// Balances until told to end.
pub(crate) fn run(given: Option<PathBuf>) -> ExitCode {
    let loaded = match load(given) {
        Ok((_, loaded)) => loaded,
        Err(code) => return code,
    };
    // Before the first thread: each has its own capabilities.
    let restricted = privileges::restrict(&loaded.config);
    let logging = match log::start(&loaded.config.log) {
        Ok(logging) => logging,
        Err(error) => {
            say(format_args!("error: {error}"));
            return ExitCode::from(match error {
                log::LogStartError::Usage(_) => USAGE,
                log::LogStartError::Thread(_) => FAILED,
            });
        }
    };
    log::log_panics();
    loaded.log_warnings();
    if let Err(error) = restricted {
        tracing::warn!(%error, "cannot give up the capabilities that are not needed: run as another user instead of root");
    }
    let Err(error) = serve(loaded, &logging);
    // By the writer of the log, as a stderr that takes nothing must not hold up the end.
    logging.stderr().line(format!("error: {error}\n").as_bytes());
    exit(&logging, FAILED)
}

/// Balances until told to end, and ends the process.
fn serve(loaded: Loaded, logging: &Logging) -> io::Result<Infallible> {
    let drain = loaded.config.shutdown.drain;
    let mut requests = Requests::start(logging, drain)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let access = Access::open(&loaded.config.log, logging)?;
        let started = tokio::select! {
            started = App::start(loaded.config, vec![logging.dropped_lines()], access) => started,
            // Nothing was accepted yet, so there is nothing to drain.
            () = requests.next() => exit(logging, 0),
        };
        let app = started.map_err(io::Error::other)?;
        requests.serves();
        requests.next().await;
        app.drain(drain, requests.next()).await;
        exit(logging, 0)
    });
    // Not dropped: that would wait for lookups.
    runtime.shutdown_background();
    result
}
