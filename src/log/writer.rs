//! A thread that writes a log, behind a bounded queue: no caller ever waits for a disk or for a reader.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

use super::counters::LogCounters;

/// The process log, by its name in the counters.
pub(super) const PROCESS: &str = "process";

/// Bytes that the queue holds. Further lines are dropped and counted.
const QUEUE_LIMIT: usize = 4 * 1024 * 1024;

/// Bytes written in one call, at most.
const CHUNK: usize = 64 * 1024;

/// A sink that takes nothing is tried again after this time.
const RETRY: Duration = Duration::from_millis(100);

/// A write without progress for this long is stuck: a flush does not wait for it.
const STUCK_WRITE: Duration = Duration::from_millis(25);

/// The longest flush of all logs together, for a reader that is slow and a thread that the system does not let run.
pub(super) const FLUSH_LIMIT: Duration = Duration::from_millis(500);

/// The same failure is reported again after this time.
const REPORT_AGAIN: Duration = Duration::from_secs(60);

/// How long a log that was replaced may wait for room or for a reader. What is left then is dropped and counted.
const RETIRE_LIMIT: Duration = Duration::from_secs(5);

/// A log that failed has recovered when it was written for this long.
const RECOVERED: Duration = Duration::from_secs(1);

/// Where the lines of a log go. Called on the log's own thread only.
pub(super) trait Sink: Send + 'static {
    /// Writes a part of `bytes`.
    fn write(&mut self, bytes: &[u8]) -> io::Result<Written>;

    /// Opens what has a name again.
    fn reopen(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// What there is to say beside the outcome of the last write. Asked until there is nothing more.
    fn notice(&mut self) -> Option<Notice> {
        None
    }
}

/// What a sink says beside the outcome of a write.
#[derive(Debug)]
pub(super) enum Notice {
    /// No line is lost, but lines go to a file that lost its name.
    Detached(io::Error),
    /// No line is lost, but lines wait, as what takes them cannot be reached.
    Waiting(io::Error),
    /// This number of lines is lost, written before or now.
    Lost(io::Error, u64),
    /// A line was longer than what can be sent, and lost its end.
    Cut,
}

/// The outcome of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// This many bytes.
    Bytes(usize),
    /// None: there is no room, or no reader, for now.
    NotYet,
    /// None, and the reader of what was written before is gone.
    ReaderLost,
}

/// Queues lines. A clone for each thread that logs.
#[derive(Clone, Debug)]
pub struct LogWriter(Arc<LogQueue>);

impl LogWriter {
    /// Queues one line, which ends with its newline.
    pub fn line(&self, line: &[u8]) {
        let mut state = self.0.state();
        if state.bytes + line.len() > QUEUE_LIMIT {
            drop(state);
            self.0.counters.dropped();
            return;
        }
        state.bytes += line.len();
        match state.chunks.back_mut() {
            Some(chunk) if chunk.len() + line.len() <= CHUNK => chunk.extend_from_slice(line),
            _ => state.chunks.push_back(line.to_vec()),
        }
        drop(state);
        self.0.work.notify_one();
    }

    /// What was not written so far.
    pub fn counters(&self) -> &LogCounters {
        &self.0.counters
    }
}

/// For tracing, which writes each line in one piece.
impl io::Write for &LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = &'a LogWriter;

    fn make_writer(&'a self) -> &'a LogWriter {
        self
    }
}

#[derive(Debug)]
pub(super) struct LogQueue {
    state: Mutex<WriterState>,
    /// Signals work for the thread.
    work: Condvar,
    /// Signals progress of the thread.
    progress: Condvar,
    counters: LogCounters,
}

#[derive(Debug, Default)]
struct WriterState {
    chunks: VecDeque<Vec<u8>>,
    /// In `chunks`.
    bytes: usize,
    /// Since when the thread is at a write without progress.
    writing: Option<Instant>,
    reopen: bool,
    /// Since when another log takes the lines.
    retired: Option<Instant>,
    stop: bool,
}

impl WriterState {
    fn is_overdue(&self) -> bool {
        self.retired.is_some_and(|since| since.elapsed() >= RETIRE_LIMIT)
    }
}

