//! Why a probe did not pass, in words for people.

use std::io::{self, ErrorKind};
use std::time::Duration;

use crate::net::errno::{Call, CallError, Scope};

/// Why a probe did not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The backend's fault; counts against it.
    Theirs(String),
    /// Trouble on this host; says nothing of the backend, so it doesn't count.
    Ours(String),
}

impl Failure {
    pub(super) fn theirs(reason: impl Into<String>) -> Failure {
        Failure::Theirs(reason.into())
    }

    pub(super) fn timed_out(after: Duration) -> Failure {
        Failure::Theirs(format!("timed out after {after:?}"))
    }

    /// The other side has closed the connection before it said anything.
    pub(super) fn no_answer() -> Failure {
        Failure::theirs("closed without an answer")
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::of(Call::Transfer)(error)
    }
}

impl Failure {
    /// A failed call, as its error's scope has it: trouble of this host is not the backend's.
    pub(super) fn of(call: Call) -> impl Fn(io::Error) -> Failure {
        move |error| match CallError::from_io(call, &error) {
            Some(failed) if failed.scope().is_ours() || failed.scope() == Scope::LocalAddress => {
                Failure::Ours(failed.to_string())
            }
            Some(failed) if call == Call::Socket => Failure::Theirs(failed.to_string()),
            _ => Failure::of_peer(&error),
        }
    }

    fn of_peer(error: &io::Error) -> Failure {
        Failure::theirs(match error.kind() {
            // Not from the kernel, whose connect has succeeded: it met itself.
            ErrorKind::ConnectionRefused if error.raw_os_error().is_none() => {
                return Failure::Theirs(error.to_string());
            }
            ErrorKind::ConnectionRefused => "connection refused",
            ErrorKind::ConnectionReset => "reset",
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => "unreachable",
            ErrorKind::TimedOut => "timed out", // by the kernel, before our own timeout
            ErrorKind::NotFound => "no such socket",
            ErrorKind::PermissionDenied => "permission denied",
            ErrorKind::WouldBlock => "backlog full", // connect(2) to a unix socket
            ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof => return Failure::no_answer(),
            _ => return Failure::Theirs(error.to_string()),
        })
    }
}

/// Bytes that came from outside, in quotes: escaped, and no more of them than a log line bears.
pub(super) fn quoted(bytes: &[u8]) -> String {
    const MOST: usize = 64;
    let cut = if bytes.len() > MOST { "..." } else { "" };
    format!("\"{}{cut}\"", bytes[..bytes.len().min(MOST)].escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_our_trouble_from_theirs() {
        let of = |code| Failure::of(Call::Connect)(io::Error::from_raw_os_error(code));
        for ours in [libc::EMFILE, libc::ENFILE, libc::EADDRNOTAVAIL, libc::EADDRINUSE, libc::ENOBUFS, libc::ENOMEM] {
            assert!(matches!(of(ours), Failure::Ours(_)), "{:?}", of(ours));
        }
        let source = Failure::of(Call::Bind)(io::Error::from_raw_os_error(libc::EADDRNOTAVAIL));
        assert!(matches!(&source, Failure::Ours(reason) if reason.contains("pools[].source")), "{source:?}");
        let family = Failure::of(Call::Socket)(io::Error::from_raw_os_error(libc::EAFNOSUPPORT));
        assert!(matches!(&family, Failure::Theirs(reason) if reason.contains("address family")), "{family:?}");
        for (code, reason) in [
            (libc::ECONNREFUSED, "connection refused"),
            (libc::ECONNRESET, "reset"),
            (libc::EHOSTUNREACH, "unreachable"),
            (libc::ENETUNREACH, "unreachable"),
            (libc::ETIMEDOUT, "timed out"),
            (libc::ENOENT, "no such socket"),
            (libc::EACCES, "permission denied"),
            (libc::EPIPE, "closed without an answer"),
        ] {
            assert_eq!(of(code), Failure::theirs(reason));
        }
    }

    #[test]
    fn a_connect_that_met_itself_says_so() {
        let error = io::Error::new(ErrorKind::ConnectionRefused, crate::net::dial::SelfConnect);
        let Failure::Theirs(reason) = Failure::from(error) else { panic!("the backend's") };
        assert!(reason.starts_with("connection refused: ") && reason.contains("met itself"), "{reason}");
    }

    #[test]
    fn quotes_are_short_and_harmless() {
        assert_eq!(quoted(b"-ERR \"x\"\r\n\x1b[2J"), r#""-ERR \"x\"\r\n\x1b[2J""#);
        assert_eq!(quoted(&[b'a'; 64]).len(), 66);
        assert_eq!(quoted(&[b'a'; 65]), format!("\"{}...\"", "a".repeat(64)));
    }
}
