//! The old process's side of an upgrade.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::VARIABLE;
use super::chain::PredecessorChain;
use super::channel::{Channel, DRAIN_VERSION, ENDED, MAX_SOCKETS, Message, PORTION, VERSION};
use super::inheritance::{HandedState, SocketInfo, Verdict};
use crate::admin;
use crate::app::App;
use crate::control::Overlay;
use crate::control::predecessor::CALL_LIMIT;
use crate::net::{memory_file, passing, socket_file};
use crate::server::DataPlane;
use crate::threads::BlockingThread;

/// From the start of the new process until it serves.
const LIMIT: Duration = Duration::from_secs(60);
/// Of that, from `go` to `serving`: meanwhile no process answers at the admin interface, and probes wait.
const SERVE_LIMIT: Duration = Duration::from_secs(3);
/// How long a process may take to end after it was killed, or after it has closed the channel.
const END_LIMIT: Duration = Duration::from_secs(2);
const END_POLL: Duration = Duration::from_millis(2);
/// How long the new process may take to receive the channels of others.
const PASS_LIMIT: Duration = Duration::from_secs(1);
/// Between two reports of a drain.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// How this process was started, and so how another one is.
#[derive(Clone, Debug)]
pub struct Launcher {
    program: PathBuf,
    arguments: Vec<OsString>,
}

/// A process that has been started and does not serve yet. Its end must come before that of the channel: a new process whose
/// channel ends takes the old one for crashed, and serves.
struct NewProcess {
    child: Guarded,
    channel: Channel,
}

/// The new process, once it has said which one it is, until it serves.
static UNFINISHED: Mutex<Option<OwnedFd>> = Mutex::new(None);

/// Ends a new process that does not serve yet: before this process ends on purpose.
pub fn abandon() {
    let process = UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(process) = process {
        // It may have ended.
        let _ = pidfd_send_signal(process, Signal::KILL);
    }
}

/// What was started: the new process or its [`launcher`](super::launcher). Dropped, it is killed.
struct Guarded(Option<Child>);

/// The process that has taken over.
pub struct Successor {
    /// Another one, once that has been replaced too.
    pid: u32,
    program: PathBuf,
    /// The version that both speak while this process drains.
    drain: u32,
    /// The one that was started.
    child: Child,
    channel: Channel,
    /// It ends on purpose.
    is_leaving: bool,
    has_ended: bool,
}

impl Launcher {
    /// By the absolute path of this program, which is to be asked for before its file is replaced, with the same arguments.
    ///
    /// # Errors
    /// Those of readlink(2).
    pub fn of_this_process() -> io::Result<Launcher> {
        Ok(Launcher { program: std::env::current_exe()?, arguments: std::env::args_os().skip(1).collect() })
    }

    /// Starts `binary`, or the same file as it is now, and hands over to it. Until that is done, this process serves as before;
    /// then it is to drain.
    ///
    /// # Errors
    /// Why the new process does not serve. It is gone then.
    pub async fn hand_over(
        &self,
        binary: Option<&Path>,
        app: &App,
        changed: (&Overlay, Option<&str>),
        spawner: &BlockingThread,
    ) -> Result<Successor, String> {
        if std::process::id() == 1 {
            return Err("this is process 1 of its container, which ends with it: replace the container".to_owned());
        }
        let program = binary.unwrap_or(&self.program);
        let mut new = self.start(program, spawner).await?;
        tracing::info!(pid = new.pid(), program = %program.display(), "upgrade: the new process starts");
        let outcome = timeout(LIMIT, new.introduce(app, changed)).await;
        let outcome = outcome.unwrap_or_else(|_| Err(format!("it does not serve after {} s", LIMIT.as_secs())));
        match (outcome, new.child.0.take()) {
            (Ok((pid, drain)), Some(child)) => {
                UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner).take();
                tracing::info!(pid, "upgrade: the new process serves");
                app.plane().forget_sessions().await;
                let (program, channel) = (program.to_owned(), new.channel);
                Ok(Successor { pid, program, drain, child, channel, is_leaving: false, has_ended: false })
            }
            (outcome, child) => {
                new.child.0 = child;
                let why = outcome.err().unwrap_or_default();
                // The new process, which may have answered, is gone.
                let ended = new.end(why == ENDED).await;
                app.plane().release_datagrams();
                app.answer(true);
                Err(format!("{}: {}; the running process goes on", program.display(), because(&why, ended)))
            }
        }
    }

    async fn start(&self, program: &Path, spawner: &BlockingThread) -> Result<NewProcess, String> {
        let (own, others) = passing::pair().map_err(|error| format!("no channel to a new process: {error}"))?;
        let mut command = Command::new(program);
        command.args(&self.arguments).stdin(Stdio::null());
        command.env(VARIABLE, format!("{}:{}", std::process::id(), others.as_raw_fd()));
        // They are this process's: its sockets are handed over by the channel, and it is the new one that feeds the watchdog.
        for variable in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID"] {
            command.env_remove(variable);
        }
        let spawn = move || {
            // This process starts no others, which would inherit it too.
            fcntl_setfd(&others, FdFlags::empty())?;
            command.spawn()
        };
        let failed = |error: &dyn std::fmt::Display| format!("cannot start {}: {error}", program.display());
        match timeout(LIMIT, spawner.call(spawn)).await {
            Ok(Some(Ok(child))) => {
                let channel = Channel::new(own).map_err(|error| failed(&error))?;
                Ok(NewProcess { child: Guarded(Some(child)), channel })
            }
            Ok(Some(Err(error))) => Err(failed(&error)),
            // If it starts after all, it finds its channel closed.
            Ok(None) | Err(_) => Err(failed(&"the file system does not answer")),
        }
    }
}

