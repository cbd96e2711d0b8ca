//! Signals: what the kernel, an operator or a service manager asks of the process.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use tidegate::log::Logging;
use tidegate::threads;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::Instant;

use super::exit::exit;

/// From a request to end until it is carried out without the control thread, when that one does not move.
const UNHEEDED: Duration = Duration::from_millis(500);

/// What a drain takes beyond its deadline: connections are closed, and their ends are logged.
const DRAIN_END: Duration = Duration::from_secs(2);

/// SIGTERM and SIGINT.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From here on these signals no longer end the process by themselves.
    pub(super) fn new() -> io::Result<Signals> {
        Ok(Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The next of them, whichever comes first.
    pub(super) async fn next(&mut self) {
        poll_fn(|cx| match (self.terminate.poll_recv(cx), self.interrupt.poll_recv(cx)) {
            (Poll::Pending, Poll::Pending) => Poll::Pending,
            _ => Poll::Ready(()),
        })
        .await;
    }
}

/// Requests to end a `tidegate run`, as its control thread sees them. Every signal is received on a thread that does
/// nothing else, so that it is heeded also while the control thread waits for a file system.
pub(super) struct Requests {
    endings: watch::Receiver<u32>,
    serving: Arc<AtomicBool>,
}

impl Requests {
    /// Starts the thread. `drain` is the longest drain.
    ///
    /// # Errors
    /// No thread or no descriptor is left.
    pub(super) fn start(logging: &Logging, drain: Duration) -> io::Result<Requests> {
        let (endings, of_control) = watch::channel(0);
        let serving = Arc::new(AtomicBool::new(false));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // Before the thread runs: a signal that comes now is not lost.
        let received = {
            let _entered = runtime.enter();
            Received::new()?
        };
        let receiver = Receiver { endings, serving: Arc::clone(&serving), logging: logging.clone(), drain };
        threads::spawn("signals", move || runtime.block_on(receiver.run(received)))?;
        Ok(Requests { endings: of_control, serving })
    }

    /// The next request to end.
    pub(super) async fn next(&mut self) {
        // The other end lives as long as the process.
        let _ = self.endings.changed().await;
    }

    /// From here on there may be connections, which a request to end drains.
    pub(super) fn serves(&self) {
        self.serving.store(true, Ordering::Release);
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
    /// To read the configuration again, or to hand over to another binary: neither is built yet.
    Reload,
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
    ("SIGUSR2", libc::SIGUSR2, SignalRequest::Reload),
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
    serving: Arc<AtomicBool>,
    logging: Logging,
    drain: Duration,
}

impl Receiver {
    async fn run(self, mut received: Received) {
        let mut requested = 0;
        let mut end = None;
        loop {
            let (signal, request) = tokio::select! {
                next = received.next() => next,
                () = sleep_until(end) => {
                    tracing::error!("the end is overdue, as a thread is stuck: ends at once");
                    exit(&self.logging, 0)
                }
            };
            match request {
                SignalRequest::End => {
                    requested += 1;
                    let limit = match requested {
                        1 if self.serving.load(Ordering::Acquire) => self.drain.saturating_add(DRAIN_END),
                        1 | 2 => UNHEEDED,
                        _ => Duration::ZERO,
                    };
                    // A drain without end has no deadline here either.
                    end = Instant::now().checked_add(limit);
                    self.endings.send_replace(requested);
                }
                SignalRequest::Quit => {
                    tracing::warn!("{signal}: ends at once, without a drain");
                    exit(&self.logging, 0)
                }
                SignalRequest::Reopen => self.logging.reopen(),
                SignalRequest::Reload => tracing::warn!(
                    "{signal} ignored: this version cannot reload; restart it to apply a changed configuration"
                ),
                SignalRequest::Nothing => tracing::warn!("{signal} ignored: it has no meaning here"),
            }
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
    use super::*;

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
