//! Reload of the database when its file changes, without a reload of the configuration.
//!
//! inotify notices a change at once; where the file system gives no notices, a poll finds it within [`POLL_INTERVAL`].

use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{sleep, timeout};

use super::in_service::GeoIp;
use crate::config::files::{CountryDatabase, Diagnostic};
use crate::notices::Notices;
use crate::threads::BlockingThread;

/// Time between polls without a notice: some file systems give none.
const POLL_INTERVAL: Duration = Duration::from_secs(10);

/// Time from a notice to the poll, so that a write in several steps causes one.
const DEBOUNCE: Duration = Duration::from_millis(200);

/// Age of a file from which on its content counts as whole: until then it may still be written.
const SETTLE_TIME: Duration = Duration::from_secs(2);

/// How long reading the file may take at a start or a reload: a file system may hang.
const READ_LIMIT: Duration = Duration::from_secs(30);

/// The watch of a database's file, with the thread that reads it.
pub struct DatabaseWatch {
    path: PathBuf,
    notices: Notices,
    thread: BlockingThread,
    seen: Option<FileStamp>,
}

/// What changes when a file does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileStamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

/// What a poll has found.
enum PollFinding {
    Same,
    Changed(FileStamp, Box<Result<CountryDatabase, Diagnostic>>),
    /// There is no file, or it cannot be looked at.
    Gone(Diagnostic),
    /// Faulty so far: look again after [`SETTLE_TIME`].
    Settling,
}

impl DatabaseWatch {
    /// Reads a database that is to go into service.
    ///
    /// # Errors
    /// It cannot be read or used, or there is no thread.
    pub async fn open(path: &Path) -> Result<(Arc<CountryDatabase>, DatabaseWatch), String> {
        let thread = BlockingThread::start("geoip").map_err(|error| format!("geoip: {error}"))?;
        let of_call = path.to_owned();
        let read = thread.call(move || (stamp(&of_call), CountryDatabase::read(&of_call)));
        let (seen, database) = match timeout(READ_LIMIT, read).await {
            Ok(Some((seen, Ok(database)))) => (seen, database),
            Ok(Some((_, Err(fault)))) => return Err(format!("geoip.database: {}", sentence(&fault))),
            Ok(None) => return Err(format!("geoip.database: reading {} failed: a defect of tidegate", path.display())),
            Err(_) => {
                let path = path.display();
                return Err(format!(
                    "geoip.database: reading {path} takes longer than {READ_LIMIT:?}: does a file system hang?"
                ));
            }
        };
        // Before the future is polled: the limit of open files is calculated with the watch's descriptors.
        let watch = DatabaseWatch { path: path.to_owned(), notices: Notices::start("geoip"), thread, seen };
        Ok((Arc::new(database), watch))
    }

    /// Replaces the database in service as its file changes, until this is dropped. A file that cannot be used never does.
    pub async fn run(mut self, geoip: Arc<GeoIp>) {
        let notice = self.notices.handle();
        let paths = BTreeSet::from([self.path.clone()]);
        let mut was_gone = false;
        loop {
            // Before the poll: a change after it gives a notice. Again each time: the directory may be another one by now.
            self.notices.watch(&paths);
            let (path, seen) = (self.path.clone(), self.seen);
            let Some(finding) = self.thread.call(move || poll(&path, seen, SystemTime::now())).await else {
                tracing::error!(
                    "geoip: changes of the database are no longer watched, because of a fault in this program"
                );
                return;
            };
            let is_settling = matches!(finding, PollFinding::Settling);
            let is_gone = matches!(finding, PollFinding::Gone(_));
            match finding {
                PollFinding::Same | PollFinding::Settling => {}
                PollFinding::Changed(stamp, result) => {
                    self.seen = Some(stamp);
                    self.report(&geoip, *result);
                }
                PollFinding::Gone(fault) if !was_gone => {
                    self.seen = None;
                    self.report(&geoip, Err(fault));
                }
                PollFinding::Gone(_) => {}
            }
            was_gone = is_gone;
            let pause = if is_settling { SETTLE_TIME } else { POLL_INTERVAL };
            if timeout(pause, notice.notified()).await.is_ok() {
                sleep(DEBOUNCE).await;
            }
        }
    }

    fn report(&self, geoip: &GeoIp, result: Result<CountryDatabase, Diagnostic>) {
        match result {
            Ok(database) => {
                let (kind, ranges) = (database.kind.clone(), database.countries.len());
                geoip.replace(database);
                tracing::info!(path = %self.path.display(), %kind, ranges, "geoip: the changed database is in service");
            }
            Err(fault) => {
                let error = sentence(&fault);
                geoip.reject(error.clone());
                tracing::error!(%error, "geoip: the changed database is rejected, the one before stays in service");
            }
        }
    }
}

fn poll(path: &Path, seen: Option<FileStamp>, now: SystemTime) -> PollFinding {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(cause) => {
            let fault = Diagnostic::new(format!("cannot read {}: {cause}", path.display()));
            return PollFinding::Gone(fault.hint("put the file back, or take `geoip` out of the configuration"));
        }
    };
    let found = FileStamp::of(&metadata);
    if seen == Some(found) {
        return PollFinding::Same;
    }
    match CountryDatabase::read(path) {
        // The end of the file says that it is an MMDB file: it is whole.
        Ok(database) => PollFinding::Changed(found, Box::new(Ok(database))),
        Err(fault) if is_settled(&metadata, now) => PollFinding::Changed(found, Box::new(Err(fault))),
        Err(_) => PollFinding::Settling,
    }
}

/// Taken before the file is read: a later change shows.
fn stamp(path: &Path) -> Option<FileStamp> {
    fs::metadata(path).ok().map(|metadata| FileStamp::of(&metadata))
}

fn is_settled(metadata: &Metadata, now: SystemTime) -> bool {
    let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    // One of the future has an age that says nothing.
    now.duration_since(modified).map_or(true, |age| age >= SETTLE_TIME)
}

impl FileStamp {
    fn of(metadata: &Metadata) -> FileStamp {
        FileStamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

fn sentence(fault: &Diagnostic) -> String {
    match &fault.hint {
        Some(hint) => format!("{} ({hint})", fault.message),
        None => fault.message.clone(),
    }
}
