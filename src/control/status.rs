//! Which configuration is in effect, and whether the file says the same.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use serde::Serialize;
use tokio::sync::broadcast;

use super::outcome::Refusal;
use super::predecessor::Predecessor;
use crate::config::ConfigTexts;
use crate::config::model::{Config, Shutdown};

/// Shared by the control thread, which writes it, and the admin interface.
#[derive(Debug)]
pub struct SharedStatus {
    status: Mutex<ConfigStatus>,
    accepts: AtomicBool,
    changes: broadcast::Sender<ChangeEvent>,
}

/// Changes that a slow reader may be behind.
const MAX_BEHIND: usize = 256;

/// A change that was carried out or refused.
#[derive(Clone, Debug, Serialize)]
pub struct ChangeEvent {
    /// Who asked.
    pub actor: String,
    /// For what.
    pub action: String,
    /// Why nothing has changed; `None` if it was carried out.
    pub refused: Option<String>,
    /// The generation in effect afterwards.
    pub generation: u64,
    /// A line for each difference.
    pub changes: Vec<String>,
}

impl Default for SharedStatus {
    fn default() -> SharedStatus {
        SharedStatus {
            status: Mutex::default(),
            accepts: AtomicBool::new(false),
            changes: broadcast::Sender::new(MAX_BEHIND),
        }
    }
}

/// Which configuration is in effect.
#[derive(Clone, Debug, Default)]
pub struct ConfigStatus {
    /// How long a shutdown may take.
    pub shutdown: Shutdown,
    /// Counts changes of it; 1 at the start.
    pub generation: u64,
    /// When it took effect.
    pub since: Option<SystemTime>,
    /// Whether the last reload was applied.
    pub last_reload_succeeded: bool,
    /// When the last reload was applied, or the process started.
    pub last_success: Option<SystemTime>,
    /// Why the file differs from what is in effect, if it does.
    pub file_differs: Option<String>,
    /// The processes that upgrades have replaced, while they drain: the last one first.
    pub predecessors: Vec<Predecessor>,
    /// The file that a reload reads.
    pub path: Option<PathBuf>,
    /// The configuration that the overlay lies over: that of the file when it was read, or what was put.
    pub file: Option<Arc<Config>>,
    /// Texts of the configuration that the overlay lies over: those of the file when it was read, or what was put.
    pub texts: ConfigTexts,
}

impl SharedStatus {
    /// As it is now.
    pub fn get(&self) -> ConfigStatus {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether there may be connections, which a request to end drains.
    pub fn accepts(&self) -> bool {
        self.accepts.load(Ordering::Acquire)
    }

    /// The first listeners are about to open.
    pub fn set_accepts(&self) {
        self.accepts.store(true, Ordering::Release);
    }

    /// Holds `If-Match`: the generations one of which must be in effect.
    ///
    /// # Errors
    /// It is another one.
    pub fn unless_stale(&self, wanted: Option<&[u64]>) -> Result<(), Refusal> {
        let generation = self.get().generation;
        match wanted {
            Some(wanted) if !wanted.contains(&generation) => Err(Refusal::Stale { generation }),
            _ => Ok(()),
        }
    }

    /// Tells those who listen of a change.
    pub fn tell(&self, event: ChangeEvent) {
        // There need not be any.
        let _ = self.changes.send(event);
    }

    /// Changes from now on.
    pub fn changes(&self) -> broadcast::Receiver<ChangeEvent> {
        self.changes.subscribe()
    }

    /// Changes it.
    pub fn update(&self, change: impl FnOnce(&mut ConfigStatus)) {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
