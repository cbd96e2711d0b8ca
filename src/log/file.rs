//! A log in a file that may be rotated, or in a FIFO.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::writer::{Notice, Sink, Written};

/// The first line after this time notices that the file was moved or removed.
const FOLLOW: Duration = Duration::from_secs(1);

/// The longest wait for room in a FIFO.
const ROOM: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// A file, reopened when its name is gone or names another file.
pub(super) struct LogFile {
    path: PathBuf,
    /// `None` for a FIFO without a reader.
    file: Option<File>,
    checked: Instant,
    detached: Option<io::Error>,
    /// Why the removed file, which is still open, cannot be replaced.
    removed: Option<io::Error>,
}

impl LogFile {
    /// Opens the file for appending. A FIFO without a reader is no error: it is opened once it has one.
    ///
    /// # Errors
    /// Those of open(2).
    pub(super) fn open(path: &Path) -> io::Result<LogFile> {
        let file = append(path)?;
        Ok(LogFile { path: path.to_owned(), file, checked: Instant::now(), detached: None, removed: None })
    }

    /// Whether it is a FIFO that nothing reads.
    pub(super) fn waits_for_reader(&self) -> bool {
        self.file.is_none()
    }

    fn follow_rotation(&mut self) {
        let Some(file) = &self.file else { return };
        let identity = |meta: &fs::Metadata| (meta.dev(), meta.ino());
        let named = fs::metadata(&self.path).ok();
        let open = file.metadata().ok();
        if named.as_ref().map(identity) == open.as_ref().map(identity) {
            self.removed = None;
            return;
        }
        match append(&self.path) {
            Ok(file) => {
                self.file = file;
                self.removed = None;
            }
            // A file without a name has no reader to come.
            Err(error) if open.is_some_and(|open| open.nlink() == 0) => self.removed = Some(error),
            Err(error) => self.detached = Some(error),
        }
    }
}

impl Sink for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<Written> {
        if self.checked.elapsed() >= FOLLOW {
            self.checked = Instant::now();
            self.follow_rotation();
        }
        if let Some(error) = &self.removed {
            return Err(copy(error));
        }
        if self.file.is_none() {
            self.file = append(&self.path)?;
        }
        let Some(file) = &mut self.file else { return Ok(Written::NotYet) };
        match file.write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // Only how long it takes matters.
                let _ = poll(&mut [PollFd::new(file, PollFlags::OUT)], Some(&ROOM));
                file.write(bytes).map(Written::Bytes).or_else(|error| match error.kind() {
                    io::ErrorKind::WouldBlock => Ok(Written::NotYet),
                    _ => Err(error),
                })
            }
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                let path = self.path.display();
                tracing::warn!(log = "access", "the reader of the FIFO {path} is gone: lines wait for another one");
                self.file = None;
                Ok(Written::ReaderLost)
            }
            written => written.map(Written::Bytes),
        }
    }

    fn reopen(&mut self) -> io::Result<()> {
        self.file = append(&self.path)?;
        self.removed = None;
        Ok(())
    }

    fn notice(&mut self) -> Option<Notice> {
        self.detached.take().map(Notice::Detached)
    }
}

/// Opens the file, or `None` for a FIFO without a reader. Never waits for one.
fn append(path: &Path) -> io::Result<Option<File>> {
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits();
    // Bits of open(2), all positive.
    let opened = OpenOptions::new().create(true).append(true).custom_flags(flags.cast_signed()).open(path);
    match opened {
        Err(error) if error.raw_os_error() == Some(Errno::NXIO.raw_os_error()) && is_fifo(path) => Ok(None),
        opened => opened.map(Some),
    }
}

fn is_fifo(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.file_type().is_fifo())
}

fn copy(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::from(error.kind()),
    }
}
