//! `tidegate run`.

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tidegate::app::control::{ControlEnd, Controller, ReloadObserver, ReloadPhase};
use tidegate::app::upgrade::PredecessorChain;
use tidegate::app::upgrade::inheritance::Inheritance;
use tidegate::app::upgrade::launcher;
use tidegate::app::upgrade::predecessor::PredecessorLink;
use tidegate::app::{ControlLink, privileges};
use tidegate::config::Loaded;
use tidegate::config::model::Shutdown;
use tidegate::control::request;
use tidegate::log::{self, Logging};
use tidegate::net::inherited::InheritedSockets;
use tokio::time::timeout;

use super::config_file::load;
use super::exit::exit;
use super::output::{USAGE, say};
use super::service_manager::{self, ServiceManager};
use super::signals::Requests;

/// The exit code when nothing could be started.
const FAILED: u8 = 1;

/// How long the process that was replaced may take to tell the service manager so.
const MAIN_LIMIT: Duration = Duration::from_secs(10);

/// Balances until told to end.
pub(crate) fn run(given: Option<PathBuf>) -> ExitCode {
    if let Some(code) = launcher::launch() {
        return code;
    }
    let (path, loaded) = match load(given) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    // Before anything opens descriptors.
    let predecessor = PredecessorLink::from_environment();
    let inherited = predecessor.and_then(|link| Ok((link, service_manager::inherited_sockets()?)));
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
    let served = inherited.map_err(io::Error::other).and_then(|inherited| serve(&path, loaded, &logging, inherited));
    let Err(error) = served;
    // By the writer of the log, as a stderr that takes nothing must not hold up the end.
    logging.fatal(error);
    exit(&logging, FAILED)
}

/// What the process has been started with: the process that it replaces, and sockets.
type Inherited = (Option<PredecessorLink>, InheritedSockets);

/// Balances until told to end, and ends the process.
fn serve(path: &Path, loaded: Loaded, logging: &Logging, inherited: Inherited) -> io::Result<Infallible> {
    let (changes, mut changes_asked) = request::queue();
    let link = ControlLink { changes: Some(changes.clone()), ..ControlLink::default() };
    let mut requests = Requests::start(logging, changes, Arc::clone(&link.status))?;
    let manager = ServiceManager::start()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let of_reload = manager.clone();
        let observer: ReloadObserver = Box::new(move |phase, plane| match phase {
            ReloadPhase::Begins => of_reload.reloading(),
            ReloadPhase::Ended(outcome) => {
                of_reload.reloaded(plane, outcome.as_ref().map(|_| ()).map_err(String::as_str));
            }
        });
        let (predecessor, sockets) = inherited;
        let (inheritance, hand_over) = match predecessor {
            None => (Inheritance::from(sockets), None),
            Some(link) => {
                let (inheritance, hand_over) = link.receive().await.map_err(io::Error::other)?;
                (inheritance, Some(hand_over))
            }
        };
        let chain = PredecessorChain::new(Arc::clone(&link.status));
        let started = tokio::select! {
            // One that has started has accepted connections, which a request to end drains.
            biased;
            started = Controller::start(path, loaded, logging, link, inheritance, observer) => started,
            () = requests.before_accepting() => exit(logging, 0),
        };
        let mut controller = match (started, &hand_over) {
            (Ok(controller), _) => controller,
            (Err(error), hand_over) => {
                if let Some(hand_over) = hand_over {
                    hand_over.failed(&error.to_string()).await;
                }
                return Err(io::Error::other(error));
            }
        };
        if let Some(hand_over) = hand_over {
            let completed = tokio::select! {
                completed = hand_over.complete(controller.app(), &chain) => completed,
                // The old process goes on.
                () = requests.next() => exit(logging, 0),
            };
            let is_main = completed.map_err(io::Error::other)?;
            // Before, the service manager takes no message of this process.
            let _ = timeout(MAIN_LIMIT, is_main).await;
            controller.tell_predecessors().await.iter().for_each(|warning| tracing::warn!("{warning}"));
        }
        manager.ready(controller.app().plane());
        let ended = tokio::select! {
            ended = controller.run(&mut changes_asked) => Some(ended),
            () = requests.next() => None,
        };
        // From here on changes are refused.
        drop(changes_asked);
        if let Some(ControlEnd::HandedOver(successor)) = ended {
            manager.main_process(successor.pid()).await;
            successor.adopt(&chain).await;
            let app = controller.into_app();
            tokio::spawn(successor.report(Arc::clone(app.plane()), Arc::clone(&chain)));
            let drain = app.config().shutdown.drain;
            // It drains already: the first request to end changes nothing.
            let hurry = async {
                requests.next().await;
                tracing::info!("draining already, as another process has taken over; a second signal ends connections");
                requests.next().await;
            };
            app.drain(drain, hurry).await;
            chain.leave().await;
            exit(logging, 0)
        }
        chain.leave().await;
        if let Some(ControlEnd::Drain) = ended {
            // The same way out, and the same deadline.
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM)?;
            requests.next().await;
        }
        let app = controller.into_app();
        let Shutdown { delay, drain } = app.config().shutdown;
        manager.stopping(delay.saturating_add(drain));
        app.announce_drain(delay, requests.next()).await;
        app.drain(drain, requests.next()).await;
        exit(logging, 0)
    });
    // Not dropped: that would wait for lookups.
    runtime.shutdown_background();
    result
}
