//! The token of the admin interface, as its file has it now.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::header::{self, HeaderMap, HeaderValue};
use tokio::time::sleep;

use crate::config::files::{Diagnostic, SecretFile};
use crate::threads::BlockingThread;

/// Between two looks at the file.
const INTERVAL: Duration = Duration::from_secs(1);

/// The token that clients have to show.
#[derive(Debug)]
pub(in crate::admin) struct Token {
    path: PathBuf,
    file: RefCell<SecretFile>,
}

impl Token {
    /// Reads the file for the first time. The check of the configuration has warned of its mode.
    ///
    /// # Errors
    /// Why it cannot be used, as the log says it.
    pub(in crate::admin) fn load(path: &Path) -> Result<Token, String> {
        let file = SecretFile::read(path).map_err(describe)?;
        Ok(Token { path: path.to_owned(), file: RefCell::new(file) })
    }

    #[cfg(test)]
    pub(super) fn fixed(token: &str) -> Token {
        let file = SecretFile { secret: token.to_owned().into(), mode: 0o600 };
        Token { path: PathBuf::new(), file: RefCell::new(file) }
    }

    /// Whether these headers show it (RFC 6750, 2.1).
    pub(super) fn is_in(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
        match given.split_at_checked("Bearer ".len()) {
            Some((scheme, given)) if scheme.eq_ignore_ascii_case(b"Bearer ") => {
                is_same(given, self.file.borrow().secret.reveal().as_bytes())
            }
            _ => false,
        }
    }

    /// Reads the file every second, and calls `replaced` when it holds another token. A file that cannot be used
    /// changes nothing: one that is being rewritten is empty for a moment.
    pub(in crate::admin) async fn watch(&self, thread: BlockingThread, replaced: impl Fn()) {
        let mut last_fault = None;
        loop {
            sleep(INTERVAL).await;
            let path = self.path.clone();
            // Another thread, because a file system may hang.
            match thread.call(move || SecretFile::read(&path).map_err(describe)).await {
                Some(Ok(file)) => {
                    last_fault = None;
                    let path = self.path.display();
                    let old = self.file.replace(file.clone());
                    if old.secret != file.secret {
                        tracing::info!(%path, "admin.token_file has changed: the old token is no longer accepted");
                        replaced();
                    }
                    if (old.secret != file.secret || old.mode != file.mode)
                        && let Some(warning) = file.exposure(&self.path)
                    {
                        tracing::warn!("{}", describe(warning));
                    }
                }
                Some(Err(fault)) if last_fault.as_ref() != Some(&fault) => {
                    tracing::warn!("{fault}; the token that was read before is still accepted");
                    last_fault = Some(fault);
                }
                // It was said before; or a panic was reported by its hook.
                Some(Err(_)) | None => {}
            }
        }
    }
}

fn describe(Diagnostic { message, hint, .. }: Diagnostic) -> String {
    match hint {
        Some(hint) => format!("admin.token_file: {message}: {hint}"),
        None => format!("admin.token_file: {message}"),
    }
}

/// Compares in a time that does not tell where they differ.
fn is_same(given: &[u8], token: &[u8]) -> bool {
    let differs = given.iter().zip(token).fold(0, |differs, (one, two)| differs | (one ^ two));
    given.len() == token.len() && differs == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_is_the_same() {
        assert!(is_same(b"abc", b"abc"));
        for other in [&b"ab"[..], b"abcd", b"abd", b""] {
            assert!(!is_same(other, b"abc"));
        }
    }

    #[test]
    fn token_is_not_in_its_debug_form() {
        assert!(!format!("{:?}", Token::fixed("s3cret")).contains("s3cret"));
    }
}
