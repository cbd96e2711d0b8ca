//! The new process's side of an upgrade.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::VARIABLE;
use super::chain::PredecessorChain;
use super::channel::{Channel, DRAIN_VERSION, MAX_SOCKETS, Message, PassedProcess, VERSION};
use super::inheritance::{HandedState, Inheritance};
use super::launcher::{Ancestry, LauncherProcess};
use crate::app::App;
use crate::net::inherited::InheritedSockets;
use crate::net::{socket_file, sys};

/// How long the old process may take to send everything.
const RECEIVE_LIMIT: Duration = Duration::from_secs(30);
/// How long the old process may take to be told of a failure.
const FAILED_LIMIT: Duration = Duration::from_secs(1);

/// The channel to the process that this one replaces, before there is a runtime.
pub struct PredecessorLink {
    socket: OwnedFd,
    pid: u32,
    launcher: Option<LauncherProcess>,
}

/// The process that this one replaces, which still serves.
pub struct HandOver {
    channel: Channel,
    pid: u32,
    /// The version that both speak while it drains.
    drain: u32,
    launcher: Option<LauncherProcess>,
}

impl PredecessorLink {
    /// From the environment. `None` if this process replaces no other. Must be called before anything opens descriptors.
    ///
    /// # Errors
    /// The variable makes no sense.
    pub fn from_environment() -> Result<Option<PredecessorLink>, String> {
        let Some(ancestry) = Ancestry::from_environment()? else { return Ok(None) };
        let socket = sys::take_descriptor(ancestry.channel).map_err(|error| format!("{VARIABLE}: {error}"))?;
        let pid = ancestry.predecessor.as_raw_nonzero().get().unsigned_abs();
        Ok(Some(PredecessorLink { socket, pid, launcher: ancestry.launcher() }))
    }

    /// Asks for everything and receives it.
    ///
    /// # Errors
    /// The old process has ended, or is one of another version.
    pub async fn receive(self) -> Result<(Inheritance, HandOver), String> {
        let channel = Channel::new(self.socket).map_err(|error| error.to_string())?;
        let mut hand_over = HandOver { channel, pid: self.pid, drain: 0, launcher: self.launcher };
        let received = timeout(RECEIVE_LIMIT, hand_over.receive()).await;
        let received = received.unwrap_or_else(|_| Err(format!("nothing more came within {RECEIVE_LIMIT:?}")));
        match received {
            Ok(inheritance) => Ok((inheritance, hand_over)),
            Err(error) => {
                hand_over.failed(&error).await;
                Err(format!("cannot take over from process {}: {error}", self.pid))
            }
        }
    }
}

impl HandOver {
    async fn receive(&mut self) -> Result<Inheritance, String> {
        let hello = Message::Hello { version: VERSION, pid: std::process::id(), drain: DRAIN_VERSION };
        self.channel.send(&hello, &[]).await?;
        let (mut sockets, mut expected) = (Vec::new(), None);
        loop {
            let (message, mut descriptors) = self.next().await?;
            match message {
                Message::Sockets { version, .. } if version != VERSION => {
                    return Err(format!("it speaks version {version}, this process {VERSION}"));
                }
                Message::Sockets { total, sockets: portion, .. } => {
                    let fits = portion.len() == descriptors.len() && sockets.len() + portion.len() <= total;
                    if !fits || total > MAX_SOCKETS || expected.is_some_and(|expected| expected != total) {
                        return Err("the number of sockets is wrong".to_owned());
                    }
                    expected = Some(total);
                    for (info, descriptor) in portion.into_iter().zip(descriptors) {
                        sockets.push(info.socket(descriptor)?);
                    }
                }
                Message::State { drain } if descriptors.len() == 1 && expected.unwrap_or(0) == sockets.len() => {
                    self.drain = drain.min(DRAIN_VERSION);
                    let state = HandedState::read(descriptors.swap_remove(0));
                    let HandedState { verdicts, overlay, put } =
                        state.map_err(|error| format!("its state cannot be read: {error}"))?;
                    let sockets = InheritedSockets::new(sockets);
                    return Ok(Inheritance { sockets, verdicts, overlay: Some(overlay), put, answers_later: true });
                }
                other => return Err(format!("unexpected message: {other:?}")),
            }
        }
    }

    async fn next(&self) -> Result<(Message, Vec<OwnedFd>), String> {
        self.channel.receive().await?.ok_or_else(|| "it has ended".to_owned())
    }

    /// Tells the old process that this one cannot start.
    pub async fn failed(&self, error: &str) {
        let message = Message::Failed { error: error.to_owned() };
        // It may have ended.
        let _ = timeout(FAILED_LIMIT, self.channel.send(&message, &[])).await;
    }

    /// Says that this process accepts, and takes the admin interface over. Returns once this process is the one that serves: the
    /// old one drains, or has ended. The receiver ends once the old one has told the service manager which process is the main one.
    ///
    /// # Errors
    /// The old process makes no sense, and goes on serving.
    pub async fn complete(self, app: &App, chain: &Arc<PredecessorChain>) -> Result<oneshot::Receiver<()>, String> {
        let files = socket_file::of_predecessor_paths();
        let files = files.iter().map(|path| path.to_string_lossy().into_owned()).collect();
        // Once the old process has ended, this one is the only one left: it serves in any case.
        let told = self.channel.send(&Message::Ready { files }, &[]).await;
        let mut sessions = Vec::new();
        while told.is_ok() {
            match self.channel.receive().await? {
                Some((Message::Sessions { sessions: portion }, sockets)) => {
                    sessions.extend(portion.into_iter().zip(sockets));
                }
                Some((Message::Go, _)) | None => break,
                Some((other, _)) => return Err(format!("unexpected message: {other:?}")),
            }
        }
        app.plane().adopt_sessions(sessions).await;
        app.plane().release_datagrams();
        app.answer(true);
        if let Some(launcher) = self.launcher {
            launcher.end().await;
        }
        let _ = self.channel.send(&Message::Serving, &[]).await;
        socket_file::take_over();
        tracing::info!(pid = self.pid, "took over from the process that ran before");
        let old = PassedProcess { pid: self.pid, drain: self.drain, connections: 0 };
        Ok(chain.add(old, self.channel))
    }
}
