//! The bearer token of the admin interface, as its file has it now.

use std::cell::{Cell, RefCell};
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::header::{self, HeaderMap, HeaderValue};
use rustix::fs::OFlags;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

/// Between two looks at the file.
const INTERVAL: Duration = Duration::from_secs(1);
/// The largest file.
const MAX_BYTES: u64 = 64 * 1024;

/// What clients have to show.
#[derive(Debug)]
pub(in crate::admin) struct Token {
    path: PathBuf,
    token: RefCell<Secret>,
    /// Permission bits of the file.
    mode: Cell<u32>,
}

struct Content {
    token: Secret,
    mode: u32,
}

/// Never written anywhere.
#[derive(Clone, PartialEq, Eq)]
struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(not shown)")
    }
}

impl Token {
    /// Reads the file for the first time.
    ///
    /// # Errors
    /// The text for people why it cannot be used.
    pub(in crate::admin) fn load(path: &Path) -> Result<Token, String> {
        let content = read(path)?;
        warn_if_open(path, content.mode);
        Ok(Token { path: path.to_owned(), token: RefCell::new(content.token), mode: Cell::new(content.mode) })
    }

    #[cfg(test)]
    pub(super) fn fixed(token: &str) -> Token {
        Token { path: PathBuf::new(), token: RefCell::new(Secret(token.to_owned())), mode: Cell::new(0o600) }
    }

    /// Whether these headers show it (RFC 6750, 2.1).
    pub(super) fn is_in(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
        match given.split_at_checked("Bearer ".len()) {
            Some((scheme, given)) if scheme.eq_ignore_ascii_case(b"Bearer ") => {
                is_same(given, self.token.borrow().0.as_bytes())
            }
            _ => false,
        }
    }

    /// Looks at the file again and again, and calls `replaced` when it holds another token. One that cannot be read, or
    /// is empty, changes nothing: a file that is written anew is empty for a moment.
    pub(in crate::admin) async fn watch(&self, replaced: impl Fn()) {
        let mut fault = None;
        loop {
            sleep(INTERVAL).await;
            let path = self.path.clone();
            // A file system may hang; then the old token stays, and nothing else waits.
            match spawn_blocking(move || read(&path)).await {
                Ok(Ok(content)) => {
                    fault = None;
                    let changed = *self.token.borrow() != content.token;
                    if changed {
                        *self.token.borrow_mut() = content.token;
                        tracing::info!(path = %self.path.display(), "admin.token_file has changed: the old token is no longer accepted");
                        replaced();
                    }
                    if self.mode.replace(content.mode) != content.mode || changed {
                        warn_if_open(&self.path, content.mode);
                    }
                }
                Ok(Err(error)) => {
                    if fault.as_ref() != Some(&error) {
                        tracing::warn!("{error}; the token that was read before is still accepted");
                        fault = Some(error);
                    }
                }
                // A panic was reported by its hook; or the runtime ends.
                Err(_) => {}
            }
        }
    }
}

fn read(path: &Path) -> Result<Content, String> {
    let name = path.display();
    let unreadable = |error: io::Error| format!("admin.token_file: cannot read {name}: {error}");
    // To open a pipe would otherwise wait for its writer.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(format!("admin.token_file: cannot read {name}: it is not a regular file"));
    }
    let mut text = String::new();
    file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(format!("admin.token_file: cannot read {name}: it is larger than 64 KiB"));
    }
    // Windows' editors put a byte order mark before it.
    let token = text.trim_start_matches('\u{feff}').trim();
    if token.is_empty() {
        return Err(format!("admin.token_file: {name} is empty: write a secret into it"));
    }
    if token.contains(char::is_control) {
        return Err(format!("admin.token_file: {name} has several lines or control characters: leave one line in it"));
    }
    Ok(Content { token: Secret(token.to_owned()), mode: metadata.mode() & 0o7777 })
}

/// A group may read it: that is how files are shared with a service.
fn warn_if_open(path: &Path, mode: u32) {
    if mode & 0o004 != 0 {
        let name = path.display();
        tracing::warn!(
            "admin.token_file: {name} can be read by every user of this host (mode {mode:03o}): chmod 600 {name}"
        );
    }
}

/// Compares in a time that does not tell where they differ.
fn is_same(given: &[u8], token: &[u8]) -> bool {
    let differs = given.iter().zip(token).fold(0, |differs, (one, two)| differs | (one ^ two));
    given.len() == token.len() && differs == 0
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn what_is_no_token_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let refused = |content: &[u8]| {
            fs::write(&path, content).unwrap();
            read(&path).err().unwrap_or_default()
        };
        assert_eq!(refused(b" s3cret \n"), "");
        assert!(refused(b"\xef\xbb\xbf\r\n").ends_with("is empty: write a secret into it"));
        fs::write(&path, b"\xef\xbb\xbfs3cret\r\n").unwrap();
        assert!(read(&path).is_ok_and(|content| content.token.0 == "s3cret"), "a byte order mark is dropped");
        assert!(refused(b" \n").ends_with("is empty: write a secret into it"));
        assert!(refused(b"one\ntwo\n").ends_with("leave one line in it"));
        assert!(refused(&[b'x'; 70_000]).ends_with("it is larger than 64 KiB"));
        assert!(refused(b"\xff").contains("cannot read"));
        assert!(read(folder.path()).is_err_and(|error| error.ends_with("it is not a regular file")));
        let pipe = folder.path().join("pipe");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert!(read(&pipe).is_err_and(|error| error.ends_with("it is not a regular file")));
        assert!(format!("{:?}", Token::fixed("s3cret")).contains("(not shown)"));
    }

    #[test]
    fn only_the_whole_token_is_the_same() {
        assert!(is_same(b"abc", b"abc"));
        for other in [&b"ab"[..], b"abcd", b"abd", b""] {
            assert!(!is_same(other, b"abc"));
        }
    }
}
