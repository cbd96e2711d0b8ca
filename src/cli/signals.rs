//! Signals: what the kernel, an operator or a service manager asks of the process.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;

use tidegate::control::request::{Change, ChangeSender};
use tidegate::control::status::SharedStatus;
use tidegate::log::Logging;
use tidegate::threads;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::Instant;

use super::end_deadline::EndDeadline;
use super::exit::exit;

/// Requests to end a command that runs in a terminal: SIGTERM, SIGINT, SIGQUIT, and SIGHUP when the terminal is gone.
pub(super) struct Signals(Vec<Signal>);

impl Signals {
    /// From here on these signals no longer end the process by themselves. One that is ignored stays so: nohup(1).
    pub(super) fn new() -> io::Result<Signals> {
        let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::quit(), SignalKind::hangup()];
        let ignored = ignored();
        let heeded = kinds.into_iter().filter(|kind| ignored & (1 << (kind.as_raw_value() - 1)) == 0);
        Ok(Signals(heeded.map(signal).collect::<io::Result<_>>()?))
    }

    /// The next of them, whichever comes first.
    pub(super) async fn next(&mut self) {
        poll_fn(|cx| {
            // Each is polled, or it would wake no task.
            let is_ready = self.0.iter_mut().fold(false, |is_ready, signal| signal.poll_recv(cx).is_ready() | is_ready);
            if is_ready { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// The signals that this process ignores, a bit each, of which that of signal 1 is the lowest.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let set = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or_default()
}

/// Requests to end a `tidegate run`, as its control thread sees them. Every signal is received on a thread that does
/// nothing else, so that it is heeded also while the control thread waits for a file system.
pub(super) struct Requests {
    seen: u32,
    endings: watch::Receiver<u32>,
    status: Arc<SharedStatus>,
}

impl Requests {
    /// Starts the thread. Reloads are asked for by `changes`; `status` says how long a shutdown may take.
    ///
    /// # Errors
    /// No thread or no descriptor is left.
    pub(super) fn start(logging: &Logging, changes: ChangeSender, status: Arc<SharedStatus>) -> io::Result<Requests> {
        let (endings, of_control) = watch::channel(0);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // Before the thread runs: a signal that comes now is not lost.
        let received = {
            let _entered = runtime.enter();
            Received::new()?
        };
        let receiver = Receiver { endings, logging: logging.clone(), changes, status: Arc::clone(&status) };
        threads::spawn("signals", move || runtime.block_on(receiver.run(received)))?;
        Ok(Requests { seen: 0, endings: of_control, status })
    }

    /// A request to end before anything is accepted. One that comes later is left for [`Requests::next`].
    pub(super) async fn before_accepting(&mut self) {
        let seen = self.seen;
        let _ = self.endings.wait_for(|requested| *requested > seen).await;
        if self.status.accepts() {
            std::future::pending::<()>().await;
        }
    }

    /// The next request to end. Two that come at once are two.
    pub(super) async fn next(&mut self) {
        let seen = self.seen;
        // The other end lives as long as the process.
        let _ = self.endings.wait_for(|requested| *requested > seen).await;
        self.seen += 1;
    }
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SignalRequest {
    /// To drain and end; a second one, to end now.
    End,
    /// To end now.
    Quit,
    /// To open the files of logs again.
    Reopen,
    /// To apply the configuration file as it is now.
    Reload,
    /// To hand over to another binary.
    Upgrade,
    /// Nothing. The system would end the process all the same.
    Nothing,
}

/// Signals of Linux whose default is to end the process, but for those of faults in the program and SIGKILL. SIGPIPE is
/// ignored by Rust's runtime.
const REQUESTS: [(&str, i32, SignalRequest); 14] = [
    ("SIGTERM", libc::SIGTERM, SignalRequest::End),
    ("SIGINT", libc::SIGINT, SignalRequest::End),
    ("SIGQUIT", libc::SIGQUIT, SignalRequest::Quit),
    ("SIGUSR1", libc::SIGUSR1, SignalRequest::Reopen),
    ("SIGHUP", libc::SIGHUP, SignalRequest::Reload),
    ("SIGUSR2", libc::SIGUSR2, SignalRequest::Upgrade),
    ("SIGALRM", libc::SIGALRM, SignalRequest::Nothing),
    ("SIGVTALRM", libc::SIGVTALRM, SignalRequest::Nothing),
    ("SIGPROF", libc::SIGPROF, SignalRequest::Nothing),
    ("SIGIO", libc::SIGIO, SignalRequest::Nothing),
    ("SIGPWR", libc::SIGPWR, SignalRequest::Nothing),
    ("SIGSTKFLT", libc::SIGSTKFLT, SignalRequest::Nothing),
    ("SIGXCPU", libc::SIGXCPU, SignalRequest::Nothing),
    // A write beyond the limit fails, which the log that it belongs to reports.
    ("SIGXFSZ", libc::SIGXFSZ, SignalRequest::Nothing),
];

/// The signals with a meaning, for the manual page.
pub(super) fn meanings() -> impl Iterator<Item = (&'static str, &'static str)> {
    REQUESTS.iter().filter_map(|(name, _, request)| Some((*name, request.meaning()?)))
}

impl SignalRequest {
    /// For the manual page; `None` for nothing.
    fn meaning(self) -> Option<&'static str> {
        match self {
            SignalRequest::End => Some(
                "Graceful shutdown: stops accepting, and waits up to shutdown.drain for open connections. With \
                 shutdown.delay, /readyz first says 503 for that time. A second one closes what is open.",
            ),
            SignalRequest::Quit => Some("Ends at once, without a drain."),
            SignalRequest::Reopen => Some("Reopens the log files, after a rotation."),
            SignalRequest::Reload => Some("Applies the configuration file again. One that is wrong changes nothing."),
            SignalRequest::Upgrade => {
                Some("Starts the program file as it now is, hands the listening sockets over, and drains.")
            }
            SignalRequest::Nothing => None,
        }
    }
}

/// Receives all of these.
struct Received(Vec<(String, SignalRequest, Signal)>);

impl Received {
    fn new() -> io::Result<Received> {
        let mut all = Vec::new();
        for (name, number, request) in REQUESTS {
            all.push((name.to_owned(), request, signal(SignalKind::from_raw(number))?));
        }
        for number in libc::SIGRTMIN()..=libc::SIGRTMAX() {
            let name = format!("SIGRTMIN+{}", number - libc::SIGRTMIN());
            all.push((name, SignalRequest::Nothing, signal(SignalKind::from_raw(number))?));
        }
        Ok(Received(all))
    }

    async fn next(&mut self) -> (&str, SignalRequest) {
        let place = poll_fn(|cx| {
            let ready = self.0.iter_mut().position(|(_, _, signal)| signal.poll_recv(cx).is_ready());
            ready.map_or(Poll::Pending, Poll::Ready)
        })
        .await;
        let (name, request, _) = &self.0[place];
        (name, *request)
    }
}

/// The thread of the signals.
struct Receiver {
    endings: watch::Sender<u32>,
    logging: Logging,
    changes: ChangeSender,
    /// The deadline of a drain follows the configuration in effect.
    status: Arc<SharedStatus>,
}

impl Receiver {
    async fn run(self, mut received: Received) {
        let (mut requested, mut deadline) = (0, EndDeadline::default());
        loop {
            let (signal, request) = tokio::select! {
                next = received.next() => next,
                () = sleep_until(deadline.at()) => {
                    if deadline.is_overdue(self.status.accepts(), &self.status.get().shutdown) {
                        tracing::error!("the end is overdue, as a thread is stuck: ends at once");
                        exit(&self.logging, 0)
                    }
                    continue;
                }
            };
            match request {
                SignalRequest::End => {
                    deadline.request(Instant::now(), self.status.accepts(), &self.status.get().shutdown);
                    requested += 1;
                    self.endings.send_replace(requested);
                }
                SignalRequest::Quit => {
                    tracing::warn!("{signal}: ends at once, without a drain");
                    exit(&self.logging, 0)
                }
                SignalRequest::Reopen => self.logging.reopen(),
                SignalRequest::Reload => self.ask(signal, Change::Reload, "SIGHUP"),
                SignalRequest::Upgrade => self.ask(signal, Change::Upgrade(None), "SIGUSR2"),
                SignalRequest::Nothing => tracing::warn!("{signal} ignored: it has no meaning here"),
            }
        }
    }
}

impl Receiver {
    /// Asks the control thread, which logs the outcome.
    fn ask(&self, signal: &str, change: Change, actor: &'static str) {
        let what = change.name();
        match self.changes.notify(change, actor) {
            Ok(()) => tracing::info!("{signal}: {what}"),
            Err(why) => tracing::warn!("{signal} ignored: {why}"),
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// While the first listeners open, it must not end the process at once: what they have accepted drains.
    #[tokio::test(start_paused = true)]
    async fn request_to_end_is_left_for_the_drain_once_something_is_accepted() {
        let (sender, endings) = watch::channel(0);
        let mut requests = Requests { seen: 0, endings, status: Arc::default() };
        let long = Duration::from_secs(3600);
        assert!(timeout(long, requests.before_accepting()).await.is_err(), "there is none yet");
        sender.send_replace(1);
        assert!(timeout(long, requests.before_accepting()).await.is_ok());
        requests.status.set_accepts();
        assert!(timeout(long, requests.before_accepting()).await.is_err());
        assert!(timeout(long, requests.next()).await.is_ok(), "it drains");
        assert!(timeout(long, requests.next()).await.is_err(), "once");
    }

    /// By /proc/self/status, after all are received, no signal is left whose default would end the process silently.
    #[tokio::test]
    async fn every_signal_that_ends_a_process_is_received() {
        let _received = Received::new().unwrap();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let set = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            u64::from_str_radix(line.trim(), 16).unwrap()
        };
        let handled = set("SigCgt:") | set("SigIgn:");
        // Those of faults, of job control, and those that the system ignores.
        let left_alone = [
            libc::SIGILL,
            libc::SIGTRAP,
            libc::SIGABRT,
            libc::SIGBUS,
            libc::SIGFPE,
            libc::SIGKILL,
            libc::SIGSEGV,
            libc::SIGSYS,
            libc::SIGSTOP,
            libc::SIGTSTP,
            libc::SIGTTIN,
            libc::SIGTTOU,
            libc::SIGCONT,
            libc::SIGCHLD,
            libc::SIGURG,
            libc::SIGWINCH,
        ];
        for signal in (1..=libc::SIGRTMAX()).filter(|signal| !left_alone.contains(signal)) {
            // glibc's own.
            if !(32..libc::SIGRTMIN()).contains(&signal) {
                assert!(handled & (1 << (signal - 1)) != 0, "signal {signal}");
            }
        }
    }
}
