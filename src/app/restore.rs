//! What was changed at run time before a restart or an upgrade.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::timeout;

use crate::config::model::Config;
use crate::config::recheck::{Findings, findings};
use crate::control::{Overlay, state_file};
use crate::threads::BlockingThread;

/// How long the state file may take to be read or written.
pub(super) const STORE_LIMIT: Duration = Duration::from_secs(5);

/// What a configuration comes to with it.
pub(super) struct Restored {
    pub(super) effective: Config,
    pub(super) overlay: Overlay,
    /// The state file, if it could be read.
    pub(super) known_state_file: Option<PathBuf>,
    /// Whether nothing of it was dropped.
    pub(super) is_stored: bool,
}

/// Takes over what the process before has `inherited`, or what the state file has.
pub(super) async fn restore(files: &BlockingThread, file: &Config, inherited: Option<Overlay>) -> Restored {
    let (stored, known_state_file, source) = match inherited {
        Some(overlay) => (overlay, None, Some("the process that ran before".to_owned())),
        None => {
            let (stored, path) = read_state(files, file).await;
            let source = path.as_ref().map(|path| path.display().to_string());
            (stored, path, source)
        }
    };
    let (effective, overlay, dropped) = stored.apply(file);
    dropped.iter().for_each(|entry| tracing::warn!("runtime change dropped: {entry}"));
    if overlay.count() > 0 {
        check(files, file, &effective).await;
    }
    if let Some(source) = source {
        tracing::info!(source, changes = overlay.count(), dropped = dropped.len(), "runtime changes restored");
    }
    let is_stored = overlay == stored;
    Restored { effective, overlay, known_state_file, is_stored }
}

/// Logs what the checks of a file say. A start goes on all the same.
async fn check(files: &BlockingThread, file: &Config, effective: &Config) {
    let (file, effective) = (file.clone(), effective.clone());
    let check = files.call(move || findings(&effective, &[]).beyond(|| findings(&file, &[])));
    if let Ok(Some(Findings { errors, warnings })) = timeout(STORE_LIMIT, check).await {
        errors.iter().chain(&warnings).for_each(|finding| tracing::warn!("runtime change restored: {finding}"));
    }
}

/// The overlay of the state file, and its path if it could be read.
async fn read_state(files: &BlockingThread, config: &Config) -> (Overlay, Option<PathBuf>) {
    let Some(path) = config.admin.as_ref().and_then(|admin| admin.state_file.clone()) else {
        return (Overlay::default(), None);
    };
    let known = path.clone();
    let fault = match timeout(STORE_LIMIT, files.call(move || state_file::read(&path))).await {
        Ok(Some(Ok(overlay))) => return (overlay, Some(known)),
        Ok(Some(Err(fault))) => fault,
        Ok(None) | Err(_) => format!("it was not read within {STORE_LIMIT:?}"),
    };
    tracing::warn!("state file: {fault}; changes that were made at run time are not in effect");
    (Overlay::default(), None)
}
