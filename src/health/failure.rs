//! Why a probe failed, and the reason that the log shows.

use std::io::{self, ErrorKind};
use std::time::Duration;

use crate::net::errno::{Call, CallError, Scope};

/// Why a probe failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ProbeFailure {
    /// An error of the backend; counts towards `fall`.
    Backend(String),
    /// The backend states another role than is wanted: it is down at once, and up with the first check that finds the right one.
    WrongRole(String),
    /// The backend states that it cannot serve, or not well enough, whatever its role is: it is down at once.
    Unfit(String),
    /// The backend is alive and takes no more connections: neither a pass nor a failure.
    Full(String),
    /// An error of this host; does not count.
    Local(String),
}

impl ProbeFailure {
    pub(super) fn backend(reason: impl Into<String>) -> ProbeFailure {
        ProbeFailure::Backend(reason.into())
    }

    pub(super) fn timed_out(after: Duration) -> ProbeFailure {
        ProbeFailure::Backend(format!("timed out after {after:?}"))
    }

    /// The backend closed the connection before it sent a byte.
    pub(super) fn no_answer() -> ProbeFailure {
        ProbeFailure::backend("closed without an answer")
    }
}

impl From<io::Error> for ProbeFailure {
    fn from(error: io::Error) -> ProbeFailure {
        ProbeFailure::of(Call::Transfer)(error)
    }
}

impl ProbeFailure {
    /// A failed system call, classified by its error's scope.
    pub(super) fn of(call: Call) -> impl Fn(io::Error) -> ProbeFailure {
        move |error| match CallError::from_io(call, &error) {
            Some(failed) if failed.scope().is_ours() || failed.scope() == Scope::LocalAddress => {
                ProbeFailure::Local(failed.to_string())
            }
            Some(failed) if call == Call::Socket => ProbeFailure::Backend(failed.to_string()),
            _ => ProbeFailure::of_peer(&error),
        }
    }

    fn of_peer(error: &io::Error) -> ProbeFailure {
        ProbeFailure::backend(match error.kind() {
            // Not the kernel's: the connect succeeded and met itself.
            ErrorKind::ConnectionRefused if error.raw_os_error().is_none() => {
                return ProbeFailure::Backend(error.to_string());
            }
            ErrorKind::ConnectionRefused => "connection refused",
            ErrorKind::ConnectionReset => "reset",
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => "unreachable",
            ErrorKind::TimedOut => "timed out", // the kernel's timeout, shorter than the probe's
            ErrorKind::NotFound => "no such socket",
            ErrorKind::PermissionDenied => "permission denied",
            ErrorKind::WouldBlock => "backlog full", // connect(2) to a unix socket
            ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof => return ProbeFailure::no_answer(),
            _ => return ProbeFailure::Backend(error.to_string()),
        })
    }
}

/// The first 64 bytes of received data, quoted and escaped for the log.
pub(super) fn quoted(bytes: &[u8]) -> String {
    const MAX_QUOTED: usize = 64;
    let cut = if bytes.len() > MAX_QUOTED { "..." } else { "" };
    format!("\"{}{cut}\"", bytes[..bytes.len().min(MAX_QUOTED)].escape_ascii())
}

/// The text of a failure, whatever it is.
#[cfg(test)]
pub(super) fn reason(failure: ProbeFailure) -> String {
    match failure {
        ProbeFailure::Backend(reason)
        | ProbeFailure::WrongRole(reason)
        | ProbeFailure::Unfit(reason)
        | ProbeFailure::Full(reason)
        | ProbeFailure::Local(reason) => reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_this_host_are_not_the_backends() {
        let of = |code| ProbeFailure::of(Call::Connect)(io::Error::from_raw_os_error(code));
        for ours in [libc::EMFILE, libc::ENFILE, libc::EADDRNOTAVAIL, libc::EADDRINUSE, libc::ENOBUFS, libc::ENOMEM] {
            assert!(matches!(of(ours), ProbeFailure::Local(_)), "{:?}", of(ours));
        }
        let source = ProbeFailure::of(Call::Bind)(io::Error::from_raw_os_error(libc::EADDRNOTAVAIL));
        assert!(matches!(&source, ProbeFailure::Local(reason) if reason.contains("pools[].source")), "{source:?}");
        let family = ProbeFailure::of(Call::Socket)(io::Error::from_raw_os_error(libc::EAFNOSUPPORT));
        assert!(matches!(&family, ProbeFailure::Backend(reason) if reason.contains("address family")), "{family:?}");
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
            assert_eq!(of(code), ProbeFailure::backend(reason));
        }
    }

    #[test]
    fn a_connect_that_met_itself_says_so() {
        let error = io::Error::new(ErrorKind::ConnectionRefused, crate::net::dial::SelfConnect);
        let ProbeFailure::Backend(reason) = ProbeFailure::from(error) else { panic!("the backend's") };
        assert!(reason.starts_with("connection refused: ") && reason.contains("met itself"), "{reason}");
    }

    #[test]
    fn quotes_are_short_and_harmless() {
        assert_eq!(quoted(b"-ERR \"x\"\r\n\x1b[2J"), r#""-ERR \"x\"\r\n\x1b[2J""#);
        assert_eq!(quoted(&[b'a'; 64]).len(), 66);
        assert_eq!(quoted(&[b'a'; 65]), format!("\"{}...\"", "a".repeat(64)));
    }
}
