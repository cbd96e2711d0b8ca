//! Files with one secret: `admin.token_file`, `password_file` of health checks.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

use crate::config::model::Redacted;
use crate::config::report::Diagnostic;

/// Largest file, in bytes.
pub const MAX_SECRET_FILE: u64 = 64 * 1024;

/// Content of such a file.
#[derive(Clone, Debug)]
pub struct SecretFile {
    /// One line, not empty.
    pub secret: Redacted<String>,
    /// Permission bits.
    pub mode: u32,
}

impl SecretFile {
    /// Reads a regular file. Never blocks on a pipe.
    ///
    /// # Errors
    /// It cannot be read, or holds no secret.
    pub fn read(path: &Path) -> Result<SecretFile, Diagnostic> {
        let name = path.display();
        let error =
            |message: String| Diagnostic::new(message).hint("store it in a file that only tidegate's user can read");
        let unreadable = |cause: io::Error| error(format!("cannot read {name}: {cause}"));
        // Opening a pipe would otherwise wait for its writer.
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        if metadata.is_dir() {
            return Err(unreadable(io::ErrorKind::IsADirectory.into()));
        }
        if !metadata.is_file() {
            return Err(error(format!("cannot read {name}: it is not a regular file")));
        }
        let mut text = String::new();
        file.take(MAX_SECRET_FILE + 1).read_to_string(&mut text).map_err(unreadable)?;
        if text.len() as u64 > MAX_SECRET_FILE {
            return Err(error(format!("cannot read {name}: it is larger than 64 KiB")));
        }
        let secret = parse_secret(&text).map_err(|reason| error(format!("{name} {reason}")))?;
        Ok(SecretFile { secret: secret.to_owned().into(), mode: metadata.mode() & 0o7777 })
    }

    /// A warning when every user of the host may read it. A group may: files are shared with a service that way.
    pub fn exposure(&self, path: &Path) -> Option<Diagnostic> {
        let (name, mode) = (path.display(), self.mode);
        (mode & 0o004 != 0).then(|| {
            Diagnostic::new(format!("{name} can be read by every user of this host (mode {mode:03o})"))
                .hint(format!("chmod 600 {name}"))
                .warning()
        })
    }
}

/// The secret in a file's text, without a byte order mark and surrounding white space.
///
/// # Errors
/// What is wrong with the file, as the end of a sentence that names it.
pub fn parse_secret(text: &str) -> Result<&str, &'static str> {
    // Editors of Windows begin files with a byte order mark.
    let secret = text.trim_start_matches('\u{feff}').trim();
    match secret {
        "" => Err("is empty"),
        _ if secret.contains(char::is_control) => Err("has several lines or control characters: leave one line in it"),
        _ => Ok(secret),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn unusable_files_are_named_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let read = |content: &[u8]| {
            fs::write(&path, content).unwrap();
            match SecretFile::read(&path) {
                Ok(file) => file.secret.reveal().clone(),
                Err(fault) => {
                    assert!(fault.message.contains(&path.display().to_string()), "{}", fault.message);
                    fault.message
                }
            }
        };
        assert_eq!(read(b" s3cret \n"), "s3cret");
        assert_eq!(read(b"\xef\xbb\xbfs3cret\r\n"), "s3cret");
        assert_eq!(read(b"\xef\xbb\xbf correct horse\n"), "correct horse");
        for empty in [&b""[..], b" \n", b"\xef\xbb\xbf\r\n"] {
            assert!(read(empty).ends_with(" is empty"));
        }
        assert!(read(b"one\ntwo\n").ends_with("leave one line in it"));
        assert!(read(&[b'x'; 70_000]).ends_with("it is larger than 64 KiB"));
        assert!(read(b"\xff").contains("cannot read"));
        let pipe = folder.path().join("pipe");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR, 0).unwrap();
        let message = |path: &Path| SecretFile::read(path).unwrap_err().message;
        assert!(message(&pipe).ends_with("it is not a regular file"));
        assert!(message(folder.path()).ends_with("is a directory"));
    }

    #[test]
    fn file_that_every_user_can_read_is_a_warning() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, "s3cret").unwrap();
        for (mode, warned) in [(0o600, false), (0o640, false), (0o644, true), (0o604, true)] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert_eq!(SecretFile::read(&path).unwrap().exposure(&path).is_some(), warned, "{mode:o}");
        }
    }
}
