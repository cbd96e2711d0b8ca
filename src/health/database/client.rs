//! What the clients of all databases share: the account, what they learn, and the judgement on it. Pure.

#![forbid(unsafe_code)]

use std::time::Duration;

use crate::config::model::RequiredRole;
use crate::health::failure::ProbeFailure;
use crate::stats::database::{DatabaseState, ReplicationLag, ServerRole};

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

/// What a server that answers says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Observation {
    /// `None` if it was not asked, or states none.
    pub(super) role: Option<ServerRole>,
    /// Its position in the stream of changes: of a primary, what it has written; of a replica, what it has applied.
    pub(super) position: Option<u64>,
    /// By its own account.
    pub(super) delay: Option<Duration>,
    /// Why it cannot serve in its role, although it has it.
    pub(super) fault: Option<String>,
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

/// The longest lag that is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LagLimit(pub(super) ReplicationLag);

impl Observation {
    /// What is shown, given how far the pool's primary is.
    pub(super) fn state(&self, primary: Option<u64>) -> DatabaseState {
        let lag = match (self.role, self.delay) {
            (Some(ServerRole::Replica), Some(delay)) => Some(ReplicationLag::Time(delay)),
            (Some(ServerRole::Replica), None) => {
                // A position of the primary from a moment ago may be behind the replica's.
                primary.zip(self.position).map(|(primary, own)| ReplicationLag::Bytes(primary.saturating_sub(own)))
            }
            _ => None,
        };
        DatabaseState { role: self.role, lag }
    }

    /// Whether the server may serve as `wanted`.
    ///
    /// An unknown lag passes: without a primary there is no position to compare with, and the replicas are all that is left.
    pub(super) fn judge(
        &self,
        wanted: RequiredRole,
        limit: Option<LagLimit>,
        state: DatabaseState,
    ) -> Result<(), ProbeFailure> {
        let needed = match wanted {
            RequiredRole::Any => return Ok(()),
            RequiredRole::Primary => ServerRole::Primary,
            RequiredRole::Replica => ServerRole::Replica,
            RequiredRole::Synced => ServerRole::Synced,
        };
        if self.role != Some(needed) {
            let is = match (&self.fault, self.role) {
                (Some(fault), _) => fault.clone(),
                (None, Some(role)) => format!("is a {}", role.name()),
                (None, None) => "states no role".to_owned(),
            };
            return Err(ProbeFailure::Backend(format!("{is}, role: {} is wanted", needed.name())));
        }
        if let Some(fault) = &self.fault {
            return Err(ProbeFailure::Backend(fault.clone()));
        }
        match (limit, state.lag) {
            (Some(LagLimit(ReplicationLag::Bytes(most))), Some(lag @ ReplicationLag::Bytes(bytes))) if bytes > most => {
                let most = ReplicationLag::Bytes(most);
                Err(ProbeFailure::Backend(format!("is {lag} behind the primary, max_lag is {most}")))
            }
            (Some(LagLimit(ReplicationLag::Time(most))), Some(lag @ ReplicationLag::Time(time))) if time > most => {
                let most = ReplicationLag::Time(most);
                Err(ProbeFailure::Backend(format!("is {lag} behind the primary, max_lag is {most}")))
            }
            _ => Ok(()),
        }
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

#[cfg(test)]
mod tests {
    use super::super::testing::reason;
    use super::*;

    fn replica(position: Option<u64>, delay: Option<u64>) -> Observation {
        let delay = delay.map(Duration::from_secs);
        Observation { role: Some(ServerRole::Replica), position, delay, fault: None }
    }

    #[test]
    fn role_is_wanted_or_not() {
        let is = |role| Observation { role, ..Observation::default() };
        let (primary, synced) = (is(Some(ServerRole::Primary)), is(Some(ServerRole::Synced)));
        for (seen, wanted, expected) in [
            (&primary, RequiredRole::Any, ""),
            (&is(None), RequiredRole::Any, ""),
            (&primary, RequiredRole::Primary, ""),
            (&primary, RequiredRole::Replica, "is a primary, role: replica is wanted"),
            (&replica(None, None), RequiredRole::Primary, "is a replica, role: primary is wanted"),
            (&is(None), RequiredRole::Primary, "states no role, role: primary is wanted"),
            (&synced, RequiredRole::Synced, ""),
            (
                &Observation { fault: Some("is a donor".to_owned()), ..is(None) },
                RequiredRole::Synced,
                "is a donor, role: synced is wanted",
            ),
            (
                &Observation { fault: Some("replication is stopped".to_owned()), ..replica(None, None) },
                RequiredRole::Replica,
                "replication is stopped",
            ),
        ] {
            let judged = seen.judge(wanted, None, seen.state(None)).err().map(reason).unwrap_or_default();
            assert_eq!(judged, expected, "{seen:?} as {wanted:?}");
        }
    }

    #[test]
    fn lag_is_the_primarys_position_minus_the_replicas() {
        let limit = Some(LagLimit(ReplicationLag::Bytes(1024)));
        for (primary, own, lag, expected) in [
            (None, Some(5), None, ""),
            (Some(5), None, None, ""),
            (Some(2000), Some(976), Some(1024), ""),
            (Some(2001), Some(976), Some(1025), "is 1.0 KiB behind the primary, max_lag is 1.0 KiB"),
            (Some(5), Some(9), Some(0), ""),
        ] {
            let seen = replica(own, None);
            let state = seen.state(primary);
            assert_eq!(state.lag, lag.map(ReplicationLag::Bytes));
            let judged = seen.judge(RequiredRole::Replica, limit, state).err().map(reason).unwrap_or_default();
            assert_eq!(judged, expected, "{primary:?} {own:?}");
        }
        let late = replica(None, Some(31));
        let limit = Some(LagLimit(ReplicationLag::Time(Duration::from_secs(30))));
        let judged = late.judge(RequiredRole::Replica, limit, late.state(None)).err().map(reason);
        assert_eq!(judged.as_deref(), Some("is 31 s behind the primary, max_lag is 30 s"));
    }
}