/// Why it failed; how it ended says more than that it has.
fn because(why: &str, ended: Option<ExitStatus>) -> String {
    match ended.map(|status| (status, status.code())) {
        Some((_, Some(2))) if why == ENDED => {
            "the new process takes its configuration or its arguments for wrong (exit code 2): `check` with it says why"
                .to_owned()
        }
        Some((status, _)) if why == ENDED => format!("the new process has ended ({status})"),
        _ => why.to_owned(),
    }
}

impl NewProcess {
    fn pid(&self) -> Option<u32> {
        self.child.0.as_ref().map(Child::id)
    }

    /// Everything until it serves. Returns its process id, and the version that both speak from then on.
    async fn introduce(&mut self, app: &App, (overlay, put): (&Overlay, Option<&str>)) -> Result<(u32, u32), String> {
        let (pid, drain) = match self.next().await? {
            Message::Hello { version: VERSION, pid, drain } => (pid, drain.min(DRAIN_VERSION)),
            Message::Hello { version, .. } => {
                return Err(format!("it speaks version {version} of the hand-over, this process {VERSION}"));
            }
            other => return Err(unexpected(&other)),
        };
        let known = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(|| format!("{pid} is no process id"))?;
        let process = pidfd_open(known, PidfdFlags::empty()).map_err(|error| format!("process {pid}: {error}"))?;
        *UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner) = Some(process);
        self.send_sockets(&app.listening_sockets()).await?;
        let state =
            HandedState { verdicts: Verdict::all(&app.pools()), overlay: overlay.clone(), put: put.map(str::to_owned) };
        let state = state.write().map_err(|error| format!("no memory for the state: {error}"))?;
        self.channel.send(&Message::State { drain: DRAIN_VERSION }, &[state.as_fd()]).await?;
        let files = match self.next().await? {
            Message::Ready { files } => files,
            other => return Err(unexpected(&other)),
        };
        // The last before it serves: until then, datagrams wait in the kernel's buffers.
        let sessions = app.plane().export_sessions().await;
        for portion in sessions.chunks(PORTION) {
            let (sessions, descriptors): (Vec<_>, Vec<_>) =
                portion.iter().map(|(session, socket)| (session.clone(), socket.as_fd())).unzip();
            self.channel.send(&Message::Sessions { sessions }, &descriptors).await?;
        }
        app.answer(false);
        self.channel.send(&Message::Go, &[]).await?;
        match timeout(SERVE_LIMIT, self.next()).await {
            Ok(Ok(Message::Serving)) => {}
            Ok(Ok(other)) => return Err(unexpected(&other)),
            Ok(Err(why)) => return Err(why),
            Err(_) => return Err(format!("it is ready, but does not serve after {} s", SERVE_LIMIT.as_secs())),
        }
        // What is not among them this process removes, as it closes the sockets.
        socket_file::leave(&files.into_iter().map(PathBuf::from).collect::<Vec<_>>());
        Ok((pid, drain))
    }

    async fn send_sockets(&self, sockets: &[(SocketInfo, BorrowedFd<'_>)]) -> Result<(), String> {
        let total = sockets.len();
        if total > MAX_SOCKETS {
            return Err(format!("{total} listening sockets cannot be handed over: at most {MAX_SOCKETS}"));
        }
        for portion in sockets.chunks(PORTION) {
            let (sockets, descriptors): (Vec<SocketInfo>, Vec<BorrowedFd<'_>>) = portion.iter().cloned().unzip();
            self.channel.send(&Message::Sockets { version: VERSION, total, sockets }, &descriptors).await?;
        }
        Ok(())
    }

    async fn next(&self) -> Result<Message, String> {
        match self.channel.receive().await? {
            Some((Message::Failed { error }, _)) => Err(error),
            Some((message, _)) => Ok(message),
            None => Err(ENDED.to_owned()),
        }
    }

    /// Sees it end if it has `ended`, or kills it. Returns how it ended by itself.
    async fn end(&mut self, ended: bool) -> Option<ExitStatus> {
        let mut child = self.child.0.take()?;
        let own_end = if ended { end_of(&mut child).await } else { None };
        // Behind a launcher, it may outlive what was started.
        abandon();
        if own_end.is_none() {
            let _ = child.kill();
            let _ = end_of(&mut child).await;
        }
        own_end
    }
}

/// How it has ended, if it does so soon.
async fn end_of(child: &mut Child) -> Option<ExitStatus> {
    let ended = async {
        loop {
            match child.try_wait() {
                Ok(None) => sleep(END_POLL).await,
                Ok(Some(status)) => return Some(status),
                Err(_) => return None,
            }
        }
    };
    timeout(END_LIMIT, ended).await.ok().flatten()
}

fn unexpected(message: &Message) -> String {
    format!("the new process said what was not expected: {message:?}")
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // This process ends: it was asked to while it upgraded.
        if let Some(mut child) = self.0.take() {
            abandon();
            let _ = child.kill();
            let _ = child.try_wait();
        }
    }
}

impl Successor {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What was started.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Gives it the channels to the processes that this one has replaced. Comes before this process may end.
    pub async fn adopt(&self, chain: &PredecessorChain) {
        if self.drain > 0 {
            // Its end is the report's to see.
            let _ = timeout(PASS_LIMIT, chain.pass_on(&self.channel)).await;
        }
    }

    /// Reports how many connections are left here, and answers calls, until this process ends. If the new process
    /// ends before, no process accepts; the log says so.
    pub async fn report(mut self, plane: Arc<DataPlane>, chain: Arc<PredecessorChain>) {
        let mut ticks = interval(REPORT_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.has_ended {
            tokio::select! {
                _ = ticks.tick() => {
                    // What it cannot ask about, it waits for.
                    let others = if self.drain > 0 { 0 } else { chain.connections() };
                    let connections = plane.open().saturating_add(others);
                    // Its end is seen by what it has said last.
                    let _ = self.channel.send(&Message::Draining { connections }, &[]).await;
                    // It, or its launcher, is this process's to reap.
                    let _ = self.child.try_wait();
                }
                received = self.channel.receive() => self.take(received, &plane).await,
            }
        }
        if self.is_leaving {
            tracing::info!(pid = self.pid, "the process that has taken over ends");
        } else {
            tracing::error!(pid = self.pid, "the process that has taken over has ended");
        }
        loop {
            let _ = self.child.try_wait();
            ticks.tick().await;
        }
    }

    async fn take(&mut self, received: Result<Option<(Message, Vec<OwnedFd>)>, String>, plane: &DataPlane) {
        match received {
            Ok(Some((Message::Call { id }, mut descriptors))) => {
                let call = descriptors.pop().and_then(|file| memory_file::read(file).ok()).unwrap_or_default();
                // Without an answer, it waits no longer than this.
                let answer = timeout(CALL_LIMIT, admin::answer_drain_call(&call, plane));
                let Ok(json) = answer.await else { return };
                let Ok(file) = memory_file::write(&json) else { return };
                let _ = self.channel.send(&Message::Answer { id }, &[file.as_fd()]).await;
            }
            Ok(Some((Message::Successor { pid }, _))) => (self.pid, self.is_leaving) = (pid, false),
            Ok(Some((Message::Leaving, _))) => self.is_leaving = true,
            Ok(Some((other, _))) => {
                tracing::warn!(pid = self.pid, ?other, "the new process said what was not expected");
            }
            Ok(None) | Err(_) => self.has_ended = true,
        }
    }
}
