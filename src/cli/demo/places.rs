//! Where the running demo is, and the commands that do to it what it does to itself.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Addresses and files of a running demo. Its directory has a name that is text.
pub(super) struct DemoPlaces {
    /// Of the listener.
    pub(super) address: SocketAddr,
    pub(super) dashboard: SocketAddr,
    pub(super) config: PathBuf,
    /// Unix socket of the admin interface, over which changes need no token.
    pub(super) admin: PathBuf,
    /// Unix socket of the backends' switches.
    pub(super) switches: PathBuf,
    /// To be trusted, with TLS.
    pub(super) certificate: Option<PathBuf>,
    /// As tidegate was started.
    pub(super) program: String,
}

impl DemoPlaces {
    /// The URL of the listener.
    pub(super) fn url(&self) -> String {
        let scheme = if self.certificate.is_some() { "https" } else { "http" };
        format!("{scheme}://{}/", self.address)
    }

    /// A request for these URLs, with further options of curl.
    pub(super) fn curl(&self, options: &str, urls: usize) -> String {
        let trust = self.certificate.as_deref().map(|file| format!(" --cacert {}", quoted(file))).unwrap_or_default();
        let options = if options.is_empty() { String::new() } else { format!(" {options}") };
        format!("curl{options}{trust}{}", format!(" {}", self.url()).repeat(urls))
    }

    /// A call of the admin interface. `body` is JSON; empty for none.
    pub(super) fn call(&self, method: &str, path: &str, body: &str) -> String {
        let body = if body.is_empty() { String::new() } else { format!(" -d '{body}'") };
        format!("curl --unix-socket {} -X {method} http://localhost{path}{body}", quoted(&self.admin))
    }

    /// A change of a backend.
    pub(super) fn patch(&self, backend: &str, body: &str) -> String {
        self.call("PATCH", &format!("/api/pools/demo/backends/{backend}"), body)
    }

    /// A switch of a backend: `stop`, `start` or `reset`.
    pub(super) fn switch(&self, backend: &str, verb: &str) -> String {
        format!("curl --unix-socket {} -X POST http://localhost/{backend}/{verb}", quoted(&self.switches))
    }

    /// A command of tidegate about this demo.
    pub(super) fn command(&self, arguments: &str) -> String {
        format!("{} {arguments} --admin unix:{}", quoted(Path::new(&self.program)), quoted(&self.admin))
    }
}

/// As a word of the shell.
pub(super) fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+,:@%".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_plain) {
        text.into_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_words_of_the_shell() {
        for (path, word) in [("/tmp/a-1/b.sock", "/tmp/a-1/b.sock"), ("/tmp/a b", "'/tmp/a b'"), ("it's", r"'it'\''s'")]
        {
            assert_eq!(quoted(Path::new(path)), word);
        }
    }
}
