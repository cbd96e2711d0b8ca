//! The password of a pool's checks, as its file has it now.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::config::files::{Diagnostic, SecretFile};
use crate::pool::Pool;
use crate::threads::BlockingThread;

/// Between two looks at the file.
const INTERVAL: Duration = Duration::from_secs(1);

/// What a file had.
#[derive(Clone, Default, PartialEq)]
pub(in crate::health) struct PasswordReading {
    /// Which file; `None` before the first.
    path: Option<PathBuf>,
    /// Its password, or why there is none.
    content: Option<Result<Vec<u8>, String>>,
}

/// The password in `path`, once it is read.
///
/// # Errors
/// Why the file cannot be used.
pub(super) async fn password(readings: &watch::Receiver<PasswordReading>, path: &Path) -> Result<Vec<u8>, String> {
    let mut readings = readings.clone();
    let reading = readings.wait_for(|reading| reading.path.as_deref() == Some(path)).await;
    let content = reading.ok().and_then(|reading| reading.content.clone());
    content.unwrap_or_else(|| Err("the password file is not read any more".to_owned()))
}

/// Reads the file of a pool's check every second, as long as the pool lives. A file that cannot be used replaces no
/// password: one that is being rewritten is empty for a moment.
pub(in crate::health) async fn watch(pool: Arc<Pool>, readings: watch::Sender<PasswordReading>) {
    let mut generation = pool.generation();
    let (mut thread, mut last_fault) = (None, None);
    loop {
        generation.mark_unchanged();
        let settings = pool.settings();
        let account = settings.health.as_ref().and_then(|health| health.check.account());
        let Some(path) = account.and_then(|account| account.password_file.as_ref()) else {
            if generation.changed().await.is_err() {
                return;
            }
            continue;
        };
        let content = read(&mut thread, path.reveal()).await;
        publish(pool.name(), &readings, path.reveal(), content, &mut last_fault);
        tokio::select! {
            () = sleep(INTERVAL) => {}
            changed = generation.changed() => if changed.is_err() { return },
        }
    }
}

/// On a thread of its own, because a file system may hang.
async fn read(thread: &mut Option<BlockingThread>, path: &Path) -> Result<Vec<u8>, String> {
    if thread.is_none() {
        *thread = Some(BlockingThread::start("health-password").map_err(|error| error.to_string())?);
    }
    let path = path.to_owned();
    let read = || async { thread.as_ref()?.call(move || SecretFile::read(&path)).await };
    match read().await {
        Some(Ok(file)) => Ok(file.secret.reveal().clone().into_bytes()),
        Some(Err(Diagnostic { message, .. })) => Err(message),
        // The panic hook has reported it.
        None => Err("the password file could not be read".to_owned()),
    }
}

fn publish(
    pool: &str,
    readings: &watch::Sender<PasswordReading>,
    path: &Path,
    content: Result<Vec<u8>, String>,
    last_fault: &mut Option<String>,
) {
    readings.send_if_modified(|before| {
        let known = before.content.as_ref().filter(|_| before.path.as_deref() == Some(path));
        match (known, &content) {
            (Some(known), _) if *known == content => return false,
            (Some(Ok(_)), Err(fault)) => {
                if last_fault.as_ref() != Some(fault) {
                    warn!(pool, %fault, "password_file: the password that was read before is still used");
                    *last_fault = Some(fault.clone());
                }
                return false;
            }
            (Some(_), Ok(_)) => info!(pool, path = %path.display(), "password_file has changed"),
            _ => {}
        }
        *last_fault = None;
        *before = PasswordReading { path: Some(path.to_owned()), content: Some(content) };
        true
    });
}
