//! systemd, or whatever else has set NOTIFY_SOCKET or LISTEN_FDS: sd_notify(3) and sd_listen_fds(3).
//!
//! The control thread says what there is to say; a thread of its own sends it, as a service manager that reads nothing must not
//! hold up health checks.

use std::env;
use std::ffi::OsStr;
use std::fmt::Display;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sd_notify::NotifyState;
use tidegate::net::inherited::{InheritedSocket, InheritedSockets};
use tidegate::net::sys;
use tidegate::server::DataPlane;
use tidegate::threads;
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Between two looks at what the status line says.
const STATUS_INTERVAL: Duration = Duration::from_secs(3);
/// The shortest watchdog that is served: at half of it, the control thread wakes up.
const SHORTEST_WATCHDOG: Duration = Duration::from_millis(20);
/// What a shutdown may take beyond shutdown.delay and shutdown.drain.
const STOP_MARGIN: Duration = Duration::from_secs(5);
/// Time limit of one message.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// Messages that wait for the service manager. More are dropped.
const QUEUE: usize = 64;

/// The service manager, if there is one.
#[derive(Clone)]
pub(super) struct ServiceManager(Option<Arc<Notifier>>);

struct Notifier {
    messages: SyncSender<NotifyOrder>,
    stopping: AtomicBool,
    /// Another process is the main one.
    silent: AtomicBool,
    /// What the last reload has to say for itself.
    complaint: Mutex<Option<String>>,
    /// The last status line that was sent.
    status: Mutex<String>,
}

enum NotifyOrder {
    Message(String),
    /// All before it is sent: says so.
    Flush(oneshot::Sender<()>),
}

impl ServiceManager {
    /// Starts the thread that talks to it.
    ///
    /// # Errors
    /// No thread is left.
    pub(super) fn start() -> io::Result<ServiceManager> {
        let Some(name) = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Ok(ServiceManager(None));
        };
        let (messages, queued) = sync_channel(QUEUE);
        threads::spawn("notify", move || send(&name, &queued))?;
        Ok(ServiceManager(Some(Arc::new(Notifier::new(messages)))))
    }

    /// Serving has begun. From here on the status line is kept up to date, and the watchdog is fed. Must be called on the
    /// control thread's runtime.
    pub(super) fn ready(&self, plane: &Arc<DataPlane>) {
        let Some(notifier) = &self.0 else { return };
        let status = notifier.status(plane);
        notifier.say(&[NotifyState::Ready, NotifyState::Status(&status)]);
        tokio::spawn(keep_status(Arc::clone(notifier), Arc::clone(plane)));
        if let Some(limit) = sd_notify::watchdog_enabled().filter(|limit| *limit >= SHORTEST_WATCHDOG) {
            tokio::spawn(feed_watchdog(Arc::clone(notifier), limit / 2));
        }
    }

    /// A shutdown has begun, which may take this long: it asks not to be killed before.
    pub(super) fn stopping(&self, limit: Duration) {
        if let Some(notifier) = &self.0 {
            notifier.stopping.store(true, Ordering::Relaxed);
            let limit = limit.saturating_add(STOP_MARGIN).as_micros();
            let extend = NotifyState::ExtendTimeoutUsec(u32::try_from(limit).unwrap_or(u32::MAX));
            notifier.say(&[NotifyState::Stopping, extend, NotifyState::Status("draining")]);
        }
    }

    /// Another process is the main one from now on. This one says nothing after that, which would not be taken.
    pub(super) async fn main_process(&self, pid: u32) {
        let Some(notifier) = &self.0 else { return };
        notifier.say(&[NotifyState::MainPid(pid)]);
        notifier.silent.store(true, Ordering::Relaxed);
        // Sent before the new process says anything.
        let (done, is_done) = oneshot::channel();
        let _ = notifier.messages.try_send(NotifyOrder::Flush(done));
        let _ = timeout(SEND_TIMEOUT, is_done).await;
    }

    /// A reload begins. [`ServiceManager::reloaded`] must follow, whatever comes of it: systemd waits for that without a limit.
    pub(super) fn reloading(&self) {
        let Some(notifier) = &self.0 else { return };
        // In one message, by which systemd knows which reload it is about. Without the time, it would not take it.
        match NotifyState::monotonic_usec_now() {
            Ok(now) => notifier.say(&[NotifyState::Reloading, now]),
            Err(error) => tracing::warn!(%error, "no monotonic time: the service manager is not told of the reload"),
        }
    }

    /// A reload is over; with the error of one that was refused. The process serves in both cases.
    pub(super) fn reloaded(&self, plane: &DataPlane, result: Result<(), &str>) {
        let Some(notifier) = &self.0 else { return };
        // The status is a line: the log has all errors.
        let complaint = |error: &str| format!("reload refused: {}", error.lines().next().unwrap_or_default());
        *notifier.complaint.lock().unwrap_or_else(PoisonError::into_inner) = result.err().map(complaint);
        let status = notifier.status(plane);
        notifier.say(&[NotifyState::Ready, NotifyState::Status(&status)]);
    }
}

impl Notifier {
    fn new(messages: SyncSender<NotifyOrder>) -> Notifier {
        let (stopping, silent) = (AtomicBool::new(false), AtomicBool::new(false));
        Notifier { messages, stopping, silent, complaint: Mutex::default(), status: Mutex::default() }
    }

