//! Requests for a change, and the queue in which they wait.

use std::fmt;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::edit::Edit;
use super::outcome::{Applied, Refusal};

/// Requests that wait; further ones wait for room.
const QUEUE: usize = 64;

/// What is to change.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Applies the configuration file as it is now.
    Reload,
    /// Applies a whole configuration, as YAML or JSON, until the next reload.
    Replace(String),
    /// Changes a value at run time.
    Edit(Edit),
    /// Starts another binary and hands over to it. `None` is the file of this one.
    Upgrade(Option<std::path::PathBuf>),
    /// Drains and ends the process, as SIGTERM does.
    Drain,
}

impl Change {
    /// In a word, for the audit line of what no call asks for.
    pub fn name(&self) -> &'static str {
        match self {
            Change::Reload => "reload",
            Change::Replace(_) => "replace",
            Change::Edit(_) => "edit",
            Change::Upgrade(_) => "upgrade",
            Change::Drain => "drain",
        }
    }
}

/// A change, and who asks for it.
#[derive(Debug)]
pub struct ChangeRequest {
    /// What is to change.
    pub change: Change,
    /// Who asks, for the audit line.
    pub actor: Actor,
    /// The request in the asker's words, for the audit line: `DELETE /api/pools/db/backends/a?cut=true`.
    pub action: String,
    /// Only says what would change.
    pub dry_run: bool,
    /// The generations one of which must be in effect.
    pub if_match: Option<Vec<u64>>,
    /// Room for what the request takes of memory, until it is carried out.
    pub room: Option<OwnedSemaphorePermit>,
    /// Where the outcome goes.
    pub reply: oneshot::Sender<Result<Applied, Refusal>>,
}

/// Who asks for a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor(pub String);

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Sends requests to the control thread.
#[derive(Clone, Debug)]
pub struct ChangeSender(mpsc::Sender<ChangeRequest>);

/// Where the control thread takes requests from.
pub type ChangeReceiver = mpsc::Receiver<ChangeRequest>;

/// A queue of requests.
pub fn queue() -> (ChangeSender, ChangeReceiver) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (ChangeSender(sender), receiver)
}

impl ChangeSender {
    /// Asks for a change and waits until it is in effect.
    ///
    /// # Errors
    /// Why nothing has changed.
    pub async fn ask(
        &self,
        change: Change,
        actor: Actor,
        action: String,
        dry_run: bool,
        if_match: Option<Vec<u64>>,
        room: Option<OwnedSemaphorePermit>,
    ) -> Result<Applied, Refusal> {
        let (reply, outcome) = oneshot::channel();
        let request = ChangeRequest { change, actor, action, dry_run, if_match, room, reply };
        self.0.send(request).await.map_err(|_| Refusal::Ending)?;
        outcome.await.unwrap_or(Err(Refusal::Ending))
    }

    /// Asks for a change without waiting for its outcome, which is logged.
    ///
    /// # Errors
    /// Why it is not carried out.
    pub fn notify(&self, change: Change, actor: &'static str) -> Result<(), &'static str> {
        let (reply, _) = oneshot::channel();
        let actor = Actor(actor.to_owned());
        let action = change.name().to_owned();
        let request = ChangeRequest { change, actor, action, dry_run: false, if_match: None, room: None, reply };
        self.0.try_send(request).map_err(|error| match error {
            TrySendError::Full(_) => "too many changes wait already",
            TrySendError::Closed(_) => "the process is shutting down",
        })
    }
}