impl LogQueue {
    fn state(&self) -> MutexGuard<'_, WriterState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the thread open its file again.
    pub(super) fn reopen(&self) {
        self.state().reopen = true;
        self.work.notify_one();
    }

    /// Waits until everything is written, unless a write is stuck. Returns whether everything was.
    pub(super) fn flush(&self, deadline: Instant) -> bool {
        let mut state = self.state();
        loop {
            if state.chunks.is_empty() && state.writing.is_none() {
                return true;
            }
            let give_up = state.writing.map_or(deadline, |since| deadline.min(since + STUCK_WRITE));
            let left = give_up.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.progress.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The thread of a log. Its drop writes the queued lines and ends the thread.
#[derive(Debug)]
pub(super) struct LogThread(Arc<LogQueue>);

impl LogThread {
    /// Starts the thread, which counts in `counters`.
    ///
    /// # Errors
    /// The system has no thread left.
    pub(super) fn start(counters: LogCounters, sink: impl Sink) -> io::Result<LogThread> {
        let name = counters.name();
        let queue = Arc::new(LogQueue {
            state: Mutex::default(),
            work: Condvar::new(),
            progress: Condvar::new(),
            counters: counters.clone(),
        });
        let of_thread = Arc::clone(&queue);
        let thread_name = if name == PROCESS { "log".to_owned() } else { format!("{name}-log") };
        let report = Report::new(counters);
        std::thread::Builder::new().name(thread_name).spawn(move || run(&of_thread, sink, report))?;
        Ok(LogThread(queue))
    }

    pub(super) fn writer(&self) -> LogWriter {
        LogWriter(Arc::clone(&self.0))
    }

    pub(super) fn queue(&self) -> &Arc<LogQueue> {
        &self.0
    }

    /// Ends the thread once the last writer is dropped and its lines are written. Returns at once.
    pub(super) fn retire(self) {
        self.0.state().retired = Some(Instant::now());
        self.0.work.notify_one();
    }
}

impl Drop for LogThread {
    fn drop(&mut self) {
        if self.0.state().retired.is_some() {
            return;
        }
        self.0.flush(Instant::now() + FLUSH_LIMIT);
        self.0.state().stop = true;
        self.0.work.notify_one();
    }
}

fn run(queue: &Arc<LogQueue>, mut sink: impl Sink, mut report: Report) {
    let mut torn = false;
    loop {
        let mut state = queue.state();
        while state.chunks.is_empty() && !state.reopen && !state.stop {
            if state.retired.is_none() {
                state = queue.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            // Nothing says that a writer was dropped.
            if Arc::strong_count(queue) == 1 {
                return;
            }
            state = queue.work.wait_timeout(state, RETRY).unwrap_or_else(PoisonError::into_inner).0;
        }
        if state.stop {
            return;
        }
        let reopen = std::mem::take(&mut state.reopen);
        let chunk = state.chunks.pop_front();
        state.bytes -= chunk.as_ref().map_or(0, Vec::len);
        state.writing = chunk.is_some().then(Instant::now);
        drop(state);
        if reopen {
            match sink.reopen() {
                Ok(()) => report.reopened(),
                Err(error) => report.detached(&error),
            }
        }
        if let Some(chunk) = chunk {
            write_chunk(queue, &mut sink, &chunk, &mut torn, &mut report);
        }
        queue.state().writing = None;
        queue.progress.notify_all();
    }
}

/// Writes all of the chunk. After a failure, the lines that are left of it are lost and counted.
fn write_chunk(queue: &LogQueue, sink: &mut impl Sink, chunk: &[u8], torn: &mut bool, report: &mut Report) {
    let mut done = 0;
    while done < chunk.len() {
        // The rest of a line of which a write failed must not run into the next line.
        let written = if *torn { sink.write(b"\n") } else { sink.write(&chunk[done..]) };
        match written {
            Ok(Written::Bytes(_)) if *torn => *torn = false,
            Ok(Written::Bytes(count)) => {
                done += count;
                if !report.hears(sink) {
                    report.written();
                }
                queue.state().writing = Some(Instant::now());
                queue.progress.notify_all();
            }
            Ok(nothing) => {
                report.hears(sink);
                if nothing == Written::ReaderLost {
                    // The next reader gets whole lines.
                    done = line_start(chunk, done);
                }
                let state = queue.state();
                if state.is_overdue() {
                    drop(state);
                    (0..lines(&chunk[line_start(chunk, done)..])).for_each(|_| queue.counters.dropped());
                    return;
                }
                let is_idle = |state: &mut WriterState| !state.stop && !state.reopen;
                let waited = queue.work.wait_timeout_while(state, RETRY, is_idle);
                let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
                if state.stop {
                    return;
                }
                if std::mem::take(&mut state.reopen) {
                    drop(state);
                    if let Err(error) = sink.reopen() {
                        report.detached(&error);
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                let start = line_start(chunk, done);
                *torn |= start < done;
                report.failed(&error, lines(&chunk[start..]), LOST);
                return;
            }
        }
    }
}

fn line_start(chunk: &[u8], at: usize) -> usize {
    chunk[..at].iter().rposition(|&byte| byte == b'\n').map_or(0, |newline| newline + 1)
}

fn lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|&&byte| byte == b'\n').count() as u64
}

/// Reports failures of other logs in the process log. Failures of the process log itself are only counted.
struct Report {
    counters: LogCounters,
    reported: Vec<(io::ErrorKind, Instant)>,
    last_error: Option<Instant>,
    lost: u64,
    is_detached: bool,
    has_cut: bool,
}

/// What becomes of lines that cannot be written.
const LOST: &str = "log cannot be written: lines are lost";
const WAITING: &str = "log cannot be written: lines wait, and are dropped when there are too many";

impl Report {
    fn new(counters: LogCounters) -> Report {
        Report { counters, reported: Vec::new(), last_error: None, lost: 0, is_detached: false, has_cut: false }
    }

    fn says(&self) -> bool {
        self.counters.name() != PROCESS
    }

    /// Reports what the sink says. Returns whether it is a failure.
    fn hears(&mut self, sink: &mut impl Sink) -> bool {
        let mut fails = false;
        while let Some(notice) = sink.notice() {
            fails |= matches!(notice, Notice::Waiting(_) | Notice::Lost(..));
            match notice {
                Notice::Detached(error) => self.detached(&error),
                Notice::Waiting(error) => self.failed(&error, 0, WAITING),
                Notice::Lost(error, lines) => self.failed(&error, lines, LOST),
                Notice::Cut => self.cut(),
            }
        }
        fails
    }

    fn failed(&mut self, error: &io::Error, lines: u64, what: &str) {
        let now = Instant::now();
        self.counters.failed(error, lines);
        self.lost += lines;
        self.last_error = Some(now);
        let kind = error.kind();
        self.reported.retain(|&(_, at)| now.saturating_duration_since(at) < REPORT_AGAIN);
        if self.reported.iter().any(|&(reported, _)| reported == kind) {
            return;
        }
        self.reported.push((kind, now));
        if self.says() {
            tracing::error!(log = self.counters.name(), %error, lost_lines = self.lost, "{what}");
        }
    }

    fn written(&mut self) {
        let Some(last) = self.last_error else { return };
        self.counters.succeeded();
        if last.elapsed() < RECOVERED {
            return;
        }
        self.last_error = None;
        self.reported.clear();
        let lost_lines = std::mem::take(&mut self.lost);
        tracing::warn!(log = self.counters.name(), lost_lines, "log is written again");
    }

    fn cut(&mut self) {
        self.counters.truncated();
        if !std::mem::replace(&mut self.has_cut, true) {
            tracing::warn!(log = self.counters.name(), "a line was longer than the largest message, and was cut");
        }
    }

    fn reopened(&mut self) {
        self.is_detached = false;
        tracing::info!(log = self.counters.name(), "log reopened");
    }

    /// No line is lost, but lines go where they are not looked for.
    fn detached(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.is_detached, true) && self.says() {
            tracing::error!(log = self.counters.name(), %error, "log cannot be reopened: lines go to the file that was open");
        }
    }
}

#[cfg(test)]
mod tests;