    /// Queues one message.
    fn say(&self, states: &[NotifyState<'_>]) {
        if self.silent.load(Ordering::Relaxed) {
            return;
        }
        let lines: Vec<String> = states.iter().map(ToString::to_string).collect();
        if self.messages.try_send(NotifyOrder::Message(lines.join("\n"))).is_err() {
            tracing::debug!("the service manager reads nothing: a message to it is dropped");
        }
    }

    /// The status line, which is kept as the last one that was sent.
    fn status(&self, plane: &DataPlane) -> String {
        let complaint = self.complaint.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let status = status(plane, self.stopping.load(Ordering::Relaxed), complaint.as_deref());
        status.clone_into(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
        status
    }
}

/// Sends what is queued, until nothing more can come.
fn send(name: &OsStr, queued: &Receiver<NotifyOrder>) {
    let mut is_reached = true;
    for message in queued {
        let message = match message {
            NotifyOrder::Message(message) => message,
            NotifyOrder::Flush(done) => {
                // Who waits for it may have given up.
                let _ = done.send(());
                continue;
            }
        };
        let sent = send_one(name, &message);
        if let (Err(error), true) = (&sent, is_reached) {
            tracing::warn!(socket = %name.display(), %error, "cannot notify the service manager at NOTIFY_SOCKET");
        }
        is_reached = sent.is_ok();
    }
}

/// Sends one message. Not by the crate, which takes abstract addresses (`@name`) for files and may wait without an end.
fn send_one(name: &OsStr, message: &str) -> io::Result<()> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(name),
        _ => Err(io::Error::other("neither an absolute path nor an abstract address")),
    }?;
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(SEND_TIMEOUT))?;
    socket.connect_addr(&address)?;
    socket.send(message.as_bytes()).map(drop)
}

/// Sends the status line whenever it has changed.
async fn keep_status(notifier: Arc<Notifier>, plane: Arc<DataPlane>) {
    let mut ticks = interval(STATUS_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let before = notifier.status.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let status = notifier.status(&plane);
        if status != before {
            notifier.say(&[NotifyState::Status(&status)]);
        }
    }
}

/// Feeds the watchdog from the control thread. A stuck worker shows in traffic, but health checks, names
/// and reloads stop silently when this thread is stuck, while connections still go to backends that are down by now.
async fn feed_watchdog(notifier: Arc<Notifier>, every: Duration) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        notifier.say(&[NotifyState::Watchdog]);
    }
}

/// `2 listeners, 3 of 4 backends up, 17 connections`.
fn status(plane: &DataPlane, stopping: bool, complaint: Option<&str>) -> String {
    let connections = counted(plane.open(), "connection");
    if stopping {
        return format!("draining: {connections} left");
    }
    let pools = plane.pools();
    let backends: Vec<bool> =
        pools.iter().flat_map(|pool| pool.backends().iter().map(|it| it.is_up()).collect::<Vec<_>>()).collect();
    let up = backends.iter().filter(|is_up| **is_up).count();
    let listeners = counted(plane.listeners().len(), "listener");
    let complaint = complaint.map(|complaint| format!("{complaint}; ")).unwrap_or_default();
    format!("{complaint}{listeners}, {up} of {} up, {connections}", counted(backends.len(), "backend"))
}

fn counted(count: usize, what: impl Display) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// The sockets that the process was started with by socket activation. Must be called before anything opens descriptors.
///
/// # Errors
/// The environment makes no sense, or one of the sockets is of the wrong type.
pub(super) fn inherited_sockets() -> Result<InheritedSockets, String> {
    let wrong = |error: &io::Error| format!("socket activation (LISTEN_FDS, LISTEN_FDNAMES): {error}");
    let passed = sd_notify::listen_fds_with_names().map_err(|error| wrong(&error))?;
    let sockets = passed.map(|(number, name)| {
        let socket = sys::take_descriptor(number).map_err(|error| wrong(&error))?;
        InheritedSocket::new(socket, &name, None)
    });
    Ok(InheritedSockets::new(sockets.collect::<Result<_, _>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reload_is_one_message_with_its_time_and_ends_with_ready_also_when_refused() {
        let (messages, queued) = sync_channel(QUEUE);
        let manager = ServiceManager(Some(Arc::new(Notifier::new(messages))));
        manager.reloading();
        let next = || match queued.try_recv().unwrap() {
            NotifyOrder::Message(message) => message,
            NotifyOrder::Flush(_) => panic!("no flush was asked for"),
        };
        let message = next();
        let [reloading, time] = message.lines().collect::<Vec<_>>()[..] else { panic!("{message}") };
        assert_eq!(reloading, "RELOADING=1");
        assert!(time.strip_prefix("MONOTONIC_USEC=").and_then(|time| time.parse::<u64>().ok()) > Some(0), "{time}");
        let plane = DataPlane::start(1, 1).unwrap();
        manager.reloaded(&plane, Err("listener a: taken\nlistener b: taken"));
        let state = "0 listeners, 0 of 0 backends up, 0 connections";
        let refused = format!("READY=1\nSTATUS=reload refused: listener a: taken; {state}");
        assert_eq!(next(), refused);
        manager.reloaded(&plane, Ok(()));
        assert_eq!(next(), format!("READY=1\nSTATUS={state}"));
    }

    #[test]
    fn service_manager_that_reads_nothing_holds_nobody_up() {
        let (messages, _queued) = sync_channel(1);
        let notifier = Notifier::new(messages);
        for _ in 0..3 {
            notifier.say(&[NotifyState::Watchdog]);
        }
    }
}
