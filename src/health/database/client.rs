//! What the clients of all databases share: the account, and how they are driven. Pure.

#![forbid(unsafe_code)]

use crate::health::failure::ProbeFailure;
use crate::health::observation::Observation;

/// The user of a check without one. The server refuses its login or asks for its password, and so shows that it answers.
pub(super) const DEFAULT_USER: &str = "tidegate";

/// The client's side of a protocol: bytes in, bytes out, no I/O.
pub(super) trait DatabaseClient: Send {
    /// The first bytes to send; none if the server speaks first.
    fn begin(&mut self) -> Vec<u8>;

    /// Takes what the server sent, and appends what to answer.
    ///
    /// # Errors
    /// The check has failed.
    fn take(&mut self, received: &[u8], answer: &mut Vec<u8>) -> Result<DialogueStep, ProbeFailure>;

    /// What ends the session in order, so that the server does not count it as aborted.
    fn farewell(&self) -> &'static [u8];
}

/// How far a dialogue is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum DialogueStep {
    /// More bytes are needed.
    More,
    /// The answer ends what is sent in plain text: TLS comes next, and then [`DatabaseClient::take`] of nothing.
    StartTls,
    /// The check is complete.
    Done(Observation),
}

/// The account of a check, with the password that its file has now.
pub(super) struct CheckAccount {
    /// Path of its keys in the configuration: `health.postgres`.
    pub(super) section: &'static str,
    pub(super) user: Option<String>,
    pub(super) password: Option<Vec<u8>>,
    /// The file of the password.
    pub(super) file: Option<String>,
}

impl CheckAccount {
    /// A failure for which the configuration is to blame: names what to change.
    pub(super) fn fault(&self, reason: &str) -> ProbeFailure {
        let section = self.section;
        let user = match &self.user {
            Some(user) => format!("user `{}`", user.escape_debug()),
            None => "the default user".to_owned(),
        };
        ProbeFailure::Backend(match &self.file {
            Some(file) => format!("{reason}: see {section} ({user}, password from {file})"),
            None => format!("{reason}: see {section} ({user}, no password_file)"),
        })
    }
}

/// Bytes that were received and not taken yet, with a limit to all of them.
#[derive(Default)]
pub(super) struct AnswerBuffer {
    bytes: Vec<u8>,
    total: usize,
}

/// Bytes of all answers of a check. The longest, of a Redis with a thousand replicas, has 50 KiB.
const MAX_ANSWERS: usize = 256 * 1024;

impl AnswerBuffer {
    /// Adds what came.
    pub(super) fn push(&mut self, received: &[u8]) -> Result<(), ProbeFailure> {
        self.total += received.len();
        if self.total > MAX_ANSWERS {
            return Err(ProbeFailure::backend("sends more than 256 KiB in answer to a health check"));
        }
        self.bytes.extend_from_slice(received);
        Ok(())
    }

    /// What is there.
    pub(super) fn peek(&self) -> &[u8] {
        &self.bytes
    }

    /// Takes bytes off the front; fewer if there are fewer.
    pub(super) fn take(&mut self, count: usize) -> Vec<u8> {
        let rest = self.bytes.split_off(count.min(self.bytes.len()));
        std::mem::replace(&mut self.bytes, rest)
    }
}

/// Text of a server for the log: one line, at most 200 characters. Quotes stay as they are.
pub(super) fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut printable = String::new();
    for letter in text.chars().take(200) {
        match letter {
            '"' | '\'' => printable.push(letter),
            other => printable.extend(other.escape_debug()),
        }
    }
    printable
}
