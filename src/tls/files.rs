//! Reading files: bounded, with faults in sentences, and stamps that show a change.

use std::fmt;
use std::fs::{self, File, Metadata};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::config::Severity;
use crate::config::files::Diagnostic;

/// Largest file of certificates or keys, in bytes. All authorities of a system are a quarter of it.
pub(super) const MAX_PEM: u64 = 1024 * 1024;

/// Largest file of revocation lists, in bytes: those of large authorities are.
pub(super) const MAX_CRL: u64 = 64 * 1024 * 1024;

/// U+FEFF in UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A file that changed less than this before it was read may change again within the same tick of its file
/// system's clock, and keep its stamp. FAT counts in steps of two seconds, nothing in longer ones.
const TIMESTAMP_RESOLUTION: Duration = Duration::from_secs(2);

/// Why files are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LoadReason {
    /// Nothing is in service yet.
    Start,
    /// To replace what is in service.
    Replacement,
}

/// Why something cannot be put in service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadError {
    /// At least one; errors, and what warnings there were.
    pub faults: Vec<Diagnostic>,
}

impl LoadError {
    pub(super) fn of(message: impl Into<String>, hint: impl Into<String>) -> LoadError {
        LoadError { faults: vec![error(message, hint)] }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errors = self.faults.iter().filter(|fault| fault.severity == Severity::Error);
        for (place, fault) in errors.enumerate() {
            let separator = if place == 0 { "" } else { "; " };
            write!(f, "{separator}{}", fault.message)?;
            if let Some(hint) = &fault.hint {
                write!(f, " ({hint})")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for LoadError {}

pub(super) fn error(message: impl Into<String>, hint: impl Into<String>) -> Diagnostic {
    Diagnostic::new(message).hint(hint)
}

pub(super) fn warning(message: impl Into<String>, hint: impl Into<String>) -> Diagnostic {
    Diagnostic::new(message).hint(hint).warning()
}

pub(super) fn has_error<'a>(faults: impl IntoIterator<Item = &'a Diagnostic>) -> bool {
    faults.into_iter().any(|fault| fault.severity == Severity::Error)
}

/// A file as it was at one moment.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) path: PathBuf,
    pub(super) bytes: Result<Vec<u8>, Diagnostic>,
    /// Permission bits; 0 when it could not be read.
    pub(super) mode: u32,
}

impl Content {
    /// Reads a file of at most `max` bytes.
    pub(super) fn read(path: &Path, max: u64) -> Content {
        let (bytes, mode) = match read(path, max) {
            Ok((mut bytes, mode)) => {
                // Editors of Windows put it there. It would hide the first line, and no binary form begins so.
                if bytes.starts_with(BYTE_ORDER_MARK) {
                    bytes.drain(..BYTE_ORDER_MARK.len());
                }
                (Ok(bytes), mode)
            }
            Err(fault) => (Err(fault), 0),
        };
        Content { path: path.to_owned(), bytes, mode }
    }

    /// Two contents of one path with the same digest are the same, or the same failure to read.
    pub(super) fn digest(contents: &[Content]) -> u64 {
        let mut hasher = DefaultHasher::new();
        for content in contents {
            content.bytes.as_ref().map_err(|fault| &fault.message).hash(&mut hasher);
        }
        hasher.finish()
    }
}

fn read(path: &Path, max: u64) -> Result<(Vec<u8>, u32), Diagnostic> {
    let name = path.display();
    let unreadable = |failure: io::Error| match failure.kind() {
        io::ErrorKind::NotFound => error(
            format!("{name} does not exist"),
            "check the path; a relative one begins at the directory that tidegate is started in",
        ),
        io::ErrorKind::PermissionDenied => error(
            format!("{name} cannot be read: permission denied"),
            "the user that tidegate runs as must be allowed to read it, and to enter the directories above it",
        ),
        _ => error(format!("{name} cannot be read: {failure}"), "check the path and the file system it is on"),
    };
    // Before it is opened: opening a FIFO waits for a writer.
    let metadata = fs::metadata(path).map_err(unreadable)?;
    if metadata.is_dir() {
        return Err(error(format!("{name} is a directory"), "name the file in it"));
    }
    if !metadata.is_file() {
        return Err(error(format!("{name} is not a regular file"), "name a PEM file"));
    }
    let file = File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.mode() & 0o7777;
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > max {
        let mebibytes = max / (1024 * 1024);
        return Err(error(
            format!("{name} is larger than {mebibytes} MiB"),
            "this is probably not the file that was meant",
        ));
    }
    Ok((bytes, mode))
}

/// Shows a change of a file without reading it. `None` inside: there was no file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp(Option<FileIdentity>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct FileIdentity {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(super) fn of(path: &Path) -> Stamp {
        let seen = |metadata: Metadata| FileIdentity {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        };
        Stamp(fs::metadata(path).ok().map(seen))
    }

    /// Whether a further change must show in the stamp. `now` is the time at which the file was read.
    pub(super) fn is_settled(&self, now: SystemTime) -> bool {
        let Some(seen) = &self.0 else { return true };
        let latest = u64::try_from(seen.modified.0.max(seen.changed.0)).unwrap_or(0);
        let Some(latest) = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(latest)) else { return false };
        now.duration_since(latest).is_ok_and(|since| since > TIMESTAMP_RESOLUTION + Duration::from_secs(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::testing::Folder;

    #[test]
    fn a_stamp_is_trusted_once_its_tick_is_over() {
        let folder = Folder::new();
        let path = folder.write("a", "a");
        let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(fs::metadata(&path).unwrap().ctime() as u64);
        let settled_after = |seconds| Stamp::of(&path).is_settled(changed + Duration::from_secs(seconds));
        assert!(!settled_after(0) && !settled_after(3) && settled_after(4));
        // A clock that was put back cannot tell.
        assert!(!Stamp::of(&path).is_settled(changed - Duration::from_secs(60)));
        assert!(Stamp::of(&folder.path("missing")).is_settled(changed));
    }
}
